package httpsig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"io"
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

// Options say what a Signer signs and how it says so.
type Options struct {
	// KeyID is the parameter keyid, by which the verifier finds the public key. It must be printable ASCII and not empty.
	KeyID string

	// Components are the covered components, in this order. Derived components ("@method") are always covered, "@query"
	// only when the request has a query; a field, written in lower case ("content-type"), is covered when the request has
	// it. At least one is needed, and at most 64.
	Components []string

	// Label names the signature in the two header fields; it is a key in the sense of RFC 9651 §3.1.2. Default "sig1".
	Label string

	// Now is the clock for the parameter created, which has whole seconds; it must not be nil.
	Now func() time.Time

	// Rand is handed to crypto/ecdsa; nil means crypto/rand.Reader. Since Go 1.26 the standard library draws its own
	// randomness for ECDSA and does not read from it.
	Rand io.Reader

	// Expires, when positive, adds the parameter expires, that long after created. It counts in whole seconds.
	Expires time.Duration

	// Nonce, when set, is called once per signature for the parameter nonce; its answer must be printable ASCII.
	Nonce func() string

	// Tag, when not empty, is the parameter tag, which tells applications apart (RFC 9421 §2.3). Printable ASCII.
	Tag string
}

// Signer signs requests. It may be used by many goroutines at once, provided that Now, Nonce and Rand may.
type Signer struct {
	key        *ecdsa.PrivateKey
	components []component
	label      string
	now        func() time.Time
	rand       io.Reader
	expires    int64  // seconds; 0: none
	fixed      string // `;keyid="…";alg="…"`, the parameters that never change
	tag        string // `;tag="…"`
	nonce      func() string
	size       int // bytes of all component identifiers
}

// NewSigner checks the options and prepares what is the same in every signature. The key must be of the curve P-384.
// Errors are *Error with Kind ErrConfig or ErrKey.
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
		key: key, components: components, label: o.Label, now: o.Now, rand: o.Rand,
		expires: int64(o.Expires / time.Second), nonce: o.Nonce,
	}
	if s.label == "" {
		s.label = "sig1"
	}
	if !isKey(s.label) {
		return nil, option("Label", "must be a lower-case letter or * followed by a-z, 0-9, _, -, . or *")
	}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	keyid, ok := sfString(o.KeyID)
	if !ok {
		return nil, option("KeyID", "is not printable ASCII")
	}
	s.fixed = ";keyid=" + keyid + `;alg="` + Algorithm + `"`
	if o.Tag != "" {
		tag, ok := sfString(o.Tag)
		if !ok {
			return nil, option("Tag", "is not printable ASCII")
		}
		s.tag = ";tag=" + tag
	}
	for _, c := range components {
		s.size += len(c.id) + 1
	}
	return s, nil
}

// Sign signs the request as it stands and sets Signature-Input and Signature. A signature with the Signer's label is
// replaced, so that a request may be signed again for another attempt; those with other labels are kept. Everything
// that is covered, Content-Digest and Authorization above all, must have been set before and must not change after.
// The body is not read. Keys of r.Header must be canonical, as Set and Add make them.
//
// Errors are *Error: ErrRequest when a component cannot be derived from the request, ErrMalformed when fields of
// earlier signatures cannot be read. The request is left as it was then.
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

// input writes this signature's member of Signature-Input, label=(…);created=…, whose part after the equals sign is
// also the last line of the base.
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
		nonce, ok := sfString(s.nonce())
		if !ok {
			return "", s.labelled(parameterError("nonce", ErrConfig, "is not printable ASCII"))
		}
		b.WriteString(";nonce=")
		b.WriteString(nonce)
	}
	b.WriteString(s.tag)
	return b.String(), nil
}

// sign writes this signature's member of Signature: label=:base64:.
func (s *Signer) sign(base []byte) (string, error) {
	digest := sha512.Sum384(base)
	r, sv, err := ecdsa.Sign(s.rand, s.key, digest[:])
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

// others gives the members with other labels, ready to be put before ours.
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

// labelled tells an error which signature it is about.
func labelled(label string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Label = label
	}
	return err
}
