package httpsig

import (
	"errors"
	"strings"

	"github.com/purser-onboard/purser/printable"
)

// The kinds of errors. Every error of this package is an *Error, or several joined, that wraps its kind.
var (
	// ErrConfig: invalid options.
	ErrConfig = errors.New("invalid configuration")
	// ErrKey: a key or key file that cannot be used.
	ErrKey = errors.New("unusable key")
	// ErrRequest: a request from which a component cannot be derived, such as one without a host.
	ErrRequest = errors.New("request cannot be signed or verified")
	// ErrNoSignature: the request has no signature, or none with the wanted label and tag.
	ErrNoSignature = errors.New("no signature")
	// ErrMalformed: Signature-Input, Signature or Content-Digest violates its RFC.
	ErrMalformed = errors.New("malformed")
	// ErrMissing: a required parameter is absent, or a covered field is not in the request.
	ErrMissing = errors.New("missing")
	// ErrNotCovered: a required component is not covered by the signature.
	ErrNotCovered = errors.New("not covered by the signature")
	// ErrUnsupported: a component, an algorithm or a set of digests that this package does not support.
	ErrUnsupported = errors.New("not supported")
	// ErrUnknownKey: VerifyOptions.Key has no usable key for the keyid.
	ErrUnknownKey = errors.New("unknown key")
	// ErrExpired: the time in the parameter expires has passed.
	ErrExpired = errors.New("signature has expired")
	// ErrTooOld: created is further in the past than MaxAge.
	ErrTooOld = errors.New("signature is too old")
	// ErrFuture: created is further in the future than Skew.
	ErrFuture = errors.New("signature was created in the future")
	// ErrBadSignature: message, parameters, signature and key do not belong together.
	ErrBadSignature = errors.New("signature does not verify")
	// ErrDigestMismatch: Content-Digest does not match the body.
	ErrDigestMismatch = errors.New("digest does not match the body")
)

// Error reports which part of a signature, digest or key is wrong. It names components, parameters and fields but never
// contains their values, so that covered credentials do not reach a log.
type Error struct {
	Label   string // label of the signature concerned; may be empty
	Part    string // "component", "parameter", "field", "option", "key"; empty for the signature as a whole
	Name    string // of the part: "@method", "created", "Content-Digest", "KeyID"
	Kind    error  // one of the sentinels of this package
	Problem string // details that Kind does not have; may be empty
	Err     error  // the cause; may be nil
}

// maxName bounds the length, in bytes, of a name in an error: it may come from an unauthenticated request.
const maxName = 64

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("httpsig: ")
	if e.Label != "" {
		b.WriteString("signature " + printable.Quote(e.Label, maxName) + ": ")
	}
	if e.Part != "" {
		b.WriteString(e.Part + " " + printable.Quote(e.Name, maxName) + ": ")
	}
	if e.Problem != "" {
		b.WriteString(e.Problem)
	} else {
		b.WriteString(e.Kind.Error())
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the kind and, if there is one, the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

func option(name, problem string) error {
	return &Error{Part: "option", Name: name, Kind: ErrConfig, Problem: problem}
}

func componentError(name string, kind error, problem string) error {
	return &Error{Part: "component", Name: name, Kind: kind, Problem: problem}
}

func parameterError(name string, kind error, problem string) error {
	return &Error{Part: "parameter", Name: name, Kind: kind, Problem: problem}
}
