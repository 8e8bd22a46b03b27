package siwe

import (
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
)

// maxLength is the maximum length of a message, in bytes.
const maxLength = 8 << 10

// The field names of the grammar of ERC-4361, used in ParseError.Field and PolicyError.Field.
const (
	FieldText           = "text" // the whole message, or a line outside every field
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

// How the first line of a message ends, and how the others begin.
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

// Message is a sign-in message, ERC-4361. Parse fills every field. In a message built by hand, set the fields that
// ERC-4361 requires; the zero value of the others means absent.
type Message struct {
	// Scheme is the text before "://" in the first line, as written; empty when absent.
	Scheme string
	// Domain is an RFC 3986 authority, as written: host and, where present, user information and port.
	Domain string
	// Address is the account that is to sign.
	Address common.Address
	// AddressText is Address in EIP-55 form, as parsed. String ignores it.
	AddressText string
	// Statement is the text for the account's owner. HasStatement distinguishes an empty statement from none.
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
	// IssuedAt and the two times below are in UTC, truncated to the nanosecond; String keeps all digits.
	IssuedAt time.Time
	// ExpirationTime and NotBefore are nil when the line is absent.
	ExpirationTime *time.Time
	NotBefore      *time.Time
	// RequestID is nil when the line is absent; the grammar allows an empty request id.
	RequestID *string
	// Resources are RFC 3986 URIs, as written. Nil when the heading is absent, empty when nothing follows it.
	Resources []string

	// The times as parsed: RFC 3339 has several texts for the same instant, and String must return the parsed text.
	issuedAtText, expirationTimeText, notBeforeText string
}

// String returns the text of the message, without a line break at the end. This is the text that is signed, as an
// EIP-191 personal message. For a parsed message it is exactly the parsed text. Otherwise times are in UTC, with a
// fraction only if it is not zero, and the address is in EIP-55 form. String checks nothing; Parse does.
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

// timeText returns the parsed text if it still stands for t, which a caller may have changed, and otherwise formats t.
func timeText(parsed string, t time.Time) string {
	if parsed != "" {
		if was, problem := parseDateTime(parsed); problem == "" && was.Equal(t) {
			return parsed
		}
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// quote returns at most 60 bytes of text from outside as a line of ASCII, with look-alikes and control characters
// escaped.
func quote(s string) string {
	return printable.QuoteToASCII(s, 60)
}
