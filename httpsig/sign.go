package httpsig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

const (
	headerInput     = "Signature-Input"
	headerSignature = "Signature"

	scalarLen    = 48 // bytes of r and of s
	signatureLen = 2 * scalarLen
)

// Options configure a Signer.
type Options struct {
	// KeyID is the parameter keyid, by which the verifier finds the public key. Required; printable ASCII.
	KeyID string

	// Components are the covered components, in this order, 1 to 64. A derived component ("@method") is always covered,
	// except "@query" of a request without query. A field, in lower case ("content-type"), is covered if the request has
	// it.
	Components []string

	// Label names the signature in both header fields: a key of RFC 9651 §3.1.2. Default "sig1".
	Label string

	// Now is the clock for the parameter created, which is in whole seconds. Required.
	Now func() time.Time

	// Expires adds the parameter expires, that long after created, in whole seconds. Default 0: no such parameter.
	Expires time.Duration

	// Nonce is called once per signature for the parameter nonce and must return printable ASCII. Default nil: no such
	// parameter.
	Nonce func() string

	// Tag is the parameter tag, which identifies the application (RFC 9421 §2.3), in printable ASCII. Default "": no such
	// parameter.
	Tag string
}

// Signer signs requests. It is safe for concurrent use if Now and Nonce are.
type Signer struct {
	key        *ecdsa.PrivateKey
	components []component
	label      string
	now        func() time.Time
	expires    int64  // seconds; 0: none
	fixed      string // `;keyid="…";alg="…"`, the same in every signature
	tag        string // `;tag="…"`
	nonce      func() string
	size       int // total length of the component identifiers, in bytes
}

// NewSigner returns a Signer for a P-384 key. Errors are *Error with Kind ErrConfig or ErrKey.
func NewSigner(key *ecdsa.PrivateKey, o Options) (*Signer, error) {
	if key == nil || key.Curve != elliptic.P384() {
		return nil, keyError("private key", "want an ECDSA key of the curve P-384", nil)
	}
	if o.KeyID == "" {
		return nil, option("KeyID", "is empty")
	}
	if o.Now == nil {
		return nil, option("Now", "is nil")
	}
	if o.Expires < 0 || (o.Expires > 0 && o.Expires < time.Second) {
		return nil, option("Expires", "must be zero or at least a second")
	}
	components, err := newComponents("Components", o.Components)
	if err != nil {
		return nil, err
	}
	s := &Signer{
		key: key, components: components, label: o.Label, now: o.Now,
		expires: int64(o.Expires / time.Second), nonce: o.Nonce,
	}
	if s.label == "" {
		s.label = "sig1"
	}
	if !isKey(s.label) {
		return nil, option("Label", "must be a lower-case letter or * followed by a-z, 0-9, _, -, . or *")
	}
	keyid, err := sfString(o.KeyID)
	if err != nil {
		return nil, option("KeyID", "is not printable ASCII")
	}
	s.fixed = ";keyid=" + keyid + `;alg="` + Algorithm + `"`
	if o.Tag != "" {
		tag, err := sfString(o.Tag)
		if err != nil {
			return nil, option("Tag", "is not printable ASCII")
		}
		s.tag = ";tag=" + tag
	}
	for _, c := range components {
		s.size += len(c.id) + 1
	}
	return s, nil
}

// Sign signs the request and sets Signature-Input and Signature. It replaces a signature with the Signer's label, so
// that a request can be signed again for another attempt, and keeps signatures with other labels. Set all covered
// fields, such as Content-Digest and Authorization, before and do not change them afterwards. Sign does not read the
// body. Keys of r.Header must be canonical, as Set and Add make them.
//
// Errors are *Error: ErrRequest if a component cannot be derived from the request, ErrMalformed if the fields of
// earlier signatures cannot be parsed, ErrConfig if the nonce is not printable ASCII. The request is then unchanged.
func (s *Signer) Sign(r *http.Request) error {
	from := request{Request: r}
	var room [16]component
	covered := room[:0]
	for _, c := range s.components {
		if from.has(c) && (c.name != "@query" || from.hasQuery()) {
			covered = append(covered, c)
		}
	}
	input, err := s.input(covered)
	if err != nil {
		return err
	}
	base, err := appendBase(make([]byte, 0, 1024), covered, input[len(s.label)+1:], from)
	if err != nil {
		return s.labelled(err)
	}
	value, err := s.sign(base)
	if err != nil {
		return err
	}
	return s.set(r, input, value)
}

// input returns the member of Signature-Input, label=(…);created=…. The part after the equals sign is also in the last
// line of the base.
func (s *Signer) input(covered []component) (string, error) {
	var b strings.Builder
	b.Grow(len(s.label) + s.size + len(s.fixed) + len(s.tag) + 96)
	b.WriteString(s.label)
	b.WriteString("=(")
	for i, c := range covered {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(c.id)
	}
	var digits [20]byte
	created := s.now().Unix()
	b.WriteString(");created=")
	b.Write(strconv.AppendInt(digits[:0], created, 10))
	if s.expires > 0 {
		b.WriteString(";expires=")
		b.Write(strconv.AppendInt(digits[:0], created+s.expires, 10))
	}
	b.WriteString(s.fixed)
	if s.nonce != nil {
		nonce, err := sfString(s.nonce())
		if err != nil {
			return "", s.labelled(parameterError("nonce", ErrConfig, "is not printable ASCII"))
		}
		b.WriteString(";nonce=")
		b.WriteString(nonce)
	}
	b.WriteString(s.tag)
	return b.String(), nil
}

// sign returns the member of Signature, label=:base64:.
func (s *Signer) sign(base []byte) (string, error) {
	digest := sha512.Sum384(base)
	r, sv, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		return "", &Error{Label: s.label, Kind: ErrKey, Problem: "signing failed", Err: err}
	}
	var raw [signatureLen]byte
	r.FillBytes(raw[:scalarLen])
	sv.FillBytes(raw[scalarLen:])
	var b strings.Builder
	b.Grow(len(s.label) + 3 + base64.StdEncoding.EncodedLen(signatureLen))
	b.WriteString(s.label)
	b.WriteString("=:")
	var text [signatureLen / 3 * 4]byte
	base64.StdEncoding.Encode(text[:], raw[:])
	b.Write(text[:])
	b.WriteByte(':')
	return b.String(), nil
}

func (s *Signer) set(r *http.Request, input, value string) error {
	if len(r.Header[headerInput]) > 0 || len(r.Header[headerSignature]) > 0 {
		others, err := s.others(headerInput, r.Header[headerInput])
		if err != nil {
			return err
		}
		input = others + input
		if others, err = s.others(headerSignature, r.Header[headerSignature]); err != nil {
			return err
		}
		value = others + value
	}
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	values := []string{input, value}
	r.Header[headerInput], r.Header[headerSignature] = values[:1:1], values[1:]
	return nil
}

// others returns the members with other labels, with a trailing comma.
func (s *Signer) others(field string, values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	d, err := parseDictionary(field, values)
	if err != nil {
		return "", err
	}
	d.Del(s.label)
	if len(d.Names()) == 0 {
		return "", nil
	}
	text, err := httpsfv.Marshal(d)
	if err != nil {
		return "", &Error{Part: "field", Name: field, Kind: ErrMalformed, Err: err}
	}
	return text + ", ", nil
}

func (s *Signer) labelled(err error) error { return labelled(s.label, err) }

// labelled sets the label of an *Error.
func labelled(label string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Label = label
	}
	return err
}
