package siwe

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// ErrPolicy is wrapped by every *UnusableError: the Policy itself is wrong, whatever the message.
var ErrPolicy = errors.New("siwe: unusable policy")

// PolicyError says why a well-formed message must not be signed.
type PolicyError struct {
	Field string // one of the Field constants
	Got   string // value in the message: the partner's text, neither shortened nor escaped
	Want  string // what the policy requires
	// Setting is the consumer's flag that allows other values; empty if no flag does.
	Setting string
	// Stale reports that only the message's time is over. A new challenge would have a new time.
	Stale bool
}

func (e *PolicyError) Error() string {
	text := fmt.Sprintf("siwe: refused: %s is %s, want %s", e.Field, quote(e.Got), e.Want)
	if e.Setting != "" {
		text += "; to allow it, set " + e.Setting
	}
	return text
}

// UnusableError says why a Policy cannot be used. It wraps ErrPolicy.
type UnusableError struct {
	Field   string // the Field constant that the invalid setting concerns; empty if it concerns none
	Problem string
}

func (e *UnusableError) Error() string { return ErrPolicy.Error() + ": " + e.Problem }

// Unwrap returns ErrPolicy.
func (e *UnusableError) Unwrap() error { return ErrPolicy }

// The settings that PolicyError.Setting names.
const (
	settingDomain    = "--challenge-domain"
	settingStatement = "--challenge-statement"
	settingURI       = "--challenge-uri"
	settingURIHost   = "--challenge-uri-host"
	settingTTL       = "--challenge-ttl"
	settingRequestID = "--allow-request-id"
	settingResources = "--allow-resources"
)

// Policy says which sign-in messages may be signed: those of a single customer, from a single partner, at this time.
// Fields without a stated default are required. The package comment says how names are compared.
type Policy struct {
	// Domain is the required domain of the message, host and optional port: "api.example.com", "127.0.0.1:8080".
	Domain string
	// URIHost is the required host, with optional port, of the message's URI. Default: Domain.
	URIHost string
	// URI is the required URI of the message, compared byte for byte; URIHost and AllowHTTP then have no effect. Default:
	// any URI with host URIHost and path "" or "/", without query and fragment.
	URI string
	// Statement is the required statement of the message, compared byte for byte. Default: the message has no statement.
	Statement string
	// AnyStatement allows any statement except that of a ReCap (ERC-5573), and no statement. Default: only Statement.
	AnyStatement bool
	// ChainID is the EIP-155 chain id of the customer's account, at least 1.
	ChainID uint64
	// Address is the customer's account.
	Address common.Address
	// MaxAge is the lifetime of a challenge: how long ago the message may have been issued. Must be positive.
	MaxAge time.Duration
	// Skew is how far the partner's clock may be ahead of ours: how far issued-at and not-before may lie in the future,
	// and expiration-time beyond issued-at plus MaxAge. It does not extend MaxAge. Default 0.
	Skew time.Duration
	// Now is the clock.
	Now func() time.Time
	// AllowHTTP allows http URIs as well as https. Set it only for a partner on loopback. Default: https only.
	AllowHTTP bool
	// AllowResources allows resources other than ReCaps (ERC-5573), which are always refused. Default: no resources.
	AllowResources bool
	// AllowRequestID allows a request id. Default: no request id.
	AllowRequestID bool
}

// Validate returns an *UnusableError if the policy is incomplete or invalid, and otherwise nil.
func (p Policy) Validate() error {
	switch {
	case p.Domain == "":
		return &UnusableError{FieldDomain, "no domain"}
	case !isHostPort(p.Domain):
		return &UnusableError{FieldDomain, "domain " + quote(p.Domain) + " is not a host with or without port"}
	case p.URIHost != "" && !isHostPort(p.URIHost):
		return &UnusableError{FieldURI, "URI host " + quote(p.URIHost) + " is not a host with or without port"}
	case p.ChainID == 0:
		return &UnusableError{"", "no chain id"}
	case p.Address == common.Address{}:
		return &UnusableError{"", "no address"}
	case p.MaxAge <= 0:
		return &UnusableError{"", fmt.Sprintf("max age %v is not positive", p.MaxAge)}
	case p.Skew < 0:
		return &UnusableError{"", fmt.Sprintf("skew %v is negative", p.Skew)}
	case p.Now == nil:
		return &UnusableError{"", "no clock"}
	}
	if p.URI != "" {
		if _, problem := splitURI(p.URI); problem != "" {
			return &UnusableError{FieldURI, "URI " + quote(p.URI) + " is not an RFC 3986 URI: " + problem}
		}
	}
	if i := strings.IndexFunc(p.Statement, func(r rune) bool { return !inStatement(r) }); i >= 0 {
		return &UnusableError{FieldStatement, fmt.Sprintf("the character at byte %d is not allowed in a statement, "+
			"which is a single line of printable ASCII (ERC-4361)", i+1)}
	}
	return nil
}

