package siwe

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

var (
	_ error = (*ParseError)(nil)
	_ error = (*PolicyError)(nil)
)

// partnerPolicy returns the product's policy for partnerExample, half an hour after it was issued.
func partnerPolicy() Policy {
	return Policy{
		Domain:    "api.sandbox.offblocks.xyz",
		ChainID:   300,
		Address:   common.HexToAddress("0x43158f45b5EbD7b1179130130DF00393928C2691"),
		Statement: partnerStatement,
		MaxAge:    time.Hour,
		Skew:      time.Minute,
		Now:       func() time.Time { return time.Date(2024, 1, 17, 18, 51, 53, 0, time.UTC) },
	}
}

// partnerStatement is the statement of partnerExample.
const partnerStatement = "OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using " +
	"OffBlocks, you agree to our Terms of services and Privacy Policy"

// parseAndCheck returns the error of Parse or else of Policy.Check.
func parseAndCheck(p Policy, text string) error {
	m, err := Parse(text)
	if err != nil {
		return err
	}
	return p.Check(m)
}

func TestPolicyAdmits(t *testing.T) {
	const domain = "api.sandbox.offblocks.xyz"
	for name, text := range map[string]string{
		"the partner's example":   partnerExample,
		"scheme in front":         "https://" + partnerExample,
		"scheme in capitals":      "HTTPS://" + partnerExample,
		"capitals in the domain":  strings.Replace(partnerExample, domain, "API.Sandbox.OffBlocks.XYZ", 1),
		"capitals in the URI":     strings.Replace(partnerExample, "https://"+domain, "HTTPS://API.Sandbox.OffBlocks.XYZ", 1),
		"a slash behind the host": strings.Replace(partnerExample, "https://"+domain, "https://"+domain+"/", 1),
		"longest expiration":      partnerExample + "\nExpiration Time: 2024-01-17T19:22:53Z",
		"both bounds": partnerExample + "\nExpiration Time: 2024-01-17T19:21:53Z" +
			"\nNot Before: 2024-01-17T18:21:53Z",
		"another nonce":         strings.Replace(partnerExample, "5ufoiEqDaFvmfo78", "aaaaaaaa", 1),
		"not expired":           partnerExample + "\nExpiration Time: 2024-01-17T18:51:53.001Z",
		"in force":              partnerExample + "\nNot Before: 2024-01-17T18:51:53Z",
		"in force, within skew": partnerExample + "\nNot Before: 2024-01-17T18:52:53Z",
		"an hour old":           strings.Replace(partnerExample, "18:21:53", "17:51:53", 1),
		"a minute ahead":        strings.Replace(partnerExample, "18:21:53", "18:52:53", 1),
	} {
		t.Run(name, func(t *testing.T) {
			if err := parseAndCheck(partnerPolicy(), text); err != nil {
				t.Errorf("got %v, want it allowed", err)
			}
		})
	}
}

