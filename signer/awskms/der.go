package awskms

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// parseSignature reads ECDSA-Sig-Value ::= SEQUENCE { r INTEGER, s INTEGER } (RFC 3279, section 2.2.3). That both are
// below the group's order is checked by signer.Verified.
func parseSignature(signature []byte) (r, s [32]byte, err error) {
	input := cryptobyte.String(signature)
	var pair cryptobyte.String
	var first, second []byte
	if !input.ReadASN1(&pair, der.SEQUENCE) || !input.Empty() ||
		!pair.ReadASN1Integer(&first) || !pair.ReadASN1Integer(&second) || !pair.Empty() {
		return r, s, fmt.Errorf("signature: its %d bytes are not a pair of natural numbers in DER", len(signature))
	}
	for _, digits := range [][]byte{first, second} {
		switch { // digits has no leading zeros
		case digits[0] == 0:
			return r, s, errors.New("signature: one of its numbers is zero")
		case len(digits) > 32:
			return r, s, fmt.Errorf("signature: one of its numbers has %d bytes, want at most 32", len(digits))
		}
	}
	copy(r[32-len(first):], first)
	copy(s[32-len(second):], second)
	return r, s, nil
}

// parsePublicKey returns the address that belongs to a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7; RFC 5480,
// section 2) of a secp256k1 key in uncompressed form, which x509.ParsePKIXPublicKey does not parse because Go does not
// have the curve.
func parsePublicKey(spki []byte) (common.Address, error) {
	fail := func(err error) (common.Address, error) { return common.Address{}, fmt.Errorf("public key: %w", err) }
	input := cryptobyte.String(spki)
	var info, algorithm cryptobyte.String
	var kind, curve asn1.ObjectIdentifier
	var point []byte
	if !input.ReadASN1(&info, der.SEQUENCE) || !input.Empty() ||
		!info.ReadASN1(&algorithm, der.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&kind) ||
		!info.ReadASN1BitStringAsBytes(&point) || !info.Empty() {
		return fail(errors.New("is not a SubjectPublicKeyInfo in DER"))
	}
	if !kind.Equal(asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}) {
		return fail(fmt.Errorf("is not an elliptic-curve key (algorithm %v)", kind))
	}
	if !algorithm.ReadASN1ObjectIdentifier(&curve) || !algorithm.Empty() {
		return fail(errors.New("does not name its curve"))
	}
	if !curve.Equal(asn1.ObjectIdentifier{1, 3, 132, 0, 10}) {
		return fail(fmt.Errorf("is not on secp256k1 (curve %v)", curve))
	}
	if len(point) != 65 {
		return fail(errors.New("is not an uncompressed point"))
	}
	key, err := crypto.UnmarshalPubkey(point)
	if err != nil {
		return fail(errors.New("is not a point on secp256k1"))
	}
	return crypto.PubkeyToAddress(*key), nil
}
