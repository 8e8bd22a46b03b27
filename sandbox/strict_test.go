package sandbox

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/httpsig"
)

func publicPEM(t *testing.T, cred Credentials) []byte {
	t.Helper()
	key, err := httpsig.ParsePrivateKey(cred.PrivateKeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func before(f func(*http.Request)) edit { return edit{before: f} }
func after(f func(*http.Request)) edit  { return edit{after: f} }

func drop(name string) func(*http.Request) { return func(r *http.Request) { r.Header.Del(name) } }

func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// badSignature stands for the status of a refused request signature: 400 with VerifyVendor, 401 with VerifyRFC.
const badSignature = -1

// TestStrict has one way to be wrong in every line; the last column is what the refusal says.
func TestStrict(t *testing.T) {
	for _, verify := range []Verification{VerifyVendor, VerifyRFC} {
		t.Run(string(verify), func(t *testing.T) {
			testStrict(t, open(t, func(c *Config) {
				c.Verify, c.RequiredParams = verify, []string{"created", "expires"}
			}))
		})
	}
}

func testStrict(t *testing.T, p *partner) {
	good := createBody(newWallet(1).account(), "ext-1")
	other, err := NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.s.RegisterCredentials(other); err != nil {
		t.Fatal(err)
	}
	p.login()
	const get, post, list = http.MethodGet, http.MethodPost, "/v1/customers"
	const verify = "/v1/simulator/customers/x/verify"
	const digest = "Content-Digest"
	wrong := "sha-256=:" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + ":"
	signedBy := func(s *httpsig.Signer) edit {
		return after(func(r *http.Request) {
			if err := s.Sign(r); err != nil {
				t.Fatal(err)
			}
		})
	}
	latin1 := before(set("Content-Type", "application/json; charset=latin1"))
	otherKey := after(set("Idempotency-Key", testKey(99)))
	keyless := before(drop("Idempotency-Key"))
	twice := func(r *http.Request) { r.Header.Add("Idempotency-Key", testKey(98)) }
	signer := func(c Credentials, now func() time.Time, components ...string) *httpsig.Signer {
		return signerWith(t, c, httpsig.Options{Now: now, Components: components, Expires: time.Hour})
	}
	plain := signedBy(signerOf(t, p.cred, p.clock.now, vendorComponents()...))
	vendors := func(c Credentials) edit { return signedBy(signer(c, p.clock.now, vendorComponents()...)) }
	without := func(component string) edit {
		var rest []string
		for _, c := range vendorComponents() {
			if c != component {
				rest = append(rest, c)
			}
		}
		return signedBy(signer(p.cred, p.clock.now, rest...))
	}
	at := func(d time.Duration) edit {
		return signedBy(signer(p.cred, func() time.Time { return p.clock.now().Add(d) }, vendorComponents()...))
	}
	p.signer = signer(p.cred, p.clock.now, vendorComponents()...)
	alien := other
	alien.KeyID = p.cred.KeyID // somebody else's key under our id

	for name, c := range map[string]struct {
		method, path, body string
		edit               edit
		status             int
		says               string
	}{
		"no such path":          {"GET", "/v1/nothing", "", edit{}, 404, "endpoint"},
		"outside /v1":           {"GET", "/customers", "", edit{}, 404, "endpoint"},
		"trailing slash":        {"GET", "/v1/customers/", "", edit{}, 404, "endpoint"},
		"wrong method":          {"PUT", "/v1/customers", "", edit{}, 405, "GET, POST"},
		"unknown customer":      {"GET", "/v1/customers/" + testKey(9), "", edit{}, 404, "no such customer"},
		"query":                 {"GET", "/v1/customers?page=2", "", edit{}, 400, "query"},
		"no token":              {get, list, "", before(drop("Authorization")), 401, "Authorization"},
		"basic auth":            {get, list, "", before(set("Authorization", "Basic eDp5")), 401, "Bearer"},
		"foreign token":         {get, list, "", before(set("Authorization", "Bearer a.b.c")), 401, "not issued here"},
		"no JWT":                {get, list, "", before(set("Authorization", "Bearer x")), 401, "JWT"},
		"no signature":          {get, list, "", after(drop("Signature")), badSignature, "signature"},
		"method not covered":    {get, list, "", without("@method"), badSignature, "@method"},
		"host not covered":      {get, list, "", without("@authority"), badSignature, "@authority"},
		"path not covered":      {get, list, "", without("@path"), badSignature, "@path"},
		"parameter missing":     {get, list, "", plain, badSignature, "expires"},
		"token not covered":     {get, list, "", without("authorization"), badSignature, "authorization"},
		"type not covered":      {post, list, good, without("content-type"), badSignature, "content-type"},
		"digest not covered":    {post, list, good, without("content-digest"), badSignature, "content-digest"},
		"key not covered":       {post, list, good, without("idempotency-key"), badSignature, "idempotency-key"},
		"signature too old":     {get, list, "", at(-5*time.Minute - time.Second), badSignature, "created"},
		"signature from future": {get, list, "", at(2 * time.Minute), badSignature, "created"},
		"unknown keyid":         {get, list, "", vendors(withKeyID(p.cred, "x")), badSignature, "keyid"},
		"another API key's key": {get, list, "", vendors(other), badSignature, "another API key"},
		"another private key":   {get, list, "", vendors(alien), badSignature, "signature"},
		"key changed after":     {post, list, good, otherKey, badSignature, "signature"},
		"no digest":             {post, list, good, before(drop(digest)), 400, digest},
		"wrong digest":          {post, list, good, before(set(digest, wrong)), 400, digest},
		"unknown digest":        {post, list, good, before(set(digest, "md5=:AAAA:")), 400, digest},
		"no media type":         {post, list, good, before(drop("Content-Type")), 415, "application/json"},
		"text":                  {post, list, good, before(set("Content-Type", "text/plain")), 415, "application/json"},
		"latin-1":               {post, list, good, latin1, 415, "application/json"},
		"no idempotency key":    {post, list, good, keyless, 400, "is missing"},
		"key is no UUID":        {post, list, good, withKey("42"), 400, "UUID"},
		"two keys":              {post, list, good, before(twice), 400, "2 times"},
		"PATCH without key":     {http.MethodPatch, verify, "", keyless, 400, "is missing"},
		"body on GET":           {get, list, "{}", edit{}, 400, "no body"},
		"body on PATCH":         {http.MethodPatch, verify, "{}", edit{}, 400, "no body"},
		"large body":            {post, list, strings.Repeat(" ", 65<<10), edit{}, 413, "larger"},
		"empty body": {post, list, "", before(func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set(digest, "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")
		}), 400, "JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			a := p.do(c.method, c.path, c.body, c.edit)
			if c.status == badSignature {
				p.wantBadSignature(t, a, c.says)
				return
			}
			if a.err != nil || a.status != c.status || !strings.Contains(a.body+a.header.Get("Allow"), c.says) {
				t.Errorf("%d %q %v, want %d and %q", a.status, a.body, a.err, c.status, c.says)
			}
		})
	}
	if n := len(p.s.Customers()); n != 0 {
		t.Errorf("%d customers were made by requests that are all wrong", n)
	}
	if a := p.do("POST", "/v1/customers", good); a.status != 201 {
		t.Errorf("the right request: %+v", a)
	}
}