// TestHostileChallenges: challenges that an adversary who can issue them would want to have signed.
func TestHostileChallenges(t *testing.T) {
	const (
		domain   = "api.sandbox.offblocks.xyz"
		uri      = "URI: https://" + domain
		issuedAt = "18:21:53"
		address  = "0x43158f45b5EbD7b1179130130DF00393928C2691"
	)
	replace := func(old, with string) string {
		if !strings.Contains(partnerExample, old) {
			t.Fatalf("got an example without %q, want it there", old)
		}
		return strings.Replace(partnerExample, old, with, 1)
	}
	recap := recapExample[strings.Index(recapExample, "Resources:"):]
	const parse = "parse: " // this prefix of a field means: Parse fails there
	for _, test := range []struct{ name, text, field string }{
		{"other address", replace(address, "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"), FieldAddress},
		{"address in lower case", replace(address, strings.ToLower(address)), parse + FieldAddress},

		{"other domain", replace(domain, "evil.example"), FieldDomain},
		{"other domain, all of it", strings.ReplaceAll(partnerExample, domain, "evil.example"), FieldDomain},
		{"domain in front", replace(domain, domain+".evil.example"), FieldDomain},
		{"domain behind", replace(domain, "evil-"+domain), FieldDomain},
		{"parent domain", replace(domain, "offblocks.xyz"), FieldDomain},
		{"live for sandbox", replace(domain, "api.offblocks.xyz"), FieldDomain},
		{"trailing dot", replace(domain, domain+"."), FieldDomain},
		{"user information", replace(domain, domain+"@evil.example"), FieldDomain},
		{"user information, ours last", replace(domain, "evil.example@"+domain), FieldDomain},
		{"a port", replace(domain, domain+":8443"), FieldDomain},
		{"the default port", replace(domain, domain+":443"), FieldDomain},
		{"an empty port", replace(domain, domain+":"), FieldDomain},
		{"percent-encoded", replace(domain, "%61pi.sandbox.offblocks.xyz"), FieldDomain},
		{"homograph", replace(domain, "\u0430pi.sandbox.offblocks.xyz"), parse + FieldDomain},
		{"homograph that folds to ours", replace(domain, "api.sandbox.offbloc\u212as.xyz"), parse + FieldDomain},
		{"homograph in punycode", replace(domain, "xn--pi-6kc.sandbox.offblocks.xyz"), FieldDomain},
		{"homograph in the URI", replace(uri, "URI: https://\u0430pi.sandbox.offblocks.xyz"), parse + FieldURI},

		{"other scheme in front", "http://" + partnerExample, FieldScheme},
		{"strange scheme in front", "javascript://" + partnerExample, FieldScheme},

		{"other URI", replace(uri, "URI: https://evil.example"), FieldURI},
		{"URI without TLS", replace(uri, "URI: http://"+domain), FieldURI},
		{"URI with user information", replace(uri, "URI: https://user@"+domain), FieldURI},
		{"URI that begins like ours", replace(uri, uri+"@evil.example"), FieldURI},
		{"URI with ours in the path", replace(uri, "URI: https://evil.example/"+domain), FieldURI},
		{"URI with a port", replace(uri, uri+":443"), FieldURI},
		{"URI with a backslash", replace(uri, `URI: https://evil.example\@`+domain), parse + FieldURI},
		{"URI without authority", replace(uri, "URI: https:"+domain), FieldURI},
		{"URI with one slash", replace(uri, "URI: https:/"+domain), FieldURI},
		{"URI with an empty authority", replace(uri, "URI: https:///"+domain), FieldURI},
		{"did", replace(uri, "URI: did:key:example"), FieldURI},
		{"ftp", replace(uri, "URI: ftp://"+domain), FieldURI},

		{"other version", replace("Version: 1", "Version: 2"), parse + FieldVersion},
		{"other chain", replace("Chain ID: 300", "Chain ID: 1"), FieldChainID},
		{"chain with a leading zero", replace("Chain ID: 300", "Chain ID: 0300"), parse + FieldChainID},
		{"chain beyond 64 bits", replace("Chain ID: 300", "Chain ID: 18446744073709551916"), parse + FieldChainID},
		{"no nonce", replace("Nonce: 5ufoiEqDaFvmfo78", "Nonce: "), parse + FieldNonce},

		{"stale", replace(issuedAt, "17:51:52"), FieldIssuedAt},
		{"stale by a nanosecond", replace(issuedAt, "17:51:52.999999999"), FieldIssuedAt},
		{"stale by its zone", replace(issuedAt+"Z", "18:21:53+01:00"), FieldIssuedAt},
		{"years old", replace("2024", "1970"), FieldIssuedAt},
		{"ahead by a nanosecond", replace(issuedAt, "18:52:53.000000001"), FieldIssuedAt},
		{"from the future", replace(issuedAt, "18:52:54"), FieldIssuedAt},
		{"from the far future", replace("2024", "9999"), FieldIssuedAt},
		{"expired", partnerExample + "\nExpiration Time: 2024-01-17T18:51:53Z", FieldExpirationTime},
		{"not yet in force", partnerExample + "\nNot Before: 2024-01-17T18:52:54Z", FieldNotBefore},

		{"a resource", partnerExample + "\nResources:\n- https://" + domain + "/x", FieldResources},
		{"the bare heading of resources", partnerExample + "\nResources:", FieldResources},
		{"ReCap", partnerExample + "\n" + recap, FieldResources},

		{"transfer", replace(partnerStatement, "I hereby irrevocably transfer all assets of this account."), FieldStatement},
		{"statement of 7,000 bytes", replace(partnerStatement, strings.Repeat("I agree. ", 778)), FieldStatement},
		{"statement that goes on", replace("Privacy Policy", "Privacy Policy and transfer all assets"), FieldStatement},
		{"statement in other case", replace("OffBlocks wants", "Offblocks wants"), FieldStatement},
		{"statement with a space behind", replace("Privacy Policy", "Privacy Policy "), FieldStatement},
		{"empty statement", replace(partnerStatement, ""), FieldStatement},
		{"no statement", replace(partnerStatement+"\n\n", "\n"), FieldStatement},

		{"URI with a query", replace(uri, uri+"?to=0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2&amount=all"), FieldURI},
		{"URI with an empty query", replace(uri, uri+"?"), FieldURI},
		{"URI with a path", replace(uri, uri+"/transfer"), FieldURI},
		{"URI with two slashes", replace(uri, uri+"//"), FieldURI},
		{"URI with a query behind a slash", replace(uri, uri+"/?x"), FieldURI},
		{"URI with a fragment", replace(uri, uri+"#transfer"), FieldURI},
		{"URI with an empty fragment", replace(uri, uri+"/#"), FieldURI},

		{"request id", partnerExample + "\nRequest ID: transfer-all", FieldRequestID},
		{"empty request id", partnerExample + "\nRequest ID: ", FieldRequestID},
		{"never expires", partnerExample + "\nExpiration Time: 9999-12-31T23:59:59Z", FieldExpirationTime},
		{"expires a moment too late", partnerExample + "\nExpiration Time: 2024-01-17T19:22:53.000000001Z",
			FieldExpirationTime},
		{"not before its expiration", partnerExample + "\nExpiration Time: 2024-01-17T18:52:00Z\nNot Before: " +
			"2024-01-17T18:52:00Z", FieldNotBefore},
		{"expires before it was issued", replace(issuedAt, "18:52:30") + "\nExpiration Time: 2024-01-17T18:52:20Z",
			FieldExpirationTime},
		{"nonce of seven", replace("5ufoiEqDaFvmfo78", "5ufoiEq"), parse + FieldNonce},
		{"nonce with a hyphen", replace("5ufoiEqDaFvmfo78", "5ufoiEqD-aFvmfo78"), parse + FieldNonce},
		{
			"ReCap's statement", replace("Privacy Policy", "Privacy Policy I further authorize the stated URI to perform "+
				"the following actions on my behalf: (1) 'a': 'b' for 'https://a.example'."), FieldStatement,
		},

		{"not a sign-in message", "Transfer 1000 USDC to 0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", parse + FieldDomain},
		{"a hash", "0x" + strings.Repeat("5a", 32), parse + FieldDomain},
		{"a transaction", "\x02\xf8\x6b\x01\x80", parse + FieldDomain},
		{"empty", "", parse + FieldDomain},
		{"leading text", "Pay me. " + partnerExample, parse + FieldDomain},
		{"trailing text", partnerExample + "\n\nI also transfer my account to evil.example.", parse + FieldText},
		{"trailing line break", partnerExample + "\n", parse + FieldText},
		{"two messages", partnerExample + "\n" + partnerExample, parse + FieldText},
		{"statement of two lines", replace("Policy", "Policy\nI also agree to pay"), parse + FieldStatement},
		{"CRLF", strings.ReplaceAll(partnerExample, "\n", "\r\n"), parse + FieldDomain},
		{"right-to-left override", replace("Policy", "Policy\u202e"), parse + FieldStatement},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := parseAndCheck(partnerPolicy(), test.text)
			if want, ok := strings.CutPrefix(test.field, parse); ok {
				var refusal *ParseError
				if !errors.As(err, &refusal) || refusal.Field != want {
					t.Errorf("got %v, want a *ParseError about %s", err, want)
				}
				return
			}
			var refusal *PolicyError
			if !errors.As(err, &refusal) || refusal.Field != test.field {
				t.Errorf("got %v, want a *PolicyError about %s", err, test.field)
			}
		})
	}
}

