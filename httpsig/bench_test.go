package httpsig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"math/big"
	"testing"
)

// Sign and Verify against their cryptography alone, SignReference and VerifyReference.

func BenchmarkSign(b *testing.B) {
	r := newRequest(b)
	s := newSigner(b, newKey(b, elliptic.P384()), nil)
	b.ReportAllocs()
	for b.Loop() {
		delete(r.Header, headerInput)
		delete(r.Header, headerSignature)
		if err := s.Sign(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignReference(b *testing.B) {
	key := newKey(b, elliptic.P384())
	base := make([]byte, 600)
	b.ReportAllocs()
	for b.Loop() {
		digest := sha512.Sum384(base)
		if _, _, err := ecdsa.Sign(rand.Reader, key, digest[:]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSignBase is Sign without its cryptography: the signature base and both fields.
func BenchmarkSignBase(b *testing.B) {
	r := newRequest(b)
	s := newSigner(b, newKey(b, elliptic.P384()), nil)
	b.ReportAllocs()
	for b.Loop() {
		from := request{Request: r}
		input, err := s.input(s.components)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := appendBase(make([]byte, 0, 1024), s.components, input[len(s.label)+1:], from); err != nil {
			b.Fatal(err)
		}
		if err := s.set(r, input, input); err != nil {
			b.Fatal(err)
		}
		delete(r.Header, headerInput)
		delete(r.Header, headerSignature)
	}
}

func BenchmarkVerify(b *testing.B) {
	key := newKey(b, elliptic.P384())
	r := newRequest(b)
	if err := newSigner(b, key, nil).Sign(r); err != nil {
		b.Fatal(err)
	}
	v := newVerifier(b, &key.PublicKey, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyReference(b *testing.B) {
	key := newKey(b, elliptic.P384())
	digest := sha512.Sum384(make([]byte, 600))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !ecdsa.Verify(&key.PublicKey, digest[:], new(big.Int).Set(r), new(big.Int).Set(s)) {
			b.Fatal("got a signature that does not verify, want it verified")
		}
	}
}
