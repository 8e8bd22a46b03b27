package dispatch

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// TestFewRowsBeginAtFirst: before the first row is onboarded, at most SetupLimit customers are created.
func TestFewRowsBeginAtFirst(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.options.Concurrency = 16
		most := 0
		h.partner.before = func(c call) {
			if c.op == "create" {
				most++
			}
			if c.op == "submit" && most > 0 {
				if most > onboard.SetupLimit {
					t.Errorf("got %d creations before the first submission, want at most %d", most, onboard.SetupLimit)
				}
				most = -1 << 20
			}
		}
	}, func(t *testing.T, h *harness) {
		h.take(h.rows(0, 20)...)
		h.await(20)
	})
}

// TestTrialRowsThatStayPlanned: rows that cannot start yet do not block the other rows for good.
func TestTrialRowsThatStayPlanned(t *testing.T) {
	for rows := 1; rows <= 8; rows++ {
		m := &scriptedSigner{has: func(n int) error {
			if n <= rows {
				return errors.New("the signer is busy")
			}
			return nil
		}}
		withHarness(t, withSigner(m), func(t *testing.T, h *harness) {
			h.take(h.rows(0, rows)...)
			h.await(rows)
			if tally := h.dispatcher.Tally(); tally.Onboarded != int64(rows) {
				t.Errorf("got %d onboarded, want %d", tally.Onboarded, rows)
			}
		})
	}
}

// TestTrialGoesOnWhileTheSignerThrottles: until the signer has signed, at most SetupLimit customers are created.
func TestTrialGoesOnWhileTheSignerThrottles(t *testing.T) {
	m := &scriptedSigner{sign: func(n int) error {
		if n <= 30 {
			return throttled{after: 30 * time.Second}
		}
		return nil
	}}
	withHarness(t, withSigner(m), func(t *testing.T, h *harness) {
		h.take(h.rows(0, 12)...)
		time.Sleep(2 * trialTime)
		synctest.Wait()
		if got := len(h.partner.of("create")); got != onboard.SetupLimit {
			t.Errorf("while the signer throttles: got %d creations, want %d", got, onboard.SetupLimit)
		}
		h.await(12)
	})
}

// TestTrialTimeEnds: with a slow signer, the other rows start when the trial time is over.
func TestTrialTimeEnds(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.options.SignerConcurrency = 20
		h.workerOptions.Signer = signer.Verified(&scriptedSigner{Backend: signertest.NewMemory(h.keys...), slow: 10 * time.Minute})
	}, func(t *testing.T, h *harness) {
		h.take(h.rows(0, 12)...)
		time.Sleep(trialTime - time.Second)
		synctest.Wait()
		if got := len(h.partner.of("create")); got != onboard.SetupLimit {
			t.Errorf("during the trial: got %d creations, want %d", got, onboard.SetupLimit)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := len(h.partner.of("create")); got != 12 {
			t.Errorf("after the trial: got %d creations, want 12", got)
		}
		h.await(12)
	})
}
