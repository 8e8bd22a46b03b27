package siwe

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ethereum/go-ethereum/common"
)

// ParseError says why a text is not a sign-in message.
type ParseError struct {
	Line    int    // 1-based; last line plus 1 if the text ends too early; 0 if the error concerns the whole text
	Field   string // one of the Field constants
	Problem string // what is wrong, with a short quotation of the text in ASCII
}

func (e *ParseError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("siwe: %s: %s", e.Field, e.Problem)
	}
	return fmt.Sprintf("siwe: line %d: %s: %s", e.Line, e.Field, e.Problem)
}

// Parse parses a sign-in message strictly (ERC-4361, "ABNF Message Format"): Message.String returns the accepted text
// byte for byte. The package comment lists where Parse is narrower than the grammar. Errors are *ParseError.
//
// A parsed message may be for any account and site: call Policy.Check before it is signed.
func Parse(text string) (*Message, error) {
	if len(text) > maxLength {
		return nil, &ParseError{Field: FieldText, Problem: fmt.Sprintf("has %d bytes, want at most %d", len(text), maxLength)}
	}
	lines := strings.Split(text, "\n")
	if err := checkCharacters(lines); err != nil {
		return nil, err
	}
	p := &parser{lines: lines}
	m := &Message{}
	if p.head(m); p.err == nil {
		p.required(m)
	}
	if p.err == nil {
		p.optional(m)
	}
	if p.err == nil {
		p.end()
	}
	if p.err != nil {
		return nil, p.err
	}
	return m, nil
}

// checkCharacters returns an error for characters that no rule of the grammar allows. It runs before the rules because
// "carriage return" and "U+0430 is not ASCII" tell an operator more than the first rule that fails.
func checkCharacters(lines []string) error {
	for n, line := range lines {
		for i := 0; i < len(line); i++ {
			c := line[i]
			if c >= ' ' && c <= '~' {
				continue
			}
			e := &ParseError{Line: n + 1, Field: fieldOf(n, line)}
			r, size := utf8.DecodeRuneInString(line[i:])
			switch {
			case c == '\r':
				e.Problem = fmt.Sprintf("carriage return at byte %d: lines end in LF alone", i+1)
			case c < utf8.RuneSelf:
				e.Problem = fmt.Sprintf("control character 0x%02x at byte %d", c, i+1)
			case r == utf8.RuneError && size == 1:
				e.Problem = fmt.Sprintf("0x%02x at byte %d is not UTF-8", c, i+1)
			default:
				around := strings.ToValidUTF8(line[max(i-12, 0):min(i+12, len(line))], "")
				e.Problem = fmt.Sprintf("U+%04X at byte %d is not ASCII: %s", r, i+1, quote(around))
			}
			return e
		}
	}
	return nil
}

// fieldOf guesses the field of a line that cannot be parsed; n counts from 0.
func fieldOf(n int, line string) string {
	switch n {
	case 0:
		return FieldDomain
	case 1:
		return FieldAddress
	}
	for _, known := range labels() {
		if strings.HasPrefix(line, known.label) {
			return known.field
		}
	}
	if n == 3 {
		return FieldStatement
	}
	return FieldText
}

type labelled struct{ field, label string }

func labels() []labelled {
	return []labelled{
		{FieldURI, labelURI},
		{FieldVersion, labelVersion},
		{FieldChainID, labelChainID},
		{FieldNonce, labelNonce},
		{FieldIssuedAt, labelIssuedAt},
		{FieldExpirationTime, labelExpirationTime},
		{FieldNotBefore, labelNotBefore},
		{FieldRequestID, labelRequestID},
		{FieldResources, labelResources},
		{FieldResources, labelResource},
	}
}

// parser reads the lines once, in order. After the first error its methods do nothing.
type parser struct {
	lines []string
	at    int // index of the next line
	err   error
}

// fail records the first error; it concerns the line taken last.
func (p *parser) fail(field, format string, args ...any) {
	if p.err == nil {
		p.err = &ParseError{Line: p.at, Field: field, Problem: fmt.Sprintf(format, args...)}
	}
}

// take consumes and returns the next line; "" after an error. A missing line is an error.
func (p *parser) take(field string) string {
	if p.err != nil {
		return ""
	}
	p.at++
	if p.at > len(p.lines) {
		p.fail(field, "missing: the text ends before it")
		return ""
	}
	return p.lines[p.at-1]
}

// peek returns the next line without consuming it.
func (p *parser) peek() (string, bool) {
	if p.err != nil || p.at >= len(p.lines) {
		return "", false
	}
	return p.lines[p.at], true
}

// value takes a line that must begin with label and returns the rest.
func (p *parser) value(field, label string) string {
	line := p.take(field)
	value, ok := strings.CutPrefix(line, label)
	if !ok {
		p.fail(field, "want a line that begins with %q, found %s", label, quote(line))
	}
	return value
}

// optionalValue is value for a line that may be absent.
func (p *parser) optionalValue(label string) (string, bool) {
	line, _ := p.peek()
	value, ok := strings.CutPrefix(line, label)
	if ok {
		p.at++
	}
	return value, ok
}

func (p *parser) blank(field, where string) {
	if line := p.take(field); line != "" {
		p.fail(field, "want an empty line %s, found %s", where, quote(line))
	}
}

