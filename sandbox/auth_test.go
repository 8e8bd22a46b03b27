package sandbox

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/httpsig"
)

func credentialsBody(apiKey, secret string) string {
	return `{"apiKey":"` + apiKey + `","apiSecret":"` + secret + `"}`
}

func TestReplaceSecret(t *testing.T) {
	const path = "/v1/auth/credentials"
	p := open(t, nil)
	p.login()
	other, err := NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.s.RegisterCredentials(other); err != nil {
		t.Fatal(err)
	}
	p.cred, other = other, p.cred
	foreign := p.fetchToken().field(t, "token")
	p.cred, other = other, p.cred

	good := credentialsBody(p.cred.APIKey, "next secret")
	for name, c := range map[string]struct {
		body   string
		edit   edit
		status int
		says   string
	}{
		"no token":      {good, before(drop("Authorization")), 401, "Authorization"},
		"not signed":    {good, after(drop("Signature")), 400, "invalid required signature"},
		"no key":        {good, before(drop("Idempotency-Key")), 400, "Idempotency-Key"},
		"no digest":     {good, before(drop("Content-Digest")), 400, "Content-Digest"},
		"no UUID":       {credentialsBody("me", "x"), edit{}, 400, "UUID"},
		"no secret":     {credentialsBody(p.cred.APIKey, ""), edit{}, 400, "apiSecret is empty"},
		"unknown field": {strings.Replace(good, "{", `{"x":"y",`, 1), edit{}, 400, "unknown field"},
		"another's key": {credentialsBody(other.APIKey, "x"), edit{}, 409, "taken"},
	} {
		if a := p.do("PUT", path, c.body, c.edit); a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%s: got %+v, want %d and %q", name, a, c.status, c.says)
		}
	}
	if a := p.do("GET", path, ""); a.status != 405 {
		t.Errorf("GET: got %+v, want 405", a)
	}
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Fatalf("after requests that failed: got %+v, want status 200", a)
	}

	if a := p.do("PUT", path, good, withKey(testKey(500))); a.status != 204 || a.body != "" {
		t.Fatalf("PUT: got %+v, want 204", a)
	}
	if e := p.last(); e.Op != OpPutCredentials || e.Subject != p.cred.APIKey {
		t.Errorf("history: got %+v, want %s of %s", e, OpPutCredentials, p.cred.APIKey)
	}
	if a := p.do("GET", "/v1/customers", ""); a.status != 401 || !strings.Contains(a.body, "replaced") {
		t.Errorf("old token: got %+v, want 401", a)
	}
	if a := p.fetchToken(); a.status != 401 {
		t.Errorf("old secret: got %+v, want 401", a)
	}
	p.cred.APISecret = "next secret"
	p.login()
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("new secret: got %+v, want 200", a)
	}
	if a := p.do("PUT", path, good, withKey(testKey(500))); a.status != 204 || !p.last().Replayed {
		t.Errorf("the same request again: got %+v, want the stored 204", a)
	}
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("after the stored answer: got %+v, want status 200", a)
	}
	p.token, p.signer = foreign, signerOf(t, other, p.clock.now, vendorComponents()...)
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("another API key's token: got %+v, want 200", a)
	}
}

func TestReplaceAPIKey(t *testing.T) {
	p := open(t, nil)
	p.login()
	next := testKey(77)
	if a := p.do("PUT", "/v1/auth/credentials", credentialsBody(next, "next secret")); a.status != 204 {
		t.Fatalf("PUT: got %+v, want 204", a)
	}
	if a := p.do("GET", "/v1/customers", ""); a.status != 401 {
		t.Errorf("token of the old API key: got %+v, want 401", a)
	}
	if a := p.fetchToken(); a.status != 401 {
		t.Errorf("old API key: got %+v, want 401", a)
	}
	p.cred.APIKey, p.cred.APISecret = next, "next secret"
	p.login()
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("new API key with the same signing key: got %+v, want 200", a)
	}
}

// TestLostAnswerToReplaceSecret: requests about credentials have faults if Faults.On names them.
func TestLostAnswerToReplaceSecret(t *testing.T) {
	f, err := ParseFaults("drop-after=1,limit=1,on=put-credentials")
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, func(c *Config) { c.Faults = f })
	p.login()
	if a := p.do("PUT", "/v1/auth/credentials", credentialsBody(p.cred.APIKey, "next secret")); a.err == nil {
		t.Errorf("got %+v, want no answer", a)
	}
	if a := p.fetchToken(); a.status != 401 {
		t.Errorf("old secret: got %+v, want 401", a)
	}
}

func TestRegisterSigningKey(t *testing.T) {
	const path = "/v1/auth/signing"
	p := open(t, nil)
	p.login()
	second, err := NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	body := func(c Credentials) string {
		return `{"publicKey":"` + base64.StdEncoding.EncodeToString(publicPEM(t, c)) + `"}`
	}
	unsigned := after(func(r *http.Request) {
		r.Header.Del("Signature")
		r.Header.Del("Signature-Input")
	})
	signAs := func(keyID string, c Credentials) *httpsig.Signer {
		return signerOf(t, withKeyID(c, keyID), p.clock.now, vendorComponents()...)
	}

	if a := p.do("PUT", path, body(p.cred), unsigned); a.status != 200 || a.field(t, "keyId") != p.cred.KeyID {
		t.Errorf("the registered key, unsigned: got %+v, want 200 and its id %s", a, p.cred.KeyID)
	}
	p.wantBadSignature(t, p.do("PUT", path, body(second), unsigned), "no signature")
	a := p.do("PUT", path, body(second))
	if a.status != 200 {
		t.Fatalf("another key, signed: got %+v, want 200", a)
	}
	keyID := a.field(t, "keyId")
	if keyID == p.cred.KeyID || !isUUID(keyID) {
		t.Errorf("key id: got %s, want a new UUID", keyID)
	}
	p.wantBadSignature(t, p.do("GET", "/v1/customers", ""), "unknown key")
	p.signer = signAs(keyID, second)
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("new key: got %+v, want 200", a)
	}
	p.wantBadSignature(t, p.do("DELETE", path, "", unsigned), "no signature")
	if a := p.do("DELETE", path, ""); a.status != 204 || a.body != "" {
		t.Errorf("DELETE: got %+v, want 204", a)
	}
	p.wantBadSignature(t, p.do("GET", "/v1/customers", ""), "unknown key")
	a = p.do("PUT", path, body(p.cred), unsigned)
	if a.status != 200 {
		t.Fatalf("first key, unsigned: got %+v, want 200", a)
	}
	p.signer = signAs(a.field(t, "keyId"), p.cred)
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("first key: got %+v, want 200", a)
	}
	for _, bad := range []string{`{"publicKey":"!"}`, `{"publicKey":"AAAA"}`, `{"key":"x"}`} {
		if a := p.do("PUT", path, bad); a.status != 400 || !strings.Contains(a.body, "publicKey") &&
			!strings.Contains(a.body, "field") {
			t.Errorf("%s: got %+v, want 400", bad, a)
		}
	}
}
