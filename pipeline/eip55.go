package pipeline

import (
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/cloudflare/circl/simd/keccakf1600"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// checksummed is common.Address.Hex without its allocations.
func checksummed(a common.Address) AddressText {
	text := lower(a)
	sum := crypto.Keccak256Hash(text[2:])
	text.capitalise(sum[:])
	return text
}

// lower is an address with lower-case digits.
func lower(a common.Address) (text AddressText) {
	hex.Encode(text[copy(text[:], "0x"):], a[:])
	return text
}

// capitalise makes a lower-case address one in EIP-55 form: a letter is upper case where the hash of the digits has the
// high bit of its nibble set. Without a branch, which would be unpredictable: a letter has the bit 0x40, and an
// upper-case one lacks the bit 0x20.
func (t *AddressText) capitalise(sum []byte) {
	for i, c := range t[2:] {
		t[2+i] = c ^ (c>>1)&(sum[i/2]<<(4*(i%2))>>2)&0x20
	}
}

// digitsOf reads 40 hex digits. Other characters give any address.
func digitsOf(digits string) (a common.Address) {
	for i := 0; i < len(a); i++ {
		high, low := digits[2*i], digits[2*i+1]
		a[i] = high&0x0f + 9*(high>>6)
		a[i] = a[i]<<4 | low&0x0f + 9*(low>>6)
	}
	return a
}

// EIP55 computes the EIP-55 forms of addresses, four at a time: the hash is most of the cost of an importer's row, and
// with AVX2 four hashes take little longer than one. The zero value is ready to use. Not safe for concurrent use.
type EIP55 struct{ state keccakf1600.StateX4 }

// The number of 64-bit words of a Keccak state, and of what Keccak-256 takes in at once (FIPS 202; padded as in the
// original submission, with 0x01).
const (
	stateWords = 25
	rateWords  = 136 / 8
)

// Four returns the EIP-55 forms of the addresses in four texts; an address may follow the chain of a CAIP-10 account
// id. The result for a text without an address is meaningless.
func (e *EIP55) Four(texts *[4]string) (forms [4]AddressText) {
	const side = len(texts)
	words := e.state.Initialize(false)
	clear(words)
	for n, s := range texts {
		s = s[strings.LastIndexByte(s, ':')+1:]
		if len(s) != len(forms[n]) {
			continue
		}
		forms[n] = lower(digitsOf(s[2:]))
		digits := forms[n][2:]
		for w := range len(digits) / 8 {
			words[side*w+n] = binary.LittleEndian.Uint64(digits[8*w:])
		}
		words[side*(len(digits)/8)+n] = 1
		words[side*(rateWords-1)+n] = 1 << 63
	}
	e.state.Permute()
	var sum [32]byte
	for n := range forms {
		for w := range len(sum) / 8 {
			binary.LittleEndian.PutUint64(sum[8*w:], words[side*w+n])
		}
		forms[n].capitalise(sum[:])
	}
	return forms
}
