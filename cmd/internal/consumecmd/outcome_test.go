package consumecmd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// A halt because of the ledger topic has the exit code of the topic's trouble, others are not taken for the broker's.
func TestClassifyHalt(t *testing.T) {
	for _, tt := range []struct {
		class onboard.Class
		err   error
		code  int
	}{
		{onboard.HaltLedger, &broker.MissingTopicError{Topic: "ledgers"}, 2},
		{onboard.HaltLedger, &broker.DeniedError{Needs: `Write on topic "ledgers"`}, 2},
		{onboard.HaltLedger, &broker.TooLargeError{Topic: "ledgers"}, 2},
		{onboard.HaltLedger, fmt.Errorf("%w (b:1)", broker.ErrBrokerLost), 1},
		{onboard.HaltLedger, errors.New("disk I/O error"), 1},
		{onboard.HaltSigner, x509.UnknownAuthorityError{}, 1},
		{onboard.HaltUnreachable, x509.UnknownAuthorityError{}, 1},
	} {
		err := classify(new(config.Consumer), &onboard.HaltError{Class: tt.class, Err: fmt.Errorf("write: %w", tt.err)})
		if got := console.Code(err); got != tt.code {
			t.Errorf("%v: got exit code %d, want %d", err, got, tt.code)
		}
	}
}
