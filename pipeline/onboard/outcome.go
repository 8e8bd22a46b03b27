package onboard

import (
	"errors"
	"strings"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer"
)

// changeOutcome sorts the failure of a request that changes something at the partner.
func changeOutcome(err error) (Outcome, time.Duration) {
	var e *client.Error
	if !errors.As(err, &e) {
		return Unknown, 0
	}
	switch e.Kind {
	case client.NoAnswer, client.Malformed:
		if errors.Is(e, client.ErrUnproven) {
			return Unproven, 0
		}
		return Unknown, e.RetryAfter
	case client.Unrecognized:
		return Unrecognized, 0
	case client.ServerError:
		// A gateway's 502 or 504 too: by itself it says nothing of the partner, but the same answer thrice under one key is
		// a stored one, and before the key is given up the customer is looked up.
		return ServerFailed, e.RetryAfter
	case client.Throttled:
		return Throttled, e.RetryAfter
	case client.Conflicting:
		return Conflicting, e.RetryAfter
	case client.KeyReused:
		return Unprocessable, e.RetryAfter
	case client.Invalid:
		return Invalid, 0
	case client.NotFound:
		return NotFound, 0
	case client.NoToken:
		return tokenOutcome(e)
	case client.Unexpected:
		return Odd, 0
	}
	// Unauthorized, Forbidden, RequestSignature, Unconnectable, Redirected, Unsendable
	return Misconfigured, 0
}

// tokenOutcome sorts the failure to get a token: the request itself never left.
func tokenOutcome(e *client.Error) (Outcome, time.Duration) {
	var cause *client.Error
	if !errors.As(e.Err, &cause) {
		return NotSent, e.RetryAfter
	}
	switch cause.Kind {
	case client.NoAnswer, client.Malformed, client.Unrecognized, client.ServerError, client.Conflicting:
		return NotSent, cause.RetryAfter
	case client.Throttled:
		return Throttled, cause.RetryAfter
	}
	return Misconfigured, 0
}

// readOutcome sorts the failure of a GET, which may simply be repeated.
func readOutcome(err error) (Outcome, time.Duration) {
	outcome, after := changeOutcome(err)
	switch outcome {
	case Unknown, ServerFailed:
		return ReadFailed, after
	case NotFound:
		return Absent, 0
	case Conflicting, Unprocessable, Invalid, Odd:
		return ReadFailed, after
	}
	return outcome, after
}

// fetchOutcome sorts the failure to read a challenge.
func fetchOutcome(err error) (Outcome, time.Duration) {
	outcome, after := changeOutcome(err)
	switch outcome {
	case Unknown, ServerFailed:
		return ReadFailed, after
	case NotFound, Conflicting, Unprocessable, Invalid, Odd:
		return NoChallenge, after
	}
	return outcome, after
}

// signOutcome sorts the failure of a signer, and says how long it asked to be left alone.
func signOutcome(err error) (Outcome, time.Duration) {
	var busy interface{ Throttled() (time.Duration, bool) }
	if errors.As(err, &busy) {
		if after, yes := busy.Throttled(); yes {
			return Throttled, after // rule "Throttling is not failure" holds for signers, too
		}
	}
	switch {
	case errors.Is(err, signer.ErrNoKey):
		return NoKey, 0
	case errors.Is(err, signer.ErrDeclined):
		return Declined, 0
	case errors.Is(err, signer.ErrMismatch):
		return Mismatch, 0
	case errors.Is(err, signer.ErrPending):
		return Waiting, 0
	case errors.Is(err, signer.ErrUnusable):
		return SignerLost, 0
	}
	return SignerFailed, 0
}

// signResult is what a signer's failure comes to.
func signResult(err error) result {
	outcome, after := signOutcome(err)
	return result{outcome: outcome, after: after, err: err}
}

// customerOutcome says what a customer that was read means for a row.
func customerOutcome(r pipeline.Row, c client.Customer) Outcome {
	if !IsPair(r, c.ChainID, c.ExternalID) {
		return Other
	}
	return StatusOutcome(c.Status)
}

// IsPair reports whether the account and externalId of a customer are the row's.
func IsPair(r pipeline.Row, chainID, externalID string) bool {
	return strings.EqualFold(chainID, r.Account.String()) && externalID == r.ExternalID
}

// StatusOutcome says what a customer with that status means for its row. Statuses are compared without case.
func StatusOutcome(s client.Status) Outcome {
	switch s = client.ParseStatus(string(s)); s { // a stored one may be from before statuses were compared without case
	case "":
		return ReadFailed // no customer is without a status: the answer is not to be relied upon
	case client.StatusInitiating:
		return Initiating
	case client.StatusRejected:
		return RejectedThere
	}
	if s.Past() {
		return Past
	}
	return OddCustomer // unknown is never success
}
