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

	"github.com/purser-onboard/purser/printable"
)

// ErrBrokerLost means that no broker answered for as long as the options allow. No acknowledged message is lost; the
// next run continues from the last commit.
var ErrBrokerLost = errors.New("lost the Kafka broker")

// LockedError reports that another process uses the embedded broker's directory. Two brokers on one directory would
// lose acknowledged messages.
type LockedError struct {
	Dir string
	PID int // the process that holds the lock; 0: unknown
}

func (e *LockedError) Error() string {
	holder := "another process"
	if e.PID != 0 {
		holder = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("the embedded broker's directory %s is in use by %s: wait for it to end or stop it, or use "+
		"another data directory, or a Kafka cluster that several processes can share", e.Dir, holder)
}

// GoneError reports that no process accepts connections for the embedded broker in a directory: the process that ran it
// has ended. No acknowledged message is lost.
type GoneError struct {
	Dir string
	PID int // the process that had the broker; 0: unknown
	Err error
}

func (e *GoneError) Error() string {
	holder := "the process"
	if e.PID != 0 {
		holder = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("%s, which ran the embedded broker in %s, has ended: run the command again", holder, e.Dir)
}

func (e *GoneError) Unwrap() error { return e.Err }

// DirError reports that this user cannot create the embedded broker's directory or write to it.
type DirError struct {
	Dir string
	Err error
}

func (e *DirError) Error() string {
	return fmt.Sprintf("the embedded broker cannot use its directory %s: %v", e.Dir, e.Err)
}

func (e *DirError) Unwrap() error { return e.Err }

// StorageError reports that the embedded broker could not use the files in its directory, usually because the disk is
// full. No acknowledged message is lost.
type StorageError struct {
	Dir    string
	Detail string // from the broker's log, with the operating system's error
	Cause  error  // the operating system's error; may be nil
	Err    error  // the client's error; may be nil
}

func (e *StorageError) Error() string {
	if outOfFiles(e.Cause) {
		return fmt.Sprintf("the embedded broker cannot open its files in %s: %s", e.Dir, e.Detail)
	}
	detail := e.Detail
	if cause := syscall.Errno(0); errors.As(e.Cause, &cause) { // the rest, in the log, is names of the broker's own files
		detail = cause.Error()
	}
	return fmt.Sprintf("the embedded broker cannot write to %s: %s: free space or repair the disk, then run again; "+
		"acknowledged messages are kept", e.Dir, detail)
}

func (e *StorageError) Unwrap() []error { return []error{e.Cause, e.Err} }

// UnreachableError reports why a broker cannot be used: it does not answer, or does not accept the connection.
type UnreachableError struct {
	Broker string // host:port as configured
	Err    error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("broker %s: %v", e.Broker, e.Err) }
func (e *UnreachableError) Unwrap() error { return e.Err }

// closedByPeer reports a connection that the broker closed. Brokers do so when a client uses TLS on a plain-text
// listener or the reverse, or sends a request before a required login.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// SetUp reports whether an error of this package is caused by the set-up: running again does not help until a setting,
// a topic or a permission is changed.
func SetUp(err error) bool {
	var (
		setUp    *SetUpError
		token    *TokenError
		denied   *DeniedError
		topic    *TopicError
		missing  *MissingTopicError
		tooLarge *TooLargeError
		ahead    *AheadError
		dir      *DirError
	)
	return errors.As(err, &setUp) || errors.As(err, &token) || errors.As(err, &denied) ||
		errors.As(err, &topic) && !retriable(topic.Err) ||
		errors.As(err, &missing) || errors.As(err, &tooLarge) || errors.As(err, &ahead) || errors.As(err, &dir) ||
		errors.Is(err, kafka.InvalidRecord) || errors.Is(err, kafka.InvalidTimestamp) ||
		SessionRefused(err) || loginFailed(err) || unverified(err)
}

// closedWithoutResponse reports that the brokers closed the connection without a response, and that the cause is
// unknown: it may be the set-up, or a proxy in front of a broker that is down.
func closedWithoutResponse(err error) bool {
	var setUp *SetUpError
	return errors.As(err, &setUp) && setUp.Cause == CauseClosed
}

// loginFailed reports an error code of a login that failed in the middle of a run.
func loginFailed(err error) bool {
	return errors.Is(err, kafka.SASLAuthenticationFailed) || errors.Is(err, kafka.UnsupportedSASLMechanism) ||
		errors.Is(err, kafka.IllegalSASLState)
}

// unverified reports that client or broker does not accept the other's certificate, or does not speak TLS.
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

// SessionRefused reports whether an error of Consumer.Run means that the session timeout is outside the brokers'
// bounds.
func SessionRefused(err error) bool { return errors.Is(err, kafka.InvalidSessionTimeout) }

// DeniedError reports an action that the broker's access control denies this user, and the missing permission.
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

// denied makes an authorization error of the broker a *DeniedError and returns other errors as they are.
func denied(err error, action, needs string) error {
	if errors.Is(err, kafka.TopicAuthorizationFailed) || errors.Is(err, kafka.GroupAuthorizationFailed) ||
		errors.Is(err, kafka.ClusterAuthorizationFailed) {
		return &DeniedError{Action: action, Needs: needs, Err: err}
	}
	return err
}

// TopicError reports why a topic could not be created.
type TopicError struct {
	Topic       string
	Partitions  int
	Replication int // 0: the broker's default
	Err         error
}

func (e *TopicError) Error() string {
	replication := "the broker's default replication factor"
	if e.Replication > 0 {
		replication = fmt.Sprintf("replication factor %d", e.Replication)
	}
	return fmt.Sprintf("topic %q with %s and %s cannot be created: %v", e.Topic,
		printable.Count(e.Partitions, "partition", "partitions"), replication, e.Err)
}

func (e *TopicError) Unwrap() error { return e.Err }

// MissingTopicError reports that a topic does not exist, or that this user may not describe it: Kafka does not
// distinguish the two. With Partitions, it reports a topic that was recreated with fewer partitions than it had.
type MissingTopicError struct {
	Topic      string
	Broker     string // host:port, one or more
	Partitions int    // that are left; 0: the topic does not exist
}

func (e *MissingTopicError) Error() string {
	if e.Partitions > 0 {
		return fmt.Sprintf("topic %q was recreated with fewer partitions, and has only %d now: run again, or recreate it "+
			"with as many as before", e.Topic, e.Partitions)
	}
	return fmt.Sprintf("topic %q does not exist on broker %s (or this user may not describe it): create it, "+
		"or name an existing topic", e.Topic, e.Broker)
}

// TooLargeError reports a message that is larger than its topic accepts.
type TooLargeError struct {
	Topic string
	Key   string // its beginning
	Size  int    // bytes of key, value and headers
	Err   error
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("message with key %q (%d bytes) is larger than topic %q accepts: raise its max.message.bytes",
		e.Key, e.Size, e.Topic)
}

func (e *TooLargeError) Unwrap() error { return e.Err }

// AheadError reports that the group's committed offset is beyond the partition's end: the topic was recreated, or its
// log was truncated. The right offset to continue from is unknown.
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

// EmptyFetchError reports that fetches from an offset stay empty, although the partition's end is beyond it. Skipping
// the offset could lose rows.
type EmptyFetchError struct {
	Topic, Group string // Group is empty outside a consumer group
	Partition    int
	Offset, End  int64 // no message was fetched in [Offset, End)
}

func (e *EmptyFetchError) Error() string {
	text := fmt.Sprintf("fetches of %s/%d from offset %d stay empty, although the partition ends at offset %d: "+
		"check the broker's storage and the quotas of this client, then run again", e.Topic, e.Partition, e.Offset, e.End)
	if e.Group != "" {
		text += fmt.Sprintf("; if the messages are certainly gone, set the offset of group %q to %d", e.Group, e.End)
	}
	return text
}

// LostRange is a range of offsets that was deleted before the group acknowledged it.
type LostRange struct {
	Partition int
	From, To  int64 // [From, To)
}

// LostError reports that the topic's retention deleted messages before the group acknowledged them. All other messages
// have been delivered; the rows of the deleted messages must be imported again.
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
	return fmt.Sprintf("messages were deleted by the topic's retention before group %q acknowledged them (%s): import "+
		"the same files again, settled rows are skipped, and raise the topic's retention.ms", e.Group, b.String())
}

// retriable reports whether the same request may succeed later in this run. Error codes of the broker define it; other
// errors are failed connections, which may be made later, unless the set-up is wrong or no file descriptor is left.
func retriable(err error) bool {
	var code kafka.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, errClosedBroker), outOfFiles(err),
		errors.As(err, new(*GoneError)):
		return false
	case closedWithoutResponse(err):
		return true
	case SetUp(err), errors.As(err, new(*StorageError)):
		return false
	case errors.As(err, &code):
		return code.Temporary() || code == kafka.BrokerNotAvailable || code == kafka.ReplicaNotAvailable
	}
	return true
}

// answered reports whether the error is an error code of a broker, so that the broker is up.
func answered(err error) bool {
	var code kafka.Error
	return errors.As(err, &code)
}

// unknownTopic reports that a broker, or the library's cached metadata, does not know the topic or the partition. It
// may have been deleted, or be too new.
func unknownTopic(err error) bool {
	return errors.Is(err, kafka.UnknownTopicOrPartition) || errors.Is(err, protocol.ErrNoTopic) ||
		errors.Is(err, protocol.ErrNoPartition)
}

// isUnknown reports the broker's UNKNOWN_SERVER_ERROR.
func isUnknown(err error) bool { return errors.Is(err, kafka.Unknown) }
