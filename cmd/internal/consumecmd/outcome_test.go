package consumecmd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/pipeline/results"
)

// TestClockSetBack: a run does not end before it began.
func TestClockSetBack(t *testing.T) {
	now := time.Now()
	r := &run{screen: console.NewScreen(io.Discard), started: now.Add(-time.Minute)}
	r.report = results.Begun("run", now.Add(time.Hour-time.Minute).UTC())
	if err := r.judge(ended{}, nil); err != nil {
		t.Fatal(err)
	}
	if took := r.report.FinishedAt.Sub(r.report.StartedAt).Round(time.Minute); took != time.Minute {
		t.Errorf("a run of a minute, in which the clock was set back by an hour: got %v, want 1m0s", took)
	}
}

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
