package onboard

import (
	"errors"
	"strings"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer"
)

// changeOutcome classifies the failure of a request that changes something at the partner.
func changeOutcome(err error) (outcome, time.Duration) {
	var e *client.Error
	if !errors.As(err, &e) {
		return unknown, 0
	}
	switch e.Kind {
	case client.NoAnswer, client.Malformed:
		if errors.Is(e, client.ErrUnproven) {
			return unproven, 0
		}
		return unknown, e.RetryAfter
	case client.Unrecognized:
		return unrecognized, 0
	case client.ServerError:
		// A gateway's 502 or 504, too: alone it says nothing about the partner, but the same answer twice under one key is
		// stored under the key, and before the key is given up the customer is looked up.
		return serverFailed, e.RetryAfter
	case client.Throttled:
		return throttled, e.RetryAfter
	case client.Conflicting:
		return conflicting, e.RetryAfter
	case client.KeyReused:
		return unprocessable, e.RetryAfter
	case client.Invalid:
		return invalid, 0
	case client.NotFound:
		return notFound, 0
	case client.NoToken:
		return tokenOutcome(e)
	case client.Unexpected:
		return odd, 0
	}
	// Unauthorized, Forbidden, RequestSignature, Unconnectable, Redirected, Unsendable
	return misconfigured, 0
}

// tokenOutcome classifies the failure to get a token: the request itself was never sent.
func tokenOutcome(e *client.Error) (outcome, time.Duration) {
	var cause *client.Error
	if !errors.As(e.Err, &cause) {
		return notSent, e.RetryAfter
	}
	switch cause.Kind {
	case client.NoAnswer, client.Malformed, client.Unrecognized, client.ServerError, client.Conflicting:
		return notSent, cause.RetryAfter
	case client.Throttled:
		return throttled, cause.RetryAfter
	}
	return misconfigured, 0
}

// readOutcome classifies the failure of a GET, which can simply be repeated.
func readOutcome(err error) (outcome, time.Duration) {
	outcome, after := changeOutcome(err)
	switch outcome {
	case unknown, serverFailed:
		return readFailed, after
	case notFound:
		return absent, 0
	case conflicting, unprocessable, invalid, odd:
		return readFailed, after
	}
	return outcome, after
}

// fetchOutcome classifies the failure to fetch a challenge.
func fetchOutcome(err error) (outcome, time.Duration) {
	outcome, after := changeOutcome(err)
	switch outcome {
	case unknown, serverFailed:
		return readFailed, after
	case notFound, conflicting, unprocessable, invalid, odd:
		return noChallenge, after
	}
	return outcome, after
}

// signResult classifies the failure of a signer, and returns its Retry-After.
func signResult(err error) result {
	res := result{outcome: signerFailed, err: err}
	var busy interface{ Throttled() (time.Duration, bool) }
	if errors.As(err, &busy) {
		if after, yes := busy.Throttled(); yes {
			res.outcome, res.after = throttled, after // rule "Throttling is not failure" holds for signers, too
			return res
		}
	}
	switch {
	case errors.Is(err, signer.ErrNoKey):
		res.outcome = noKey
	case errors.Is(err, signer.ErrDeclined):
		res.outcome = declined
	case errors.Is(err, signer.ErrMismatch):
		res.outcome = mismatch
	case errors.Is(err, signer.ErrPending):
		res.outcome = waiting
	case errors.Is(err, signer.ErrUnusable):
		res.outcome = signerLost
	}
	return res
}

// customerOutcome returns what a customer that was read means for a row.
func customerOutcome(r pipeline.Row, c client.Customer) outcome {
	if !IsPair(r, c.ChainID, c.ExternalID) {
		return other
	}
	return statusOutcome(c.Status)
}

// IsPair reports whether the account and externalId of a customer are the row's.
func IsPair(r pipeline.Row, chainID, externalID string) bool {
	return strings.EqualFold(chainID, r.Account.String()) && externalID == r.ExternalID
}

// statusOutcome returns what a customer's status means for its row. Statuses are compared without case.
func statusOutcome(s client.Status) outcome {
	switch s = client.ParseStatus(string(s)); s { // a stored one may be from before statuses were compared without case
	case "":
		return readFailed // no customer is without a status: the answer is not to be relied upon
	case client.StatusInitiating:
		return initiating
	case client.StatusRejected:
		return rejectedThere
	}
	if s.Past() {
		return past
	}
	return oddCustomer // unknown is never success
}
