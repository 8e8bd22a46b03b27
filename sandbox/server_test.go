package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/siwe"
)

func TestRoad(t *testing.T) {
	p := open(t, nil)
	w := newWallet(1)

	a := p.fetchToken()
	if a.status != 200 || a.field(t, "tokenType") != "Bearer" || strings.Count(a.field(t, "token"), ".") != 2 {
		t.Fatalf("token: got %+v, want a Bearer token, a JWT", a)
	}
	if want := fmt.Sprintf(`"expiresAt":%d,`, p.clock.now().Add(time.Hour).Unix()); !strings.Contains(a.body, want) {
		t.Errorf("token: got %s, want %s", a.body, want)
	}

	a = p.do("POST", "/v1/customers", createBody(w.account(), "ext-1"))
	if a.status != 201 || a.field(t, "status") != "initiating" || a.field(t, "chainId") != w.account() {
		t.Fatalf("create: got %+v, want status 201, status initiating, chainId %s", a, w.account())
	}
	id := a.field(t, "id")
	if _, err := uuid.Parse(id); err != nil {
		t.Errorf("id: got %q, want a UUID", id)
	}
	if got := a.field(t, "createdAt"); got != "2025-01-17T18:21:53.000Z" {
		t.Errorf("createdAt: got %s, want milliseconds, as the vendor has", got)
	}
	challenge := a.field(t, "challenge")
	if a = p.do("GET", "/v1/customers/"+id+"/challenge", ""); a.status != 200 || a.field(t, "challenge") != challenge {
		t.Errorf("challenge: got %+v, want status 200, challenge %s", a, challenge)
	}
	if a = p.do("GET", "/v1/customers/"+id, ""); a.status != 200 || strings.Contains(a.body, "challenge") {
		t.Errorf("read: got %+v, want status 200, a body without challenge", a)
	}
	a = p.do("POST", "/v1/customers/"+id+"/challenge/sign", w.submission(t, challenge))
	if a.status != 204 || a.body != "" {
		t.Fatalf("sign: got %+v, want status 204, no body", a)
	}
	if a = p.do("GET", "/v1/customers/"+id, ""); a.field(t, "status") != "screening" {
		t.Errorf("read: got %+v, want status screening", a)
	}
	for _, step := range []struct {
		action, status string
	}{{"verify", "active"}, {"reject", "rejected"}} {
		if a = p.do("PATCH", "/v1/simulator/customers/"+id+"/"+step.action, ""); a.status != 202 || a.body != "" {
			t.Errorf("%s: got %+v, want status 202, no body", step.action, a)
		}
		if a = p.do("GET", "/v1/customers/"+id, ""); a.field(t, "status") != step.status {
			t.Errorf("after %s: got %+v, want status %s", step.action, a, step.status)
		}
	}
	p.wantNoViolations([]Expected{{w.account(), "ext-1", "onboarded"}})
}

func TestListStreamsAllInOrder(t *testing.T) {
	p := open(t, nil)
	if a := p.do("GET", "/v1/customers", ""); a.body != "[]" {
		t.Errorf("empty list: got %+v, want body []", a)
	}
	const n = 300
	for i := range n {
		if _, err := p.s.Add(newWallet(i).account(), fmt.Sprint("ext-", i), StatusActive); err != nil {
			t.Fatal(err)
		}
	}
	a := p.do("GET", "/v1/customers", "")
	var list []view
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list) != n {
		t.Fatalf("got %d customers, %v; want %d", len(list), err, n)
	}
	for i, c := range list {
		if c.ExternalID != fmt.Sprint("ext-", i) || c.Status != StatusActive || c.Challenge != "" {
			t.Fatalf("customer %d: got %+v, want ext-%[1]d, active, without a challenge", i, c)
		}
	}
}

func TestChallengeIsASignInMessage(t *testing.T) {
	p := open(t, func(c *Config) {
		c.Domain, c.ChallengeURI = "api.sandbox.offblocks.xyz", "https://api.sandbox.offblocks.xyz"
	})
	w := newWallet(1)
	_, challenge := p.create(w)
	text, err := base64.StdEncoding.DecodeString(challenge)
	if err != nil {
		t.Fatal(err)
	}
	m, err := siwe.Parse(string(text))
	if err != nil {
		t.Fatalf("got %v, want a valid message\n%s", err, text)
	}
	policy := siwe.Policy{
		Domain: "api.sandbox.offblocks.xyz", ChainID: 300, Address: crypto.PubkeyToAddress(w.key.PublicKey),
		Statement: vendorStatement,
		MaxAge:    time.Hour, Skew: time.Minute, Now: p.clock.now,
	}
	if err := policy.Check(m); err != nil {
		t.Errorf("got %v, want the policy to allow\n%s", err, text)
	}
	if m.Statement != vendorStatement || len(m.Nonce) != 16 {
		t.Errorf("got statement %q, nonce %q; want the vendor's and 16 characters", m.Statement, m.Nonce)
	}

	_, challenge = open(t, nil).create(w) // the host comes from the request when it is not configured
	text, _ = base64.StdEncoding.DecodeString(challenge)
	m, err = siwe.Parse(string(text))
	if err != nil || m.URI != "http://"+m.Domain || !strings.HasPrefix(m.Domain, "127.0.0.1:") {
		t.Errorf("got %v, want domain and URI of the request's host\n%s", err, text)
	}
}

