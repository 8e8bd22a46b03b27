package siwe

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// parseFails requires a ParseError at that line and field whose problem contains the words.
func parseFails(t *testing.T, text string, line int, field, words string) {
	t.Helper()
	m, err := Parse(text)
	var got *ParseError
	if m != nil || !errors.As(err, &got) || got.Line != line || got.Field != field ||
		!strings.Contains(got.Problem, words) {
		t.Errorf("Parse(%q): got %+v, %v\nwant a *ParseError of line %d, field %s, with %q", text, m, err, line, field, words)
	}
}

const (
	account = "0x43158f45b5EbD7b1179130130DF00393928C2691"
	head    = "example.com" + greeting + "\n" + account + "\n\n"
	body    = "URI: https://example.com\nVersion: 1\nChain ID: 300\nNonce: 5ufoiEqD\nIssued At: 2024-01-17T18:21:53Z"
)

func TestStatementAndBlankLines(t *testing.T) {
	for _, test := range []struct {
		name, text, statement string
		has                   bool
	}{
		{"none", head + "\n" + body, "", false},
		{"one", head + "I agree.\n\n" + body, "I agree.", true},
		{"empty", head + "\n\n" + body, "", true},
		{"spaces", head + "  \n\n" + body, "  ", true},
		{"looks like a field", head + "URI: https://other.example\n\n" + body, "URI: https://other.example", true},
		{"looks like a message", head + "a.b" + greeting + "\n\n" + body, "a.b" + greeting, true},
		{
			"every character", head + "azAZ09-._~ :/?#[]@ !$&'()*+,;=\n\n" + body,
			"azAZ09-._~ :/?#[]@ !$&'()*+,;=", true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := mustParse(t, test.text)
			if m.Statement != test.statement || m.HasStatement != test.has {
				t.Errorf("got statement %q, %t; want %q, %t", m.Statement, m.HasStatement, test.statement, test.has)
			}
		})
	}

	parseFails(t, head+body, 5, FieldStatement, "between statement and URI")
	parseFails(t, head+"\n\n\n"+body, 6, FieldURI, `found ""`)
	parseFails(t, head+"I agree.\n"+body, 5, FieldStatement, "between statement and URI")
	parseFails(t, head+"I agree.\n\n\n"+body, 6, FieldURI, `found ""`)
	parseFails(t, head+"I agree\nto all.\n\n"+body, 5, FieldStatement, `"to all."`)
	parseFails(t, head+"\nI agree.\n\n"+body, 5, FieldURI, `"I agree."`)
	parseFails(t, strings.Replace(head, "\n\n", "\n", 1)+"I agree.\n\n"+body, 3, FieldStatement, "below the address")
	parseFails(t, strings.TrimSuffix(head, "\n"), 4, FieldStatement, "missing")
	for _, c := range "\"%<>\\^`{|}" {
		parseFails(t, head+"I agree"+string(c)+"\n\n"+body, 4, FieldStatement, "at byte 8")
	}
}

