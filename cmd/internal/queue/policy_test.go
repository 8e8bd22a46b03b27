package queue

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
)

// TestPolicy is the table of docs/kafka.md: the exit code of each trouble, and the setting that the message names.
func TestPolicy(t *testing.T) {
	unusable := func(cause broker.Cause) error {
		return &broker.UnreachableError{Broker: "b:1", Err: &broker.SetUpError{Cause: cause}}
	}
	for _, tt := range []struct {
		err  error
		code int
		says string
	}{
		{unusable(broker.CausePlainText), 2, "--kafka-tls"},
		{unusable(broker.CauseTLS), 2, "--kafka-tls"},
		{unusable(broker.CauseAuthority), 2, "--kafka-ca"},
		{unusable(broker.CauseCertificate), 2, "--kafka-cert"},
		{unusable(broker.CauseNoLogin), 2, "--kafka-sasl"},
		{unusable(broker.CauseMechanism), 2, "--kafka-sasl"},
		{unusable(broker.CauseLogin), 2, "--kafka-password-file"},
		{unusable(broker.CauseVersion), 2, "3.x or 4.x"},
		{unusable(broker.CauseController), 2, "--brokers"},
		{&broker.SetUpError{Cause: broker.CauseGroup}, 2, "--group"},
		{unusable(broker.CauseClosed), 2, "the port in --brokers"},
		{unusable(broker.CauseUnknownHost), 2, "--brokers"},
		{&broker.SetUpError{Cause: broker.CauseClusters}, 2, "--brokers"},
		{&broker.DeniedError{Needs: `Write on topic "t"`, Err: kafka.TopicAuthorizationFailed}, 2, `Write on topic "t"`},
		{&broker.MissingTopicError{Topic: "t"}, 2, `"t"`},
		{&broker.AheadError{Topic: "t"}, 2, "reset the group's offsets"},
		{&broker.TooLargeError{Topic: "t"}, 2, "max.message.bytes"},
		{&broker.DirError{Dir: "/d", Err: syscall.EROFS}, 2, "--data-dir"},
		{&broker.UnreachableError{Broker: "b:1", Err: syscall.ECONNREFUSED}, 1, "b:1"},
		{&broker.DialError{Addr: "a:1", Advertised: true, Err: syscall.ETIMEDOUT}, 1, "advertised.listeners"},
		{fmt.Errorf("%w (b:1)", broker.ErrBrokerLost), 1, "b:1"},
		{&broker.LockedError{Dir: "/d"}, 1, "/d"},
		{&broker.StorageError{Dir: "/d", Detail: "no space left on device"}, 1, "no space left on device"},
		{&broker.LostError{Topic: "t"}, 1, "import the same files again"},
		{&broker.EmptyFetchError{Topic: "t"}, 1, "run again"},
		{&config.Error{Setting: "--since"}, 2, "--since"}, // not the broker's
		{errors.New("other"), 1, "other"},
	} {
		err := Coded(fmt.Errorf("in a run: %w", tt.err))
		if got := console.Code(err); got != tt.code {
			t.Errorf("%v: got exit code %d, want %d", err, got, tt.code)
		}
		if !strings.Contains(err.Error(), tt.says) {
			t.Errorf("got %q, want %q in it", err, tt.says)
		}
	}
}
