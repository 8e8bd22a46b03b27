package siwe

import (
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// grammar is the ABNF of ERC-4361 with its references as a regular expression, written independently of the parser. It
// is wider than the parser where an expression would be unwieldy: the calendar, EIP-55, IPv6, 64 bits.
func grammar() *regexp.Regexp {
	const (
		pct       = `%[0-9A-Fa-f]{2}`
		free      = `A-Za-z0-9\-._~`
		sub       = `!$&'()*+,;=`
		scheme    = `[A-Za-z][A-Za-z0-9+\-.]*`
		regName   = `(?:[` + free + sub + `]|` + pct + `)*`
		literal   = `\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[` + free + sub + `:]+)\]`
		authority = `(?:(?:[` + free + sub + `:]|` + pct + `)*@)?(?:` + literal + `|` + regName + `)(?::[0-9]*)?`
		pchar     = `(?:[` + free + sub + `:@]|` + pct + `)`
		segments  = `(?:/` + pchar + `*)*`
		hier      = `(?://` + authority + segments + `|/(?:` + pchar + `+` + segments + `)?|` + pchar + `+` + segments + `|)`
		tail      = `(?:` + pchar + `|[/?])*`
		uri       = scheme + `:` + hier + `(?:\?` + tail + `)?(?:#` + tail + `)?`
		dateTime  = `[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})`
	)
	return regexp.MustCompile(`\A(?:` + scheme + `://)?` + authority +
		` wants you to sign in with your Ethereum account:\n` +
		`0x[0-9A-Fa-f]{40}\n\n(?:[` + free + sub + `:/?#\[\]@ ]*\n)?\n` +
		`URI: ` + uri + `\nVersion: 1\nChain ID: [0-9]+\nNonce: [A-Za-z0-9]{8,}\nIssued At: ` + dateTime +
		`(?:\nExpiration Time: ` + dateTime + `)?(?:\nNot Before: ` + dateTime + `)?` +
		`(?:\nRequest ID: ` + pchar + `*)?(?:\nResources:(?:\n- ` + uri + `)*)?\z`)
}

// consistent checks what must hold for every text that Parse accepts.
func consistent(t interface {
	Helper()
	Fatalf(string, ...any)
}, abnf *regexp.Regexp, text string, m *Message) {
	t.Helper()
	if got := m.String(); got != text {
		t.Fatalf("String: got\n%q, want the parsed\n%q", got, text)
	}
	if again, err := Parse(m.String()); err != nil || !reflect.DeepEqual(m, again) {
		t.Fatalf("parsed again: got %+v, %v; want %+v", again, err, m)
	}
	if !abnf.MatchString(text) {
		t.Fatalf("got %q accepted, want an error: it is not in the grammar", text)
	}
	if line := strings.Split(text, "\n")[1]; line != m.Address.Hex() || m.AddressText != line {
		t.Fatalf("got address %s, text %q; want %q for both", m.Address, m.AddressText, line)
	}
}

// ours checks what must hold for every text that the policy allows. It reads the text itself, and the URI with net/url.
func ours(t interface {
	Helper()
	Fatalf(string, ...any)
}, p Policy, text string, m *Message) {
	t.Helper()
	lines := strings.Split(text, "\n")
	first := strings.ToLower(lines[0])
	if want := strings.ToLower(p.Domain + greeting); first != want && first != "https://"+want {
		t.Fatalf("got %q allowed, want domain %q", lines[0], p.Domain)
	}
	if lines[1] != p.Address.Hex() {
		t.Fatalf("got %q allowed, want address %s", lines[1], p.Address)
	}
	for _, want := range []string{"Version: 1", "Chain ID: 300"} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Fatalf("got %q allowed, want %q in it", text, want)
		}
	}
	if strings.Contains(text, "\nResources:") {
		t.Fatalf("got %q allowed, want no resources", text)
	}
	u, err := url.Parse(m.URI)
	if err != nil || u.Scheme != "https" || u.User != nil || !strings.EqualFold(u.Host, p.Domain) {
		t.Fatalf("net/url on URI %q: got %v, %v; want https and host %s", m.URI, u, err, p.Domain)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		t.Fatalf("got URI %q allowed, want a URI without path, query and fragment", m.URI)
	}
	if m.Statement != p.Statement || m.RequestID != nil {
		t.Fatalf("got %q allowed, want the configured statement and no request id", text)
	}
	if age := p.Now().Sub(m.IssuedAt); age > p.MaxAge || age < -p.Skew {
		t.Fatalf("got an age of %v allowed, want %v to %v", age, -p.Skew, p.MaxAge)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		partnerExample, "https://" + partnerExample, "https://example.com" + specificationExample, recapExample,
		head + "\n" + body, head + "\n\n" + body,
		partnerExample + "\nExpiration Time: 2024-01-17T19:21:53.5+01:00\nNot Before: 2024-01-17t18:21:53z" +
			"\nRequest ID: a%20\nResources:",
		strings.Replace(partnerExample, "api.sandbox.offblocks.xyz", "u:p@[v1.a]:80", 1),
		strings.Replace(partnerExample, "https://api.sandbox.offblocks.xyz", "https://u@[::1]:80/a?b#c", 1),
		strings.Replace(partnerExample, "2024-01-17T18:21:53Z", "1990-12-31T15:59:60-08:00", 1),
	} {
		f.Add(text)
	}
	abnf, p := grammar(), partnerPolicy()
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err != nil {
			if m != nil || err.Error() == "" {
				t.Fatalf("got %+v, %v; want no message and an error with a text", m, err)
			}
			return
		}
		consistent(t, abnf, text, m)
		if p.Check(m) == nil {
			ours(t, p, text, m)
		}
	})
}

