package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// CheckResult is what Check learned.
type CheckResult struct {
	Latency   time.Duration // of the signed request, without the wait for its place
	ClockSkew time.Duration // as in Stats
	Advice    string        // what the operator should do; empty when all is well
}

// Check is rule 10's preflight: it fetches a token if there is none, and a signed GET of a random customer id must be
// answered 404. Nothing is changed at the partner. The result holds what was learned even if there is an error; its
// Advice may ask for the clock to be set when there is none.
func (c *Client) Check(ctx context.Context) (CheckResult, error) {
	var result CheckResult
	err := c.probe(ctx, call{latency: &result.Latency})
	if failure := (*Error)(nil); errors.As(err, &failure) {
		result.Advice = failure.Hint()
	}
	result.ClockSkew, _ = c.clock.Skew()
	if result.ClockSkew != 0 {
		note := fmt.Sprintf("this machine's clock differs from the partner's by %v; let the clock be set by NTP",
			result.ClockSkew.Abs().Round(time.Second))
		if result.Advice != "" {
			note = result.Advice + "; " + note
		}
		result.Advice = note
	}
	return result, err
}

// CheckSigned sends Check's request once, signed by another signer than Config.Sign. It is nil when the partner accepts
// that signature.
func (c *Client) CheckSigned(ctx context.Context, sign RequestSigner) error {
	return c.probe(ctx, call{sign: sign, once: true})
}

// probe sends a GET of a random customer id, which must be answered 404.
func (c *Client) probe(ctx context.Context, k call) error {
	id, err := c.newID()
	if err != nil {
		return &Error{Op: "check", Kind: Unsendable, Err: err}
	}
	k.op, k.method, k.path = "GET /customers/{id}", http.MethodGet, "/customers/"+id.String()
	r, err := c.open(ctx, k)
	var failure *Error
	switch {
	case err == nil:
		c.read(r)
		return &Error{Op: k.op, Kind: Unexpected, Status: r.StatusCode, RequestID: c.requestID(r.Header),
			Message: "a customer id made up for this check was answered as if it existed (want 404)"}
	case errors.As(err, &failure) && failure.Kind == NotFound:
		return nil
	}
	return err
}
