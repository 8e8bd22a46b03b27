package siwe

import (
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
)

// MaxLength is the greatest length of a message that Parse accepts, in bytes.
const MaxLength = 8 << 10

// The names of the fields, as the grammar of ERC-4361 has them, for ParseError.Field and PolicyError.Field.
const (
	FieldText           = "text" // the message as a whole, or a line that belongs to no field
	FieldScheme         = "scheme"
	FieldDomain         = "domain"
	FieldAddress        = "address"
	FieldStatement      = "statement"
	FieldURI            = "uri"
	FieldVersion        = "version"
	FieldChainID        = "chain-id"
	FieldNonce          = "nonce"
	FieldIssuedAt       = "issued-at"
	FieldExpirationTime = "expiration-time"
	FieldNotBefore      = "not-before"
	FieldRequestID      = "request-id"
	FieldResources      = "resources"
)

// What the lines of a message begin with, and how the first one ends.
const (
	greeting            = " wants you to sign in with your Ethereum account:"
	labelURI            = "URI: "
	labelVersion        = "Version: "
	labelChainID        = "Chain ID: "
	labelNonce          = "Nonce: "
	labelIssuedAt       = "Issued At: "
	labelExpirationTime = "Expiration Time: "
	labelNotBefore      = "Not Before: "
	labelRequestID      = "Request ID: "
	labelResources      = "Resources:"
	labelResource       = "- "
)

// Message is a sign-in message, ERC-4361. Parse fills every field; who builds one by hand sets those that ERC-4361
// requires and leaves the optional ones at their zero value.
type Message struct {
	// Scheme is what stands before "://" in the first line, as written; empty when there is none.
	Scheme string
	// Domain is an RFC 3986 authority, as written: host and, where present, user information and port.
	Domain string
	// Address is the account that is asked to sign.
	Address common.Address
	// AddressText is the address as it was read, always Address in EIP-55 form. String does not use it.
	AddressText string
	// Statement is the free text for a person, empty also when there is none; HasStatement tells the two apart.
	Statement    string
	HasStatement bool
	// URI is an RFC 3986 URI, as written.
	URI string
	// Version is "1".
	Version string
	// ChainID is the EIP-155 chain id.
	ChainID uint64
	// Nonce is eight or more ASCII letters and digits.
	Nonce string
	// IssuedAt and the two times below are in UTC; digits beyond the nanosecond are cut off here (not in String).
	IssuedAt time.Time
	// ExpirationTime and NotBefore are nil when the line is absent.
	ExpirationTime *time.Time
	NotBefore      *time.Time
	// RequestID is nil when the line is absent; the grammar allows an empty one.
	RequestID *string
	// Resources are RFC 3986 URIs, as written. Nil when the heading is absent, empty when nothing follows it.
	Resources []string

	// RFC 3339 writes one instant in many ways. The texts that were read are kept, so that String repeats them.
	issuedAtText, expirationTimeText, notBeforeText string
}

// String is the text of the message, without a line break at its end: what is signed, as an EIP-191 personal message.
// For a parsed message it is the very text that was parsed. Otherwise times are written in UTC, with a fraction only
// where there is one, and the address in EIP-55 form; nothing is checked, that is what Parse is for.
func (m *Message) String() string {
	b := make([]byte, 0, 512)
	if m.Scheme != "" {
		b = append(b, m.Scheme...)
		b = append(b, "://"...)
	}
	b = append(b, m.Domain...)
	b = append(b, greeting...)
	b = append(b, '\n')
	b = append(b, m.Address.Hex()...)
	b = append(b, "\n\n"...)
	if m.HasStatement {
		b = append(b, m.Statement...)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = appendLine(b, labelURI, m.URI)
	b = appendLine(b, labelVersion, m.Version)
	b = appendLine(b, labelChainID, strconv.FormatUint(m.ChainID, 10))
	b = appendLine(b, labelNonce, m.Nonce)
	b = append(b, labelIssuedAt...)
	b = append(b, timeText(m.issuedAtText, m.IssuedAt)...)
	if m.ExpirationTime != nil {
		b = append(b, "\n"+labelExpirationTime...)
		b = append(b, timeText(m.expirationTimeText, *m.ExpirationTime)...)
	}
	if m.NotBefore != nil {
		b = append(b, "\n"+labelNotBefore...)
		b = append(b, timeText(m.notBeforeText, *m.NotBefore)...)
	}
	if m.RequestID != nil {
		b = append(b, "\n"+labelRequestID...)
		b = append(b, *m.RequestID...)
	}
	if m.Resources != nil {
		b = append(b, "\n"+labelResources...)
	}
	for _, resource := range m.Resources {
		b = append(b, "\n"+labelResource...)
		b = append(b, resource...)
	}
	return string(b)
}

func appendLine(b []byte, label, value string) []byte {
	b = append(b, label...)
	b = append(b, value...)
	return append(b, '\n')
}

// timeText repeats the text that was read as long as it still says t, which a caller may have changed since.
func timeText(read string, t time.Time) string {
	if read != "" {
		if was, problem := parseDateTime(read); problem == "" && was.Equal(t) {
			return read
		}
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// quote shows foreign text in one short line of ASCII, in which look-alikes and control characters stand out.
func quote(s string) string {
	return printable.QuoteToASCII(s, 60)
}
