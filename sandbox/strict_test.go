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

// TestStrict has one way to be wrong in every line; the last column is what the refusal says.
func TestStrict(t *testing.T) {
	p := open(t, nil)
	good := createBody(newWallet(1).account(), "ext-1")
	other, err := NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.s.RegisterCredentials(other); err != nil {
		t.Fatal(err)
	}
	p.login()
	mine := p.signer
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
	vendors := func(c Credentials) edit { return signedBy(signerOf(t, c, p.clock.now, vendorComponents()...)) }
	without := func(component string) edit {
		var rest []string
		for _, c := range vendorComponents() {
			if c != component {
				rest = append(rest, c)
			}
		}
		return signedBy(signerOf(t, p.cred, p.clock.now, rest...))
	}
	at := func(d time.Duration) edit {
		return signedBy(signerOf(t, p.cred, func() time.Time { return p.clock.now().Add(d) }, vendorComponents()...))
	}
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
		"no signature":          {get, list, "", after(drop("Signature")), 401, "signature"},
		"method not covered":    {get, list, "", without("@method"), 401, "@method"},
		"target not covered":    {get, list, "", without("@target-uri"), 401, "@target-uri"},
		"token not covered":     {get, list, "", without("authorization"), 401, "authorization"},
		"type not covered":      {post, list, good, without("content-type"), 401, "content-type"},
		"digest not covered":    {post, list, good, without("content-digest"), 401, "content-digest"},
		"key not covered":       {post, list, good, without("idempotency-key"), 401, "idempotency-key"},
		"signature too old":     {get, list, "", at(-5*time.Minute - time.Second), 401, "created"},
		"signature from future": {get, list, "", at(2 * time.Minute), 401, "created"},
		"unknown keyid":         {get, list, "", vendors(withKeyID(p.cred, "x")), 401, "keyid"},
		"another API key's key": {get, list, "", vendors(other), 401, "another API key"},
		"another private key":   {get, list, "", vendors(alien), 401, "signature"},
		"key changed after":     {post, list, good, otherKey, 401, "signature"},
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
			if a.err != nil || a.status != c.status || !strings.Contains(a.body+a.header.Get("Allow"), c.says) {
				t.Errorf("%d %q %v, want %d and %q", a.status, a.body, a.err, c.status, c.says)
			}
		})
	}
	p.signer = mine
	if n := len(p.s.Customers()); n != 0 {
		t.Errorf("%d customers were made by requests that are all wrong", n)
	}
	if a := p.do("POST", "/v1/customers", good); a.status != 201 {
		t.Errorf("the right request: %+v", a)
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