func TestDomains(t *testing.T) {
	for _, domain := range []string{
		"example.com", "example.com:3388", "example.com:", "localhost", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080",
		"[2001:db8::7]", "[::ffff:192.0.2.1]", "[1:2:3:4:5:6:7::]", "[v1.fe:80+en1]", "user@example.com", "u:p@example.com:1",
		"ex%41mple.com", "xn--exmple-4nf.com", "a_b", "999.999.999.999", ":80", "!$&'()*+,;=~",
	} {
		m := mustParse(t, strings.Replace(partnerExample, "api.sandbox.offblocks.xyz", domain, 1))
		if m.Domain != domain || m.Scheme != "" {
			t.Errorf("got domain %q, scheme %q; want domain %q and no scheme", m.Domain, m.Scheme, domain)
		}
	}
	for _, scheme := range []string{"https", "HTTPS", "http", "a+b-c.9"} {
		if m := mustParse(t, scheme+"://"+partnerExample); m.Scheme != scheme || m.Domain != "api.sandbox.offblocks.xyz" {
			t.Errorf("got scheme %q, domain %q; want %q and api.sandbox.offblocks.xyz", m.Scheme, m.Domain, scheme)
		}
	}
	for _, test := range []struct{ origin, field, words string }{
		{"", FieldDomain, "empty"},
		{"https://", FieldDomain, "empty"},
		{"://example.com", FieldScheme, `""`},
		{"1http://example.com", FieldScheme, `"1http"`},
		{"ht_tp://example.com", FieldScheme, `"ht_tp"`},
		{"https:/example.com", FieldDomain, `port "/example.com"`},
		{"https://http://example.com", FieldDomain, `port "//example.com"`},
		{"example.com/", FieldDomain, `"/" in the host`},
		{"example.com/login", FieldDomain, `"/" in the host`},
		{"example.com?a", FieldDomain, `"?" in the host`},
		{"example.com#a", FieldDomain, `"#" in the host`},
		{"example.com ", FieldDomain, `" " in the host`},
		{" example.com", FieldDomain, `" " in the host`},
		{`example.com\evil`, FieldDomain, `"\\" in the host`},
		{"example.com:80a", FieldDomain, `port "80a"`},
		{"example.com:-1", FieldDomain, `port "-1"`},
		{"a:b:1", FieldDomain, `port "b:1"`},
		{"a@b@example.com", FieldDomain, `"@" in the host`},
		{"us[er@example.com", FieldDomain, `"[" in the user information`},
		{"ex%4rmple.com", FieldDomain, `"%" in the host`},
		{"example%4", FieldDomain, `"%" in the host`},
		{"[::1", FieldDomain, "closing bracket"},
		{"[::1]8080", FieldDomain, `"8080" after`},
		{"[127.0.0.1]", FieldDomain, "IP literal"},
		{"[fe80::1%25en0]", FieldDomain, "IP literal"},
		{"[1:2:3:4:5:6:7]", FieldDomain, "IP literal"},
		{"[1:2:3:4:5:6:7:8:9]", FieldDomain, "IP literal"},
		{"[1:2:3:4:5:6:7:8::]", FieldDomain, "IP literal"},
		{"[::192.0.2.256]", FieldDomain, "IP literal"},
		{"[::192.0.2.01]", FieldDomain, "IP literal"},
		{"[::12345]", FieldDomain, "IP literal"},
		{"[v.a]", FieldDomain, "IP literal"},
		{"[v1.]", FieldDomain, "IP literal"},
		{"[v1.a%41]", FieldDomain, "IP literal"},
		{"[]", FieldDomain, "IP literal"},
		{"ex\u0430mple.com", FieldDomain, "U+0430 at byte 3"},
		{"example\u3002com", FieldDomain, "U+3002 at byte 8"},
		{"example.com\u200b", FieldDomain, "U+200B at byte 12"},
		{"\ufeffexample.com", FieldDomain, "U+FEFF at byte 1"},
		{"example.com\x00", FieldDomain, "control character 0x00 at byte 12"},
		{"example\xff.com", FieldDomain, "0xff at byte 8 is not UTF-8"},
	} {
		parseFails(t, strings.Replace(partnerExample, "api.sandbox.offblocks.xyz", test.origin, 1), 1, test.field, test.words)
	}
}

