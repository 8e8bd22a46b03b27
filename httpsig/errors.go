package httpsig

import (
	"errors"
	"strings"

	"github.com/purser-onboard/purser/printable"
)

// What can be wrong with a signature, a digest or a key. Every error of this package is an *Error that wraps one of
// these.
var (
	// ErrConfig: options that cannot work, found by NewSigner or NewVerifier.
	ErrConfig = errors.New("invalid configuration")
	// ErrKey: a key file that cannot be used.
	ErrKey = errors.New("unusable key")
	// ErrRequest: a request from which a component cannot be derived, such as one without a host.
	ErrRequest = errors.New("request cannot be signed or verified")
	// ErrNoSignature: the request has no signature, or none with the wanted label and tag.
	ErrNoSignature = errors.New("no signature")
	// ErrMalformed: Signature-Input, Signature or Content-Digest is not what its RFC says it is.
	ErrMalformed = errors.New("malformed")
	// ErrMissing: a parameter that must be there is not, or a covered field is not in the request.
	ErrMissing = errors.New("missing")
	// ErrNotCovered: a required component is not covered by the signature.
	ErrNotCovered = errors.New("not covered by the signature")
	// ErrUnsupported: a component, an algorithm or a set of digests that this package does not know.
	ErrUnsupported = errors.New("not supported")
	// ErrUnknownKey: the key function does not give a key for the keyid.
	ErrUnknownKey = errors.New("unknown key")
	// ErrExpired: the time in the parameter expires has passed.
	ErrExpired = errors.New("signature has expired")
	// ErrTooOld: created lies further back than MaxAge.
	ErrTooOld = errors.New("signature is too old")
	// ErrFuture: created lies ahead of the clock by more than Skew.
	ErrFuture = errors.New("signature was created in the future")
	// ErrBadSignature: the signature does not verify: message, parameters, signature or key are not the signed ones.
	ErrBadSignature = errors.New("signature does not verify")
	// ErrDigestMismatch: Content-Digest does not belong to this body.
	ErrDigestMismatch = errors.New("digest does not match the body")
)

// Error says which part of a signature, digest or key is wrong. It names components, parameters and fields, and never
// holds their values, so that credentials a signature covers cannot reach a log this way.
type Error struct {
	Label   string // label of the signature concerned; empty where there is none
	Part    string // "component", "parameter", "field", "option", "key"; empty for the signature as a whole
	Name    string // of the part: "@method", "created", "Content-Digest", "KeyID"
	Kind    error  // one of the sentinels of this package
	Problem string // what is wrong with the part, where Kind does not say it all
	Err     error  // the cause, where there is one
}

// maxName is how much is shown of a name, which may come from a stranger.
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

// Unwrap gives errors.Is and errors.As the kind and the cause.
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
