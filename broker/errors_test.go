package broker

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

func TestRetriable(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{kafka.NotLeaderForPartition, true},
		{fmt.Errorf("wrapped: %w", kafka.LeaderNotAvailable), true},
		{kafka.RequestTimedOut, true},
		{kafka.NotEnoughReplicas, true},
		{kafka.UnknownTopicOrPartition, true},
		{kafka.BrokerNotAvailable, true},
		{kafka.MessageSizeTooLarge, false},
		{kafka.TopicAuthorizationFailed, false},
		{kafka.SASLAuthenticationFailed, false},
		{kafka.Unknown, false},
		{io.ErrUnexpectedEOF, true},
		{syscall.ECONNREFUSED, true},
		{context.DeadlineExceeded, true}, // of one attempt
		{context.Canceled, false},
		{x509.UnknownAuthorityError{}, false},
		{&StorageError{Err: kafka.Unknown}, false},
		{&DialError{Err: syscall.EMFILE}, false},
		{&UnreachableError{Err: &SetUpError{Cause: CauseLogin}}, false},
		{&UnreachableError{Err: &SetUpError{Cause: CauseClosed, Err: io.EOF}}, true}, // perhaps a proxy
		{&DeniedError{Err: kafka.TopicAuthorizationFailed}, false},
	} {
		if got := retriable(test.err); got != test.want {
			t.Errorf("retriable(%v): got %v, want %v", test.err, got, test.want)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, test := range []struct {
		err   error
		parts []string
	}{
		{&LockedError{Dir: "/d", PID: 7}, []string{"/d", "process 7", "another data directory"}},
		{&LockedError{Dir: "/d"}, []string{"another process"}},
		{&StorageError{Dir: "/d", Detail: "no space"}, []string{"/d", "no space", "free space"}},
		{&StorageError{Dir: "/d", Detail: "of a.tmp", Cause: fmt.Errorf("a.tmp: %w", syscall.ENOSPC)},
			[]string{"cannot write to /d: no space left on device: free space"}},
		{&MissingTopicError{Topic: "t", Broker: "b:1"}, []string{`topic "t" does not exist on broker b:1`, "create it"}},
		{&TooLargeError{Topic: "t", Key: "k", Size: 5}, []string{`"k"`, "5 bytes", "max.message.bytes"}},
		{&AheadError{Topic: "t", Group: "g", Partition: 2, Committed: 9, End: 4},
			[]string{"offset 9", "t/2", "ends at 4", "reset the group's offsets"}},
		{&LostError{Topic: "t", Group: "g", Ranges: []LostRange{{1, 5, 8}, {2, 0, 1}}},
			[]string{"t/1 offsets 5 to 7, t/2 offsets 0 to 0", "import the same files again"}},
		{&UnreachableError{Broker: "b:1", Err: &SetUpError{Cause: CauseClosed, Err: io.EOF}},
			[]string{"b:1", "EOF", "TLS", "SASL", "proxy"}},
		{&DialError{Addr: "a:1", Advertised: true, Err: syscall.ECONNREFUSED},
			[]string{"cannot reach a:1", "connection refused", "advertised.listeners", "DNS"}},
		{&DialError{Addr: "a:1", Err: syscall.ECONNREFUSED}, []string{"connection refused"}},
		{&UnreachableError{Broker: "b:1", Err: syscall.ECONNREFUSED}, []string{"broker b:1: connection refused"}},
		{denied(kafka.TopicAuthorizationFailed, "write to t", "Write on t"), []string{"write to t", "permission Write on t"}},
		{&TopicError{Topic: "t", Partitions: 3, Err: kafka.PolicyViolation},
			[]string{`"t"`, "3 partitions", "default replication factor"}},
	} {
		for _, part := range test.parts {
			if !strings.Contains(test.err.Error(), part) {
				t.Errorf("%T: got %q, want %q in it", test.err, test.err, part)
			}
		}
	}
}

func TestSetUp(t *testing.T) {
	at := func(err error) error { return &UnreachableError{Broker: "b:1", Err: err} }
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{at(syscall.ECONNREFUSED), false},
		{at(io.EOF), false},
		{at(&SetUpError{Cause: CauseLogin, Err: kafka.SASLAuthenticationFailed}), true},
		{at(&SetUpError{Cause: CauseClosed, Err: io.EOF}), true},
		{at(x509.UnknownAuthorityError{}), true},
		{at(&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}), true},
		{fmt.Errorf("%w; %w", at(syscall.ECONNREFUSED), at(&SetUpError{Cause: CauseLogin})), true},
		{kafka.SASLAuthenticationFailed, true},
		{&DialError{Err: syscall.EMFILE}, false},
		{&DeniedError{Err: kafka.TopicAuthorizationFailed}, true},
		{&TopicError{Err: kafka.PolicyViolation}, true},
		{&TopicError{Err: kafka.NotController}, false},
		{&MissingTopicError{}, true},
		{&TooLargeError{Err: kafka.MessageSizeTooLarge}, true},
		{&AheadError{}, true},
		{&TokenError{}, true},
		{&DirError{}, true},
		{kafka.InvalidSessionTimeout, true},
		{&LockedError{}, false},
		{&StorageError{Err: kafka.Unknown}, false},
		{&LostError{}, false},
		{&EmptyFetchError{}, false},
		{fmt.Errorf("%w: %w", ErrBrokerLost, kafka.RequestTimedOut), false},
	} {
		if got := SetUp(test.err); got != test.want {
			t.Errorf("SetUp(%v): got %v, want %v", test.err, got, test.want)
		}
	}
}

func TestBudget(t *testing.T) {
	o := ConsumerOptions{
		SessionTimeout:    43 * time.Second,
		HeartbeatInterval: 3 * time.Second,
		RebalanceTimeout:  time.Minute,
	}
	if got := o.budget(); got != 36*time.Second {
		t.Errorf("got a budget of %v, want 36s: nine tenths of session − heartbeat", got)
	}
	o.RebalanceTimeout = 10 * time.Second
	if got := o.budget(); got != 9*time.Second {
		t.Errorf("got a budget of %v, want 9s: nine tenths of the rebalance timeout", got)
	}
}

func TestConsumerOptions(t *testing.T) {
	for _, o := range []ConsumerOptions{
		{Topic: "t"},
		{Group: "g"},
		{Topic: "t", Group: "g", SessionTimeout: time.Second, HeartbeatInterval: time.Second},
	} {
		if _, err := NewConsumer(nil, o); err == nil {
			t.Errorf("NewConsumer(%+v): got nil, want an error", o)
		}
	}
	if !errors.Is(&StorageError{Err: kafka.Unknown}, kafka.Unknown) {
		t.Errorf("StorageError: got no %v in its chain, want it", kafka.Unknown)
	}
}
