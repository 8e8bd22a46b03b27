package onboard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer"
)

// externalTxID is the id of the request to a custodian to sign an account's challenge. It is derived, so that a
// repeated request, after a crash or with a lost ledger, does not create a second transaction.
func externalTxID(a pipeline.Account, challenge string) string {
	sum := sha256.Sum256([]byte(a.String() + "\n" + challenge))
	return "purser-" + hex.EncodeToString(sum[:24])
}

// custody polls the custodian's transaction, and requests it if there is none. The custodian never gets a second
// request: the id was recorded before the first, and each request is preceded by a poll.
func (w *Worker) custody(ctx context.Context, t *Task, c signer.Custodian) (signer.Signature, error) {
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

// giveUp handles a challenge that expires before the custodian decides: it polls once more and uses a decision if there
// is one. If the custodian declined, the row ends; a signature is used as long as the partner may still accept it.
// Otherwise the request is cancelled, if the vendor allows that, so that no person approves an obsolete request, and a
// new challenge is fetched.
func (w *Worker) giveUp(ctx context.Context, t *Task, c signer.Custodian, expiring result) (result, error) {
	inTime := w.Limits.challengeIsUsable(t.ChallengeAt, w.Now())
	begun := pipeline.Monotonic()
	signature, err := c.Poll(ctx, t.ExternalTxID, t.Account.Address, []byte(t.Challenge))
	w.noteSigner(ctx, err, begun)
	if err == nil && inTime {
		return w.signed(t, signature), nil
	}
	if err != nil {
		switch res := signResult(err); res.outcome {
		case declined, mismatch, noKey, signerLost, throttled:
			return res, nil
		case waiting:
			if inTime { // some minutes are left
				t.failing = failing{}
				return res, nil
			}
		}
	}
	if err := w.withdraw(ctx, t, c); err != nil {
		if res := signResult(err); res.outcome == signerLost {
			return res, nil
		}
	}
	return expiring, nil
}

// withdraw cancels an obsolete request. OnStale gets the error, too.
func (w *Worker) withdraw(ctx context.Context, t *Task, c signer.Custodian) error {
	if t.ExternalTxID == "" {
		return nil
	}
	err := c.Cancel(ctx, t.ExternalTxID)
	if err != nil && !errors.Is(err, signer.ErrUnusable) && !errors.Is(err, signer.ErrUnknownRequest) && w.OnStale != nil {
		w.OnStale(t.Row, t.ExternalTxID, err)
	}
	return err
}

// failing is a series of failed polls of one row.
type failing struct {
	since time.Time // of the first, monotonic
	polls int
	err   error // of the last
}

// PollTrouble reports polls of a custodian without a usable answer.
type PollTrouble struct {
	Row          pipeline.Row // whose poll failed last
	ExternalTxID string       // of its transaction
	Failed       int          // polls of that row that failed one after another
	OfAllRows    int          // failed polls since the last PollTrouble, this one included
	Cause        error
}

// pollTroubles reports failed polls: the first at once, then once a minute.
type pollTroubles struct {
	mu     sync.Mutex // guards what follows
	warned time.Time  // monotonic; zero: never
	failed int        // since then
}

// pollWarningEvery is the minimum time between two PollTroubles.
const pollWarningEvery = time.Minute

func (p *pollTroubles) note(t *Task, report func(PollTrouble)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed++
	now := pipeline.Monotonic()
	if report == nil || !p.warned.IsZero() && now.Sub(p.warned) < pollWarningEvery {
		return
	}
	report(PollTrouble{
		Row: t.Row, ExternalTxID: t.ExternalTxID, Failed: t.failing.polls, OfAllRows: p.failed, Cause: t.failing.err,
	})
	p.warned, p.failed = now, 0
}

// pollFailed returns the result of a poll without a usable answer. If the custodian has answered about the row before,
// it has the request and may have decided: the failed poll costs the row nothing, until its polls have failed for
// PollLimit. Then the row's attempts are spent.
func (w *Worker) pollFailed(t *Task, cause error) result {
	now := pipeline.Monotonic()
	if t.failing.polls == 0 {
		t.failing.since = now
	}
	t.failing.polls++
	t.failing.err = cause
	w.polls.note(t, w.OnPollTrouble)
	if t.polls == 0 {
		return result{outcome: signerFailed, err: cause}
	}
	res := result{outcome: waiting, err: cause}
	if lasted := now.Sub(t.failing.since); w.PollLimit > 0 && lasted >= w.PollLimit {
		t.Attempts = w.Limits.MaxAttempts
		res.outcome = signerFailed
		res.err = fmt.Errorf("%d polls of the custodian's transaction %s failed in %v, the last: %w",
			t.failing.polls, t.ExternalTxID, lasted.Round(time.Second), cause)
	}
	return res
}
