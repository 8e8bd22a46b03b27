package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/purser-onboard/purser/signer"
)

// mostDetail is how many bytes are kept of the signer's own text.
const mostDetail = 400

// StatusError is an HTTP status other than 200. It wraps signer.ErrUnusable for 401, 403 and redirects.
type StatusError struct {
	Endpoint string // "https://host:port"
	Status   int
	Detail   string // the body's beginning, one line; empty for a 2xx, which may have a signature
	// RetryAfter is how long the signer asks us to wait, at most five minutes; 0 if it does not say.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s answers %d %s", e.Endpoint, e.Status, http.StatusText(e.Status))
	if e.Status >= 300 && e.Status < 400 {
		return text + ", which is not followed: name the final address"
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// Unwrap returns signer.ErrUnusable, or nil.
func (e *StatusError) Unwrap() error {
	switch {
	case e.Status >= 300 && e.Status < 400, e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return signer.ErrUnusable
	}
	return nil
}

// Throttled reports whether the signer, or a proxy before it, throttles us, or is busy and says for how long; after is
// zero if it does not say.
func (e *StatusError) Throttled() (after time.Duration, yes bool) {
	yes = e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable && e.RetryAfter > 0
	return e.RetryAfter, yes
}

// mostRetryAfter bounds the wait that a Retry-After asks for.
const mostRetryAfter = 5 * time.Minute

// RetryAfter parses the Retry-After header: seconds, or a date (RFC 9110, section 10.2.3), which is compared with the
// response's own Date, because the clocks may differ. It returns at most five minutes, and zero if the header is absent
// or invalid.
func RetryAfter(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, mostRetryAfter)
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	sent, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return min(max(until.Sub(sent), 0), mostRetryAfter)
}

// RPCError is an error that the signer returned for a call (JSON-RPC 2.0, section 5.1).
type RPCError struct {
	Endpoint string // "http://host:port" or "unix:/path"
	Method   string
	Code     int
	Message  string // one line
}

// MethodNotFound is the RPCError.Code for a method that the server does not have.
const MethodNotFound = -32601

func (e *RPCError) Error() string {
	return fmt.Sprintf("%s answers %s with error %d: %s", e.Endpoint, e.Method, e.Code, e.Message)
}

// Unusable wraps the error of a call that opens or checks a backend in signer.ErrUnusable: during a run, a signer that
// cannot be reached is a transient error, but a run cannot begin without it. When ctx has ended, it returns err itself.
func Unusable(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, signer.ErrUnusable) {
		return err
	}
	return fmt.Errorf("%w: %w", signer.ErrUnusable, err)
}

// explain adds the signer's name and the cause to err. inner is ctx with our own time limit.
func explain(ctx, inner context.Context, name string, err error) error {
	var status *StatusError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, ctx.Err())
	case inner.Err() != nil: // our own time limit, not the end of ctx
		return fmt.Errorf("%s: no response within %v", name, patience)
	case errors.As(err, &status):
		return err
	case isCertificateError(err):
		return fmt.Errorf("%w: %s: %w", signer.ErrUnusable, name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// isCertificateError reports whether one side did not accept the other's certificate (RFC 8446, section 6.2).
func isCertificateError(err error) bool {
	var theirs *tls.CertificateVerificationError
	if errors.As(err, &theirs) {
		return true
	}
	var alert tls.AlertError
	if !errors.As(err, &alert) {
		return false
	}
	switch alert {
	case 42, 43, 44, 45, 46, 48, 49, 116: // the certificate ones, unknown_ca, access_denied, certificate_required
		return true
	}
	return false
}
