package dispatch

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer/signertest"
)

func TestHostileChallengeIsNotSigned(t *testing.T) {
	for name, text := range map[string]func(string) string{
		"not a sign-in": func(string) string { return "I owe you 5 ETH" },
		"domain":        func(s string) string { return strings.ReplaceAll(s, "partner.test", "partner.test.evil") },
		"chain":         func(s string) string { return strings.Replace(s, "Chain ID: 300", "Chain ID: 1", 1) },
		"address": func(s string) string {
			return strings.Replace(s, signertest.Address(signertest.Key(0)).Hex(), signertest.Address(signertest.Key(1)).Hex(), 1)
		},
		"trailing": func(s string) string { return s + "\nand more" },
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(h *harness) { h.partner.text = text }, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				h.await(1)
				r := h.ledger.get(h.row(0))
				if r.Stage != pipeline.Refused || r.Class != "challenge" || r.Reason == "" {
					t.Errorf("got stage %q, class %q, reason %q; want refused, challenge, and a reason", r.Stage, r.Class, r.Reason)
				}
				if tally := h.dispatcher.Tally(); tally.Signatures != 0 || tally.Refused != 1 {
					t.Errorf("got %+v, want 1 refused and no signature", tally)
				}
			})
		})
	}
}

// TestHostileChallengeInTheLedger: the challenge of a row at stage signing is checked again before it is signed.
func TestHostileChallengeInTheLedger(t *testing.T) {
	withHarness(t, nil, func(t *testing.T, h *harness) {
		h.ledger.records = []pipeline.Record{{
			Row: h.row(0), ID: 1, Version: 1, Stage: pipeline.Signing, CustomerID: uuid.NewString(),
			Challenge: "I owe you 5 ETH", ChallengeAt: time.Now(),
		}}
		h.take(h.row(0))
		h.await(1)
		if r := h.ledger.get(h.row(0)); r.Stage != pipeline.Refused || h.dispatcher.Tally().Signatures != 0 {
			t.Errorf("got stage %s, %d signatures; want refused, 0", r.Stage, h.dispatcher.Tally().Signatures)
		}
	})
}

// TestClockThatCannotBeChecked: if the partner cannot be asked about the clock, it is asked again, and nothing halts.
func TestClockThatCannotBeChecked(t *testing.T) {
	asked := 0
	withHarness(t, func(h *harness) {
		h.workerOptions.CheckClock = func(context.Context) error {
			if asked++; asked == 1 {
				return &client.Error{Op: "check", Kind: client.NoAnswer}
			}
			return nil
		}
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.await(1)
		if r := h.ledger.get(h.row(0)); r.Stage != pipeline.Onboarded || asked < 2 {
			t.Errorf("got stage %s after %d questions, want onboarded after 2 or more", r.Stage, asked)
		}
	})
}

// TestStaleChallenge: a creation that is answered from the partner's store brings an old challenge; a new one is
// fetched and signed. The row is refused when that one is old, too.
func TestStaleChallenge(t *testing.T) {
	for name, tt := range map[string]struct {
		stale int
		want  pipeline.Stage
	}{"first": {1, pipeline.Onboarded}, "always": {99, pipeline.Refused}} {
		t.Run(name, func(t *testing.T) {
			issued := 0
			withHarness(t, func(h *harness) {
				h.partner.text = func(s string) string {
					if issued++; issued <= tt.stale {
						now := time.Now().UTC().Format(time.RFC3339)
						return strings.Replace(s, now[:13], time.Now().UTC().Add(-3 * time.Hour).Format(time.RFC3339)[:13], 1)
					}
					return s
				}
			}, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				h.await(1)
				if r := h.ledger.get(h.row(0)); r.Stage != tt.want {
					t.Errorf("got stage %s (%s), want %s", r.Stage, r.Reason, tt.want)
				}
			})
		})
	}
}

// TestChallengeNearItsEnd: a partner returns the same challenge until its hour is over. A challenge that was just fetched
// is signed until shortly before its end; after that, the row waits for the next challenge.
func TestChallengeNearItsEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		age  time.Duration
		wait time.Duration // at most
	}{
		"fresh": {54 * time.Minute, 0}, "near its end": {58 * time.Minute, time.Second},
		"at its end": {time.Hour - 10*time.Second, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var born time.Time
			withHarness(t, func(h *harness) {
				h.partner.text = func(s string) string {
					if born.IsZero() {
						born = time.Now().Add(-tt.age)
					}
					issued := born
					if time.Since(born) >= time.Hour {
						issued = time.Now()
					}
					above, _, _ := strings.Cut(s, "Issued At: ")
					return above + "Issued At: " + issued.UTC().Format(time.RFC3339)
				}
			}, func(t *testing.T, h *harness) {
				begun := time.Now()
				h.take(h.row(0))
				h.await(1)
				if r := h.ledger.get(h.row(0)); r.Stage != pipeline.Onboarded || time.Since(begun) > tt.wait+time.Second {
					t.Errorf("got stage %s (%s) after %v, want onboarded within %v", r.Stage, r.Reason, time.Since(begun), tt.wait)
				}
			})
		})
	}
}

// constantNonce gives all challenges the same nonce.
func constantNonce(s string) string {
	above, below, _ := strings.Cut(s, "Nonce: ")
	return above + "Nonce: aaaaaaaa" + below[strings.Index(below, "\n"):]
}

// TestNonceIsSignedOnce: of the challenges that have the same nonce, only the first is signed.
func TestNonceIsSignedOnce(t *testing.T) {
	withHarness(t, func(h *harness) { h.partner.text = constantNonce }, func(t *testing.T, h *harness) {
		h.take(h.row(0), h.row(1), h.row(2), h.row(3))
		h.await(4)
		if tally := h.dispatcher.Tally(); tally.Signatures != 1 || tally.Onboarded != 1 || tally.Refused != 3 {
			t.Errorf("got %d signatures, %d onboarded, %d refused, want 1, 1, 3",
				tally.Signatures, tally.Onboarded, tally.Refused)
		}
		for i := range 4 {
			if r := h.ledger.get(h.row(i)); r.Stage == pipeline.Refused && !strings.Contains(r.Reason, "nonce") {
				t.Errorf("got reason %q, want it to name the nonce", r.Reason)
			}
		}
	})
}

// TestUsedNoncesHalt: a row that is refused for its nonce has not passed the policy: a series of them halts the run.
func TestUsedNoncesHalt(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.partner.text = constantNonce
		h.workerOptions.HaltAfter, h.options.Concurrency = 3, 1
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0), h.row(1), h.row(2), h.row(3), h.row(4), h.row(5))
		if halt := h.awaitHalt("challenge"); halt.Count != 3 {
			t.Errorf("got a halt after %d rows, want 3", halt.Count)
		}
	})
}