// wantBadSignature wants the answer to a refused request signature, and its cause in the history.
func (p *partner) wantBadSignature(t *testing.T, a answer, cause string) {
	t.Helper()
	says, status, kind := "invalid required signature", 400, "text/plain"
	if p.s.cfg.Verify == VerifyRFC {
		says, status, kind = cause, 401, "application/problem+json"
	}
	if a.err != nil || a.status != status || a.header.Get("Content-Type") != kind || !strings.Contains(a.body, says) ||
		status == 400 && a.body != says {
		t.Errorf("%+v, want %d, %s and %q", a, status, kind, says)
	}
	if e := p.last(); !strings.Contains(e.Reason, cause) || !e.BadSignature {
		t.Errorf("history has the reason %q, want %q", e.Reason, cause)
	}
}

// TestVerifications has what the two ways to verify disagree about.
func TestVerifications(t *testing.T) {
	uri := []string{"@method", "@target-uri", "authorization"}
	for name, c := range map[string]struct {
		components  []string // nil: the default ones
		created     time.Duration
		configure   func(*Config)
		rfc, vendor string // the cause of a refusal; empty: accepted
	}{
		"default":             {},
		"absolute target URI": {components: uri, vendor: "does not verify"},
		"required components": {components: uri, configure: func(c *Config) { c.RequiredComponents = vendorComponents() },
			rfc: "@authority", vendor: "@authority"},
		"fewer required components": {components: []string{"@method"},
			configure: func(c *Config) { c.RequiredComponents = []string{"@method"} }},
		"created ahead":        {created: time.Second, vendor: "future"},
		"created far ahead":    {created: 61 * time.Second, rfc: "future", vendor: "future"},
		"within the skew":      {created: 5 * time.Second, configure: skew(5 * time.Second)},
		"beyond the skew":      {created: 6 * time.Second, configure: skew(5 * time.Second), rfc: "future", vendor: "future"},
		"no skew":              {created: time.Second, configure: skew(-1), rfc: "future", vendor: "future"},
		"at the maximum age":   {created: -5 * time.Minute},
		"over the maximum age": {created: -5*time.Minute - time.Second, rfc: "too old", vendor: "too old"},
	} {
		for verify, cause := range map[Verification]string{VerifyRFC: c.rfc, VerifyVendor: c.vendor} {
			t.Run(name+", "+string(verify), func(t *testing.T) {
				p := open(t, func(cfg *Config) {
					cfg.Verify = verify
					if c.configure != nil {
						c.configure(cfg)
					}
				})
				if c.components == nil {
					c.components = vendorComponents()
				}
				p.signer = signerOf(t, p.cred, func() time.Time { return p.clock.now().Add(c.created) }, c.components...)
				a := p.do("GET", "/v1/customers", "")
				if cause != "" {
					p.wantBadSignature(t, a, cause)
				} else if a.status != 200 {
					t.Errorf("%+v, want 200; history has the reason %q", a, p.last().Reason)
				}
			})
		}
	}
}

