package web3signer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority is a certificate authority for a test.
type authority struct {
	pool   *x509.CertPool  // trusts it
	server tls.Certificate // for 127.0.0.1, signed by it
}

// newAuthority makes an authority and leaves in dir ca.pem, client.pem and client.key, signed by it, and other.pem and
// other.key, signed by themselves.
func newAuthority(t *testing.T, dir string) authority {
	t.Helper()
	root, rootKey := certificate(t, "root", nil, nil)
	writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", root.Raw)
	save := func(name string, c *x509.Certificate, key *ecdsa.PrivateKey) {
		t.Helper()
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		writePEM(t, filepath.Join(dir, name+".pem"), "CERTIFICATE", c.Raw)
		writePEM(t, filepath.Join(dir, name+".key"), "PRIVATE KEY", der)
	}
	client, clientKey := certificate(t, "purser", root, rootKey)
	save("client", client, clientKey)
	other, otherKey := certificate(t, "other", nil, nil)
	save("other", other, otherKey)
	server, serverKey := certificate(t, "web3signer", root, rootKey)
	a := authority{
		pool:   x509.NewCertPool(),
		server: tls.Certificate{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey},
	}
	a.pool.AddCert(root)
	return a
}

// certificate makes a certificate, signed by itself if parent is nil.
func certificate(
	t *testing.T, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey,
) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		IsCA:                  parent == nil,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

func writePEM(t *testing.T, path, kind string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
		t.Fatal(err)
	}
}