func TestURIs(t *testing.T) {
	for _, uri := range []string{
		"https://example.com", "https://example.com/", "https://example.com/a/b;c=1,2/%20?q=/?#f/?", "did:key:example",
		"urn:a", "a:", "a:/", "a:/b//c", "a://", "a:///b", "https://u:p@[::1]:8080/x", "HTTPS://EXAMPLE.COM",
		"mailto:a@b.example", "a:b:c@d", "https://example.com?q", "https://example.com#f", "https://example.com?#",
	} {
		if m := mustParse(t, strings.Replace(head+"\n"+body, "https://example.com", uri, 1)); m.URI != uri {
			t.Errorf("URI %q, want %q", m.URI, uri)
		}
		with := head + "\n" + body + "\nResources:\n- " + uri
		if m := mustParse(t, with); len(m.Resources) != 1 || m.Resources[0] != uri {
			t.Errorf("resources %q, want %q", m.Resources, uri)
		}
	}
	for _, test := range []struct{ uri, words string }{
		{"", "scheme and a colon"},
		{"example.com", "scheme and a colon"},
		{"/login", "scheme and a colon"},
		{"://example.com", "scheme and a colon"},
		{"_not_a_uri_", "scheme and a colon"},
		{"9a:b", "scheme and a colon"},
		{" https://example.com", "scheme and a colon"},
		{"https://example.com ", `" " in the host`},
		{"https://example.com/ ", `" " in the path`},
		{"https://example.com/a b", `" " in the path`},
		{"https://example.com/a?b c", `" " in the query`},
		{"https://example.com/a#b c", `" " in the fragment`},
		{"https://example.com/a#b#c", `"#" in the fragment`},
		{"https://example.com/[a]", `"[" in the path`},
		{"https://example.com/%zz", `"%" in the path`},
		{"https://example.com/%4", `"%" in the path`},
		{"https://example.com/?%4g", `"%" in the query`},
		{`https://example.com\@evil.example`, `"\\" in the user information`},
		{`https:\\example.com`, `"\\" in the path`},
		{"https://a@b@c", `"@" in the host`},
		{"https://example.com:80:80", "port"},
		{"https://[::1", "closing bracket"},
		{"https://[::g]/", "IP literal"},
		{"https://exämple.com", "U+00E4"},
	} {
		parseFails(t, strings.Replace(head+"\n"+body, "https://example.com", test.uri, 1), 5, FieldURI, test.words)
		parseFails(t, head+"\n"+body+"\nResources:\n- "+test.uri, 11, FieldResources, test.words)
	}
}

func TestNumbers(t *testing.T) {
	chain := func(s string) string { return strings.Replace(partnerExample, "Chain ID: 300", "Chain ID: "+s, 1) }
	for text, want := range map[string]uint64{"0": 0, "1": 1, "18446744073709551615": 1<<64 - 1} {
		if m := mustParse(t, chain(text)); m.ChainID != want {
			t.Errorf("chain id %d, want %d", m.ChainID, want)
		}
	}
	for _, text := range []string{
		"", "01", "00", "+1", "-1", "1.0", "0x12c", "1e3", "1_000", " 1", "1 ", "18446744073709551616", "?",
	} {
		parseFails(t, chain(text), 8, FieldChainID, quote(text))
	}
	nonce := func(s string) string { return strings.Replace(partnerExample, "5ufoiEqDaFvmfo78", s, 1) }
	for _, text := range []string{"12345678", "abcDEF12", strings.Repeat("z9", 500)} {
		if m := mustParse(t, nonce(text)); m.Nonce != text {
			t.Errorf("nonce %q, want %q", m.Nonce, text)
		}
	}
	for _, text := range []string{"", "1234567", "1234567-", "1234 5678", " 12345678", "12345678 ", "12345678_"} {
		parseFails(t, nonce(text), 9, FieldNonce, quote(text))
	}
	for _, text := range []string{"", "2", "01", "1.0", "1 ", "11"} {
		parseFails(t, strings.Replace(partnerExample, "Version: 1", "Version: "+text, 1), 7, FieldVersion, quote(text))
	}
}

