package awskms

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Tags of ASN.1 (X.690, section 8.1.2).
const (
	tagInteger   = 0x02
	tagBitString = 0x03
	tagOID       = 0x06
	tagSequence  = 0x30
)

var errDER = errors.New("malformed DER")

// element splits off the first element of b, which must have tag: lengths are definite and as short as possible (X.690,
// section 10.1). Nothing here is longer than 64 KiB.
func element(b []byte, tag byte) (content, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, fmt.Errorf("%w: cut short", errDER)
	}
	if b[0] != tag {
		return nil, nil, fmt.Errorf("%w: tag %#02x, want %#02x", errDER, b[0], tag)
	}
	n, b := int(b[1]), b[2:]
	if n >= 0x80 {
		octets := n & 0x7f
		if octets == 0 || octets > 2 || len(b) < octets {
			return nil, nil, fmt.Errorf("%w: length of %d octets", errDER, octets)
		}
		n = 0
		for _, c := range b[:octets] {
			n = n<<8 | int(c)
		}
		if n < 0x80 || octets == 2 && n < 0x100 {
			return nil, nil, fmt.Errorf("%w: length %d is written too long", errDER, n)
		}
		b = b[octets:]
	}
	if len(b) < n {
		return nil, nil, fmt.Errorf("%w: %d bytes where %d are announced", errDER, len(b), n)
	}
	return b[:n], b[n:], nil
}

// parseSignature reads ECDSA-Sig-Value ::= SEQUENCE { r INTEGER, s INTEGER } (RFC 3279, section 2.2.3). That both are
// below the group's order is checked by signer.Verified.
func parseSignature(der []byte) (r, s [32]byte, err error) {
	fail := func(err error) ([32]byte, [32]byte, error) {
		return [32]byte{}, [32]byte{}, fmt.Errorf("signature: %w", err)
	}
	pair, rest, err := element(der, tagSequence)
	if err != nil {
		return fail(err)
	}
	if len(rest) > 0 {
		return fail(fmt.Errorf("%w: %d bytes too many", errDER, len(rest)))
	}
	if r, pair, err = natural(pair); err != nil {
		return fail(fmt.Errorf("r: %w", err))
	}
	if s, pair, err = natural(pair); err != nil {
		return fail(fmt.Errorf("s: %w", err))
	}
	if len(pair) > 0 {
		return fail(fmt.Errorf("%w: %d bytes too many within", errDER, len(pair)))
	}
	return r, s, nil
}

// natural reads an INTEGER from 1 to 2^256-1, written as short as possible (X.690, section 8.3.2).
func natural(b []byte) (n [32]byte, rest []byte, err error) {
	digits, rest, err := element(b, tagInteger)
	switch {
	case err != nil:
		return n, nil, err
	case len(digits) == 0:
		return n, nil, fmt.Errorf("%w: an integer of no digits", errDER)
	case digits[0] >= 0x80:
		return n, nil, fmt.Errorf("%w: a negative integer", errDER)
	case len(digits) == 1 && digits[0] == 0:
		return n, nil, fmt.Errorf("%w: zero", errDER)
	case len(digits) > 1 && digits[0] == 0 && digits[1] < 0x80:
		return n, nil, fmt.Errorf("%w: an integer is written too long", errDER)
	}
	if digits[0] == 0 {
		digits = digits[1:]
	}
	if len(digits) > len(n) {
		return n, nil, fmt.Errorf("%w: an integer of %d bytes", errDER, len(digits))
	}
	copy(n[len(n)-len(digits):], digits)
	return n, rest, nil
}

// parsePublicKey returns the address that belongs to a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7; RFC 5480,
// section 2) of a secp256k1 key in uncompressed form, which x509.ParsePKIXPublicKey does not parse because Go does not
// have the curve.
func parsePublicKey(spki []byte) (common.Address, error) {
	fail := func(err error) (common.Address, error) { return common.Address{}, fmt.Errorf("public key: %w", err) }
	info, rest, err := element(spki, tagSequence)
	if err != nil {
		return fail(err)
	}
	if len(rest) > 0 {
		return fail(fmt.Errorf("%w: %d bytes too many", errDER, len(rest)))
	}
	algorithm, info, err := element(info, tagSequence)
	if err != nil {
		return fail(err)
	}
	kind, algorithm, err := element(algorithm, tagOID)
	if err != nil {
		return fail(err)
	}
	if ecPublicKey := []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01}; !bytes.Equal(kind, ecPublicKey) {
		return fail(fmt.Errorf("is of no elliptic curve (algorithm %x)", kind))
	}
	curve, algorithm, err := element(algorithm, tagOID)
	if err != nil {
		return fail(err)
	}
	if secp256k1 := []byte{0x2b, 0x81, 0x04, 0x00, 0x0a}; !bytes.Equal(curve, secp256k1) {
		return fail(fmt.Errorf("is of another curve than secp256k1 (%x)", curve))
	}
	if len(algorithm) > 0 {
		return fail(fmt.Errorf("%w: %d bytes too many in the algorithm", errDER, len(algorithm)))
	}
	bits, info, err := element(info, tagBitString)
	if err != nil {
		return fail(err)
	}
	if len(info) > 0 || len(bits) != 66 || bits[0] != 0 || bits[1] != 4 {
		return fail(errors.New("is no uncompressed point"))
	}
	key, err := crypto.UnmarshalPubkey(bits[1:])
	if err != nil {
		return fail(errors.New("is no point of secp256k1"))
	}
	return crypto.PubkeyToAddress(*key), nil
}
