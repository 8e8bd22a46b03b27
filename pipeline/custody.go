package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/purser-onboard/purser/signer"
)

// externalTxID is the id under which a custodian is asked to sign a challenge of an account. It is derived, so that
// whoever asks again, after a crash or with a lost ledger, asks for the same signature and not for a second one.
func externalTxID(a Account, challenge string) string {
	sum := sha256.Sum256([]byte(a.String() + "\n" + challenge))
	return "purser-" + hex.EncodeToString(sum[:24])
}

// custody asks what became of the custodian's transaction, and begins it when there is none. The custodian never sees a
// second request: the id was recorded before the first one, and asking comes before beginning.
func (w *Worker) custody(ctx context.Context, t *task, c signer.Custodian) (signer.Signature, error) {
	message := []byte(t.Challenge)
	signature, err := c.Poll(ctx, t.ExternalTxID, t.Account.Address, message)
	if !errors.Is(err, signer.ErrUnknownRequest) {
		return signature, err
	}
	w.Hook("custody.before-request")
	if err := c.Request(ctx, t.ExternalTxID, t.Account.Address, message); err != nil {
		return signer.Signature{}, err
	}
	w.Hook("custody.after-request")
	return c.Poll(ctx, t.ExternalTxID, t.Account.Address, message)
}

// giveUp deals with a challenge that runs out while the custodian is thinking. What was decided at last counts: a
// refusal ends the row, a signature is used as long as the partner may still take it. Otherwise the request is
// cancelled, where the vendor allows that, so that nobody approves what is of no use, and a new challenge is fetched.
func (w *Worker) giveUp(ctx context.Context, t *task, c signer.Custodian, expiring result) (result, error) {
	age := w.Now().Sub(t.ChallengeAt)
	inTime := age > 0 && age < w.Limits.ChallengeTTL-margin(margin(w.Limits.ChallengeTTL))
	signature, err := c.Poll(ctx, t.ExternalTxID, t.Account.Address, []byte(t.Challenge))
	if err == nil && inTime {
		return w.signed(t, signature), nil
	}
	if err != nil {
		switch res := signResult(err); res.outcome {
		case Declined, Mismatch, NoKey, SignerLost, Throttled:
			return res, nil
		case Waiting:
			if inTime { // some minutes are left
				return res, nil
			}
		}
	}
	if err := c.Cancel(ctx, t.ExternalTxID); err != nil {
		if res := signResult(err); res.outcome == SignerLost {
			return res, nil
		}
		if w.OnStale != nil {
			w.OnStale(t.Row, t.ExternalTxID, err)
		}
	}
	return expiring, nil
}
