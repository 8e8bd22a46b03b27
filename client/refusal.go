package client

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// refusal turns an answer that is not 2xx into an *Error, and tells the pace when it was throttled.
func (c *Client) refusal(k call, r *reply) *Error {
	a := c.read(r)
	retryAfter, stated := parseRetryAfter(a.header.Get("Retry-After"), a.header.Get("Date"), c.config.Now())
	e := &Error{Op: k.op, Kind: kindOf(a.status, stated), Status: a.status, RetryAfter: retryAfter,
		RequestID: c.requestID(a.header)}
	e.Code, e.Message = c.words(a.body)
	if k.key != uuid.Nil && a.broken != nil && e.settles() {
		// Half an answer to a request that changes something settles nothing. Under the same key the whole one comes.
		e.Kind, e.Err = NoAnswer, c.clean(a.broken)
	}
	switch e.Kind {
	case Throttled:
		c.throttled.Add(1)
		c.config.Pace.throttledIn(r.period, retryAfter)
	case Redirected:
		if target, err := url.Parse(a.header.Get("Location")); err == nil && target.String() != "" {
			e.Message = c.line("to " + target.Scheme + "://" + target.Host + target.Path)
		}
	}
	return e
}

// malformed is for a 2xx answer that cannot be used.
func (c *Client) malformed(op string, a answer, err error) *Error {
	return &Error{Op: op, Kind: Malformed, Status: a.status, RequestID: c.requestID(a.header), Err: c.clean(err)}
}

// requestID finds what the partner, or the infrastructure before it, calls this exchange in its own logs.
func (c *Client) requestID(h http.Header) string {
	for _, name := range []string{"X-Request-Id", "X-Correlation-Id", "X-Amzn-Requestid", "Cf-Ray"} {
		if id := h.Get(name); id != "" {
			return clip(c.line(id), 80)
		}
	}
	return ""
}

// parseRetryAfter reads both forms of Retry-After (RFC 9110 §10.2.3). A date counts from the answer's own Date, or from
// now when there is none that can be read, so that a wrong clock here does not matter. The result is between 0 and
// MaxRetryAfter; stated is false when the header is absent or unreadable.
func parseRetryAfter(value, date string, now time.Time) (pause time.Duration, stated bool) {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0, false
	}
	if value[0] >= '0' && value[0] <= '9' {
		// Seconds are whole by the RFC; some servers send a fraction.
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) || seconds != seconds {
			return 0, false
		}
		return time.Duration(min(seconds, MaxRetryAfter.Seconds()) * float64(time.Second)), true
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if sent, err := http.ParseTime(date); err == nil {
		now = sent
	}
	return min(max(until.Sub(now), 0), MaxRetryAfter), true
}