// TestSettingsPermit: a refusal that a setting can lift names it, and with the setting the message passes.
func TestSettingsPermit(t *testing.T) {
	const uri = "URI: https://api.sandbox.offblocks.xyz"
	change := func(old, with string) string { return strings.Replace(partnerExample, old, with, 1) }
	for _, test := range []struct {
		name, text, setting string
		set                 func(*Policy)
	}{
		{"statement", change(partnerStatement, "Hello."), "--challenge-statement",
			func(p *Policy) { p.Statement = "Hello." }},
		{"any statement", change(partnerStatement, "Hello."), "--challenge-statement",
			func(p *Policy) { p.AnyStatement = true }},
		{"no statement", change(partnerStatement+"\n\n", "\n"), "--challenge-statement",
			func(p *Policy) { p.Statement = "" }},
		{"any statement, none", change(partnerStatement+"\n\n", "\n"), "--challenge-statement",
			func(p *Policy) { p.AnyStatement = true }},
		{"domain", change("api.sandbox.offblocks.xyz", "login.example"), "--challenge-domain",
			func(p *Policy) { p.Domain, p.URIHost = "login.example", "api.sandbox.offblocks.xyz" }},
		{"URI", change(uri, uri+"/login?x=1"), "--challenge-uri",
			func(p *Policy) { p.URI = "https://api.sandbox.offblocks.xyz/login?x=1" }},
		{"URI scheme", change(uri, "URI: did:key:example"), "--challenge-uri",
			func(p *Policy) { p.URI = "did:key:example" }},
		{"URI host", change(uri, "URI: https://login.example"), "--challenge-uri-host",
			func(p *Policy) { p.URIHost = "login.example" }},
		{"request id", partnerExample + "\nRequest ID: 7", "--allow-request-id",
			func(p *Policy) { p.AllowRequestID = true }},
		{"resources", partnerExample + "\nResources:\n- https://a.example", "--allow-resources",
			func(p *Policy) { p.AllowResources = true }},
		{"expiration", partnerExample + "\nExpiration Time: 2024-01-17T20:21:53Z", "--challenge-ttl",
			func(p *Policy) { p.MaxAge = 2 * time.Hour }},
	} {
		p := partnerPolicy()
		var refusal *PolicyError
		err := parseAndCheck(p, test.text)
		if !errors.As(err, &refusal) || refusal.Setting != test.setting || !strings.Contains(err.Error(), test.setting) {
			t.Errorf("%s: got %v, want a *PolicyError that names %s", test.name, err, test.setting)
		}
		test.set(&p)
		if err := parseAndCheck(p, test.text); err != nil {
			t.Errorf("%s: got %v with the setting, want none", test.name, err)
		}
	}
}

