package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

func TestRowIsOnboarded(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.partner.before = func(c call) { // "write, then send"
			switch c.op {
			case "create":
				if r := h.ledger.get(h.row(0)); r.Stage != pipeline.Creating || r.CreateKey.ID != c.key {
					t.Errorf("got record %+v at the creation, want stage creating and key %s", r, c.key)
				}
			case "submit":
				r := h.ledger.get(h.row(0))
				if r.Stage != pipeline.Submitting || r.SubmitKey.ID != c.key || !strings.Contains(c.body, "signature") {
					t.Errorf("got record %+v and body %s at the submission, want stage submitting, key %s and a signature",
						r, c.body, c.key)
				}
			}
		}
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.await(1)
		r := h.ledger.get(h.row(0))
		if r.Stage != pipeline.Onboarded || r.AlreadyOnboarded || r.Class != "" || r.PartnerStatus != "screening" {
			t.Errorf("got %+v, want onboarded by this run, without a class, in screening", r)
		}
		tally := h.dispatcher.Tally()
		if tally.Onboarded != 1 || tally.Received != 1 || tally.Signatures != 1 || tally.Retried != 0 || tally.Bad() {
			t.Errorf("got %+v, want 1 received, onboarded and signed, 0 retried, and no bad row", tally)
		}
		if len(h.partner.calls) != 2 {
			t.Errorf("got calls %+v, want 2", h.partner.calls)
		}
	})
}

