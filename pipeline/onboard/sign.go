package onboard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer"
)

// checkSigner returns why a signer that failed for a row fails for all rows; nil if it fails only for that row.
func (w *Worker) checkSigner(ctx context.Context, cause error) error {
	if w.SignerCheck == nil {
		return cause
	}
	if err := w.SignerCheck(ctx); err != nil {
		return fmt.Errorf("%w; its check: %w", cause, err)
	}
	return nil
}

// sign has the challenge signed. It checks the challenge again, so that every path to the signer passes the policy.
func (w *Worker) sign(ctx context.Context, t *Task) (result, error) {
	custodian, slow := w.Signer.(signer.Custodian)
	if slow && t.ExternalTxID == "" { // the signer was another one when the challenge was checked: begin with a new one
		return result{outcome: expiring, err: errors.New("no transaction id is recorded for the custodian")}, nil
	}
	checked := w.check(ctx, t)
	if checked.outcome == expiring && slow && t.ExternalTxID != "" {
		return w.giveUp(ctx, t, custodian, checked)
	}
	if checked.outcome != checkPassed {
		return checked, nil
	}
	w.Hook("sign.before")
	var signature signer.Signature
	var err error
	begun := pipeline.Monotonic()
	if slow {
		signature, err = w.custody(ctx, t, custodian)
	} else {
		signature, err = w.Signer.SignMessage(ctx, t.Account.Address, []byte(t.Challenge))
	}
	w.noteSigner(ctx, err, begun)
	if err != nil {
		res := signResult(err)
		if res.outcome == signerFailed && slow {
			return w.pollFailed(t, err), nil
		}
		t.failing = failing{}
		return res, nil
	}
	w.breaker.signerSpoke()
	return w.signed(t, signature), nil
}

// noteSigner reports a signer call that we did not cancel.
func (w *Worker) noteSigner(ctx context.Context, err error, begun time.Time) {
	if w.OnSigner == nil || err != nil && ctx.Err() != nil {
		return
	}
	if errors.Is(err, signer.ErrPending) {
		err = nil
	}
	w.OnSigner(err, pipeline.Monotonic().Sub(begun))
}

// signed takes a signature: it and its idempotency key are stored before it is sent (rule "Write, then send").
func (w *Worker) signed(t *Task, signature signer.Signature) result {
	w.stats.signatures.Add(1)
	w.Hook("sign.after")
	text := "0x" + hex.EncodeToString(signature[:])
	digest := sha256.Sum256(client.SubmitBody(t.Account.String(), text, w.Encoding))
	now := w.Now()
	t.recorded = true
	return result{outcome: signed, change: func(r *pipeline.Record) {
		generation := 0
		if !r.SubmitKey.IsZero() {
			generation = r.SubmitKey.Generation + 1
		}
		r.Signature = text
		r.SubmitKey = pipeline.Key{
			Operation: pipeline.OpSubmit, Generation: generation, Digest: digest,
			ID:        w.Keyring.Submit(r.CustomerID, digest, generation),
			FirstSent: now, LastSent: now, Outcome: pipeline.KeyOpen,
		}
	}}
}
