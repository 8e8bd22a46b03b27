package remote

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/signer"
)

const (
	// MostSignature limits a response with a signature: 132 bytes and the JSON around them.
	MostSignature = 64 << 10
	// MostList bounds an answer that lists accounts or keys: 1.4 million addresses, 480,000 public keys.
	MostList = 64 << 20
)

// Data returns 0x and the hex digits of b, the encoding of bytes in the Ethereum APIs.
func Data(b []byte) string { return "0x" + hex.EncodeToString(b) }

// ParseSignature reads 0x and 130 hex digits: r, s and v.
func ParseSignature(text string) (signer.Signature, error) {
	var sig signer.Signature
	digits, ok := strings.CutPrefix(text, "0x")
	if !ok || len(digits) != 2*len(sig) {
		return sig, errors.New("the signature is not 0x and 130 hex digits")
	}
	if _, err := hex.Decode(sig[:], []byte(digits)); err != nil {
		return signer.Signature{}, errors.New("the signature is not 0x and 130 hex digits")
	}
	return sig, nil
}

// addressSet reads a list of addresses, each 0x and 40 hex digits of any case. An address that is listed twice is there
// once.
func addressSet(list []string) (map[common.Address]struct{}, error) {
	set := make(map[common.Address]struct{}, len(list))
	for i, text := range list {
		if !strings.HasPrefix(text, "0x") || !common.IsHexAddress(text) {
			return nil, fmt.Errorf("entry %d of the list of accounts is not 0x and 40 hex digits", i+1)
		}
		set[common.HexToAddress(text)] = struct{}{}
	}
	return set, nil
}