// isHostPort reports whether s is an unambiguous authority: host and optional port, without user information and
// percent-encoding.
func isHostPort(s string) bool {
	return checkAuthority(s) == "" && !strings.ContainsAny(s, "@%") &&
		!strings.HasPrefix(s, ":") && !strings.HasSuffix(s, ":")
}

// Check returns nil if the message may be signed for this policy's customer. It checks the text of m.String, for a
// parsed message the parsed text; only that text may then be signed.
//
// Errors are *PolicyError, or *UnusableError if the policy itself is wrong. Times are checked last: an error with Stale
// set means that everything else is right.
func (p Policy) Check(m *Message) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if m == nil {
		return &PolicyError{Field: FieldText, Want: "a sign-in message"}
	}
	// In a message built by hand, a line break in a string can add fields to the text. Parsing the text again ensures
	// that what is checked is what would be signed.
	m, err := Parse(m.String())
	if err != nil {
		refusal := &PolicyError{Field: FieldText, Got: err.Error(), Want: "a well-formed sign-in message"}
		var parse *ParseError
		if errors.As(err, &parse) {
			refusal.Field, refusal.Got = parse.Field, parse.Problem
		}
		return refusal
	}
	for _, check := range []func(*Message) *PolicyError{
		p.checkDomain, p.checkURI, p.checkScheme, p.checkAccount, p.checkDelegation, p.checkStatement, p.checkRequestID,
		p.checkTimes,
	} {
		if refusal := check(m); refusal != nil {
			return refusal
		}
	}
	return nil
}

func (p Policy) checkDomain(m *Message) *PolicyError {
	if !equalASCII(m.Domain, p.Domain) {
		return &PolicyError{Field: FieldDomain, Got: m.Domain, Want: quote(p.Domain), Setting: settingDomain}
	}
	return nil
}

func (p Policy) checkURI(m *Message) *PolicyError {
	refuse := func(want, setting string) *PolicyError {
		return &PolicyError{Field: FieldURI, Got: m.URI, Want: want, Setting: setting}
	}
	if p.URI != "" {
		if m.URI != p.URI {
			return refuse("exactly "+quote(p.URI), settingURI)
		}
		return nil
	}
	host := p.URIHost
	if host == "" {
		host = p.Domain
	}
	uri, problem := splitURI(m.URI)
	switch {
	case problem != "":
		return refuse("an RFC 3986 URI", "")
	case p.AllowHTTP && equalASCII(uri.scheme, "http"), equalASCII(uri.scheme, "https"):
	case p.AllowHTTP:
		return refuse("scheme https or http", settingURI)
	default:
		return refuse("scheme https", settingURI)
	}
	switch {
	case !equalASCII(uri.authority, host):
		return refuse("host "+quote(host), settingURIHost)
	case uri.tail != "" && uri.tail != "/":
		return refuse("no path, query or fragment", settingURI)
	}
	return nil
}

// checkScheme runs after checkURI, so the URI is known to be allowed.
func (p Policy) checkScheme(m *Message) *PolicyError {
	uri, _ := splitURI(m.URI)
	if m.Scheme != "" && !equalASCII(m.Scheme, uri.scheme) {
		return &PolicyError{Field: FieldScheme, Got: m.Scheme, Want: quote(uri.scheme) + " as in the URI"}
	}
	return nil
}

func (p Policy) checkAccount(m *Message) *PolicyError {
	switch {
	case m.Version != "1":
		return &PolicyError{Field: FieldVersion, Got: m.Version, Want: "1"}
	case m.ChainID != p.ChainID:
		got, want := strconv.FormatUint(m.ChainID, 10), strconv.FormatUint(p.ChainID, 10)
		return &PolicyError{Field: FieldChainID, Got: got, Want: want}
	case m.Address != p.Address:
		return &PolicyError{Field: FieldAddress, Got: m.Address.Hex(), Want: p.Address.Hex()}
	case m.Nonce == "":
		return &PolicyError{Field: FieldNonce, Want: "a nonce"}
	}
	return nil
}

