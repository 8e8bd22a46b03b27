package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/purser-onboard/purser/printable"
)

// Headers of a dead letter. Key, value and headers of the original message are kept, unless the message would be too
// large for the dead-letter topic.
const (
	deadPrefix = "purser-"

	HeaderClass     = deadPrefix + "class"     // machine-readable kind
	HeaderReason    = deadPrefix + "reason"    // one line for the operator
	HeaderStage     = deadPrefix + "stage"     // how far it came: "intake", for what does not parse has no row
	HeaderAttempts  = deadPrefix + "attempts"  // how often it has been a dead letter
	HeaderTopic     = deadPrefix + "topic"     // where the original message lies
	HeaderPartition = deadPrefix + "partition" //
	HeaderOffset    = deadPrefix + "offset"    //

	// What was cut, see TruncateDeadLetter.
	HeaderValueTruncated = deadPrefix + "value-truncated" // "true": only the beginning of the value is kept
	HeaderValueLength    = deadPrefix + "value-length"    // of the original value, in bytes
	HeaderValueSHA256    = deadPrefix + "value-sha256"    // of the original value, in hex
	HeaderKeyLength      = deadPrefix + "key-length"      // of the original key, of which only the beginning is kept
	HeaderDropped        = deadPrefix + "headers-dropped" // how many headers the original had: none is kept
)

// Headers of Kafka Connect's dead letters (KIP-298, DeadLetterQueueReporter), for tools that read those. They repeat
// the headers above. task.id and exception.stacktrace are left out, because there are none.
const (
	connectPrefix = "__connect.errors."

	ConnectTopic     = connectPrefix + "topic"                // as HeaderTopic
	ConnectPartition = connectPrefix + "partition"            // as HeaderPartition
	ConnectOffset    = connectPrefix + "offset"               // as HeaderOffset
	ConnectName      = connectPrefix + "connector.name"       // "purser"
	ConnectStage     = connectPrefix + "stage"                // of Connect's stages, see connectStage
	ConnectClass     = connectPrefix + "class.name"           // what found the error: "purser.consumer"
	ConnectException = connectPrefix + "exception.class.name" // "purser." and HeaderClass
	ConnectMessage   = connectPrefix + "exception.message"    // as HeaderReason
)

// maxDeadAttempts bounds a count that comes from a message.
const maxDeadAttempts = 1_000_000

// Misplaced returns the error of a message that is not in its account's partition.
func Misplaced(m Message, home int) *MessageError {
	return &MessageError{Class: "partition", Reason: fmt.Sprintf("wrong partition: want %d, got %d: another key than the "+
		"account (CAIP-10), another partitioner than Kafka's own (murmur2), or partitions added since? `consumer redrive` "+
		"puts it into the right one", home, m.Partition)}
}

// NewDeadLetter returns the dead letter of a message: its key, value and headers, and headers with the reason and the
// place of the original. The class is that of a *MessageError in cause, otherwise "syntax".
func NewDeadLetter(m Message, cause error) Message {
	class := "syntax"
	var e *MessageError
	if errors.As(cause, &e) {
		class = e.Class
	}
	attempts, err := strconv.Atoi(m.Header(HeaderAttempts))
	if err != nil || attempts < 0 || attempts > maxDeadAttempts {
		attempts = 0 // it has not been one before
	}
	reason := []byte(printable.Line(cause.Error(), 500))
	topic, partition := []byte(m.Topic), []byte(strconv.Itoa(m.Partition))
	offset := []byte(strconv.FormatInt(m.Offset, 10))
	headers, _ := splitHeaders(m)
	headers = append(headers,
		Header{HeaderClass, []byte(class)},
		Header{HeaderReason, reason},
		Header{HeaderStage, []byte("intake")},
		Header{HeaderAttempts, []byte(strconv.Itoa(attempts + 1))},
		Header{HeaderTopic, topic},
		Header{HeaderPartition, partition},
		Header{HeaderOffset, offset},
		Header{ConnectTopic, topic},
		Header{ConnectPartition, partition},
		Header{ConnectOffset, offset},
		Header{ConnectName, []byte("purser")},
		Header{ConnectStage, []byte(connectStage(class))},
		Header{ConnectClass, []byte("purser.consumer")},
		Header{ConnectException, []byte("purser." + class)},
		Header{ConnectMessage, reason},
	)
	return Message{Key: m.Key, Value: m.Value, Headers: headers} // Time stays zero: the producer sets it
}

