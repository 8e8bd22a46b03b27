package consumecmd

import (
	"crypto/x509"
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
		err  error
		code int
	}{
		{&broker.MissingTopicError{Topic: "ledgers"}, 2},
		{&broker.DeniedError{Needs: `Write on topic "ledgers"`}, 2},
		{fmt.Errorf("%w (b:1)", broker.ErrBrokerLost), 1},
		{x509.UnknownAuthorityError{}, 1}, // the signer's
	} {
		err := classify(new(config.Consumer), &onboard.HaltError{Err: fmt.Errorf("write to the ledger topic: %w", tt.err)})
		if got := console.Code(err); got != tt.code {
			t.Errorf("%v: got exit code %d, want %d", err, got, tt.code)
		}
	}
}