func skew(d time.Duration) func(*Config) { return func(c *Config) { c.SignatureSkew = d } }

// TestClockOffset: the Date header and the check of created follow the same clock.
func TestClockOffset(t *testing.T) {
	p := open(t, func(c *Config) { c.TokenTTL = 24 * time.Hour })
	p.login()
	const get, list = http.MethodGet, "/v1/customers"
	for _, c := range []struct {
		advance time.Duration
		cause   string
		date    string
	}{
		{-time.Second, "future", "18:21:52"},
		{time.Second, "", "18:21:53"},
		{5*time.Minute + time.Second, "too old", "18:26:54"},
		{-time.Second, "", "18:26:53"},
	} {
		p.s.Advance(c.advance)
		a := p.do(get, list, "")
		if got, want := a.header.Get("Date"), "Fri, 17 Jan 2025 "+c.date+" GMT"; got != want {
			t.Errorf("Date %s, want %s", got, want)
		}
		if c.cause != "" {
			p.wantBadSignature(t, a, c.cause)
		} else if a.status != 200 {
			t.Errorf("%s: %+v, want 200; history has the reason %q", c.date, a, p.last().Reason)
		}
	}
}

// TestBadSignatureSettlesNothing: a 400 for the signature says nothing of what an earlier request with the key did.
func TestBadSignatureSettlesNothing(t *testing.T) {
	p := open(t, nil)
	p.s.SetFaults(Faults{DropAfter: 1, Limit: 1, On: []Operation{OpCreate}})
	body := createBody(newWallet(1).account(), "ext-1")
	p.do("POST", "/v1/customers", body, withKey(testKey(1)))
	p.do("POST", "/v1/customers", body, withKey(testKey(1)), after(drop("Signature")))
	p.do("POST", "/v1/customers", body, withKey(testKey(2)))
	v := p.s.Judge(nil).Violations
	if len(v) != 1 || v[0].Rule != OpenKey {
		t.Errorf("verdict %+v, want one of %s", v, OpenKey)
	}
}