// TestFaultsOnTheRoad: after any fault of a request, the row ends in the right stage, with one customer at most and one
// payload for each key.
func TestFaultsOnTheRoad(t *testing.T) {
	type script = map[string][]*fault
	answer := func(code int, kind client.Kind) *fault { return &fault{err: status(code, kind)} }
	before, after := &fault{err: errDropped}, &fault{execute: true, err: errDropped}
	e400, e404, e422 := answer(400, client.Invalid), answer(404, client.NotFound), answer(422, client.KeyReused)
	e500, e500After := answer(500, client.ServerError), &fault{execute: true, err: status(500, client.ServerError)}
	e502, e502After := answer(502, client.ServerError), &fault{execute: true, err: status(502, client.ServerError)}
	truncated := &fault{execute: true, err: &client.Error{Op: "test", Kind: client.Malformed, Status: 201}}
	throttled := &fault{err: &client.Error{Op: "test", Kind: client.Throttled, Status: 429, RetryAfter: 7 * time.Second}}
	noToken := &fault{err: &client.Error{Op: "test", Kind: client.NoToken, Err: errDropped}}
	inFlight := answer(409, client.Conflicting)
	for _, tt := range []struct {
		name    string
		script  script
		stage   pipeline.Stage
		class   onboard.Class
		creates int // calls of create
		keys    int // different create keys
	}{
		{"none", nil, pipeline.Onboarded, "", 1, 1},
		{"create lost before", script{"create": {before}}, pipeline.Onboarded, "", 2, 1},
		{"create lost after", script{"create": {after}}, pipeline.Onboarded, "", 2, 1},
		{"create truncated", script{"create": {truncated}}, pipeline.Onboarded, "", 2, 1},
		{"create gateway error after", script{"create": {e502After, e502, e502, e502}}, pipeline.Onboarded, "", 2, 1},
		{"create 500 before", script{"create": {e500}}, pipeline.Onboarded, "", 2, 1},
		{"create 500 after", script{"create": {e500After}}, pipeline.Onboarded, "", 2, 1},
		{"create 500 replayed thrice", script{"create": {e500, e500, e500}}, pipeline.Onboarded, "", 4, 2},
		{"create in flight, then created", script{"create": {inFlight, inFlight}}, pipeline.Onboarded, "", 3, 1},
		{"create throttled", script{"create": {throttled, throttled}}, pipeline.Onboarded, "", 3, 1},
		{"create without token", script{"create": {noToken}}, pipeline.Onboarded, "", 2, 1},
		{"create 422 twice", script{"create": {e422, e422}}, pipeline.Onboarded, "", 3, 3},
		{"create 422 thrice", script{"create": {e422, e422, e422}}, pipeline.Failed, "unprocessable", 3, 3},
		{"create 400", script{"create": {e400}}, pipeline.Failed, "invalid", 1, 1},
		{"create teapot", script{"create": {answer(418, client.Unexpected)}}, pipeline.Failed, "unexpected", 1, 1},
		{"submit lost before", script{"submit": {before, before}}, pipeline.Onboarded, "", 1, 1},
		{"submit lost after", script{"submit": {after}}, pipeline.Onboarded, "", 1, 1},
		{"submit 500 after, stored", script{"submit": {e500After, e500, e500}}, pipeline.Onboarded, "", 1, 1},
		{"submit 500 before, stored", script{"submit": {e500, e500, e500}}, pipeline.Onboarded, "", 1, 1},
		{"submit in flight", script{"submit": {inFlight}}, pipeline.Onboarded, "", 1, 1},
		{"submit not accepted twice", script{"submit": {e400, e400}}, pipeline.Onboarded, "", 1, 1},
		{"submit not accepted thrice", script{"submit": {e400, e400, e400}}, pipeline.Failed, "signature-refused", 1, 1},
		{"submit accepted but answered 400", script{"submit": {{execute: true, err: e400.err}}}, pipeline.Onboarded, "", 1, 1},
		{"submit 404", script{"submit": {e404}}, pipeline.Onboarded, "", 1, 1},
		{"list lost", script{"create": {inFlight}, "list": {before, e502, throttled}}, pipeline.Onboarded, "", 2, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withHarness(t, func(h *harness) {
				h.partner.faults = scripted(tt.script)
			}, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				h.await(1)
				r := h.ledger.get(h.row(0))
				if r.Stage != tt.stage || r.Class != string(tt.class) || r.AlreadyOnboarded {
					t.Errorf("got stage %q, class %q, already %v (%s); want %q, %q, false",
						r.Stage, r.Class, r.AlreadyOnboarded, r.Reason, tt.stage, tt.class)
				}
				h.checkKeys(t)
				creates := h.partner.of("create")
				keys := map[uuid.UUID]bool{}
				for _, c := range creates {
					keys[c.key] = true
				}
				if len(creates) != tt.creates || len(keys) != tt.keys {
					t.Errorf("got %d creations under %d keys, want %d under %d", len(creates), len(keys), tt.creates, tt.keys)
				}
				if len(h.partner.customers) > 1 {
					t.Errorf("got customers %+v, want at most 1", h.partner.customers)
				}
			})
		})
	}
}

func TestNoKey(t *testing.T) {
	withHarness(t, nil, func(t *testing.T, h *harness) {
		h.take(h.row(77))
		h.await(1)
		h.wantStage(h.row(77), pipeline.Failed, "no-key")
		if len(h.partner.calls) != 0 {
			t.Errorf("got calls %+v, want none", h.partner.calls)
		}
	})
}

// TestRowMovedMeanwhile: a row that was changed in the ledger during a request is read again and goes on from there.
func TestRowMovedMeanwhile(t *testing.T) {
	withHarness(t, func(h *harness) {
		moved := false
		h.partner.before = func(c call) {
			if c.op == "create" && !moved {
				moved = true
				h.ledger.mu.Lock()
				defer h.ledger.mu.Unlock()
				h.ledger.records[0].Version++
			}
		}
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.await(1)
		h.wantStage(h.row(0), pipeline.Onboarded, "")
		if customers, creates := len(h.partner.customers), len(h.partner.of("create")); customers != 1 || creates != 2 {
			t.Errorf("got %d customers after %d creations, want 1 after 2", customers, creates)
		}
		h.checkKeys(t)
	})
}