func TestTimes(t *testing.T) {
	at := func(s string) string { return strings.Replace(partnerExample, "2024-01-17T18:21:53Z", s, 1) }
	utc := func(year, month, day, hour, minute, second, ns int) time.Time {
		return time.Date(year, time.Month(month), day, hour, minute, second, ns, time.UTC)
	}
	for text, want := range map[string]time.Time{
		// RFC 3339 section 5.8, all of its examples.
		"1985-04-12T23:20:50.52Z":            utc(1985, 4, 12, 23, 20, 50, 520_000_000),
		"1996-12-19T16:39:57-08:00":          utc(1996, 12, 20, 0, 39, 57, 0),
		"1990-12-31T23:59:60Z":               utc(1991, 1, 1, 0, 0, 0, 0),
		"1990-12-31T15:59:60-08:00":          utc(1991, 1, 1, 0, 0, 0, 0),
		"1937-01-01T12:00:27.87+00:20":       utc(1937, 1, 1, 11, 40, 27, 870_000_000),
		"2024-01-17t18:21:53z":               utc(2024, 1, 17, 18, 21, 53, 0),
		"2024-02-29T00:00:00-00:00":          utc(2024, 2, 29, 0, 0, 0, 0),
		"2024-01-17T18:21:53.000Z":           utc(2024, 1, 17, 18, 21, 53, 0),
		"2024-01-17T18:21:53.123456789":      {}, // fails below because it has no zone
		"2024-01-17T18:21:53.1234567899999Z": utc(2024, 1, 17, 18, 21, 53, 123_456_789),
		"0000-01-01T00:00:00+23:59":          utc(-1, 12, 31, 0, 1, 0, 0),
		"9999-12-31T23:59:59-23:59":          utc(10000, 1, 1, 23, 58, 59, 0),
	} {
		if want.IsZero() {
			parseFails(t, at(text), 10, FieldIssuedAt, "want Z or an offset")
			continue
		}
		if m := mustParse(t, at(text)); !m.IssuedAt.Equal(want) {
			t.Errorf("%s was read as %v, want %v", text, m.IssuedAt, want)
		}
	}
	for text, words := range map[string]string{
		"":                                "too short",
		"2024-01-17":                      "too short",
		"1705515713":                      "too short",
		"2024-01-17T18:21Z":               "too short",
		"2024-01-17T18:21:53":             "too short",
		"2024-01-17 18:21:53Z":            "want the form",
		"2024-1-17T18:21:53.0Z":           "want the form",
		"2024-01-17T18.21.53Z":            "want the form",
		"Wed Jan 17 2024 18:21:53 GMT":    "want the form",
		"+2024-01-17T18:21:53Z":           "want the form",
		"2024-01-17T24:00:00Z":            "time of day",
		"2024-01-17T18:60:00Z":            "time of day",
		"2024-01-17T18:21:61Z":            "time of day",
		"2024-01-17T18:21:60Z":            "second 60",
		"2024-01-31T23:59:60+01:00":       "second 60",
		"2024-02-01T00:30:60Z":            "second 60",
		"2024-02-01T01:59:60Z":            "second 60",
		"2024-02-02T23:59:60Z":            "second 60",
		"2023-02-29T00:00:00Z":            "no such day",
		"2024-00-17T18:21:53Z":            "no such day",
		"2024-13-17T18:21:53Z":            "no such day",
		"2024-01-00T18:21:53Z":            "no such day",
		"2024-04-31T18:21:53Z":            "no such day",
		"2024-01-17T18:21:53.Z":           "no digits after the decimal point",
		"2024-01-17T18:21:53,5Z":          "want Z or an offset",
		"2024-01-17T18:21:53ZZ":           "want Z or an offset",
		"2024-01-17T18:21:53Z ":           "want Z or an offset",
		"2024-01-17T18:21:53+0100":        "want Z or an offset",
		"2024-01-17T18:21:53+01":          "want Z or an offset",
		"2024-01-17T18:21:53+24:00":       "want Z or an offset",
		"2024-01-17T18:21:53+01:60":       "want Z or an offset",
		"2024-01-17T18:21:53 01:00":       "want Z or an offset",
		"2024-01-17T18:21:53+0a:00":       "want Z or an offset",
		"2024-01-17T18:21:53Z[Etc/UTC]":   "want Z or an offset",
		"2024-01-17T18:21:53.5.5Z":        "want Z or an offset",
		"2024-01-17T18:21:53+01:00+01:00": "want Z or an offset",
	} {
		parseFails(t, at(text), 10, FieldIssuedAt, words)
		parseFails(t, partnerExample+"\nExpiration Time: "+text, 11, FieldExpirationTime, words)
		parseFails(t, partnerExample+"\nNot Before: "+text, 11, FieldNotBefore, words)
	}
}

