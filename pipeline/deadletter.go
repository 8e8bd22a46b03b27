package pipeline

import (
	"errors"
	"strconv"
)

// Headers of a dead letter. Key, value and headers of the original message are kept as they were.
const (
	HeaderClass     = "purser-class"     // machine-readable kind
	HeaderReason    = "purser-reason"    // one line for the operator
	HeaderTopic     = "purser-topic"     // where the original message lies
	HeaderPartition = "purser-partition" //
	HeaderOffset    = "purser-offset"    //
)

func deadLetter(m Message, cause error) Message {
	class := "syntax"
	var e *MessageError
	if errors.As(cause, &e) {
		class = e.Class
	}
	headers := append(make([]Header, 0, len(m.Headers)+5), m.Headers...)
	headers = append(headers,
		Header{HeaderClass, []byte(class)},
		Header{HeaderReason, []byte(oneLine(cause.Error(), 500))},
		Header{HeaderTopic, []byte(m.Topic)},
		Header{HeaderPartition, []byte(strconv.Itoa(m.Partition))},
		Header{HeaderOffset, []byte(strconv.FormatInt(m.Offset, 10))},
	)
	return Message{Key: m.Key, Value: m.Value, Headers: headers, Time: m.Time}
}