func TestChallengeExpiresAndIsReplaced(t *testing.T) {
	p := open(t, nil)
	w := newWallet(1)
	id, first := p.create(w)
	path := "/v1/customers/" + id + "/challenge"

	p.clock.advance(59 * time.Minute)
	if got := p.do("GET", path, "").field(t, "challenge"); got != first {
		t.Error("after 59m: got another challenge, want the first")
	}
	p.clock.advance(time.Minute)
	p.login() // the token has expired, too
	if a := p.do("POST", path+"/sign", w.submission(t, first)); a.status != 400 || !strings.Contains(a.body, "expired") {
		t.Errorf("expired challenge: got %+v, want status 400, a body with expired", a)
	}
	second := p.do("GET", path, "").field(t, "challenge")
	if second == first {
		t.Fatal("after an expired challenge: got the same, want a new one")
	}
	if a := p.do("POST", path+"/sign", newWallet(2).submission(t, second)); a.status != 400 { // other owner
		t.Errorf("other owner: got %+v, want status 400", a)
	}
	if got := p.do("GET", path, "").field(t, "challenge"); got != second {
		t.Error("after a wrong ownerId: got another challenge, want the same")
	}
	a := p.do("POST", path+"/sign", w.submission(t, first))
	if a.status != 400 || !strings.Contains(a.body, "new challenge") {
		t.Errorf("signature over the old challenge: got %+v, want status 400, a body with new challenge", a)
	}
	third := p.do("GET", path, "").field(t, "challenge")
	if third == second {
		t.Fatal("after a wrong signature: got the same challenge, want a new one")
	}
	p.clock.advance(61 * time.Minute)
	p.login()
	fourth := p.do("GET", path, "").field(t, "challenge")
	if fourth == third {
		t.Fatal("after 61m: got the same challenge, want a new one")
	}
	if a := p.do("POST", path+"/sign", w.submission(t, fourth)); a.status != 204 {
		t.Errorf("sign: got %+v, want status 204", a)
	}
	for _, a := range []answer{p.do("POST", path+"/sign", w.submission(t, fourth)), p.do("GET", path, "")} {
		if a.status != 409 {
			t.Errorf("past initiating: got %+v, want status 409", a)
		}
	}
}

func TestGivenCustomerGetsAChallengeWhenAsked(t *testing.T) {
	p := open(t, nil)
	w := newWallet(1)
	c, err := p.s.Add(w.account(), "ext-1", StatusInitiating)
	if err != nil {
		t.Fatal(err)
	}
	challenge := p.do("GET", "/v1/customers/"+c.ID+"/challenge", "").field(t, "challenge")
	if a := p.do("POST", "/v1/customers/"+c.ID+"/challenge/sign", w.submission(t, challenge)); a.status != 204 {
		t.Errorf("sign: got %+v, want status 204", a)
	}
}

func TestSigningKeyLifeCycle(t *testing.T) {
	p := open(t, nil)
	cred, err := NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.s.Register(cred.APIKey, cred.APISecret, "", nil)
	p.cred, p.token = cred, ""
	p.signer = signerOf(t, cred, p.clock.now, vendorComponents()...)
	if a := p.do("GET", "/v1/customers", ""); a.status != 400 {
		t.Errorf("before the key is registered: got %+v, want status 400", a)
	}
	a := p.do("PUT", "/v1/auth/signing", `{"publicKey":"`+base64.StdEncoding.EncodeToString(publicPEM(t, cred))+`"}`)
	if a.status != 200 {
		t.Fatalf("PUT /auth/signing: got %+v, want status 200", a)
	}
	cred.KeyID = a.field(t, "keyId")
	p.signer = signerOf(t, cred, p.clock.now, vendorComponents()...)
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("after: got %+v, want status 200", a)
	}
	if a := p.do("DELETE", "/v1/auth/signing", ""); a.status != 204 {
		t.Errorf("DELETE: got %+v, want status 204", a)
	}
	if a := p.do("GET", "/v1/customers", ""); a.status != 400 {
		t.Errorf("after the key is removed: got %+v, want status 400", a)
	}
}

