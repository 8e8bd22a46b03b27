package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Headers of a dead letter. Key, value and headers of the original message are kept as they were.
const (
	deadPrefix = "purser-"

	HeaderClass     = deadPrefix + "class"     // machine-readable kind
	HeaderReason    = deadPrefix + "reason"    // one line for the operator
	HeaderStage     = deadPrefix + "stage"     // how far it came: "intake", for what does not parse has no row
	HeaderAttempts  = deadPrefix + "attempts"  // how often it has been a dead letter
	HeaderTopic     = deadPrefix + "topic"     // where the original message lies
	HeaderPartition = deadPrefix + "partition" //
	HeaderOffset    = deadPrefix + "offset"    //
)

func deadLetter(m Message, cause error) Message {
	class := "syntax"
	var e *MessageError
	if errors.As(cause, &e) {
		class = e.Class
	}
	attempts, err := strconv.Atoi(headerOf(m, HeaderAttempts))
	if err != nil {
		attempts = 0 // it has not been one before
	}
	headers := append(originalHeaders(m),
		Header{HeaderClass, []byte(class)},
		Header{HeaderReason, []byte(oneLine(cause.Error(), 500))},
		Header{HeaderStage, []byte("intake")},
		Header{HeaderAttempts, []byte(strconv.Itoa(attempts + 1))},
		Header{HeaderTopic, []byte(m.Topic)},
		Header{HeaderPartition, []byte(strconv.Itoa(m.Partition))},
		Header{HeaderOffset, []byte(strconv.FormatInt(m.Offset, 10))},
	)
	return Message{Key: m.Key, Value: m.Value, Headers: headers} // its time is that of its becoming one
}

// originalHeaders are a message's headers without those of its time as a dead letter.
func originalHeaders(m Message) []Header {
	return slices.DeleteFunc(slices.Clone(m.Headers), func(h Header) bool { return strings.HasPrefix(h.Key, deadPrefix) })
}

func headerOf(m Message, key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// DeadLetter is a dead letter as an operator sees it.
type DeadLetter struct {
	Message
	Class, Reason string
	Topic         string // of the original message; also its place there:
	Where         string // "onboarding.customers/3 offset 17"
}

// ReadDeadLetter takes a message of the dead-letter topic apart.
func ReadDeadLetter(m Message) (DeadLetter, error) {
	d := DeadLetter{
		Message: m, Class: headerOf(m, HeaderClass), Reason: headerOf(m, HeaderReason), Topic: headerOf(m, HeaderTopic),
	}
	if d.Topic == "" {
		return d, fmt.Errorf("the message at offset %d is not a dead letter of ours: it has no header %s",
			m.Offset, HeaderTopic)
	}
	d.Where = fmt.Sprintf("%s/%s offset %s", d.Topic, headerOf(m, HeaderPartition), headerOf(m, HeaderOffset))
	return d, nil
}

// Again is the message to put back: the original, and how often it has been a dead letter.
func (d DeadLetter) Again() Message {
	headers := append(originalHeaders(d.Message), Header{HeaderAttempts, []byte(headerOf(d.Message, HeaderAttempts))})
	return Message{Key: d.Key, Value: d.Value, Headers: headers}
}