// TestExactURI: with a whole URI configured, no other one passes, not even that of the domain.
func TestExactURI(t *testing.T) {
	p := partnerPolicy()
	p.URI = "https://api.sandbox.offblocks.xyz/login"
	for _, uri := range []string{"", "/", "/Login", "/login/", "/login?"} {
		var refusal *PolicyError
		text := strings.Replace(partnerExample, "URI: https://api.sandbox.offblocks.xyz",
			"URI: https://api.sandbox.offblocks.xyz"+uri, 1)
		if err := parseAndCheck(p, text); !errors.As(err, &refusal) || refusal.Field != FieldURI {
			t.Errorf("%q after the host: got %v, want a *PolicyError about the URI", uri, err)
		}
	}
}

// TestDelegationIsNeverPermitted: a ReCap is refused whatever statement is accepted.
func TestDelegationIsNeverPermitted(t *testing.T) {
	p := partnerPolicy()
	p.AnyStatement = true
	var refusal *PolicyError
	text := strings.Replace(partnerExample, partnerStatement, "I further authorize the stated URI to perform x", 1)
	err := parseAndCheck(p, text)
	if !errors.As(err, &refusal) || refusal.Field != FieldStatement || refusal.Setting != "" {
		t.Errorf("got %v, want a *PolicyError about the statement without a setting", err)
	}
}