func TestOptionalFields(t *testing.T) {
	const full = partnerExample + "\nExpiration Time: 2024-01-17T19:21:53.5+01:00\nNot Before: 2024-01-17t18:21:53z" +
		"\nRequest ID: a-b:c@d%20e\nResources:\n- https://example.com/a\n- urn:b"
	m := mustParse(t, full)
	expires := time.Date(2024, 1, 17, 18, 21, 53, 5e8, time.UTC)
	if m.ExpirationTime == nil || !m.ExpirationTime.Equal(expires) {
		t.Errorf("got expiration time %v, want %v", m.ExpirationTime, expires)
	}
	if want := time.Date(2024, 1, 17, 18, 21, 53, 0, time.UTC); m.NotBefore == nil || !m.NotBefore.Equal(want) {
		t.Errorf("got not-before %v, want %v", m.NotBefore, want)
	}
	if m.RequestID == nil || *m.RequestID != "a-b:c@d%20e" {
		t.Errorf("got request id %v, want a-b:c@d%%20e", m.RequestID)
	}
	if len(m.Resources) != 2 || m.Resources[1] != "urn:b" {
		t.Errorf("got resources %q, want two, the second urn:b", m.Resources)
	}

	// Every combination of the optional lines parses.
	lines := strings.Split(strings.TrimPrefix(full, partnerExample+"\n"), "\n")
	resources := strings.Join(lines[3:], "\n")
	for set := range 16 {
		text := partnerExample
		for i, line := range append(lines[:3:3], resources) {
			if set&(1<<i) != 0 {
				text += "\n" + line
			}
		}
		m := mustParse(t, text)
		got := 0
		for i, present := range []bool{m.ExpirationTime != nil, m.NotBefore != nil, m.RequestID != nil, m.Resources != nil} {
			if present {
				got |= 1 << i
			}
		}
		if got != set {
			t.Errorf("got fields %04b, want %04b", got, set)
		}
	}

	if m := mustParse(t, partnerExample+"\nRequest ID: "); m.RequestID == nil || *m.RequestID != "" {
		t.Errorf("empty request id: got %v, want a pointer to an empty text", m.RequestID)
	}
	if m := mustParse(t, partnerExample+"\nResources:"); m.Resources == nil || len(m.Resources) != 0 {
		t.Errorf("heading without resources: got %#v, want an empty list", m.Resources)
	}
	parseFails(t, partnerExample+"\nRequest ID: a b", 11, FieldRequestID, `" " at byte 2`)
	parseFails(t, partnerExample+"\nRequest ID: a/b", 11, FieldRequestID, `"/" at byte 2`)
	parseFails(t, partnerExample+"\nRequest ID: a%2", 11, FieldRequestID, `"%" at byte 2`)
}

// TestEveryLineInItsPlace leaves out, repeats and swaps the lines of a message that has them all.
func TestEveryLineInItsPlace(t *testing.T) {
	const full = partnerExample + "\nExpiration Time: 2024-01-17T19:21:53Z\nNot Before: 2024-01-17T18:21:53Z" +
		"\nRequest ID: 7\nResources:\n- https://example.com/a"
	lines := strings.Split(full, "\n")
	const firstOptional = 10
	for i := range lines {
		without := strings.Join(append(lines[:i:i], lines[i+1:]...), "\n")
		repeated := strings.Join(append(lines[:i+1:i+1], lines[i:]...), "\n")
		// The statement and the optional lines may be left out, but not the heading above a resource. Resources may
		// repeat.
		const statement, heading = 3, firstOptional + 3
		want := i == statement || i >= firstOptional && i != heading
		if _, err := Parse(without); (err == nil) != want {
			t.Errorf("without line %d: got %v, want it accepted: %t", i+1, err, want)
		}
		want = i == len(lines)-1
		if _, err := Parse(repeated); (err == nil) != want {
			t.Errorf("with line %d repeated: got %v, want it accepted: %t", i+1, err, want)
		}
		for j := range i {
			if lines[i] == lines[j] {
				continue
			}
			swapped := append([]string(nil), lines...)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			if _, err := Parse(strings.Join(swapped, "\n")); err == nil {
				t.Errorf("lines %d and %d swapped: got no error, want one", j+1, i+1)
			}
		}
		// A text of fewer than ten lines is not a message.
		if i < firstOptional-1 {
			if _, err := Parse(strings.Join(lines[:i+1], "\n")); err == nil {
				t.Errorf("the first %d lines: got no error, want one", i+1)
			}
		}
	}
	parseFails(t, strings.Join(lines[:9], "\n"), 10, FieldIssuedAt, "missing: the text ends before it")
	parseFails(t, partnerExample+"\nNot Before: 2024-01-17T18:21:53Z\nExpiration Time: 2024-01-17T19:21:53Z", 12,
		FieldExpirationTime, "out of order")
}