// TestEveryByte changes, inserts and removes every single byte of the partner's example. What still parses differs in
// at most a single field, and what the policy still allows differs only where it may. (Some mistyped digits of the
// address do parse: according to EIP-55 it misses 0.0247% of mistakes. The policy catches those.)
func TestEveryByte(t *testing.T) {
	abnf, p := grammar(), partnerPolicy()
	original := mustParse(t, partnerExample)
	// The partner chooses the nonce, the time may move within the hour, case may differ, and the URI may end in a slash.
	free := map[string]bool{"Domain": true, "URI": true, "Nonce": true, "IssuedAt": true}
	parsed, admitted := 0, 0
	try := func(text string) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		parsed++
		changed := differences(original, m)
		// The bytes of the statement are alike: the slow checks run for some of them only.
		if m.String() != text {
			t.Fatalf("String: got %q, want the parsed %q", m, text)
		}
		if !slices.Equal(changed, []string{"Statement"}) || parsed < 1000 {
			consistent(t, abnf, text, m)
		}
		if len(changed) > 1 {
			t.Fatalf("got fields %q changed in %q, want at most one", changed, text)
		}
		if p.Check(m) != nil {
			return
		}
		admitted++
		ours(t, p, text, m)
		for _, field := range changed {
			if !free[field] {
				t.Fatalf("got another %s allowed, want a refusal: %q", field, text)
			}
		}
	}
	for i := range len(partnerExample) + 1 {
		before, after := partnerExample[:i], partnerExample[i:]
		for b := range 256 {
			try(before + string([]byte{byte(b)}) + after)
			if after != "" {
				try(before + string([]byte{byte(b)}) + after[1:])
			}
		}
		if after != "" {
			try(before + after[1:])
		}
	}
	if parsed == 0 || admitted == 0 || admitted == parsed {
		t.Errorf("got %d mutations parsed and %d allowed, want some allowed and some refused", parsed, admitted)
	}
}

// differences names the fields in which two messages differ. A value and its parsed text count as the same field.
func differences(a, b *Message) (names []string) {
	va, vb := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for i := range va.NumField() {
		fa, fb := va.Field(i), vb.Field(i)
		if fa.Kind() == reflect.Slice && reflect.DeepEqual(fa.Interface(), fb.Interface()) ||
			fa.Kind() != reflect.Slice && fa.Equal(fb) {
			continue
		}
		switch name := va.Type().Field(i).Name; name {
		case "AddressText":
			names = append(names, "Address")
		case "issuedAtText":
			names = append(names, "IssuedAt")
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestGrammarIsAccepted draws messages from the grammar: Parse must accept all of them and return their parts.
func TestGrammarIsAccepted(t *testing.T) {
	abnf := grammar()
	rapid.Check(t, func(t *rapid.T) {
		text := func(label, expression string) string { return rapid.StringMatching(expression).Draw(t, label) }
		const (
			name = `([A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2}){1,20}`
			path = `(/([A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2}){0,8}){0,3}`
			uri  = `[A-Za-z][A-Za-z0-9+\-.]{0,8}:(//` + name + `(:[0-9]{0,5})?` + path + `|[a-z:@]{1,9}` + path + `)` +
				`(\?[a-z/?]{0,5})?(#[a-z/?]{0,5})?`
		)
		m := &Message{
			Scheme:  text("scheme", `([A-Za-z][A-Za-z0-9+\-.]{0,8})?`),
			Domain:  text("domain", `([a-z:]{0,5}@)?(`+name+`|\[::[0-9a-f]{1,4}\]|\[v[0-9]\.[a-z:]{1,5}\])(:[0-9]{0,5})?`),
			URI:     text("uri", uri),
			Version: "1",
			ChainID: rapid.Uint64().Draw(t, "chain"),
			Nonce:   text("nonce", `[A-Za-z0-9]{8,30}`),
		}
		copy(m.Address[:], rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "address"))
		m.AddressText = m.Address.Hex()
		moment := func(label string) time.Time {
			// The years 1 to 9999.
			seconds := rapid.Int64Range(-62135596800, 253402300799).Draw(t, label)
			return time.Unix(seconds, rapid.Int64Range(0, 999_999_999).Draw(t, label+" ns")).UTC()
		}
		m.IssuedAt = moment("issued at")
		if m.HasStatement = rapid.Bool().Draw(t, "has statement"); m.HasStatement {
			m.Statement = text("statement", `[A-Za-z0-9\-._~!$&'()*+,;=:/?#\[\]@ ]{0,40}`)
		}
		if rapid.Bool().Draw(t, "has expiration time") {
			expires := moment("expiration time")
			m.ExpirationTime = &expires
		}
		if rapid.Bool().Draw(t, "has not before") {
			begins := moment("not before")
			m.NotBefore = &begins
		}
		if rapid.Bool().Draw(t, "has request id") {
			id := text("request id", `([A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2}){0,20}`)
			m.RequestID = &id
		}
		if rapid.Bool().Draw(t, "has resources") {
			m.Resources = rapid.SliceOfN(rapid.StringMatching(uri), 0, 3).Draw(t, "resources")
		}

		written := m.String()
		got, err := Parse(written)
		if err != nil {
			t.Fatalf("Parse(%q): got %v, want a message", written, err)
		}
		consistent(t, abnf, written, got)
		got.issuedAtText, got.expirationTimeText, got.notBeforeText = "", "", ""
		if !reflect.DeepEqual(got, m) {
			t.Fatalf("parsed again: got %+v\nwant %+v", got, m)
		}
	})
}
