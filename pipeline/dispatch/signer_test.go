package dispatch

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer"
)

// throttled is the error of a backend that asks to be called again later.
type throttled struct{ after time.Duration }

func (e throttled) Error() string                    { return "slow down" }
func (e throttled) Throttled() (time.Duration, bool) { return e.after, true }

// TestUnsoundKeyIsItsRowsFailure: an error for one key, before anything is sent, ends that key's row and no other.
func TestUnsoundKeyIsItsRowsFailure(t *testing.T) {
	for class, cause := range map[string]error{
		"signer-mismatch": signer.ErrMismatch, "declined": signer.ErrDeclined, "no-key": signer.ErrNoKey,
	} {
		t.Run(class, func(t *testing.T) {
			m := &scriptedSigner{has: func(n int) error {
				if n == 1 {
					return fmt.Errorf("this key: %w", cause)
				}
				return nil
			}}
			withHarness(t, func(h *harness) { withSigner(m)(h); h.options.Concurrency = 1 }, func(t *testing.T, h *harness) {
				h.take(h.row(0), h.row(1))
				h.await(2)
				want := fmt.Sprintf("this key: %v", cause)
				if r := h.ledger.get(h.row(0)); r.Stage != pipeline.Failed || r.Class != class || r.Reason != want {
					t.Errorf("got %s, class %q, reason %q; want failed, %q, %q", r.Stage, r.Class, r.Reason, class, want)
				}
				h.wantStage(h.row(1), pipeline.Onboarded, "")
			})
		})
	}
}

// TestSignerAway: rows wait for a signer that is away for a while. A signer that stays away halts the run; no row
// fails.
func TestSignerAway(t *testing.T) {
	away := errors.New("connection refused")
	t.Run("for a while", func(t *testing.T) {
		m := &scriptedSigner{sign: func(n int) error {
			if n <= 20 {
				return away
			}
			return nil
		}}
		withHarness(t, withSigner(m), func(t *testing.T, h *harness) {
			h.take(h.row(0), h.row(1), h.row(2))
			h.await(3)
			if tally := h.dispatcher.Tally(); tally.Onboarded != 3 {
				t.Errorf("got %+v, want 3 onboarded", tally)
			}
		})
	})
	t.Run("for good", func(t *testing.T) {
		m := &scriptedSigner{sign: func(int) error { return away }}
		withHarness(t, withSigner(m), func(t *testing.T, h *harness) {
			h.take(h.row(0), h.row(1), h.row(2))
			h.awaitHalt("signer")
			h.stop()
			for _, r := range h.ledger.records {
				if r.Stage.Terminal() {
					t.Errorf("%s: got stage %s (%s), want it unfinished", r.Where(), r.Stage, r.Class)
				}
			}
		})
	})
}

// TestSignerThrottles: a signer that throttles is called again after the time it asks for, at no attempt of the row.
func TestSignerThrottles(t *testing.T) {
	m := &scriptedSigner{sign: func(n int) error {
		if n <= 12 {
			return throttled{after: 2 * time.Second}
		}
		return nil
	}}
	withHarness(t, withSigner(m), func(t *testing.T, h *harness) {
		start := time.Now()
		h.take(h.row(0))
		h.await(1)
		h.wantStage(h.row(0), pipeline.Onboarded, "")
		if took := time.Since(start); took < 24*time.Second {
			t.Errorf("got the row onboarded after %v, want at least 12 times 2s", took)
		}
	})
}

// TestSignerOnlyThrottles: a signer that does nothing but throttle halts the run after a while; no row fails. A single
// signature within that time keeps the run alive.
func TestSignerOnlyThrottles(t *testing.T) {
	const pause = time.Minute
	t.Run("for good", func(t *testing.T) {
		m := &scriptedSigner{sign: func(int) error { return throttled{after: pause} }}
		withHarness(t, withSigner(m), func(t *testing.T, h *harness) {
			start := time.Now()
			h.take(h.rows(0, 3)...)
			h.awaitHalt("signer")
			if took := time.Since(start); took < 10*time.Minute || took > 15*time.Minute {
				t.Errorf("got a halt after %v, want one after some ten minutes", took)
			}
			h.stop()
			for _, r := range h.ledger.records {
				if r.Stage.Terminal() {
					t.Errorf("%s: got stage %s (%s), want it unfinished", r.Where(), r.Stage, r.Class)
				}
			}
		})
	})
	t.Run("in between", func(t *testing.T) {
		m := &scriptedSigner{sign: func(n int) error {
			if n%8 == 0 {
				return nil
			}
			return throttled{after: pause}
		}}
		withHarness(t, func(h *harness) { withSigner(m)(h); h.options.Concurrency = 1 }, func(t *testing.T, h *harness) {
			h.take(h.row(0))
			h.await(1)
			h.take(h.row(1))
			h.await(1)
			if tally := h.dispatcher.Tally(); tally.Onboarded != 2 {
				t.Errorf("got %+v, want 2 onboarded", tally)
			}
		})
	})
}