func TestThrottleSaysWhenInBothForms(t *testing.T) {
	p := open(t, func(c *Config) { c.Rate, c.RateBurst = 2, 2 })
	p.login()
	p.do("GET", "/v1/customers", "") // the burst of two is spent
	first, second := p.do("GET", "/v1/customers", ""), p.do("GET", "/v1/customers", "")
	if first.status != 429 || second.status != 429 {
		t.Fatalf("got %d and %d, want 429 twice", first.status, second.status)
	}
	if got := first.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After: got %q, want 1 second", got)
	}
	at, err := http.ParseTime(second.header.Get("Retry-After"))
	if err != nil || at.Before(p.clock.now().Add(time.Second)) {
		t.Errorf("Retry-After: got %q, %v; want a date in a second", second.header.Get("Retry-After"), err)
	}
	if !p.last().Throttled {
		t.Errorf("history: got %+v, want it throttled", p.last())
	}
	p.clock.advance(time.Second)
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("after the wait: got %+v, want status 200", a)
	}
}

func TestResetForgets(t *testing.T) {
	p := open(t, nil)
	id, _ := p.create(newWallet(1))
	p.s.Reset()
	if a := p.do("GET", "/v1/customers/"+id, ""); a.status != 401 {
		t.Errorf("old token after a reset: got %+v, want status 401", a)
	}
	p.login()
	if a := p.do("GET", "/v1/customers/"+id, ""); a.status != 404 {
		t.Errorf("customer after a reset: got %+v, want status 404", a)
	}
	if again, _ := p.create(newWallet(1)); again != id {
		t.Errorf("id after a reset: got %s, want %s, as before", again, id)
	}
}

func TestSameSeedSameRunInAnyOrder(t *testing.T) {
	const n = 24
	run := func(seed uint64, order func(i int) int) string {
		p := open(t, func(c *Config) {
			c.Seed, c.Domain = seed, "sandbox.example"
			c.Faults = Faults{Unstored5xx: 0.3, Truncated: 0.2, ChallengeChain: 0.5, On: []Operation{OpCreate}}
		})
		p.login()
		answers := make([]string, n)
		var wg sync.WaitGroup
		for i := range n {
			row := order(i)
			body := createBody(newWallet(row).account(), fmt.Sprint("ext-", row))
			r := p.request("POST", "/v1/customers", body, withKey(testKey(1000+row)))
			wg.Go(func() {
				a := p.send(r)
				answers[row] = fmt.Sprint(a.status, a.err != nil, a.body)
			})
		}
		wg.Wait()
		return strings.Join(answers, "\n")
	}
	forward := run(1, func(i int) int { return i })
	backward := run(1, func(i int) int { return n - 1 - i })
	if forward != backward {
		t.Errorf("the reverse order: got\n%s\nwant\n%s", backward, forward)
	}
	if forward == run(2, func(i int) int { return i }) {
		t.Error("another seed: got the same run, want another")
	}
}

func TestNewNamesTheWrongField(t *testing.T) {
	now := newClock().now
	for field, cfg := range map[string]Config{
		"Now":                {},
		"TokenTTL":           {Now: now, TokenTTL: time.Millisecond},
		"KeyTTL":             {Now: now, KeyTTL: -1},
		"Rate":               {Now: now, Rate: -1},
		"Encoding":           {Now: now, Encoding: "der"},
		"ErrorShape":         {Now: now, ErrorShape: "xml"},
		"Faults":             {Now: now, Faults: Faults{Slow: 2}},
		"RequiredComponents": {Now: now, RequiredComponents: []string{"@nonsense"}},
		"RequiredParams":     {Now: now, RequiredParams: []string{"nonsense"}},
		"Verify":             {Now: now, Verify: "draft"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v, want an error that names it", field, err)
		}
	}
}

func TestCredentialsKeepTheirSecrets(t *testing.T) {
	cred, err := NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(cred), fmt.Sprintf("%+v %#v", cred, cred)} {
		if strings.Contains(text, cred.APISecret) || strings.Contains(text, "PRIVATE") {
			t.Errorf("got %s, want it without secrets", text)
		}
	}
}

// TestRestore: a server with the same seed takes over customers with their challenges, another does not.
func TestRestore(t *testing.T) {
	p := open(t, nil)
	p.create(newWallet(1))
	want := p.s.Customers()
	other, err := New(Config{Now: p.clock.now, Seed: p.s.cfg.Seed, Statement: p.s.cfg.Statement})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Restore(want[0]); err != nil {
		t.Fatal(err)
	}
	want[0].Given = true
	if got := other.Customers(); len(got[0].Challenges) != 1 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := other.Restore(want[0]); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("again: got %v, want an error that it is taken", err)
	}
	if other, err = New(Config{Now: p.clock.now, Seed: p.s.cfg.Seed + 1}); err != nil {
		t.Fatal(err)
	}
	if err := other.Restore(want[0]); err == nil || !strings.Contains(err.Error(), want[0].ID) {
		t.Errorf("another seed: got %v, want an error with the customer's id", err)
	}
}
