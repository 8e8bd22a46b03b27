package onboard

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// create sends POST /customers. The key and the digest of the payload are durable before it leaves (rule "Write, then
// send").
func (w *Worker) create(ctx context.Context, t *Task) (result, error) {
	if t.Stage == pipeline.Planned && t.CreateKey.IsZero() {
		// Without a key for it, the customer would be created at the partner and never onboarded.
		if err := w.Signer.HasKey(ctx, t.Account.Address); err != nil {
			return signResult(err), nil
		}
		w.breaker.prove(stepKey)
	}
	body := client.CreateBody(t.Account.String(), t.ExternalID)
	now := w.Now()
	next := t.Record
	next.Stage = pipeline.Creating
	switch {
	case next.CreateKey.IsZero():
		next.CreateKey = pipeline.Key{Operation: pipeline.OpCreate, FirstSent: now}
	case t.Action == DoRekey:
		next.CreateKey = pipeline.Key{Operation: pipeline.OpCreate, Generation: next.CreateKey.Generation + 1, FirstSent: now}
	default:
		t.resends = true
	}
	if t.Action == DoRekey {
		t.heard = 0
		// What failed under an earlier key says little about this one: the stored answer and its repetition count.
		t.spared = max(t.spared, t.Attempts-2*next.CreateKey.Generation)
	} else if next.CreateKey.Outcome == pipeline.KeyHeard {
		t.heard = 1 // by an earlier run
	}
	key := &next.CreateKey
	if key.ID == uuid.Nil {
		key.ID = w.Keyring.Create(t.Row, key.Generation)
	}
	key.Digest = sha256.Sum256(body)
	key.LastSent, key.Outcome = now, pipeline.KeyOpen
	if err := w.store(ctx, t, next); err != nil {
		return result{}, err
	}
	t.Action = DoCreate // from here on a repetition is one under the same key
	w.Hook("create.before-send")
	t.sent = pipeline.Monotonic()
	customer, err := w.API.CreateCustomer(ctx, t.CreateKey.ID, body)
	w.Hook("create.after-send")
	if err != nil {
		outcome, after := changeOutcome(err)
		return result{outcome: outcome, after: after, err: err}, nil
	}
	received := w.Now()
	t.fetched = time.Time{}
	res := result{outcome: created, change: func(r *pipeline.Record) {
		r.CustomerID, r.PartnerStatus = customer.ID, string(customer.Status)
		r.Challenge, r.ChallengeAt = "", time.Time{}
		if text, err := client.DecodeChallenge(customer.Challenge); err == nil {
			r.Challenge, r.ChallengeAt = text, received // else it is fetched
		}
	}}
	if customer.Status != "" {
		if res.outcome = statusOutcome(customer.Status); res.outcome == initiating {
			res.outcome = created
		}
		if res.outcome == oddCustomer {
			res.err = oddStatus(customer)
		}
	}
	return res, nil
}
