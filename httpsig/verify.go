package httpsig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"time"

	"github.com/purser-onboard/purser/printable"
)

// VerifyOptions say what a Verifier demands.
type VerifyOptions struct {
	// Key gives the P-384 public key of a keyid, which comes from the message and is not to be trusted. It is called
	// once for each signature tried; an error or a nil key refuses that signature.
	Key func(keyid string) (*ecdsa.PublicKey, error)

	// Required are the components a signature must cover to count: derived ones always, a field, written in lower case,
	// when the request has it. That a field be there at all is for the caller to check. "@target-uri" is not taken for
	// covered because its parts are. At least one is needed: a signature that covers nothing says nothing.
	Required []string

	// RequireTarget demands that a signature cover what was asked for: "@target-uri", or "@authority", "@path" and, of a
	// request with a query, "@query".
	RequireTarget bool

	// RequiredParams are the parameters that a signature must have, of created, expires, keyid, alg, nonce and tag.
	RequiredParams []string

	// MaxAge, when positive, refuses signatures whose created lies further back, or is absent. Skew is how far created
	// may lie ahead of the clock.
	MaxAge, Skew time.Duration

	// Now is the clock; it must not be nil.
	Now func() time.Time

	// Label and Tag, when not empty, choose among the signatures of a request: only one with this label and this
	// parameter tag is looked at (RFC 9421 §3.2).
	Label, Tag string

	// Scheme is "http" or "https" as clients see it, for a server behind a proxy that ends TLS. Empty: https when the
	// request came over TLS, else http.
	Scheme string

	// Vendor reads a request as the partner's own server library does, not as RFC 9421 says: "@target-uri" is the path
	// and the query as the server received them, without scheme and host; "@scheme" is empty; "@authority" keeps the port
	// as it was sent; in the values of fields white space is collapsed and one space put behind each comma. Every
	// signature of the request must count then, not only one, and parameters that RFC 9421 §2.3 does not name are
	// refused. The request must be one that was received; Scheme has no effect.
	Vendor bool
}

// Verifier verifies requests. It may be used by many goroutines at once, provided that Key and Now may.
type Verifier struct {
	o        VerifyOptions
	required []component
}

// Verified is what a good signature says.
type Verified struct {
	Label      string
	KeyID      string
	Components []string  // names of the covered components in their order
	Created    time.Time // zero when absent
	Expires    time.Time // zero when absent
	Nonce, Tag string    // empty when absent
}

// NewVerifier checks the options. Errors are *Error with Kind ErrConfig.
func NewVerifier(o VerifyOptions) (*Verifier, error) {
	switch {
	case o.Key == nil:
		return nil, option("Key", "is nil")
	case o.Now == nil:
		return nil, option("Now", "is nil")
	case o.MaxAge < 0:
		return nil, option("MaxAge", "is negative")
	case o.Skew < 0:
		return nil, option("Skew", "is negative")
	case o.Scheme != "" && o.Scheme != "http" && o.Scheme != "https":
		return nil, option("Scheme", "is neither http nor https")
	}
	for _, name := range o.RequiredParams {
		if !slices.Contains(knownParams(), name) {
			return nil, option("RequiredParams", "lists "+printable.Quote(name, maxName)+
				", which is no parameter of RFC 9421 §2.3")
		}
	}
	required, err := newComponents("Required", o.Required)
	if err != nil {
		return nil, err
	}
	return &Verifier{o: o, required: required}, nil
}

// knownParams are the parameters of RFC 9421 §2.3.
func knownParams() []string { return []string{"created", "expires", "keyid", "alg", "nonce", "tag"} }

// Verify looks for a signature that covers what is required, is young enough and verifies, and returns the first. At
// most eight are tried. The body is not read: call VerifyContentDigest as well, and require "content-digest".
//
// The algorithm must be ecdsa-p384-sha384, by the parameter alg where it is present and by the key in any case; keyid
// must be present; a created in the future, an expires that has passed, a label or parameter given twice, a component
// covered twice, and a label in only one of the two fields are refused. Of the two values s and n-s, which both satisfy
// ECDSA, either is accepted: a signature is no unique name of a request.
//
// Errors are *Error; with several signatures, the first's, then the others'. Verify may be called on requests to be
// sent as well.
func (v *Verifier) Verify(r *http.Request) (Verified, error) {
	names, inputs, values, err := labels(r.Header[headerInput], r.Header[headerSignature])
	if err != nil {
		return Verified{}, err
	}
	var from message = request{Request: r, outer: v.o.Scheme}
	if v.o.Vendor {
		from = served{r}
	}
	var good *Verified
	var failure error
	for _, label := range names {
		if v.o.Label != "" && label != v.o.Label {
			continue
		}
		input, _ := inputs.Get(label)
		value, _ := values.Get(label)
		s, err := readSignature(label, input, value)
		if err == nil {
			if v.o.Tag != "" && (s.tag == nil || *s.tag != v.o.Tag) {
				continue
			}
			if err = v.check(s, from); err == nil {
				if good == nil {
					good = s.verified()
				}
				if v.o.Vendor {
					continue
				}
				return *good, nil
			}
			err = labelled(label, err)
		}
		if failure == nil {
			failure = err
		} else {
			failure = fmt.Errorf("%w; %w", failure, err)
		}
	}
	if failure == nil && good != nil {
		return *good, nil
	}
	if failure == nil {
		failure = &Error{Kind: ErrNoSignature, Problem: "no signature with the wanted label and tag"}
	}
	return Verified{}, failure
}

