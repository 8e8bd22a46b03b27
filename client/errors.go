package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Kind classifies a failure by its meaning for the request. The decision table uses it.
type Kind string

// The kinds of failure.
const (
	// NoAnswer: dial error, timeout, dropped connection, an error answer that was cut off, or a 408, 421 or 425, which
	// comes from a server in between. The partner may have acted on the request or not.
	NoAnswer Kind = "no-answer"
	// Malformed: a 2xx answer whose body is truncated, too large, or reports an error. The partner probably acted on the
	// request, but the result is unknown: treated like NoAnswer, never like success.
	Malformed Kind = "malformed"
	// Invalid: 400, the partner does not accept this request's content.
	Invalid Kind = "invalid"
	// RequestSignature: the partner did not accept the request's own signature, with a fresh token and the clock measured
	// again: 400 with the vendor's text, or 401, 403 or 422 whose text is about a signature.
	RequestSignature Kind = "request-signature"
	// Unrecognized: a 2xx answer whose body is complete, but not of a form that this client knows. The partner acted on
	// the request; the API is not the expected one.
	Unrecognized Kind = "unrecognized"
	// Unconnectable: the settings can never lead to a connection: the server's certificate does not verify, it does not
	// speak TLS, the proxy does not allow it, or (before the first answer) the host has no address.
	Unconnectable Kind = "unconnectable"
	// Unauthorized: 401 with a fresh token.
	Unauthorized Kind = "unauthorized"
	// Forbidden: 403.
	Forbidden Kind = "forbidden"
	// NotFound: 404.
	NotFound Kind = "not-found"
	// Conflicting: 409, which on a creation has two meanings (docs/rules.md, "409 is a question").
	Conflicting Kind = "conflict"
	// KeyReused: 422, the idempotency key was used with another payload.
	KeyReused Kind = "key-reused"
	// Throttled: 429, or 503 with Retry-After. The rate limiter has been slowed down already.
	Throttled Kind = "throttled"
	// ServerError: any other 5xx, a gateway's too.
	ServerError Kind = "server-error"
	// Redirected: a 3xx. It is never followed, because credentials would be sent to another server.
	Redirected Kind = "redirected"
	// Unexpected: any other status.
	Unexpected Kind = "unexpected"
	// NoToken: POST /auth/token failed, so the request was not sent, or not sent again after a 401; Err is the *Error of
	// POST /auth/token.
	NoToken Kind = "no-token"
	// Unsendable: the request could not be built or signed; it was not sent.
	Unsendable Kind = "unsendable"
)

// kindOf returns the kind of an answer that is not 2xx. retryAfter reports whether it has a valid Retry-After.
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
	case http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusTooEarly:
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

// Error is a failed call of the partner API. It contains no secrets: secrets that the partner repeats are redacted.
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

// settles reports whether the response settles the request, so that it may be sent under another key.
func (e *Error) settles() bool {
	switch e.Kind {
	case Throttled, Unauthorized, RequestSignature, Redirected:
		return false
	}
	return true
}

// Hint returns advice for the operator, with the names of the consumer's settings; empty if waiting is all that helps.
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
			return "ask the partner whether this API key is allowed to do this from this network"
		case e.Kind == Invalid:
			return "check --api-url, and --signature-components, --signature-parameters and --content-digest"
		}
	case KeyReused, Conflicting:
		return "check --api-url: the response does not fit the request"
	case RequestSignature:
		return "check --signing-key, --signing-key-id, --signature-components, --signature-parameters and this machine's " +
			"clock; `consumer check` looks for a setting that the partner accepts"
	case Unrecognized:
		return "the API is not the expected one: check --api-url, and whether the partner has changed its API"
	case Unconnectable:
		return e.connectionHint()
	case NoAnswer:
		if e.Status == 0 || e.Status == http.StatusMisdirectedRequest {
			return "check --api-url, the network, and the proxy if there is one (HTTPS_PROXY)"
		}
	case Redirected:
		if e.Status == http.StatusNotModified {
			return "no request was conditional, so a cache answered instead of the API: check --api-url, and the proxy " +
				"if there is one"
		}
		return "redirects are never followed: set --api-url to the URL of the API itself"
	case Malformed, Unexpected:
		return "check --api-url: the response may come from a proxy, not from the API"
	case Unsendable:
		return "check --signing-key and --signature-components"
	}
	return ""
}

func (e *Error) connectionHint() string {
	invalid := x509.CertificateInvalidError{}
	switch {
	case errors.As(e.Err, &invalid) && invalid.Reason == x509.Expired:
		return "either this machine's clock is wrong, or the server's certificate is: check the clock first"
	case errors.As(e.Err, new(*tls.CertificateVerificationError)):
		return "the server's certificate does not verify: check --api-url, and --api-ca if the authority is your own"
	case errors.As(e.Err, new(*proxyError)):
		return "check the proxy and its user name and password (HTTPS_PROXY, NO_PROXY)"
	case strings.Contains(e.Err.Error(), "proxy"), strings.Contains(e.Err.Error(), "socks"):
		return "check the proxy (HTTPS_PROXY, NO_PROXY)"
	case errors.As(e.Err, new(*net.DNSError)):
		return "the host name has no address: check --api-url"
	}
	return "check the scheme, host and port of --api-url, and the proxy if there is one (HTTPS_PROXY)"
}

// Root returns the cause of a NoToken, and any other error itself.
func (e *Error) Root() *Error {
	if inner := (*Error)(nil); e.Kind == NoToken && errors.As(e.Err, &inner) {
		return inner
	}
	return e
}

// Passing reports whether the partner or the network may recover from the failure without a change of the set-up.
func (e *Error) Passing() bool {
	switch e.Root().Kind {
	case NoAnswer, Malformed, ServerError, Throttled, Conflicting:
		return true
	}
	return false
}
