package httpsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func TestKeys(t *testing.T) {
	key, p256 := newKey(t, elliptic.P384()), newKey(t, elliptic.P256())
	sec1 := block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key))(t))
	pkcs8 := block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t))
	public := block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&key.PublicKey))(t))
	params := block("EC PARAMETERS", []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22})

	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))(t)
	certificate := block("CERTIFICATE", der)
	legacy := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("ciphertext"),
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})

	for name, text := range map[string][]byte{
		"SEC1": sec1, "PKCS#8": pkcs8, "SEC1 after EC PARAMETERS": append(bytes.Clone(params), sec1...),
		"with text around": append(append([]byte("Bag Attributes\n  name: x\n"), pkcs8...), "\n\n"...),
	} {
		if got, err := ParsePrivateKey(text); err != nil || !got.Equal(key) {
			t.Errorf("%s: got %v, want the key", name, err)
		}
	}
	if got, err := ParsePublicKey(public); err != nil || !got.Equal(&key.PublicKey) {
		t.Errorf("PKIX: got %v, want the key", err)
	}

	private := func(text []byte) error { k, err := ParsePrivateKey(text); return unlessNil(k == nil, err) }
	publik := func(text []byte) error { k, err := ParsePublicKey(text); return unlessNil(k == nil, err) }
	tests := []struct {
		name  string
		parse func([]byte) error
		text  []byte
		want  string
	}{
		{"empty", private, nil, "not PEM"},
		{"a path", private, []byte("/etc/purser/key.pem"), "not PEM"},
		{"DER", private, must(x509.MarshalPKCS8PrivateKey(key))(t), "not PEM"},
		{"damaged", private, sec1[:len(sec1)-20], "not PEM"},
		{"damaged after a whole one", private, append(bytes.Clone(sec1), sec1[:40]...), "damaged"},
		{"encrypted PKCS#8", private, block("ENCRYPTED PRIVATE KEY", []byte("ciphertext")), "is encrypted"},
		{"encrypted, the old way", private, legacy, "is encrypted"},
		{"certificate", private, certificate, "a certificate"},
		{"request for one", private, block("CERTIFICATE REQUEST", nil), "a certificate request"},
		{"public key", private, public, "holds a public key"},
		{"only parameters", private, params, "not PEM"},
		{"two keys", private, append(bytes.Clone(sec1), pkcs8...), "more than one"},
		{"key with its certificate", private, append(bytes.Clone(pkcs8), certificate...), "more than one"},
		{"P-256 SEC1", private, block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(p256))(t)), "curve P-256"},
		{"P-256 PKCS#8", private, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p256))(t)), "curve P-256"},
		{"RSA PKCS#8", private, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey))(t)), "an RSA key"},
		{"RSA PKCS#1", private, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), `"RSA PRIVATE KEY"`},
		{"Ed25519", private, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(edKey))(t)), "an Ed25519 key"},
		{"garbage SEC1", private, block("EC PRIVATE KEY", []byte("hush-hush")), "cannot be read"},
		{"garbage PKCS#8", private, block("PRIVATE KEY", []byte("hush-hush")), "cannot be read"},
		{"OpenSSH", private, block("OPENSSH PRIVATE KEY", []byte("hush-hush")), `"OPENSSH PRIVATE KEY"`},

		{"empty", publik, nil, "not PEM"},
		{"private key", publik, sec1, "private key; openssl ec -pubout"},
		{"private key PKCS#8", publik, pkcs8, "private key; openssl ec -pubout"},
		{"certificate", publik, certificate, "a certificate"},
		{"P-256", publik, block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&p256.PublicKey))(t)), "curve P-256"},
		{"RSA", publik, block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&rsaKey.PublicKey))(t)), "an RSA key"},
		{"Ed25519", publik, block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(edPublic))(t)), "an Ed25519 key"},
		{"garbage", publik, block("PUBLIC KEY", []byte("hush-hush")), "cannot be read"},
		{"two keys", publik, append(bytes.Clone(public), public...), "more than one"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.parse(test.text)
			if !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want ErrKey with %q", err, test.want)
			}
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("got %v, want an error without the key", err)
			}
		})
	}
}

// unlessNil adds an error if a key is returned together with an error.
func unlessNil(isNil bool, err error) error {
	if err != nil && !isNil {
		return errors.New("a key was returned with an error")
	}
	return err
}

// TestPointOffCurve: a public key that is not a point of the curve does not parse.
func TestPointOffCurve(t *testing.T) {
	key := newKey(t, elliptic.P384())
	der := must(x509.MarshalPKIXPublicKey(&key.PublicKey))(t)
	der[len(der)-1] ^= 1
	var got *ecdsa.PublicKey
	got, err := ParsePublicKey(block("PUBLIC KEY", der))
	if !errors.Is(err, ErrKey) || got != nil {
		t.Errorf("got %v, %v; want ErrKey", got, err)
	}
}
