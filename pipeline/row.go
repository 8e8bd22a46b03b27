package pipeline

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
)

// Account is an EVM account on one chain: a CAIP-10 account id in the eip155 namespace.
type Account struct {
	Chain   uint64 // EIP-155 chain id, at least 1
	Address common.Address
}

// String is the CAIP-10 account id with the address in EIP-55 form, "eip155:300:0x4315…2691". The same account
// always gives the same bytes.
func (a Account) String() string {
	return string(a.AppendTo(make([]byte, 0, 64), checksummed(a.Address)))
}

// AppendTo appends the account id with the address as it is written there, for callers that have its EIP-55 form, which
// String computes.
func (a Account) AppendTo(dst []byte, address AddressText) []byte {
	dst = append(dst, "eip155:"...)
	dst = strconv.AppendUint(dst, a.Chain, 10)
	dst = append(dst, ':')
	return append(dst, address[:]...)
}

// AddressText is an address in hex with its 0x, in EIP-55 form.
type AddressText [2 + 2*common.AddressLength]byte

// ParseAccount reads a CAIP-10 account id of the eip155 namespace. A mixed-case address must carry a right EIP-55
// checksum; all-lower and all-upper case have none to check.
func ParseAccount(id string) (Account, error) {
	account, _, err := ParseAccountText(id, nil)
	return account, err
}

// ParseAccountText is ParseAccount, and gives the address in EIP-55 form, which it needed anyway. known is as in
// ParseAddress.
func ParseAccountText(id string, known *AddressText) (a Account, text AddressText, err error) {
	i := strings.LastIndexByte(id, ':')
	if i < 0 {
		return a, text, errors.New("not a CAIP-10 account id (want eip155:<chain>:<0x address>)")
	}
	chain, err := ParseChain(id[:i])
	if err != nil {
		return a, text, err
	}
	address, text, err := ParseAddress(id[i+1:], known)
	if err != nil {
		return a, text, err
	}
	return Account{Chain: chain, Address: address}, text, nil
}

// ParseChain reads a CAIP-2 chain id of the eip155 namespace, "eip155:300", and returns the EIP-155 chain id.
func ParseChain(id string) (uint64, error) {
	namespace, reference, ok := strings.Cut(id, ":")
	if !ok || strings.Contains(reference, ":") {
		return 0, errors.New("not a CAIP-2 chain id (want eip155:<chain>)")
	}
	if namespace != "eip155" {
		return 0, fmt.Errorf("namespace %s is not supported: only eip155 (EVM) customers can answer a challenge",
			printable.Quote(namespace, 40))
	}
	chain, err := strconv.ParseUint(reference, 10, 63)
	if err != nil || chain == 0 || reference[0] == '0' || reference[0] == '+' {
		return 0, fmt.Errorf("chain reference %s is not a decimal EIP-155 chain id",
			printable.Quote(reference, 40))
	}
	return chain, nil
}

// ParseAddress reads a 20-byte hex address with its 0x prefix, and gives its EIP-55 form. Mixed case must be a right
// EIP-55 checksum. known is what EIP55.Four gave for s; nil: it is worked out.
func ParseAddress(s string, known *AddressText) (address common.Address, text AddressText, err error) {
	if len(s) < 2 || s[0] != '0' || s[1] != 'x' {
		return address, text, prefixError(s)
	}
	digits := s[2:]
	if len(digits) != 2*common.AddressLength {
		return address, text, lengthError(digits)
	}
	// An address that is its own EIP-55 form, as most are, is right in every digit: the loop below, whose branches are
	// unpredictable, is for the others.
	address = digitsOf(digits)
	if known != nil {
		text = *known
	} else {
		text = checksummed(address)
	}
	if string(text[:]) == s {
		return address, text, nil
	}
	var lower, upper bool
	for i := 0; i < len(digits); i++ {
		switch c := digits[i]; {
		case c >= '0' && c <= '9':
		case c >= 'a' && c <= 'f':
			lower = true
		case c >= 'A' && c <= 'F':
			upper = true
		default:
			return common.Address{}, text,
				fmt.Errorf("address has a character that is not a hex digit at position %d", i+3)
		}
	}
	if lower && upper {
		return common.Address{}, text,
			errors.New("address fails its EIP-55 checksum: a character was mistyped or its case changed")
	}
	return address, text, nil
}

// prefixError says what a text without 0x is.
func prefixError(s string) error {
	switch {
	case isScientific(s):
		return errors.New("address is in a spreadsheet's scientific notation: " +
			"its digits are lost")
	case s != "" && isErrorValue(s):
		return errors.New("address is an error value or placeholder of a spreadsheet")
	}
	return errors.New("address does not begin with 0x")
}

// lengthError says what is wrong with the number of digits.
func lengthError(digits string) error {
	const most = 2 * common.AddressLength
	if n := len(digits); n < most && n >= most-8 && strings.Trim(digits, "0123456789abcdefABCDEF") == "" {
		return fmt.Errorf("address has %d hex digits, want 40: were digits cut off, or leading zeros lost?", n)
	}
	return fmt.Errorf("address has %d hex digits, want 40", len(digits))
}

// maxExternalID is the greatest length of an externalId, in bytes.
const maxExternalID = 255

// Row is one line of an export: one customer to onboard. A row is known by its pair (Account, ExternalID).
type Row struct {
	Account    Account
	ExternalID string // the customer's id in our user's system
	ImportID   string // one run of the importer
	File       string // base name of the export, with as much of its path as tells it from others; "-": standard input
	Line       int    // 1-based physical line on which the record begins
}

// Where names the row's place in the export for messages, "customers.csv:17".
func (r Row) Where() string { return fmt.Sprintf("%s:%d", r.File, r.Line) }
