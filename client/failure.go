package client

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// failed returns the *Error of an answer that is not 2xx, and slows the rate limiter down after a throttled one.
func (c *Client) failed(k call, r *reply) *Error {
	a := c.read(r)
	retryAfter, stated := parseRetryAfter(a.header.Get("Retry-After"), a.header.Get("Date"), c.config.Now())
	e := &Error{Op: k.op, Kind: kindOf(a.status, stated), Status: a.status, RetryAfter: retryAfter,
		RequestID: c.requestID(a.header)}
	e.Code, e.Message = c.words(a.body)
	if !k.token && aboutSignature(k, e) {
		e.Kind = RequestSignature
	}
	if k.key != uuid.Nil && a.broken != nil && e.settles() {
		// A truncated answer to a request that changes something does not say what became of it. The same request under
		// the same key gets the complete answer.
		e.Kind, e.Err = NoAnswer, c.clean(a.broken)
	}
	switch e.Kind {
	case Throttled:
		c.throttled.Add(1)
		c.config.RateLimiter.throttledAt(r.closings, retryAfter)
	case Redirected:
		if target, err := r.Location(); err == nil { // resolved: a Location may be relative (RFC 9110, section 10.2.2)
			e.Message = c.line("to "+target.Scheme+"://"+target.Host+target.Path, mostMessage)
		}
	}
	return e
}

// aboutSignature reports whether an answer seems to be about the signature of the request, not about its content. The
// vendor's server library answers 400 with the text "invalid required signature", its guide has "Invalid request
// signature."; other servers have other texts. The answer to a submission may be about the wallet's signature: there
// only phrases count that cannot mean that one.
func aboutSignature(k call, e *Error) bool {
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

// malformed returns the *Error of a 2xx answer that cannot be used: truncated, or complete and not understood.
func (c *Client) malformed(op string, a answer, err error) *Error {
	if shape := (*shapeError)(nil); errors.As(err, &shape) {
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
		io.ErrUnexpectedEOF, errTimeout, errNotResent, errStuck, errTooLarge, errPart, errReported,
	} {
		if errors.Is(err, broken) {
			e.Kind = Malformed
		}
	}
	return e
}

// errPart is a 206 (RFC 9110 §15.3.7) to a request without a Range.
var errPart = errors.New("the response is only a part")

// unanswered returns the *Error of a request without an answer.
func (c *Client) unanswered(op string, err error) *Error {
	e := &Error{Op: op, Kind: NoAnswer, Err: c.clean(unwrapHTTP2(err))}
	if c.unconnectable(err) {
		e.Kind = Unconnectable
	}
	return e
}

// unwrapHTTP2 returns the failure that net/http's HTTP/2 part describes as a fault of the program, because the request
// has no GetBody (see guard).
func unwrapHTTP2(err error) error {
	text, ok := strings.CutPrefix(err.Error(), "http2: Transport: cannot retry err [")
	if !ok {
		return err
	}
	text, _, _ = strings.Cut(text, "] after Request.Body was written")
	return errors.New(text)
}

// unconnectable reports whether the cause of a failure is a setting, not the network or the partner.
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
		return !c.answered.Load() // later the cause is the name service
	case errors.As(err, &op) && op.Op == "remote error": // a TLS alert
		text := op.Err.Error()
		return strings.Contains(text, "protocol version") || strings.Contains(text, "handshake failure") ||
			strings.Contains(text, "certificate")
	}
	text := err.Error()
	// The server speaks TLS or another protocol, or sends something before the request, which net/http reports like this.
	if strings.Contains(text, "malformed HTTP") || strings.Contains(text, "readLoopPeekFailLocked: %!w(<nil>)") {
		return !c.answered.Load()
	}
	return strings.Contains(text, "tls: server selected unsupported protocol version") ||
		strings.Contains(text, "unsupported protocol scheme") || strings.Contains(text, "unknown scheme") ||
		strings.Contains(text, "invalid proxy") ||
		strings.Contains(text, "socks connect") && strings.Contains(text, "authentication")
}

// requestID returns the id of the exchange in the logs of the partner, or of a server in between.
func (c *Client) requestID(h http.Header) string {
	for _, name := range []string{"X-Request-Id", "X-Correlation-Id", "X-Amzn-Requestid", "Cf-Ray"} {
		if id := h.Get(name); id != "" {
			return c.line(id, 80)
		}
	}
	return ""
}

// parseRetryAfter reads both forms of Retry-After (RFC 9110 §10.2.3). A date counts from the answer's own Date, so
// that a wrong clock here does not matter, or from now if that is absent or invalid. The result is between 0 and
// MaxRetryAfter; stated is false when the header is absent or invalid.
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
