package client

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
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
	if !k.token && refusesSignature(k, e) {
		e.Kind = RequestSignature
	}
	if k.key != uuid.Nil && a.broken != nil && e.settles() {
		// Half an answer to a request that changes something settles nothing. Under the same key the whole one comes.
		e.Kind, e.Err = NoAnswer, c.clean(a.broken)
	}
	switch e.Kind {
	case Throttled:
		c.throttled.Add(1)
		c.config.RateLimiter.throttledAt(r.closings, retryAfter)
	case Redirected:
		if target, err := url.Parse(a.header.Get("Location")); err == nil && target.String() != "" {
			e.Message = c.line("to "+target.Scheme+"://"+target.Host+target.Path, mostMessage)
		}
	}
	return e
}

// refusesSignature reports whether an answer seems to be about the signature of the request, not about its content. The
// vendor's server library answers 400 with the text "invalid required signature", its guide has "Invalid request
// signature."; others say it in other words. The answer to a submission may be about the wallet's signature: there only
// words count that cannot mean that one.
func refusesSignature(k call, e *Error) bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity:
	default:
		return false
	}
	words := strings.ToLower(e.Code + " " + e.Message)
	if !strings.HasSuffix(k.path, pathSign) {
		return strings.Contains(words, "signature")
	}
	for _, phrase := range []string{
		"required signature", "request signature", "request_signature", "http signature", "http message signature",
		"signature-input", "signature input", "signature header",
	} {
		if strings.Contains(words, phrase) {
			return true
		}
	}
	return false
}

// malformed is for a 2xx answer that cannot be used: broken off, or whole and not understood.
func (c *Client) malformed(op string, a answer, err error) *Error {
	if shape := (*ShapeError)(nil); errors.As(err, &shape) {
		shape.Want = c.redact(shape.Want)
		for i, name := range shape.Have { // before it is quoted in the error's text
			shape.Have[i] = c.redact(name)
		}
	}
	e := &Error{Op: op, Kind: Unrecognized, Status: a.status, RequestID: c.requestID(a.header), Err: c.clean(err)}
	if a.broken != nil || errors.Is(err, ErrUnproven) {
		e.Kind = Malformed
	}
	for _, broken := range []error{
		io.ErrUnexpectedEOF, errTimeout, errNotResent, errStuck, errTooLarge, errPart, errTold,
	} {
		if errors.Is(err, broken) {
			e.Kind = Malformed
		}
	}
	return e
}

// errPart is an answer that is a part of one (RFC 9110 §15.3.7), which was not asked for.
var errPart = errors.New("the answer is a part only")

// unanswered is for a request that met no answer.
func (c *Client) unanswered(op string, err error) *Error {
	e := &Error{Op: op, Kind: NoAnswer, Err: c.clean(err)}
	if c.unconnectable(err) {
		e.Kind = Unconnectable
	}
	return e
}

// unconnectable reports whether the failure lies in the settings and not in the network or the partner.
func (c *Client) unconnectable(err error) bool {
	var (
		dns   *net.DNSError
		op    *net.OpError
		proxy *proxyError
		plain tls.RecordHeaderError
	)
	switch {
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, &plain),
		errors.Is(err, http.ErrSchemeMismatch):
		return true
	case errors.As(err, &proxy):
		return proxy.status < 500 && proxy.status != http.StatusTooManyRequests
	case errors.As(err, &dns) && dns.IsNotFound:
		return !c.answered.Load() // later it is the name service's trouble
	case errors.As(err, &op) && op.Op == "remote error": // a TLS alert
		text := op.Err.Error()
		return strings.Contains(text, "protocol version") || strings.Contains(text, "handshake failure") ||
			strings.Contains(text, "certificate")
	}
	text := err.Error()
	// What is there speaks TLS, or something else altogether; or it speaks first, which net/http words like this.
	if strings.Contains(text, "malformed HTTP") || strings.Contains(text, "readLoopPeekFailLocked: %!w(<nil>)") {
		return !c.answered.Load()
	}
	return strings.Contains(text, "tls: server selected unsupported protocol version") ||
		strings.Contains(text, "unsupported protocol scheme") || strings.Contains(text, "unknown scheme") ||
		strings.Contains(text, "invalid proxy") ||
		strings.Contains(text, "socks connect") && strings.Contains(text, "authentication")
}

// requestID finds what the partner, or the infrastructure before it, calls this exchange in its own logs.
func (c *Client) requestID(h http.Header) string {
	for _, name := range []string{"X-Request-Id", "X-Correlation-Id", "X-Amzn-Requestid", "Cf-Ray"} {
		if id := h.Get(name); id != "" {
			return c.line(id, 80)
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
