//go:build kafka

package kafkatest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority for brokers and clients.
type Authority struct {
	CA string // a PEM file with its certificate

	dir    string
	server string // a PEM file with the brokers' key and certificate
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, dir string) *Authority {
	t.Helper()
	a := &Authority{dir: dir, CA: filepath.Join(dir, "ca.pem"), server: filepath.Join(dir, "server.pem"), key: newKey(t)}
	a.cert = template("kafkatest")
	a.cert.IsCA, a.cert.BasicConstraintsValid = true, true
	a.cert.KeyUsage = x509.KeyUsageCertSign
	raw := a.sign(t, a.cert, a.key)
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	a.cert = parsed
	write(t, a.CA, block("CERTIFICATE", raw))

	server, key := template("localhost"), newKey(t)
	server.DNSNames, server.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	write(t, a.server, append(keyBlock(t, key), block("CERTIFICATE", a.sign(t, server, key))...))
	return a
}

// Client makes a key and a certificate with the subject "CN=name". It returns the paths of two PEM files.
func (a *Authority) Client(t testing.TB, name string) (cert, key string) {
	t.Helper()
	client, private := template(name), newKey(t)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, key = filepath.Join(a.dir, name+"-cert.pem"), filepath.Join(a.dir, name+"-key.pem")
	write(t, cert, block("CERTIFICATE", a.sign(t, client, private)))
	write(t, key, keyBlock(t, private))
	return cert, key
}

func (a *Authority) sign(t testing.TB, c *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	raw, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		panic(err) // the system's randomness does not fail
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyBlock(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", raw)
}

func block(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}

func write(t testing.TB, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issuer and audience are the claims iss and aud of the tokens.
const (
	issuer   = "https://issuer.example"
	audience = "kafka"
)

// Issuer signs bearer tokens: JSON Web Tokens, by RS256. The brokers read its public key from a file.
type Issuer struct {
	url string
	key *rsa.PrivateKey
}

func newIssuer(t testing.TB, dir string) *Issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "jwks.json")
	keys := map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256",
		"n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
	}}}
	write(t, path, mustJSON(t, keys))
	return &Issuer{url: "file:" + path, key: key}
}

// Token returns a token for a user that expires after life.
func (i *Issuer) Token(t testing.TB, user string, life time.Duration) string {
	t.Helper()
	now := time.Now()
	signed := encode(mustJSON(t, map[string]string{"alg": "RS256", "kid": "1"})) + "." +
		encode(mustJSON(t, map[string]any{
			"iss": issuer, "sub": user, "aud": audience, "scope": "kafka",
			"iat": now.Add(-time.Minute).Unix(), "exp": now.Add(life).Unix(),
		}))
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encode(signature)
}

func encode(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
