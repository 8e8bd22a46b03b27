package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// TestSilenceKeepsTheKey: a creation with an unanswered request among its 5xx keeps its key, also when the look-up
// finds no customer.
func TestSilenceKeepsTheKey(t *testing.T) {
	e500, silence := &fault{err: status(500, client.ServerError)}, &fault{err: errDropped}
	for name, script := range map[string][]*fault{
		"two silences, one 502":       {silence, silence, {err: status(502, client.ServerError)}},
		"500, silence, 500, silence":  {e500, silence, e500, silence},
		"500, silence, 409 in flight": {e500, silence, {err: status(409, client.Conflicting)}},
		"500, 409 in flight, 500":     {e500, {err: status(409, client.Conflicting)}, e500},
		"500, truncated, 500":         {e500, {err: &client.Error{Kind: client.Malformed, Status: 201}}, e500},
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(h *harness) {
				h.partner.faults = scripted(map[string][]*fault{"create": script})
			}, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				h.await(1)
				keys := map[uuid.UUID]bool{}
				for _, c := range h.partner.of("create") {
					keys[c.key] = true
				}
				if len(keys) != 1 {
					t.Errorf("got keys %v, want 1", keys)
				}
			})
		})
	}
}

// TestRecordedSignatureIsResent: an HSM never makes the same signature twice, so the recorded one is sent again: under
// the same key after a dropped connection, under the next key after an answer that settles nothing.
func TestRecordedSignatureIsResent(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.partner.faults = scripted(map[string][]*fault{"submit": {{err: errDropped}, {err: status(500, client.ServerError)}, {err: errDropped}}})
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.await(1)
		submits := h.partner.of("submit")
		if len(submits) != 4 {
			t.Fatalf("got %d submissions, want 4", len(submits))
		}
		for i, s := range submits {
			if s.body != submits[0].body {
				t.Errorf("submission %d: got body %s, want %s", i+1, s.body, submits[0].body)
			}
			if same, want := s.key == submits[0].key, i < 2; same != want {
				t.Errorf("submission %d: got the first key: %v, want %v", i+1, same, want)
			}
		}
		if tally := h.dispatcher.Tally(); tally.Signatures != 1 || tally.Retried != 2 {
			t.Errorf("got %d signatures and %d repetitions, want 1 and 2", tally.Signatures, tally.Retried)
		}
		if got := len(h.partner.of("read")); got != 2 {
			t.Errorf("got %d reads of the customer, want one after each of the 3 failures but the first, a silence", got)
		}
	})
}

// TestRecordedSignatureOfAnotherForm: a recorded signature is sent byte for byte, or not at all. After a change of the
// encoding, the customer is read, and a new challenge is signed if the customer is still initiating.
func TestRecordedSignatureOfAnotherForm(t *testing.T) {
	for _, there := range []client.Status{client.StatusInitiating, client.StatusScreening} {
		t.Run(string(there), func(t *testing.T) {
			key := pipeline.Key{Operation: pipeline.OpSubmit, ID: uuid.New(), Digest: [32]byte{1}, FirstSent: time.Now(), Outcome: pipeline.KeyOpen}
			withHarness(t, func(h *harness) {
				c := client.Customer{ID: uuid.NewString(), ChainID: h.row(0).Account.String(),
					ExternalID: h.row(0).ExternalID, Status: there}
				h.partner.customers = []client.Customer{c}
				h.partner.issue(c)
				key.ID = h.workerOptions.Keyring.Submit(c.ID, key.Digest, 0)
				key.FirstSent = time.Now()
				h.ledger.records = []pipeline.Record{{
					Row: h.row(0), ID: 1, Version: 1, Stage: pipeline.Submitting, CustomerID: c.ID,
					Signature: "0x" + fmt.Sprintf("%0130x", 7), SubmitKey: key,
				}}
			}, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				h.await(1)
				h.wantStage(h.row(0), pipeline.Onboarded, "")
				want := 1
				if there != client.StatusInitiating {
					want = 0
				}
				submits := h.partner.of("submit")
				if len(submits) != want {
					t.Errorf("got %d submissions, want %d", len(submits), want)
				}
				for _, c := range submits {
					if c.key == key.ID {
						t.Errorf("got a new payload under the old key %s, want a new key", c.key)
					}
				}
			})
		})
	}
}

// TestKeyOfAnEarlierAPIKey: a row whose creation was sent under another API key id is looked up before it is sent under
// a new key.
func TestKeyOfAnEarlierAPIKey(t *testing.T) {
	earlier := pipeline.Keyring{APIHost: "partner.test", APIKeyID: "earlier"}
	for name, there := range map[string]bool{"created": true, "not created": false} {
		t.Run(name, func(t *testing.T) {
			var old pipeline.Key
			withHarness(t, func(h *harness) {
				r := h.row(0)
				if there {
					c := client.Customer{ID: "0b8f2c1e-6d3a-4b57-8a55-2f0f0c3f9d11", ChainID: r.Account.String(),
						ExternalID: r.ExternalID, Status: client.StatusInitiating}
					h.partner.customers = append(h.partner.customers, c)
					h.partner.issue(c)
				}
				old = pipeline.Key{Operation: pipeline.OpCreate, ID: earlier.Create(r, 0), FirstSent: time.Now(), Outcome: pipeline.KeyOpen}
				h.ledger.records = []pipeline.Record{{Row: r, ID: 1, Version: 1, Stage: pipeline.Creating, CreateKey: old}}
			}, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				h.await(1)
				h.wantStage(h.row(0), pipeline.Onboarded, "")
				creates := h.partner.of("create")
				want := 1
				if there {
					want = 0
				}
				if len(creates) != want {
					t.Errorf("got %d creations, want %d", len(creates), want)
				}
				for _, c := range creates {
					if c.key == old.ID {
						t.Errorf("got a creation under %s, the key of the earlier API key id, want another key", c.key)
					}
				}
				if h.partner.calls[0].op != "list" {
					t.Errorf("got %s as the first request, want list", h.partner.calls[0].op)
				}
			})
		})
	}
}

// TestKeysAgeWhileTheMachineIsSuspended: the monotonic clock stands still then, so the age of a key must not be counted
// by it.
func TestKeysAgeWhileTheMachineIsSuspended(t *testing.T) {
	monotonic := time.Now() // a time of synctest has no monotonic reading
	withHarness(t, func(h *harness) {
		h.workerOptions.Now = func() time.Time {
			now := time.Now()
			return monotonic.Add(now.Sub(monotonic))
		}
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.await(1)
		for _, key := range []pipeline.Key{h.ledger.get(h.row(0)).CreateKey, h.ledger.get(h.row(0)).SubmitKey} {
			if key.FirstSent.IsZero() || key.FirstSent != key.FirstSent.Round(0) {
				t.Errorf("%s: got first sent %v, want a time without a monotonic reading", key.Operation, key.FirstSent)
			}
		}
	})
}
