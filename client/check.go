package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
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
	id, err := c.newID()
	if err != nil {
		return CheckResult{}, &Error{Op: "check", Kind: Unsendable, Err: err}
	}
	k := call{op: "GET /customers/{id}", method: http.MethodGet, path: "/customers/" + id.String()}
	var result CheckResult
	r, err := c.exchange(ctx, k)
	if err == nil {
		result.Latency = r.took
		err = c.checked(k, r)
	}
	if failure := (*Error)(nil); errors.As(err, &failure) {
		result.Advice = failure.Hint()
	}
	result.ClockSkew, _ = c.skew.read()
	if result.ClockSkew != 0 {
		note := fmt.Sprintf("this machine's clock differs from the partner's by %v: signatures carry the time and may "+
			"be refused; let the clock be set by NTP", result.ClockSkew.Abs().Round(time.Second))
		if result.Advice != "" {
			note = result.Advice + "; " + note
		}
		result.Advice = note
	}
	return result, err
}

// checked is nil when the answer to Check's request is 404.
func (c *Client) checked(k call, r *reply) error {
	if r.StatusCode < 200 || r.StatusCode > 299 {
		if failure := c.refusal(k, r); failure.Kind != NotFound {
			return failure
		}
		return nil
	}
	c.read(r)
	return &Error{Op: k.op, Kind: Unexpected, Status: r.StatusCode, RequestID: c.requestID(r.Header),
		Message: "a customer id made up for this check was answered as if it existed (want 404)"}
}

// skewWatch compares this machine's clock with the partner's Date.
type skewWatch struct {
	mu    sync.Mutex
	skew  time.Duration
	first time.Time
}

// see takes in one answer to a request sent at sent, by this machine's clock, whose header was there after took. It
// returns the skew, and whether it is the first to be noticed.
func (w *skewWatch) see(h http.Header, sent time.Time, took time.Duration) (time.Duration, bool) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil || h.Get("Age") != "" { // RFC 9111 §5.1: from a cache, so not of now
		return 0, false
	}
	// Date has whole seconds, cut off: on average it is half a second late, and so much may be wrong either way.
	skew := sent.Add(took / 2).Sub(date.Add(time.Second / 2))
	if skew.Abs() <= time.Second+time.Second/2+took/2 {
		skew = 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.skew = skew
	if skew == 0 || !w.first.IsZero() {
		return skew, false
	}
	w.first = sent
	return skew, true
}

func (w *skewWatch) read() (time.Duration, time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.skew, w.first
}