// head reads the lines above "URI: ".
func (p *parser) head(m *Message) {
	line := p.take(FieldDomain)
	origin, ok := strings.CutSuffix(line, greeting)
	if !ok {
		p.fail(FieldDomain, "not a sign-in message: the first line does not end in %q: %s", greeting, quote(line))
		return
	}
	// An authority has no "/", so "://" can only be the end of a scheme.
	if scheme, rest, found := strings.Cut(origin, "://"); found {
		if !isScheme(scheme) {
			p.fail(FieldScheme, "%s is not an RFC 3986 scheme", quote(scheme))
		}
		m.Scheme, origin = scheme, rest
	}
	if origin == "" {
		p.fail(FieldDomain, "empty")
	} else if problem := checkAuthority(origin); problem != "" {
		p.fail(FieldDomain, "%s is not an RFC 3986 authority: %s", quote(origin), problem)
	}
	m.Domain = origin

	m.AddressText = p.take(FieldAddress)
	if problem := readAddress(m.AddressText, &m.Address); problem != "" {
		p.fail(FieldAddress, "%s", problem)
	}
	p.blank(FieldStatement, "below the address")

	// [ statement LF ] LF, where the statement may be empty: an empty line ends this part unless another empty line
	// follows.
	m.Statement = p.take(FieldStatement)
	next, _ := p.peek()
	m.HasStatement = m.Statement != "" || next == ""
	if i := strings.IndexFunc(m.Statement, func(r rune) bool { return !inStatement(r) }); i >= 0 {
		p.fail(FieldStatement, "%s at byte %d is not allowed in a statement: %s",
			quote(m.Statement[i:i+1]), i+1, quote(m.Statement))
	}
	if m.HasStatement {
		p.blank(FieldStatement, "between statement and URI")
	}
}

// required reads the five required lines.
func (p *parser) required(m *Message) {
	m.URI = p.value(FieldURI, labelURI)
	if _, problem := splitURI(m.URI); problem != "" {
		p.fail(FieldURI, "%s is not an RFC 3986 URI: %s", quote(m.URI), problem)
	}
	m.Version = p.value(FieldVersion, labelVersion)
	if m.Version != "1" {
		p.fail(FieldVersion, "want 1, found %s", quote(m.Version))
	}
	chain := p.value(FieldChainID, labelChainID)
	var err error
	if m.ChainID, err = strconv.ParseUint(chain, 10, 64); err != nil || strconv.FormatUint(m.ChainID, 10) != chain {
		p.fail(FieldChainID, "%s is not a decimal number below 2^64 without leading zeros", quote(chain))
	}
	m.Nonce = p.value(FieldNonce, labelNonce)
	if len(m.Nonce) < 8 || strings.ContainsFunc(m.Nonce, func(r rune) bool { return !isAlpha(r) && !isDigit(r) }) {
		p.fail(FieldNonce, "%s is not eight or more letters and digits", quote(m.Nonce))
	}
	m.issuedAtText = p.value(FieldIssuedAt, labelIssuedAt)
	var problem string
	if m.IssuedAt, problem = parseDateTime(m.issuedAtText); problem != "" {
		p.fail(FieldIssuedAt, "%s is not an RFC 3339 date-time: %s", quote(m.issuedAtText), problem)
	}
}

// optional reads the optional lines, which have a fixed order.
func (p *parser) optional(m *Message) {
	if text, ok := p.optionalValue(labelExpirationTime); ok {
		t, problem := parseDateTime(text)
		if problem != "" {
			p.fail(FieldExpirationTime, "%s is not an RFC 3339 date-time: %s", quote(text), problem)
		}
		m.ExpirationTime, m.expirationTimeText = &t, text
	}
	if text, ok := p.optionalValue(labelNotBefore); ok {
		t, problem := parseDateTime(text)
		if problem != "" {
			p.fail(FieldNotBefore, "%s is not an RFC 3339 date-time: %s", quote(text), problem)
		}
		m.NotBefore, m.notBeforeText = &t, text
	}
	if text, ok := p.optionalValue(labelRequestID); ok {
		if i := notIn(text, isPchar); i >= 0 {
			p.fail(FieldRequestID, "%s at byte %d is not allowed in a request id: %s", quote(text[i:i+1]), i+1, quote(text))
		}
		m.RequestID = &text
	}
	if line, _ := p.peek(); line != labelResources {
		return
	}
	p.at++
	m.Resources = []string{}
	for {
		uri, ok := p.optionalValue(labelResource)
		if !ok {
			return
		}
		if _, problem := splitURI(uri); problem != "" {
			p.fail(FieldResources, "%s is not an RFC 3986 URI: %s", quote(uri), problem)
		}
		m.Resources = append(m.Resources, uri)
	}
}

// end returns an error if text follows the last field.
func (p *parser) end() {
	line, more := p.peek()
	if !more {
		return
	}
	field := fieldOf(p.at, line)
	p.at++
	switch {
	case line == "" && p.at == len(p.lines):
		p.fail(FieldText, "ends in a line break")
	case field != FieldText && field != FieldStatement:
		p.fail(field, "out of order, repeated or malformed: %s", quote(line))
	default:
		p.fail(FieldText, "unexpected text after the last field: %s", quote(line))
	}
}

// readAddress parses "0x" and 40 hex digits in EIP-55 form.
func readAddress(s string, address *common.Address) (problem string) {
	digits, ok := strings.CutPrefix(s, "0x")
	if !ok || len(digits) != 2*common.AddressLength {
		return fmt.Sprintf("%s is not 0x and 40 hex digits", quote(s))
	}
	for i := range common.AddressLength {
		b, err := strconv.ParseUint(digits[2*i:2*i+2], 16, 8)
		if err != nil {
			return fmt.Sprintf("%s is not 0x and 40 hex digits", quote(s))
		}
		address[i] = byte(b)
	}
	if want := address.Hex(); want != s {
		return fmt.Sprintf("%s is not in EIP-55 form, which is %s", quote(s), want)
	}
	return ""
}
