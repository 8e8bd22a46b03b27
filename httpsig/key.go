package httpsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"github.com/purser-onboard/purser/printable"
)

// ParsePrivateKey parses a P-384 private key from PEM, either SEC1 ("EC PRIVATE KEY", the output of openssl ecparam) or
// PKCS#8 ("PRIVATE KEY"). An "EC PARAMETERS" block before it is skipped; a second block is an error, and so is an
// encrypted key. Errors are *Error with Kind ErrKey; their texts do not contain the key.
func ParsePrivateKey(data []byte) (*ecdsa.PrivateKey, error) {
	const want = "private key"
	block, err := onlyBlock(data, want)
	if err != nil {
		return nil, err
	}
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, keyError(want, "the EC PRIVATE KEY block cannot be read", err)
		}
		return privateP384(key)
	case "PRIVATE KEY":
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, keyError(want, "the PRIVATE KEY block cannot be read", err)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok {
			return nil, keyError(want, "is "+kindOf(parsed)+", want ECDSA of the curve P-384", nil)
		}
		return privateP384(key)
	case "PUBLIC KEY":
		return nil, keyError(want, "holds a public key", nil)
	}
	return nil, keyError(want, "holds "+article(block.Type)+", want EC PRIVATE KEY or PRIVATE KEY", nil)
}

// ParsePublicKey parses a P-384 public key from PEM, PKIX ("PUBLIC KEY", the output of openssl ec -pubout). Errors are
// *Error with Kind ErrKey; their texts do not contain the key.
func ParsePublicKey(data []byte) (*ecdsa.PublicKey, error) {
	const want = "public key"
	block, err := onlyBlock(data, want)
	if err != nil {
		return nil, err
	}
	switch {
	case block.Type == "PUBLIC KEY":
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, keyError(want, "the PUBLIC KEY block cannot be read", err)
		}
		key, ok := parsed.(*ecdsa.PublicKey)
		if !ok {
			return nil, keyError(want, "is "+kindOf(parsed)+", want ECDSA of the curve P-384", nil)
		}
		if key.Curve != elliptic.P384() {
			return nil, wrongCurve(want, key.Curve)
		}
		return key, nil
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, keyError(want, "holds a private key; openssl ec -pubout derives the public key from it", nil)
	}
	return nil, keyError(want, "holds "+article(block.Type)+", want PUBLIC KEY", nil)
}

// onlyBlock returns the PEM block that is not EC PARAMETERS; more than one is an error.
func onlyBlock(data []byte, want string) (*pem.Block, error) {
	var found *pem.Block
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		switch {
		case block == nil && found == nil:
			return nil, keyError(want, "is not PEM: it has no line -----BEGIN …-----", nil)
		case block == nil && bytes.Contains(data, []byte("-----BEGIN")):
			return nil, keyError(want, "has a damaged PEM block", nil)
		case block == nil:
			return found, nil
		case block.Type == "EC PARAMETERS" && found == nil:
			continue
		case found != nil:
			return nil, keyError(want, "has more than one PEM block", nil)
		case block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, keyError(want, "the key is encrypted; openssl ec -in FILE -out FILE decrypts it", nil)
		}
		found = block
	}
}

func privateP384(key *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	if key.Curve != elliptic.P384() {
		return nil, wrongCurve("private key", key.Curve)
	}
	return key, nil
}

func wrongCurve(want string, curve elliptic.Curve) error {
	return keyError(want, "is of the curve "+curve.Params().Name+", want P-384", nil)
}

func kindOf(key any) string {
	switch key.(type) {
	case *rsa.PrivateKey, *rsa.PublicKey:
		return "an RSA key"
	case ed25519.PrivateKey, ed25519.PublicKey:
		return "an Ed25519 key"
	}
	return "not an ECDSA key"
}

func article(blockType string) string {
	switch blockType {
	case "CERTIFICATE":
		return "a certificate"
	case "CERTIFICATE REQUEST":
		return "a certificate request"
	}
	return "a block " + printable.Quote(blockType, maxName)
}

func keyError(name, problem string, cause error) error {
	return &Error{Part: "key", Name: name, Kind: ErrKey, Problem: problem, Err: cause}
}
