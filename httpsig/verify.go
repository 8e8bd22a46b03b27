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

// VerifyOptions configure a Verifier.
type VerifyOptions struct {
	// Key returns the P-384 public key for a keyid, which comes from the unauthenticated request. It is called once for
	// each signature tried. With an error or a nil key that signature does not verify. Required.
	Key func(keyid string) (*ecdsa.PublicKey, error)

	// Required are the components that a signature must cover, 1 to 64: a derived component always, a field, in lower
	// case, if the request has it. The caller checks that required fields are present. A signature that covers the parts
	// of "@target-uri" does not thereby cover "@target-uri".
	Required []string

	// RequireTarget requires a signature to cover "@target-uri", or else "@authority", "@path" and, if the request has a
	// query, "@query".
	RequireTarget bool

	// RequiredParams are the parameters that a signature must have, out of created, expires, keyid, alg, nonce and tag.
	RequiredParams []string

	// MaxAge is the maximum age of a signature by its parameter created, which is then required. Default 0: any age. Skew
	// is how far created may be in the future.
	MaxAge, Skew time.Duration

	// Now is the clock. Required.
	Now func() time.Time

	// Label and Tag, if not empty, select signatures by label and by parameter tag (RFC 9421 §3.2). Others are ignored.
	Label, Tag string

	// Scheme is the scheme that clients use, "http" or "https", for a server behind a proxy that ends TLS. Default: https
	// for a request over TLS, otherwise http.
	Scheme string

	// Vendor reads a request as the partner's own server library does, which differs from RFC 9421: "@target-uri" is the
	// received path and query, without scheme and host; "@scheme" is empty; "@authority" keeps the port; in field values
	// white space is collapsed and each comma followed by a single space. All signatures of the request must verify, and
	// may have only parameters of RFC 9421 §2.3. The request must be a received request; Scheme has no effect.
	Vendor bool
}

// Verifier verifies requests. It is safe for concurrent use if Key and Now are.
type Verifier struct {
	o        VerifyOptions
	required []component
}

// Verified describes a verified signature.
type Verified struct {
	Label      string
	KeyID      string
	Components []string  // names of the covered components, in order
	Created    time.Time // zero when absent
	Expires    time.Time // zero when absent
	Nonce, Tag string    // empty when absent
}

// NewVerifier returns a Verifier. Errors are *Error with Kind ErrConfig.
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
				", which is not a parameter of RFC 9421 §2.3")
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

// Verify returns the first signature that verifies and satisfies the options. A request may have at most 8 signatures.
// Verify does not read the body: call VerifyContentDigest as well, and require "content-digest". The request may also
// be outgoing.
//
// The parameter alg, if present, must be ecdsa-p384-sha384, and the key must be a P-384 key. The parameter keyid is
// required. A created in the future, an expires in the past, a duplicate label, parameter or component, and a label in
// only one of the two fields are errors. Both s and n-s satisfy ECDSA and are accepted, so a signature does not
// identify a request uniquely.
//
// Errors are *Error, joined in the order of the signatures if there are several.
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

// check runs the cheap checks first.
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
		return &Error{Kind: ErrBadSignature,
			Problem: fmt.Sprintf("signature has %d bytes, want %d", len(s.value), signatureLen)}
	}
	digest := sha512.Sum384(base)
	scalar := func(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
	if !ecdsa.Verify(key, digest[:], scalar(s.value[:scalarLen]), scalar(s.value[scalarLen:])) {
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