func TestLoopbackPartner(t *testing.T) {
	text := strings.NewReplacer("https", "http", "api.sandbox.offblocks.xyz", "127.0.0.1:8080").Replace(partnerExample)
	p := partnerPolicy()
	p.Domain, p.AllowHTTP = "127.0.0.1:8080", true
	for name, good := range map[string]string{
		"no scheme":  text,
		"http":       "http://" + text,
		"all https":  "https://" + strings.Replace(text, "http:", "https:", 1),
		"plain, TLS": strings.Replace(text, "http:", "https:", 1),
	} {
		if err := parseAndCheck(p, good); err != nil {
			t.Errorf("%s: got %v, want it allowed", name, err)
		}
	}
	for name, bad := range map[string]string{
		"https in front of an http URI": "https://" + text,
		"another port":                  strings.ReplaceAll(text, "8080", "8081"),
		"no port":                       strings.ReplaceAll(text, ":8080", ""),
		"another name of the same host": strings.ReplaceAll(text, "127.0.0.1", "localhost"),
		"another spelling of the host":  strings.ReplaceAll(text, "127.0.0.1", "127.1"),
		"ftp":                           strings.Replace(text, "http:", "ftp:", 1),
	} {
		if err := parseAndCheck(p, bad); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
	p.AllowHTTP = false
	if err := parseAndCheck(p, text); err == nil {
		t.Error("http without AllowHTTP: got no error, want a refusal")
	}

	p.AllowHTTP, p.Domain = true, "[::1]:8080"
	if err := parseAndCheck(p, strings.ReplaceAll(text, "127.0.0.1", "[::1]")); err != nil {
		t.Errorf("IPv6 loopback: got %v, want it allowed", err)
	}
}

func TestURIHostApart(t *testing.T) {
	p := partnerPolicy()
	p.URIHost = "login.offblocks.xyz"
	if err := parseAndCheck(p, partnerExample); err == nil {
		t.Error("URI with the domain's host: got no error, want a refusal")
	}
	if err := parseAndCheck(p, strings.Replace(partnerExample, "//api.sandbox", "//login", 1)); err != nil {
		t.Errorf("URI with URIHost: got %v, want it allowed", err)
	}
}

func TestAllowResources(t *testing.T) {
	p := partnerPolicy()
	p.AllowResources = true
	if err := parseAndCheck(p, partnerExample+"\nResources:\n- https://example.com/a\n- urn:b"); err != nil {
		t.Errorf("got %v, want the resources allowed", err)
	}
	for _, resources := range []string{
		"\n- urn:recap:e30", "\n- URN:ReCap:e30", "\n- urn:recap:e30\n- https://example.com/a",
	} {
		var refusal *PolicyError
		err := parseAndCheck(p, partnerExample+"\nResources:"+resources)
		if !errors.As(err, &refusal) || refusal.Field != FieldResources {
			t.Errorf("%q: got %v, want a *PolicyError about the resources", resources, err)
		}
	}
}

// TestStale: Stale is set only if nothing but the time is wrong.
func TestStale(t *testing.T) {
	old := strings.Replace(partnerExample, "18:21:53", "12:00:00", 1)
	expired := partnerExample + "\nExpiration Time: 2024-01-17T18:30:00Z"
	for _, test := range []struct {
		name, text string
		stale      bool
	}{
		{"old", old, true},
		{"expired", expired, true},
		{"future", strings.Replace(partnerExample, "18:21:53", "20:00:00", 1), false},
		{"old, of another chain", strings.Replace(old, "300", "1", 1), false},
		{"old, but not yet in force", old + "\nNot Before: 2025-01-01T00:00:00Z", false},
		{"expired, for another domain", "x" + expired, false},
	} {
		var refusal *PolicyError
		if err := parseAndCheck(partnerPolicy(), test.text); !errors.As(err, &refusal) || refusal.Stale != test.stale {
			t.Errorf("%s: got %v, want a *PolicyError with stale %t", test.name, err, test.stale)
		}
	}
}

// TestSmuggling: the text of a message built by hand can have fields that the struct does not have.
func TestSmuggling(t *testing.T) {
	for name, change := range map[string]func(*Message){
		"statement of two lines": func(m *Message) { m.Statement += "\n\nURI: https://evil.example" },
		"statement left out":     func(m *Message) { m.HasStatement = false; m.Nonce += "\nRequest ID" },
		"request id with a tail": func(m *Message) { id := "a\nResources:\n- urn:recap:e30"; m.RequestID = &id },
		"nonce missing":          func(m *Message) { m.Nonce = "" },
		"version missing":        func(m *Message) { m.Version = "" },
		"domain with greeting":   func(m *Message) { m.Domain += greeting + "\n" },
		"Kelvin sign":            func(m *Message) { m.Domain = strings.Replace(m.Domain, "k", "\u212a", 1) },
		"empty":                  func(m *Message) { *m = Message{} },
	} {
		m := mustParse(t, partnerExample)
		change(m)
		var refusal *PolicyError
		if err := partnerPolicy().Check(m); !errors.As(err, &refusal) {
			t.Errorf("%s: got %v, want a *PolicyError", name, err)
		}
	}
	var refusal *PolicyError
	if err := partnerPolicy().Check(nil); !errors.As(err, &refusal) {
		t.Errorf("no message: got %v, want a *PolicyError", err)
	}
}

func TestUnusablePolicy(t *testing.T) {
	for name, change := range map[string]func(*Policy){
		"no domain":               func(p *Policy) { p.Domain = "" },
		"domain is a URL":         func(p *Policy) { p.Domain = "https://api.sandbox.offblocks.xyz" },
		"domain has a user":       func(p *Policy) { p.Domain = "user@api.sandbox.offblocks.xyz" },
		"domain is not ASCII":     func(p *Policy) { p.Domain = "\u0430pi.sandbox.offblocks.xyz" },
		"domain percent-encoded":  func(p *Policy) { p.Domain = "%61pi.sandbox.offblocks.xyz" },
		"domain without its port": func(p *Policy) { p.Domain = "api.sandbox.offblocks.xyz:" },
		"port without a domain":   func(p *Policy) { p.Domain = ":8080" },
		"URI is not a URI":        func(p *Policy) { p.URI = "api.sandbox.offblocks.xyz" },
		"statement of two lines":  func(p *Policy) { p.Statement = "a\nb" },
		"statement has a brace":   func(p *Policy) { p.Statement = "{" },
		"URI host is a URL":       func(p *Policy) { p.URIHost = "https://api.sandbox.offblocks.xyz/" },
		"no chain":                func(p *Policy) { p.ChainID = 0 },
		"no address":              func(p *Policy) { p.Address = common.Address{} },
		"no age":                  func(p *Policy) { p.MaxAge = 0 },
		"negative skew":           func(p *Policy) { p.Skew = -1 },
		"no clock":                func(p *Policy) { p.Now = nil },
	} {
		p := partnerPolicy()
		change(&p)
		err := parseAndCheck(p, partnerExample)
		var refusal *PolicyError
		if !errors.Is(err, ErrPolicy) || errors.As(err, &refusal) {
			t.Errorf("%s: got %v, want ErrPolicy and no *PolicyError", name, err)
		}
	}
}

func TestEqualASCII(t *testing.T) {
	for _, pair := range [][2]string{{"", ""}, {"a", "A"}, {"zZ9-.", "Zz9-."}, {"[::A]:1", "[::a]:1"}} {
		if !equalASCII(pair[0], pair[1]) {
			t.Errorf("%q and %q: got different, want equal", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]string{
		{"a", "b"}, {"a", "aa"}, {"@", "`"}, {"[", "{"}, {"]", "}"}, {"-", "\r"}, {"k", "\u212a"}, {"\u00e4", "\u00c4"},
	} {
		if equalASCII(pair[0], pair[1]) {
			t.Errorf("%q and %q: got equal, want different", pair[0], pair[1])
		}
	}
}

func TestErrorsQuoteInASCII(t *testing.T) {
	for _, err := range []error{
		parseAndCheck(partnerPolicy(), "\u0430"+partnerExample),
		parseAndCheck(partnerPolicy(), "x\x1b[2J"+partnerExample),
		partnerPolicy().Check(&Message{Domain: "\u202e"}),
		parseAndCheck(partnerPolicy(), strings.Repeat("x", 4000)+partnerExample),
	} {
		if err == nil {
			t.Fatal("got no error, want a refusal")
		}
		text := strings.ReplaceAll(err.Error(), "…", "")
		if len(text) > 400 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("got %q, want a line of at most 400 characters of ASCII", err.Error())
		}
	}
}
