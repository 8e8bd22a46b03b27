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
	if t.ExternalTxID == "" { // the signer was another one when the challenge was checked
		return signer.Signature{}, errors.New("no transaction id is recorded for the custodian")
	}
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

// giveUp deals with a challenge that ran out while the custodian was thinking. A signature that came at last is used as
// long as the partner may still take it; otherwise the request is cancelled, where the vendor allows that, so that
// nobody approves what is of no use, and a new challenge is fetched.
func (w *Worker) giveUp(ctx context.Context, t *task, c signer.Custodian, expiring result) (result, error) {
	if age := w.Now().Sub(t.ChallengeAt); age > 0 && age < w.Limits.ChallengeTTL-margin(margin(w.Limits.ChallengeTTL)) {
		signature, err := c.Poll(ctx, t.ExternalTxID, t.Account.Address, []byte(t.Challenge))
		switch {
		case err == nil:
			return w.signed(t, signature), nil
		case errors.Is(err, signer.ErrPending):
			return result{outcome: Waiting, err: err}, nil // some minutes are left
		}
	}
	if err := c.Cancel(ctx, t.ExternalTxID); err != nil {
		switch outcome := signOutcome(err); outcome {
		case SignerLost:
			return result{outcome: outcome, err: err}, nil
		default: // it will be refused as stale whenever it comes
		}
	}
	return expiring, nil
}