// TestStrictBodies has one way to be wrong in every line; the right part is what the 400 says.
func TestStrictBodies(t *testing.T) {
	p := open(t, nil)
	account := newWallet(1).account()
	good := createBody(account, "ext-1")
	swapped := func(old, with string) string { return strings.Replace(good, old, with, 1) }
	for body, says := range map[string]string{
		"[]":                                       "JSON object",
		`{"chainId":`:                              "JSON",
		good + "{}":                                "after",
		good + "x":                                 "after",
		swapped("{", `{"x":"y",`):                  "unknown field",
		swapped("chainId", "chainID"):              "unknown field",
		swapped("{", `{"externalId":"a",`):         "twice",
		`{"chainId":"` + account + `"}`:            "missing",
		`{"chainId":42,"externalId":"a"}`:          "not a string",
		swapped("ext-1", "\xff"):                   "UTF-8",
		swapped("eip155:", ""):                     "CAIP-10",
		swapped("eip155", "EIP155"):                "CAIP-10",
		swapped("eip155", "solana"):                "EVM",
		swapped(":300:", ":0300:"):                 "chain id",
		createBody(account[:50], "ext-1"):          "40 hex",
		createBody(account, ""):                    "empty",
		swapped("ext-1", `a\u0000`):                "unprintable",
		swapped("ext-1", strings.Repeat("x", 256)): "255",
	} {
		if a := p.do("POST", "/v1/customers", body); a.status != 400 || !strings.Contains(a.body, says) {
			t.Errorf("%s: %d %q, want 400 and %q", body, a.status, a.body, says)
		}
	}
	if n := len(p.s.Customers()); n != 0 {
		t.Errorf("%d customers were made by requests that are all wrong", n)
	}
}

func TestSignIsStrict(t *testing.T) {
	p := open(t, nil)
	w := newWallet(1)
	id, challenge := p.create(w)
	good := w.submission(t, challenge)
	for name, c := range map[string]struct {
		id, body string
		status   int
	}{
		"unknown customer": {testKey(9), good, 404},
		"other owner":      {id, newWallet(2).submission(t, challenge), 400},
		"unknown field":    {id, strings.Replace(good, "{", `{"x":"y",`, 1), 400},
		"no signature":     {id, `{"ownerId":"` + w.account() + `"}`, 400},
	} {
		if a := p.do("POST", "/v1/customers/"+c.id+"/challenge/sign", c.body); a.status != c.status {
			t.Errorf("%s: %+v, want %d", name, a, c.status)
		}
	}
	if a := p.do("POST", "/v1/customers/"+id+"/challenge/sign", good); a.status != 204 {
		t.Errorf("none of them may have cost the challenge: %+v", a)
	}
}

func withKeyID(c Credentials, id string) Credentials {
	c.KeyID = id
	return c
}

func TestTokenRequestIsStrict(t *testing.T) {
	p := open(t, nil)
	for body, status := range map[string]int{
		`{"apiKey":"` + p.cred.APIKey + `","apiSecret":"wrong"}`:     401,
		`{"apiKey":"` + testKey(5) + `","apiSecret":"wrong"}`:        401,
		`{"apiKey":"me","apiSecret":"wrong"}`:                        400,
		`{"apiKey":"` + p.cred.APIKey + `"}`:                         400,
		`{"apiKey":"` + p.cred.APIKey + `","apiSecret":"x","y":"z"}`: 400,
	} {
		r, err := http.NewRequest(http.MethodPost, p.api.URL+"/v1/auth/token", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if a := p.send(r); a.status != status {
			t.Errorf("%s: %+v, want %d", body, a, status)
		}
	}
}

func TestTokenExpires(t *testing.T) {
	p := open(t, func(c *Config) { c.TokenTTL = time.Minute })
	p.login()
	p.clock.advance(time.Minute)
	a := p.do("GET", "/v1/customers", "")
	if a.status != 401 || !strings.Contains(a.body, "expired") || a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("%+v", a)
	}
	if e := p.last(); e.APIKey != p.cred.APIKey {
		t.Errorf("history does not know whose token it was: %+v", e)
	}
}