// check goes from what is cheap to what is dear.
func (v *Verifier) check(s signature, from message) error {
	if s.alg != nil && *s.alg != Algorithm {
		return parameterError("alg", ErrUnsupported, "is not "+Algorithm)
	}
	if s.keyid == nil {
		return parameterError("keyid", ErrMissing, "is missing")
	}
	if err := v.checkParams(s); err != nil {
		return err
	}
	if err := v.checkTime(s); err != nil {
		return err
	}
	if err := v.checkCovered(s, from); err != nil {
		return err
	}
	base, err := appendBase(make([]byte, 0, 1024), s.components, s.params, from)
	if err != nil {
		return err
	}
	key, err := v.o.Key(*s.keyid)
	if err != nil || key == nil {
		return &Error{Part: "parameter", Name: "keyid", Kind: ErrUnknownKey, Err: err}
	}
	if key.Curve != elliptic.P384() {
		return parameterError("keyid", ErrUnknownKey, "names a key that is not of the curve P-384")
	}
	if len(s.value) != signatureLen {
		return &Error{Kind: ErrBadSignature, Problem: fmt.Sprintf("signature has %d bytes, want %d (r and s of %d each)",
			len(s.value), signatureLen, scalarLen)}
	}
	if !verifyP384(key, base, s.value) {
		return &Error{Kind: ErrBadSignature}
	}
	return nil
}

func (v *Verifier) checkParams(s signature) error {
	for _, name := range v.o.RequiredParams {
		if !slices.Contains(s.given, name) {
			return parameterError(name, ErrMissing, "is missing")
		}
	}
	if !v.o.Vendor {
		return nil
	}
	for _, name := range s.given {
		if !slices.Contains(knownParams(), name) {
			return parameterError(name, ErrUnsupported, "")
		}
	}
	return nil
}

func (v *Verifier) checkCovered(s signature, from message) error {
	for _, c := range v.required {
		if !covers(s.components, c.id) && from.has(c) {
			return componentError(c.name, ErrNotCovered, "")
		}
	}
	if !v.o.RequireTarget || covers(s.components, `"@target-uri"`) {
		return nil
	}
	for _, name := range []string{"@authority", "@path", "@query"} {
		if !covers(s.components, `"`+name+`"`) && (name != "@query" || from.hasQuery()) {
			return componentError(name, ErrNotCovered, "neither it nor @target-uri is covered by the signature")
		}
	}
	return nil
}

func (v *Verifier) checkTime(s signature) error {
	now := v.o.Now()
	if !s.expires.IsZero() {
		if !s.created.IsZero() && s.expires.Before(s.created) {
			return parameterError("expires", ErrMalformed, "lies before created")
		}
		if now.After(s.expires) {
			return parameterError("expires", ErrExpired, "")
		}
	}
	if s.created.IsZero() {
		if v.o.MaxAge > 0 {
			return parameterError("created", ErrMissing, "is missing")
		}
		return nil
	}
	if s.created.After(now.Add(v.o.Skew)) {
		return parameterError("created", ErrFuture, "")
	}
	if v.o.MaxAge > 0 && now.Sub(s.created) > v.o.MaxAge {
		return parameterError("created", ErrTooOld, "")
	}
	return nil
}

// verifyP384 verifies r || s (RFC 9421 §3.3.5); crypto/ecdsa refuses what is not between 1 and n-1.
func verifyP384(key *ecdsa.PublicKey, base, raw []byte) bool {
	digest := sha512.Sum384(base)
	r := new(big.Int).SetBytes(raw[:scalarLen])
	s := new(big.Int).SetBytes(raw[scalarLen:])
	return ecdsa.Verify(key, digest[:], r, s)
}

func (s signature) verified() *Verified {
	v := &Verified{Label: s.label, KeyID: *s.keyid, Created: s.created, Expires: s.expires}
	for _, c := range s.components {
		v.Components = append(v.Components, c.name)
	}
	if s.nonce != nil {
		v.Nonce = *s.nonce
	}
	if s.tag != nil {
		v.Tag = *s.tag
	}
	return v
}
