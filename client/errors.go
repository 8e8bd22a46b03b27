package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Kind sorts failures by what they say about the request, which is what the decision table asks.
type Kind string

// The kinds of failure.
const (
	// NoAnswer: dial error, timeout, dropped connection, an error answer that broke off in the middle, or 408 and 425,
	// by which whoever stands in between says that the request did not get through: the partner may or may not have
	// acted.
	NoAnswer Kind = "no-answer"
	// Malformed: a 2xx answer whose body is truncated, too large or not what it should be. The partner probably acted,
	// but what it said is unknown: treated like NoAnswer, never like success.
	Malformed Kind = "malformed"
	// Invalid: 400, the partner refuses this request's content.
	Invalid Kind = "invalid"
	// RequestSignature: the partner refused the request's own signature, with a fresh token and a clock just measured,
	// whatever the status: 400 with the vendor's text, 401 or 403 that say as much.
	RequestSignature Kind = "request-signature"
	// Unrecognized: a 2xx answer whose body is whole, but not of a shape that this client knows; Err is a *ShapeError.
	// The partner acted; the API does not look as expected.
	Unrecognized Kind = "unrecognized"
	// Unconnectable: no connection can come of these settings, however often it is tried: the server's certificate does
	// not verify, it does not speak TLS, the proxy refuses, or (before the first answer) the host has no address.
	Unconnectable Kind = "unconnectable"
	// Unauthorized: 401 with a fresh token.
	Unauthorized Kind = "unauthorized"
	// Forbidden: 403.
	Forbidden Kind = "forbidden"
	// NotFound: 404.
	NotFound Kind = "not-found"
	// Conflicting: 409, which on a creation has two meanings (rule 5).
	Conflicting Kind = "conflict"
	// KeyReused: 422, the idempotency key is known with another payload.
	KeyReused Kind = "key-reused"
	// Throttled: 429, or 503 with Retry-After. The pace knows already.
	Throttled Kind = "throttled"
	// ServerError: any other 5xx, a gateway's too.
	ServerError Kind = "server-error"
	// Redirected: a 3xx, never followed, because it would carry credentials elsewhere.
	Redirected Kind = "redirected"
	// Unexpected: any other status.
	Unexpected Kind = "unexpected"
	// NoToken: POST /auth/token failed, so the request was not sent (or it was refused with 401 and not sent again);
	// Err is the *Error that says how.
	NoToken Kind = "no-token"
	// Unsendable: the request could not be built or signed; it was not sent.
	Unsendable Kind = "unsendable"
)

// kindOf maps the status of an answer that is not 2xx. retryAfter: the answer has a readable Retry-After.
func kindOf(status int, retryAfter bool) Kind {
	switch status {
	case http.StatusBadRequest:
		return Invalid
	case http.StatusUnauthorized:
		return Unauthorized
	case http.StatusForbidden:
		return Forbidden
	case http.StatusNotFound:
		return NotFound
	case http.StatusRequestTimeout, http.StatusTooEarly:
		return NoAnswer
	case http.StatusConflict:
		return Conflicting
	case http.StatusUnprocessableEntity:
		return KeyReused
	case http.StatusTooManyRequests:
		return Throttled
	case http.StatusServiceUnavailable:
		if retryAfter {
			return Throttled
		}
	}
	switch {
	case status >= 300 && status < 400:
		return Redirected
	case status >= 500 && status < 600:
		return ServerError
	}
	return Unexpected
}

// Error is a failed call of the partner API. It holds no secrets: what the partner echoes of them is struck out.
type Error struct {
	Op         string        // "POST /customers"
	Kind       Kind          //
	Status     int           // HTTP status, 0 without an answer
	Code       string        // the partner's own code or problem type, where the body has one
	Message    string        // the partner's words, one printable line, at most 300 bytes
	RetryAfter time.Duration // from Retry-After, capped at 5 minutes; 0 when absent
	RequestID  string        // the partner's request id header, where there is one
	Err        error         // the cause, where there is one
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	b.WriteString(": ")
	if e.Status != 0 {
		fmt.Fprintf(&b, "HTTP %d", e.Status)
	} else {
		b.WriteString(string(e.Kind))
	}
	if e.Status != 0 && e.Kind == Malformed {
		b.WriteString(" with an unusable body")
	}
	if e.Code != "" {
		fmt.Fprintf(&b, " (%s)", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " [request %s]", e.RequestID)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// settles reports whether the answer says what became of the request, so that another key may follow.
func (e *Error) settles() bool {
	switch e.Kind {
	case Throttled, Unauthorized, RequestSignature, Redirected:
		return false
	}
	return true
}

// Hint says what the operator can do about it, naming the settings of the consumer; empty when that is nothing but to
// wait.
func (e *Error) Hint() string {
	switch e = e.Root(); e.Kind {
	case Unauthorized, Invalid, Forbidden, NotFound:
		switch {
		case e.Op == opToken && e.Kind == NotFound:
			return "the API URL is probably wrong: --api-url must include the version, https://host/v1"
		case e.Op == opToken:
			return "check --api-key and --api-secret-file, and that they belong to this environment (live or sandbox)"
		case e.Kind == Unauthorized:
			return "the token is fresh, so the request signature is the likely reason: check --signing-key, " +
				"--signing-key-id, --signature-components, and this machine's clock"
		case e.Kind == Forbidden:
			return "ask the partner whether this API key may do that, and from this network"
		case e.Kind == Invalid:
			return "check --api-url, and --signature-components, --signature-parameters and --content-digest"
		}
	case KeyReused, Conflicting:
		return "check --api-url: the answer does not fit the request"
	case RequestSignature:
		return "check --signing-key, --signing-key-id, --signature-components, --signature-parameters and this machine's " +
			"clock; `consumer check` looks for a setting that the partner accepts"
	case Unrecognized:
		return "the API does not look as expected: check --api-url, and whether the partner has changed its API"
	case Unconnectable:
		return e.connectionHint()
	case NoAnswer:
		if e.Status == 0 {
			return "check --api-url, the network, and the proxy if there is one (HTTPS_PROXY)"
		}
	case Redirected:
		return "redirects are never followed: set --api-url to where the API really is"
	case Malformed, Unexpected:
		return "--api-url may lead to something other than the API, a proxy's page for instance"
	case Unsendable:
		return "check --signing-key and --signature-components"
	}
	return ""
}

func (e *Error) connectionHint() string {
	switch {
	case errors.As(e.Err, new(*tls.CertificateVerificationError)):
		return "the certificate of the server does not verify: check --api-url, and --api-ca if its authority is your own"
	case errors.As(e.Err, new(*proxyError)):
		return "check the proxy and its user name and password (HTTPS_PROXY, NO_PROXY)"
	case strings.Contains(e.Err.Error(), "proxy"), strings.Contains(e.Err.Error(), "socks"):
		return "check the proxy (HTTPS_PROXY, NO_PROXY)"
	case errors.As(e.Err, new(*net.DNSError)):
		return "the host name has no address: check --api-url"
	}
	return "check the scheme, host and port of --api-url, and the proxy if there is one (HTTPS_PROXY)"
}

// Root is the failure behind NoToken, or the error itself.
func (e *Error) Root() *Error {
	if inner := (*Error)(nil); e.Kind == NoToken && errors.As(e.Err, &inner) {
		return inner
	}
	return e
}

// Passing reports whether the partner, or the network, may recover from it by itself. Any other failure of a request
// whose content is right is about the set-up.
func (e *Error) Passing() bool {
	switch e.Root().Kind {
	case NoAnswer, Malformed, ServerError, Throttled, Conflicting:
		return true
	}
	return false
}