func TestUniqueness(t *testing.T) {
	p := open(t, nil)
	a, b := newWallet(1), newWallet(2)
	p.create(a)
	for name, body := range map[string]string{
		"same pair":            createBody(a.account(), "ext-1"),
		"same account":         createBody(a.account(), "ext-2"),
		"same account, folded": createBody(strings.ToLower(a.account()), "ext-2"),
		"same externalId":      createBody(b.account(), "ext-1"),
	} {
		if got := p.do("POST", "/v1/customers", body); got.status != 409 || !strings.Contains(got.body, "already exists") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	lower := strings.ToLower(b.account())
	got := p.do("POST", "/v1/customers", createBody(lower, "ext-2"))
	if got.status != 201 || got.field(t, "chainId") != lower {
		t.Errorf("account in lower case is not kept as sent: %+v", got)
	}
}

func TestSignatureForms(t *testing.T) {
	w := newWallet(1)
	forms := map[string]func(sig []byte) []byte{
		"hex":        func(sig []byte) []byte { return []byte("0x" + hex.EncodeToString(sig)) },
		"raw":        func(sig []byte) []byte { return sig },
		"no 0x":      func(sig []byte) []byte { return []byte(hex.EncodeToString(sig)) },
		"v 0 or 1":   func(sig []byte) []byte { sig[64] -= 27; return []byte("0x" + hex.EncodeToString(sig)) },
		"high s":     func(sig []byte) []byte { highS(sig); return []byte("0x" + hex.EncodeToString(sig)) },
		"64 bytes":   func(sig []byte) []byte { return []byte("0x" + hex.EncodeToString(sig[:64])) },
		"not base64": nil,
	}
	for encoding, accepted := range map[SignatureEncoding][]string{
		EncodingHex: {"hex"}, EncodingRaw: {"raw"}, EncodingAny: {"hex", "raw"},
	} {
		p := open(t, func(c *Config) { c.Encoding = encoding })
		for name, form := range forms {
			p.s.Reset()
			p.login()
			id, challenge := p.create(w)
			text, _ := base64.StdEncoding.DecodeString(challenge)
			body := `{"ownerId":"` + w.account() + `","signature":"0x!"}`
			if form != nil {
				body = w.submit(form(w.sign(t, string(text))))
			}
			want := 400
			for _, good := range accepted {
				if good == name {
					want = 204
				}
			}
			path := "/v1/customers/" + id + "/challenge"
			if a := p.do("POST", path+"/sign", body); a.status != want {
				t.Errorf("%s, %s accepted: %+v, want %d", name, encoding, a, want)
			}
			if want == 400 && p.do("GET", path, "").field(t, "challenge") != challenge {
				t.Errorf("%s: a malformed signature replaced the challenge", name)
			}
		}
	}
}

// highS makes the other signature that ECDSA accepts: s becomes n-s, v the other parity.
func highS(sig []byte) {
	s := common.BytesToHash(sig[32:64]).Big()
	s.Sub(crypto.S256().Params().N, s)
	s.FillBytes(sig[32:64])
	sig[64] = 27 + 28 - sig[64]
}

func TestErrorShapes(t *testing.T) {
	seen := map[string]bool{}
	for shape, want := range map[ErrorShape][2]string{
		ShapeProblem: {"application/problem+json", `"title":"Not Found"`},
		ShapeCode:    {"application/json", `"code":"not_found"`},
		ShapeText:    {"text/plain; charset=utf-8", "Not Found: "},
		ShapeHTML:    {"text/html", "<html>"},
		ShapeEmpty:   {"", ""},
	} {
		p := open(t, func(c *Config) { c.ErrorShape = shape })
		a := p.do("GET", "/v1/customers/"+testKey(1), "")
		if a.status != 404 || a.header.Get("Content-Type") != want[0] || !strings.Contains(a.body, want[1]) {
			t.Errorf("%s: %+v", shape, a)
		}
		if shape == ShapeEmpty && a.body != "" {
			t.Errorf("empty has a body: %q", a.body)
		}
	}
	p := open(t, func(c *Config) { c.ErrorShape = ShapeRotate })
	for i := range 40 {
		seen[p.do("GET", "/v1/customers/"+testKey(i), "").header.Get("Content-Type")] = true
	}
	if len(seen) != 5 {
		t.Errorf("rotation showed %v", seen)
	}
}
