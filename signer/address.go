package signer

import (
	"errors"
	"strings"

	"github.com/ethereum/go-ethereum/common"
)

// ParseAddress parses 0x and 40 hex digits; digits of mixed case must be in EIP-55 form. Error texts continue the name
// of the field: "is not 0x and 40 hex digits".
func ParseAddress(s string) (common.Address, error) {
	if !strings.HasPrefix(s, "0x") || !common.IsHexAddress(s) {
		return common.Address{}, errors.New("is not 0x and 40 hex digits")
	}
	address, digits := common.HexToAddress(s), s[2:]
	if digits != strings.ToLower(digits) && digits != strings.ToUpper(digits) && address.Hex() != s {
		return common.Address{}, errors.New("fails its EIP-55 checksum")
	}
	return address, nil
}
