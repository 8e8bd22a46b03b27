package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// ErrBrokerLost means that the broker did not answer for longer than was allowed. Nothing acknowledged is lost; running
// again when the broker is back goes on from the last commit.
var ErrBrokerLost = errors.New("lost the Kafka broker")

// LockedError says that another process has the embedded broker's directory. Two brokers on one directory would both
// acknowledge and one would lose data, so the second one stops here.
type LockedError struct {
	Dir string
	PID int // the process that holds it; 0 when that is not known
}

func (e *LockedError) Error() string {
	holder := "another process"
	if e.PID != 0 {
		holder = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("the embedded broker's directory %s is in use by %s: wait for it to end or stop it, or use "+
		"another data directory, or a Kafka cluster that several processes can share", e.Dir, holder)
}

// DirError says that the embedded broker's directory cannot be used as it is: it cannot be made, or not be written to.
type DirError struct {
	Dir string
	Err error
}

func (e *DirError) Error() string {
	return fmt.Sprintf("the embedded broker cannot use its directory %s: %v", e.Dir, e.Err)
}

func (e *DirError) Unwrap() error { return e.Err }

// StorageError says that the embedded broker could not write to its directory, most often because the disk is full.
// What was acknowledged before is safe.
type StorageError struct {
	Dir    string
	Detail string // the broker's own words, naming the operating system's error
	Cause  error  // the operating system's error, if the broker named one
	Err    error  // what the client was told
}

func (e *StorageError) Error() string {
	if outOfFiles(e.Cause) {
		return fmt.Sprintf("the embedded broker cannot open its files in %s: %s", e.Dir, e.Detail)
	}
	return fmt.Sprintf("the embedded broker cannot write to %s: %s: free space or repair the disk, then run again; "+
		"what was acknowledged is kept", e.Dir, e.Detail)
}

func (e *StorageError) Unwrap() []error { return []error{e.Cause, e.Err} }

// UnreachableError says why one broker cannot be used: it does not answer, or does not let us in.
type UnreachableError struct {
	Broker string // host:port as configured
	Err    error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("broker %s: %v", e.Broker, e.Err) }
func (e *UnreachableError) Unwrap() error { return e.Err }

// hangsUp reports a connection that was made and then closed. A broker does so with what it does not understand: TLS
// where it speaks plain text or the reverse, and requests from somebody who has not logged in.
func hangsUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// SetUp reports whether an error of this package is the set-up's: running again does not help before a setting, a topic
// or a permission is changed.
func SetUp(err error) bool {
	var (
		refused  *RefusedError
		token    *TokenError
		denied   *DeniedError
		topic    *TopicError
		missing  *MissingTopicError
		tooLarge *TooLargeError
		ahead    *AheadError
		dir      *DirError
	)
	return errors.As(err, &refused) || errors.As(err, &token) || errors.As(err, &denied) ||
		errors.As(err, &topic) && !retriable(topic.Err) ||
		errors.As(err, &missing) || errors.As(err, &tooLarge) || errors.As(err, &ahead) || errors.As(err, &dir) ||
		SessionRefused(err) || loginRefused(err) || unverified(err)
}

// hungUp reports that brokers closed the connection without a response and that there is no evidence of the cause: it
// may be the set-up, or a proxy before a broker that is away.
func hungUp(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && refused.Cause == CauseHungUp
}

// loginRefused reports the codes that a failed login has in the middle of a run.
func loginRefused(err error) bool {
	return errors.Is(err, kafka.SASLAuthenticationFailed) || errors.Is(err, kafka.UnsupportedSASLMechanism) ||
		errors.Is(err, kafka.IllegalSASLState)
}

// unverified reports that one side does not accept the other's certificate, or does not speak TLS.
func unverified(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		invalid     x509.CertificateInvalidError
		notTLS      tls.RecordHeaderError
	)
	return errors.As(err, &certificate) || errors.As(err, &authority) || errors.As(err, &hostname) ||
		errors.As(err, &invalid) || errors.As(err, &notTLS) || alerted(err)
}

// SessionRefused reports whether an error of Consumer.Run means that the session timeout is not within the brokers'
// bounds.
func SessionRefused(err error) bool { return errors.Is(err, kafka.InvalidSessionTimeout) }

// DeniedError says what the broker's access control does not allow us, and which permission is missing.
type DeniedError struct {
	Action string // "write to topic \"x\""
	Needs  string // "Write on topic \"x\""
	Err    error
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("the broker does not allow this user to %s: it needs the permission %s (%v)",
		e.Action, e.Needs, e.Err)
}

func (e *DeniedError) Unwrap() error { return e.Err }