// connectStage is Connect's stage in which a message of the class would have failed.
func connectStage(class string) string {
	switch class {
	case "partition":
		return "KAFKA_CONSUME"
	case "unauthenticated":
		return "HEADER_CONVERTER"
	}
	return "VALUE_CONVERTER"
}

// TruncateDeadLetter truncates a dead letter so that key, value and the original headers take at most so many bytes,
// and records in headers what is missing. The dead-letter headers stay. It returns false if there was nothing to
// truncate.
func TruncateDeadLetter(m Message, most int) (shorter Message, ok bool) {
	theirs, ours := splitHeaders(m)
	shorter = m
	size := 0
	for _, h := range theirs {
		size += len(h.Key) + len(h.Value)
	}
	shorter.Headers = slices.Clone(m.Headers)
	if size > most/4 {
		shorter.Headers = append(ours, Header{HeaderDropped, []byte(strconv.Itoa(len(theirs)))})
		size, ok = 0, true
	}
	if n := len(m.Key); n > most/4 {
		shorter.Key = m.Key[:most/4]
		shorter.Headers = append(shorter.Headers, Header{HeaderKeyLength, []byte(strconv.Itoa(n))})
		ok = true
	}
	if n, room := len(m.Value), most-size-len(shorter.Key); n > room {
		digest := sha256.Sum256(m.Value)
		shorter.Value = m.Value[:room]
		shorter.Headers = append(shorter.Headers,
			Header{HeaderValueTruncated, []byte("true")},
			Header{HeaderValueLength, []byte(strconv.Itoa(n))},
			Header{HeaderValueSHA256, hex.AppendEncode(nil, digest[:])},
		)
		ok = true
	}
	return shorter, ok
}

// splitHeaders separates a message's own headers from the dead-letter headers. Connect's headers are ours if they
// follow headers of ours. Before those they are the message's own: it may have been one of Connect's dead letters
// before it was a message of the work topic.
func splitHeaders(m Message) (theirs, ours []Header) {
	for _, h := range m.Headers {
		if strings.HasPrefix(h.Key, deadPrefix) || len(ours) > 0 && strings.HasPrefix(h.Key, connectPrefix) {
			ours = append(ours, h)
		} else {
			theirs = append(theirs, h)
		}
	}
	return theirs, ours
}

// DeadLetter is a dead letter as an operator sees it. Its texts are printable, whatever the message contained.
type DeadLetter struct {
	Message
	Class, Reason string
	Topic         string // of the original message; also its place there:
	Where         string // "onboarding.customers/3 offset 17"
	Truncated     bool   // the original is not known as a whole
}

// ReadDeadLetter parses a message of the dead-letter topic.
func ReadDeadLetter(m Message) (DeadLetter, error) {
	line := func(header string) string { return printable.Line(m.Header(header), 500) }
	d := DeadLetter{Message: m, Class: line(HeaderClass), Reason: line(HeaderReason), Topic: line(HeaderTopic)}
	if d.Topic == "" || d.Topic != m.Header(HeaderTopic) {
		return d, fmt.Errorf("the message at offset %d is not one of Purser's dead letters: its header %s names no topic",
			m.Offset, HeaderTopic)
	}
	d.Where = fmt.Sprintf("%s/%s offset %s", d.Topic, line(HeaderPartition), line(HeaderOffset))
	d.Truncated = slices.ContainsFunc(m.Headers, func(h Header) bool {
		return h.Key == HeaderValueTruncated || h.Key == HeaderKeyLength || h.Key == HeaderDropped
	})
	return d, nil
}

// Again returns the message to put back: the original, with the number of times it has been a dead letter. A row gets
// the key that the importer would have used, so that it goes to the right partition.
func (d DeadLetter) Again() Message {
	key := d.Key
	if row, err := ParseMessage(d.Value); err == nil {
		key = []byte(row.Account.String())
	}
	headers, _ := splitHeaders(d.Message)
	headers = append(headers, Header{HeaderAttempts, []byte(d.Message.Header(HeaderAttempts))})
	return Message{Key: key, Value: d.Value, Headers: headers}
}
