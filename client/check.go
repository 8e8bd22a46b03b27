package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// CheckResult is what Check found out.
type CheckResult struct {
	Latency   time.Duration // of the signed request, without the wait for the rate limiter
	ClockSkew time.Duration // as in Stats
	Advice    string        // what the operator should do; empty when all is well
}

// Check is the partner probe with which a run starts (docs/rules.md, "A wrong set-up halts the run"): it fetches a
// token if there is none, and sends a signed GET of a random customer id, which must be answered 404. It changes
// nothing at the partner. The result is valid even if there is an error; without an error its Advice may be to set
// the clock.
func (c *Client) Check(ctx context.Context) (CheckResult, error) {
	var result CheckResult
	err := c.probe(ctx, call{latency: &result.Latency})
	if failure := (*Error)(nil); errors.As(err, &failure) {
		result.Advice = failure.Hint()
	}
	result.ClockSkew = c.clock.Skew()
	if result.ClockSkew != 0 {
		note := fmt.Sprintf("this machine's clock differs from the partner's by %v; set the clock by NTP",
			result.ClockSkew.Abs().Round(time.Second))
		if result.Advice != "" {
			note = result.Advice + "; " + note
		}
		result.Advice = note
	}
	return result, err
}

// CheckSigned sends Check's request once, signed by sign instead of Config.Sign. It returns nil when the partner
// accepts that signature.
func (c *Client) CheckSigned(ctx context.Context, sign RequestSigner) error {
	return c.probe(ctx, call{sign: sign, once: true})
}

// probe sends a GET of a random customer id, which must be answered 404.
func (c *Client) probe(ctx context.Context, k call) error {
	id, err := c.newID()
	if err != nil {
		return &Error{Op: "check", Kind: Unsendable, Err: err}
	}
	k.op, k.name = "GET /customers/{id}", Probe
	k.method, k.path = http.MethodGet, "/customers/"+id.String()
	r, err := c.open(ctx, k)
	var failure *Error
	switch {
	case err == nil:
		c.read(r)
		return &Error{Op: k.op, Kind: Unexpected, Status: r.StatusCode, RequestID: c.requestID(r.Header),
			Message: "the response to a random customer id says that the customer exists, want 404"}
	case errors.As(err, &failure) && failure.Kind == NotFound:
		return nil
	}
	return err
}