// denied turns the broker's bare "not authorized" into a *DeniedError and leaves other errors as they are.
func denied(err error, action, needs string) error {
	if errors.Is(err, kafka.TopicAuthorizationFailed) || errors.Is(err, kafka.GroupAuthorizationFailed) ||
		errors.Is(err, kafka.ClusterAuthorizationFailed) {
		return &DeniedError{Action: action, Needs: needs, Err: err}
	}
	return err
}

// TopicError says why a topic could not be created.
type TopicError struct {
	Topic       string
	Partitions  int
	Replication int // 0: the broker's default was asked for
	Err         error
}

func (e *TopicError) Error() string {
	copies := "the broker's default number of copies"
	if e.Replication > 0 {
		copies = fmt.Sprintf("%d copies", e.Replication)
	}
	return fmt.Sprintf("topic %q with %d partitions and %s cannot be created: %v", e.Topic, e.Partitions, copies, e.Err)
}

func (e *TopicError) Unwrap() error { return e.Err }

// MissingTopicError says that a topic does not exist, or that we are not allowed to see it: the two look the same.
type MissingTopicError struct {
	Topic  string
	Broker string
}

func (e *MissingTopicError) Error() string {
	return fmt.Sprintf("topic %q does not exist on broker %s (or this user may not describe it): create it, "+
		"or give the name of one that exists", e.Topic, e.Broker)
}

// TooLargeError names the message that is larger than the broker takes.
type TooLargeError struct {
	Topic string
	Key   string // clipped
	Size  int    // bytes of key, value and headers
	Err   error
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("message with key %q (%d bytes) is larger than topic %q takes: raise its max.message.bytes",
		e.Key, e.Size, e.Topic)
}

func (e *TooLargeError) Unwrap() error { return e.Err }

// AheadError says that the group's committed offset lies beyond the partition's end: the topic was deleted and made
// anew, or its log was cut. Where to go on from is not for us to guess.
type AheadError struct {
	Topic, Group   string
	Partition      int
	Committed, End int64
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("group %q has committed offset %d of %s/%d, which ends at %d: the topic was recreated or "+
		"truncated; reset the group's offsets to earliest (settled rows are skipped) or use another group",
		e.Group, e.Committed, e.Topic, e.Partition, e.End)
}

// WithheldError says that the broker gives a partition's end as further than it hands out messages. Where they are is
// not for us to guess, and passing over them might lose rows.
type WithheldError struct {
	Topic, Group string // Group is empty where none reads
	Partition    int
	Offset, End  int64 // nothing comes from Offset on, although there should be something below End
}

func (e *WithheldError) Error() string {
	text := fmt.Sprintf("the broker says that %s/%d goes on to offset %d, but hands out nothing from offset %d on: "+
		"see to its storage and run again", e.Topic, e.Partition, e.End-1, e.Offset)
	if e.Group != "" {
		text += fmt.Sprintf("; if it is certain that nothing is there, set the offset of group %q to %d", e.Group, e.End)
	}
	return text
}

// LostRange is a range of offsets that was deleted before the group had settled it.
type LostRange struct {
	Partition int
	From, To  int64 // [From, To)
}

// LostError says that the topic's retention deleted messages before they were settled. All that was still there has
// been delivered; the rows of the lost messages must be imported again.
type LostError struct {
	Topic, Group string
	Ranges       []LostRange
}

func (e *LostError) Error() string {
	var b strings.Builder
	for i, r := range e.Ranges {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s/%d offsets %d to %d", e.Topic, r.Partition, r.From, r.To-1)
	}
	return fmt.Sprintf("messages were deleted by the topic's retention before group %q settled them (%s): import the "+
		"same files again, settled rows are skipped, and raise the topic's retention.ms", e.Group, b.String())
}

// retriable says whether the same request may succeed later in this run. A code from the broker knows for itself; a
// connection that broke or could not be made may be made again, unless it was refused for what we are, or there is no
// file descriptor for it.
func retriable(err error) bool {
	var code kafka.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, errClosedBroker), outOfFiles(err):
		return false
	case hungUp(err):
		return true
	case SetUp(err), errors.As(err, new(*StorageError)):
		return false
	case errors.As(err, &code):
		return code.Temporary() || code == kafka.BrokerNotAvailable || code == kafka.ReplicaNotAvailable
	}
	return true
}

// answered reports whether the error is the broker's own word, so that it is there.
func answered(err error) bool {
	var code kafka.Error
	return errors.As(err, &code)
}

// unknownTopic reports that a broker, or the library by what the brokers told it last, does not know the topic or the
// partition. It may be gone, or too new.
func unknownTopic(err error) bool {
	return errors.Is(err, kafka.UnknownTopicOrPartition) || errors.Is(err, protocol.ErrNoTopic) ||
		errors.Is(err, protocol.ErrNoPartition)
}

// isUnknown reports the broker's UNKNOWN_SERVER_ERROR, which says nothing.
func isUnknown(err error) bool { return errors.Is(err, kafka.Unknown) }
