package onboard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/siwe"
)

// fetch reads the current challenge.
func (w *Worker) fetch(ctx context.Context, t *Task) (result, error) {
	asked := w.Now()
	encoded, err := w.API.Challenge(ctx, t.CustomerID)
	if err != nil {
		outcome, after := fetchOutcome(err)
		return result{outcome: outcome, after: after, err: err}, nil
	}
	text, err := client.DecodeChallenge(encoded)
	if err != nil {
		return result{outcome: hostile, err: fmt.Errorf("challenge: %w", err)}, nil
	}
	t.fetched = asked
	received := w.Now()
	return result{outcome: gotChallenge, change: func(r *pipeline.Record) {
		r.Challenge, r.ChallengeAt = text, received
	}}, nil
}

// check reports whether the challenge is this customer's own sign-in (rule "Sign nothing blind").
func (w *Worker) check(ctx context.Context, t *Task) result {
	if w.CheckClock != nil {
		if err := w.CheckClock(ctx); err != nil {
			if errors.As(err, new(*client.Error)) {
				outcome, after := readOutcome(err)
				return result{outcome: outcome, after: after, err: err}
			}
			return result{outcome: misconfigured, err: err}
		}
	}
	now := w.Now()
	if !w.Limits.challengeIsFresh(t.ChallengeAt, now) {
		return result{outcome: expiring, err: errors.New("the challenge is about to expire")}
	}
	message, err := siwe.Parse(t.Challenge)
	if err != nil {
		return result{outcome: hostile, err: err}
	}
	err = w.Policy(t.Account).Check(message)
	var refusal *siwe.PolicyError
	ranOut := errors.As(err, &refusal) && refusal.Stale
	switch {
	case errors.Is(err, siwe.ErrPolicy):
		return result{outcome: misconfigured, err: err}
	case ranOut && (t.fetched.IsZero() || !w.Limits.staleWhenAsked(message.IssuedAt, t.fetched)):
		return result{outcome: expiring, err: errors.New("the challenge has expired")} // late or replayed: fetch a new one
	case err != nil:
		return result{outcome: hostile, err: err}
	case !w.Limits.challengeIsFresh(message.IssuedAt, now) &&
		// It is signed nevertheless if the partner has just returned it: it returns no other challenge before the hour is
		// over, and the row would run out of attempts.
		(t.fetched.IsZero() || !w.Limits.challengeIsUsable(message.IssuedAt, now)):
		r := result{outcome: expiring, err: errors.New("the challenge is about to expire")}
		if left := message.IssuedAt.Add(w.Limits.ChallengeTTL).Sub(now); !t.fetched.IsZero() && left > 0 {
			r.after = left + time.Second // Issued At counts in seconds
		}
		return r
	}
	return result{outcome: checkPassed, change: func(r *pipeline.Record) {
		r.Nonce = message.Nonce
		if _, slow := w.Signer.(signer.Custodian); slow {
			r.ExternalTxID = externalTxID(r.Account, r.Challenge) // recorded before the custodian is asked
		}
	}}
}
