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

// ErrPolicy is wrapped by the errors of a Policy that cannot judge because it is incomplete: a mistake of
// configuration that concerns every message, not the message at hand.
var ErrPolicy = errors.New("siwe: unusable policy")

// PolicyError says why a well-formed message must not be signed.
type PolicyError struct {
	Field string // one of the Field constants
	Got   string // what the message says; the partner's text, not clipped
	Want  string // what the policy demands
	// Stale: the message is ours in every other respect, and only its time is over; a new challenge mends that.
	Stale bool
}

func (e *PolicyError) Error() string {
	return fmt.Sprintf("siwe: refused: %s is %s, want %s", e.Field, quote(e.Got), e.Want)
}

// Policy says which sign-in messages may be signed: one customer's, from one partner, now. Fields without a stated
// default are required. The package comment says how names are compared and what is not judged.
type Policy struct {
	// Domain is the host, and port if any, that the message must name first: "api.example.com", "127.0.0.1:8080".
	Domain string
	// URIHost is the host, and port if any, of the message's URI. Default: Domain.
	URIHost string
	// ChainID is the EIP-155 chain id of the customer's account, at least 1.
	ChainID uint64
	// Address is the customer's account.
	Address common.Address
	// MaxAge is how long ago the message may have been issued: the lifetime of a challenge. Positive.
	MaxAge time.Duration
	// Skew is how far the partner's clock may be ahead of ours: issued-at and not-before may lie that far in the future.
	// It does not prolong MaxAge or expiration-time. Default 0.
	Skew time.Duration
	// Now is the clock.
	Now func() time.Time
	// AllowHTTP accepts http URIs beside https. Set it only for a partner on loopback. Default: https only.
	AllowHTTP bool
	// AllowResources accepts resources other than ReCaps (ERC-5573), which are refused always. Default: no resources.
	AllowResources bool
}

// Validate reports what the policy lacks. Errors wrap ErrPolicy.
func (p Policy) Validate() error {
	switch {
	case p.Domain == "":
		return fmt.Errorf("%w: no domain", ErrPolicy)
	case !isHostPort(p.Domain):
		return fmt.Errorf("%w: domain %s is not a host with or without port", ErrPolicy, quote(p.Domain))
	case p.URIHost != "" && !isHostPort(p.URIHost):
		return fmt.Errorf("%w: URI host %s is not a host with or without port", ErrPolicy, quote(p.URIHost))
	case p.ChainID == 0:
		return fmt.Errorf("%w: no chain id", ErrPolicy)
	case p.Address == common.Address{}:
		return fmt.Errorf("%w: no address", ErrPolicy)
	case p.MaxAge <= 0:
		return fmt.Errorf("%w: max age %v is not positive", ErrPolicy, p.MaxAge)
	case p.Skew < 0:
		return fmt.Errorf("%w: skew %v is negative", ErrPolicy, p.Skew)
	case p.Now == nil:
		return fmt.Errorf("%w: no clock", ErrPolicy)
	}
	return nil
}

// isHostPort reports whether s is an authority that can only be read in one way: no user information, nothing
// percent-encoded, a host, and if there is a colon a port.
func isHostPort(s string) bool {
	return checkAuthority(s) == "" && !strings.ContainsAny(s, "@%") &&
		!strings.HasPrefix(s, ":") && !strings.HasSuffix(s, ":")
}

// Check returns nil if the message may be signed for this policy's customer. It judges the text that m.String gives,
// which for a parsed message is the text that was parsed; that text, and no other, may then be signed.
//
// Errors are *PolicyError, or wrap ErrPolicy when the policy itself is unusable. Time is judged last: an error with
// Stale set means that nothing else was wrong.
func (p Policy) Check(m *Message) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if m == nil {
		return &PolicyError{Field: FieldText, Want: "a sign-in message"}
	}
	// A message that was built by hand can hold a line break in any string, and so say more than its fields do.
	// Reading it back makes what is judged the same as what would be signed.
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
		p.checkDomain, p.checkURI, p.checkScheme, p.checkAccount, p.checkDelegation, p.checkTimes,
	} {
		if refusal := check(m); refusal != nil {
			return refusal
		}
	}
	return nil
}

func (p Policy) checkDomain(m *Message) *PolicyError {
	if !equalASCII(m.Domain, p.Domain) {
		return &PolicyError{Field: FieldDomain, Got: m.Domain, Want: quote(p.Domain)}
	}
	return nil
}

func (p Policy) checkURI(m *Message) *PolicyError {
	host := p.URIHost
	if host == "" {
		host = p.Domain
	}
	uri, problem := splitURI(m.URI)
	switch {
	case problem != "":
		return &PolicyError{Field: FieldURI, Got: m.URI, Want: "an RFC 3986 URI"}
	case p.AllowHTTP && equalASCII(uri.scheme, "http"), equalASCII(uri.scheme, "https"):
	case p.AllowHTTP:
		return &PolicyError{Field: FieldURI, Got: m.URI, Want: "scheme https or http"}
	default:
		return &PolicyError{Field: FieldURI, Got: m.URI, Want: "scheme https"}
	}
	if !equalASCII(uri.authority, host) {
		return &PolicyError{Field: FieldURI, Got: m.URI, Want: "host " + quote(host)}
	}
	return nil
}

// checkScheme runs after checkURI: the URI's scheme is one that is allowed.
func (p Policy) checkScheme(m *Message) *PolicyError {
	uri, _ := splitURI(m.URI)
	if m.Scheme != "" && !equalASCII(m.Scheme, uri.scheme) {
		return &PolicyError{Field: FieldScheme, Got: m.Scheme, Want: "the URI's, " + quote(uri.scheme)}
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

// checkDelegation refuses what would make the signature more than a sign-in.
func (p Policy) checkDelegation(m *Message) *PolicyError {
	// ERC-5573, recap-preamble. A message with the formula but without the resource is no valid ReCap, but no honest
	// partner sends one.
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
		return &PolicyError{Field: FieldResources, Got: got, Want: "no such heading: a resource can delegate"}
	}
	return nil
}

func (p Policy) checkTimes(m *Message) *PolicyError {
	now := p.Now().UTC()
	earliest, latest := now.Add(-p.MaxAge), now.Add(p.Skew)
	show := func(t time.Time) string { return t.Format(time.RFC3339Nano) }
	switch {
	case m.IssuedAt.After(latest):
		return &PolicyError{Field: FieldIssuedAt, Got: show(m.IssuedAt), Want: "no later than " + show(latest)}
	case m.NotBefore != nil && m.NotBefore.After(latest):
		return &PolicyError{Field: FieldNotBefore, Got: show(*m.NotBefore), Want: "no later than " + show(latest)}
	case m.IssuedAt.Before(earliest):
		want := "no earlier than " + show(earliest)
		return &PolicyError{Field: FieldIssuedAt, Got: show(m.IssuedAt), Want: want, Stale: true}
	case m.ExpirationTime != nil && !m.ExpirationTime.After(now):
		want := "later than " + show(now)
		return &PolicyError{Field: FieldExpirationTime, Got: show(*m.ExpirationTime), Want: want, Stale: true}
	}
	return nil
}

// equalASCII compares ignoring the case of ASCII letters. strings.EqualFold would also take the Kelvin sign for a k.
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