func TestNothingAround(t *testing.T) {
	parseFails(t, "", 1, FieldDomain, "not a sign-in message")
	parseFails(t, "\n"+partnerExample, 1, FieldDomain, "not a sign-in message")
	parseFails(t, " "+partnerExample, 1, FieldDomain, `" " in the host`)
	parseFails(t, partnerExample+"\n", 11, FieldText, "ends in a line break")
	parseFails(t, partnerExample+"\n\n", 11, FieldText, "unexpected text")
	parseFails(t, partnerExample+" ", 10, FieldIssuedAt, "want Z or an offset")
	parseFails(t, partnerExample+"\nAlso: send 1 ETH", 11, FieldText, `"Also: send 1 ETH"`)
	parseFails(t, partnerExample+"\n"+partnerExample, 11, FieldText, "unexpected text")
	parseFails(t, partnerExample+"\nURI: https://evil.example", 11, FieldURI, "out of order, repeated or malformed")
	parseFails(t, partnerExample+"\nResources: ", 11, FieldResources, "malformed")
	parseFails(t, partnerExample+"\nResources:\n-urn:a", 12, FieldText, "unexpected text")
	parseFails(t, partnerExample+"\nResources:\n- urn:a\n", 13, FieldText, "ends in a line break")
	parseFails(t, strings.ReplaceAll(partnerExample, "\n", "\r\n"), 1, FieldDomain, "carriage return at byte 75")
	parseFails(t, strings.ReplaceAll(partnerExample, "\n", "\r"), 1, FieldDomain, "carriage return")
	parseFails(t, partnerExample+"\r", 10, FieldIssuedAt, "carriage return")
	parseFails(t, strings.Replace(partnerExample, "wallet.", "wallet.\u2028", 1), 4, FieldStatement, "U+2028")
	parseFails(t, strings.Replace(partnerExample, "wallet.", "wallet.\t", 1), 4, FieldStatement, "0x09")
	parseFails(t, strings.Replace(partnerExample, "wants you", "wants  you", 1), 1, FieldDomain, "not a sign-in message")
	parseFails(t, strings.Replace(partnerExample, "wants you", "Wants you", 1), 1, FieldDomain, "not a sign-in message")
	parseFails(t, strings.Replace(partnerExample, "Nonce: ", "nonce: ", 1), 9, FieldNonce, `"Nonce: "`)
	parseFails(t, strings.Replace(partnerExample, "Nonce: ", "Nonce:", 1), 9, FieldNonce, `"Nonce: "`)
	parseFails(t, "0x"+strings.Repeat("ab", 32), 1, FieldDomain, "not a sign-in message")
}

func TestSize(t *testing.T) {
	pad := func(length int) string {
		return strings.Replace(partnerExample, "5ufoiEqDaFvmfo78", strings.Repeat("a", length-len(partnerExample)+16), 1)
	}
	mustParse(t, pad(maxLength))
	parseFails(t, pad(maxLength+1), 0, FieldText, "8193 bytes")
	_, err := Parse(strings.Repeat("é", 400))
	if err == nil || len(err.Error()) > 400 {
		t.Errorf("got %v, want an error of at most 400 bytes", err)
	}
}

// TestBuiltByHand: the sandbox writes messages too, and a caller may change a parsed one.
func TestBuiltByHand(t *testing.T) {
	m := mustParse(t, strings.Replace(partnerExample, "53Z", "53.000+00:00", 1))
	built := &Message{
		Domain: m.Domain, Address: m.Address, Statement: m.Statement, HasStatement: true, URI: m.URI, Version: "1",
		ChainID: 300, Nonce: m.Nonce, IssuedAt: m.IssuedAt.In(time.FixedZone("", 3600)),
	}
	if got := built.String(); got != partnerExample {
		t.Errorf("message built by hand: got %q, want %q", got, partnerExample)
	}
	m.IssuedAt = m.IssuedAt.Add(time.Second)
	if want := strings.Replace(partnerExample, "53Z", "54Z", 1); m.String() != want {
		t.Errorf("changed message: got %q, want %q", m.String(), want)
	}
}