// checkDelegation refuses a message whose signature would be more than a sign-in.
func (p Policy) checkDelegation(m *Message) *PolicyError {
	// ERC-5573, recap-preamble. A message with this text but without the resource is not a valid ReCap, but an honest
	// partner does not send it.
	const formula = "authorize the stated uri to perform"
	if strings.Contains(strings.ToLower(m.Statement), formula) {
		return &PolicyError{Field: FieldStatement, Got: m.Statement, Want: "no delegation (ERC-5573)"}
	}
	isReCap := func(resource string) bool { return strings.HasPrefix(strings.ToLower(resource), "urn:recap:") }
	if i := slices.IndexFunc(m.Resources, isReCap); i >= 0 {
		return &PolicyError{Field: FieldResources, Got: m.Resources[i], Want: "no delegation (ERC-5573)"}
	}
	if m.Resources != nil && !p.AllowResources {
		got := strings.Join(m.Resources, " ")
		return &PolicyError{
			Field: FieldResources, Got: got, Want: "no resources: a resource can delegate", Setting: settingResources,
		}
	}
	return nil
}

func (p Policy) checkStatement(m *Message) *PolicyError {
	refuse := func(want string) *PolicyError {
		return &PolicyError{Field: FieldStatement, Got: m.Statement, Want: want, Setting: settingStatement}
	}
	switch {
	case p.AnyStatement:
	case p.Statement == "" && m.HasStatement:
		return refuse("none")
	case m.Statement != p.Statement:
		same := 0
		for same < min(len(m.Statement), len(p.Statement)) && m.Statement[same] == p.Statement[same] {
			same++
		}
		return refuse(fmt.Sprintf("the configured statement of %d bytes; they differ at byte %d: %s",
			len(p.Statement), same+1, quote(m.Statement[same:])))
	}
	return nil
}

func (p Policy) checkRequestID(m *Message) *PolicyError {
	if m.RequestID != nil && !p.AllowRequestID {
		return &PolicyError{Field: FieldRequestID, Got: *m.RequestID, Want: "none", Setting: settingRequestID}
	}
	return nil
}

func (p Policy) checkTimes(m *Message) *PolicyError {
	now := p.Now().UTC()
	earliest, latest := now.Add(-p.MaxAge), now.Add(p.Skew)
	show := func(t time.Time) string { return t.Format(time.RFC3339Nano) }
	refuse := func(field string, got time.Time, want string, limit time.Time) *PolicyError {
		return &PolicyError{Field: field, Got: show(got), Want: want + show(limit)}
	}
	var refusal *PolicyError
	if m.NotBefore != nil && m.ExpirationTime != nil && !m.NotBefore.Before(*m.ExpirationTime) {
		return refuse(FieldNotBefore, *m.NotBefore, "earlier than the expiration time ", *m.ExpirationTime)
	}
	if m.ExpirationTime != nil {
		if !m.ExpirationTime.After(m.IssuedAt) {
			return refuse(FieldExpirationTime, *m.ExpirationTime, "later than issued-at ", m.IssuedAt)
		}
		if longest := m.IssuedAt.Add(p.MaxAge + p.Skew); m.ExpirationTime.After(longest) {
			refusal = refuse(FieldExpirationTime, *m.ExpirationTime, "no later than ", longest)
			refusal.Setting = settingTTL
			return refusal
		}
	}
	switch {
	case m.IssuedAt.After(latest):
		return refuse(FieldIssuedAt, m.IssuedAt, "no later than ", latest)
	case m.NotBefore != nil && m.NotBefore.After(latest):
		return refuse(FieldNotBefore, *m.NotBefore, "no later than ", latest)
	case m.IssuedAt.Before(earliest):
		refusal = refuse(FieldIssuedAt, m.IssuedAt, "no earlier than ", earliest)
		refusal.Stale, refusal.Setting = true, settingTTL
	case m.ExpirationTime != nil && !m.ExpirationTime.After(now):
		refusal = refuse(FieldExpirationTime, *m.ExpirationTime, "later than ", now)
		refusal.Stale = true
	}
	return refusal
}

// equalASCII compares without regard to the case of ASCII letters. strings.EqualFold would equate k and the Kelvin
// sign.
func equalASCII(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
