package sandbox

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

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

// TestStrict has a wrong request in every line; the last column is in the answer.
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
	alien.KeyID = p.cred.KeyID // another private key under our key id

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
				t.Errorf("got %d %q %v, want %d and %q", a.status, a.body, a.err, c.status, c.says)
			}
		})
	}
	if n := len(p.s.Customers()); n != 0 {
		t.Errorf("after wrong requests: got %d customers, want 0", n)
	}
	if a := p.do("POST", "/v1/customers", good); a.status != 201 {
		t.Errorf("the right request: got %+v, want status 201", a)
	}
}

// TestStrictBodies has a wrong body in every line, with what the 400 says.
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
			t.Errorf("%s: got %d %q, want 400 and %q", body, a.status, a.body, says)
		}
	}
	if n := len(p.s.Customers()); n != 0 {
		t.Errorf("after wrong requests: got %d customers, want 0", n)
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
			t.Errorf("%s: got %+v, want %d", body, a, status)
		}
	}
}

func TestTokenExpires(t *testing.T) {
	p := open(t, func(c *Config) { c.TokenTTL = time.Minute })
	p.login()
	p.clock.advance(time.Minute)
	a := p.do("GET", "/v1/customers", "")
	if a.status != 401 || !strings.Contains(a.body, "expired") || a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("got %+v, want status 401, a body with expired, a WWW-Authenticate", a)
	}
	if e := p.last(); e.APIKey != p.cred.APIKey {
		t.Errorf("history: got %+v, want the API key %s", e, p.cred.APIKey)
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
			t.Errorf("%s: got %+v, want status 409, a body with already exists", name, got)
		}
	}
	lower := strings.ToLower(b.account())
	got := p.do("POST", "/v1/customers", createBody(lower, "ext-2"))
	if got.status != 201 || got.field(t, "chainId") != lower {
		t.Errorf("account in lower case is not kept as sent: got %+v, want status 201, chainId %s", got, lower)
	}
}
