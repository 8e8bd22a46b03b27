package onboard

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// submit sends the recorded signature, byte for byte the same under the same key.
func (w *Worker) submit(ctx context.Context, t *Task) (result, error) {
	body := client.SubmitBody(t.Account.String(), t.Signature, w.Encoding)
	if digest := sha256.Sum256(body); digest != t.SubmitKey.Digest {
		return result{outcome: oldForm, err: errors.New(
			"--signature-encoding was changed since the signature was recorded")}, nil
	}
	if !t.recorded {
		now := w.Now()
		next := t.Record
		if t.Action == DoRekey {
			generation := next.SubmitKey.Generation + 1
			next.SubmitKey.Generation, next.SubmitKey.FirstSent = generation, now
			next.SubmitKey.ID = w.Keyring.Submit(next.CustomerID, next.SubmitKey.Digest, generation)
			t.heard = 0
		} else {
			t.resends = true
		}
		next.SubmitKey.LastSent, next.SubmitKey.Outcome = now, pipeline.KeyOpen
		if err := w.store(ctx, t, next); err != nil {
			return result{}, err
		}
	}
	t.recorded = false
	t.Action = DoSubmit
	w.Hook("submit.before-send")
	err := w.API.SubmitSignature(ctx, t.CustomerID, t.SubmitKey.ID, body)
	w.Hook("submit.after-send")
	if err != nil {
		outcome, after := changeOutcome(err)
		return result{outcome: outcome, after: after, err: err}, nil
	}
	return result{outcome: accepted, change: func(r *pipeline.Record) {
		r.PartnerStatus = string(client.StatusScreening)
	}}, nil
}
