package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/siwe"
)

// TestEveryFault has each fault occur once, and checks the answer, the customer, and the answer to a second attempt
// under the same key.
func TestEveryFault(t *testing.T) {
	type after struct {
		customers int // after the first attempt
		status    int // of the second attempt
	}
	for fault, c := range map[Fault]struct {
		saw   func(a answer) bool
		after after
	}{
		expiredToken: {func(a answer) bool { return a.status == 401 && strings.Contains(a.body, "expired") }, after{0, 201}},
		throttle429:  {func(a answer) bool { return a.status == 429 && a.header.Get("Retry-After") != "" }, after{0, 201}},
		throttle503:  {func(a answer) bool { return a.status == 503 && a.header.Get("Retry-After") != "" }, after{0, 201}},
		dropBefore:   {func(a answer) bool { return a.status == 0 && a.err != nil }, after{0, 201}},
		htmlError:    {func(a answer) bool { return a.status == 502 && strings.HasPrefix(a.body, "<html>") }, after{0, 201}},
		redirect: {func(a answer) bool {
			return a.status/100 == 3 && strings.Contains(a.header.Get("Location"), canaryPath)
		}, after{0, 201}},
		inFlight409: {func(a answer) bool { return a.status == 409 && strings.Contains(a.body, "Concur") }, after{0, 201}},
		unstored5xx: {func(a answer) bool { return a.status >= 500 && a.header.Get("Retry-After") == "" }, after{0, 201}},

		stored5xx:        {func(a answer) bool { return a.status >= 500 }, after{0, -1}},
		stored5xxAfter:   {func(a answer) bool { return a.status >= 500 }, after{1, -1}},
		unstored5xxAfter: {func(a answer) bool { return a.status >= 500 }, after{1, 409}},
		slow:             {func(a answer) bool { return a.status == 201 }, after{1, 201}},

		dropAfter: {func(a answer) bool { return a.status == 0 && a.err != nil }, after{1, 201}},
		truncated: {func(a answer) bool { return a.status == 201 && a.err != nil }, after{1, 201}},
		malformed: {func(a answer) bool { return a.status == 201 && a.err == nil && !hasID(a.body) }, after{1, 201}},
		trickle:   {func(a answer) bool { return a.status == 201 && a.err == nil && hasID(a.body) }, after{1, 201}},

		statusUnknown: {func(a answer) bool {
			return a.status == 201 && hasID(a.body) && !Status(a.member("status")).known()
		}, after{1, 201}},
		statusCase: {func(a answer) bool {
			status := a.member("status")
			return a.status == 201 && status != "initiating" && strings.EqualFold(status, "initiating")
		}, after{1, 201}},
		wrapped: {func(a answer) bool {
			return a.status == 201 && !hasID(a.body) && hasID(a.member("data")+a.member("customer"))
		}, after{1, 201}},
		renamed: {func(a answer) bool {
			return a.status == 201 && (isUUID(a.member("customerId")) && a.member("id") == "" ||
				len(a.member("message")) > 100 && a.member("challenge") == "")
		}, after{1, 201}},
	} {
		t.Run(string(fault), func(t *testing.T) {
			f := Faults{Limit: 1, On: []Operation{OpCreate}, SlowFor: time.Millisecond, Pause: time.Microsecond}
			*f.probability(fault) = 1
			p := open(t, func(c *Config) { c.Faults = f })
			body := createBody(newWallet(1).account(), "ext-1")
			first := p.do("POST", "/v1/customers", body, withKey(testKey(1)))
			if !c.saw(first) {
				t.Errorf("first attempt: got %+v, want the answer of %s", first, fault)
			}
			e := p.last()
			if !slices.Equal(e.Faults, []Fault{fault}) || e.Attempt != 1 || e.Created != (c.after.customers == 1) {
				t.Errorf("history: got %+v, want %s at attempt 1, created: %v", e, fault, c.after.customers == 1)
			}
			if n := len(p.s.Customers()); n != c.after.customers {
				t.Errorf("got %d customers, want %d", n, c.after.customers)
			}
			second := p.do("POST", "/v1/customers", body, withKey(testKey(1)))
			want := c.after.status
			if want == -1 {
				want = first.status // stored under the key
			}
			if second.status != want || second.err != nil {
				t.Errorf("second attempt: got %+v, want %d", second, want)
			}
			if e := p.last(); len(e.Faults) != 0 || !e.Complete {
				t.Errorf("history of the second attempt: got %+v, want it complete without faults", e)
			}
			p.wantNoViolations(nil)
		})
	}
}

func hasID(body string) bool {
	var v struct{ ID string }
	return json.Unmarshal([]byte(body), &v) == nil && v.ID != ""
}

func TestFaultsOfOtherOperations(t *testing.T) {
	p := open(t, nil)
	w := newWallet(1)
	id, challenge := p.create(w)
	sign := "/v1/customers/" + id + "/challenge/sign"

	p.s.SetFaults(Faults{RefuseSignature: 1, Limit: 1})
	refused := p.do("POST", sign, w.submission(t, challenge), withKey(testKey(900)))
	again := p.do("POST", sign, w.submission(t, challenge), withKey(testKey(900)))
	if refused.status != 400 || again.status != 400 || refused.body != again.body {
		t.Fatalf("got %+v, then %+v; want the same 400 twice", refused, again)
	}
	if e := p.s.History()[2]; !slices.Equal(e.Faults, []Fault{refuseSignature}) {
		t.Errorf("history: got %+v, want %s", e, refuseSignature)
	}
	next := p.do("GET", "/v1/customers/"+id+"/challenge", "").field(t, "challenge")
	if next == challenge {
		t.Error("after refuse-signature: got the same challenge, want a new one")
	}

	for name, f := range map[string]Faults{"list": {Truncated: 1}, "half a list": {Malformed: 1}} {
		p.s.SetFaults(f)
		a := p.do("GET", "/v1/customers", "")
		var list []view
		if a.status != 200 || a.err == nil && json.Unmarshal([]byte(a.body), &list) == nil && len(list) > 0 {
			t.Errorf("%s: got %+v, want a 200 from which no customer can be read", name, a)
		}
	}
	p.s.SetFaults(Faults{Trickle: 1, Pause: time.Microsecond})
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 || a.err != nil || !strings.Contains(a.body, id) {
		t.Errorf("trickling list: got %+v, want all of it", a)
	}
	p.s.SetFaults(Faults{Malformed: 1})
	if a := p.do("POST", sign, w.submission(t, next), withKey(testKey(901))); a.status != 200 {
		t.Errorf("malformed 204: got %+v, want status 200", a)
	}
	p.s.SetFaults(Faults{Truncated: 1})
	if a := p.do("POST", sign, w.submission(t, next), withKey(testKey(901))); a.status != 200 || a.err == nil {
		t.Errorf("truncated 204: got %+v, want status 200, an error", a)
	}
	p.s.SetFaults(Faults{})
	if a := p.do("POST", sign, w.submission(t, next), withKey(testKey(901))); a.status != 204 {
		t.Errorf("204 under its key: got %+v, want status 204", a)
	}
	p.s.SetFaults(Faults{DropAfter: 1})
	if a := p.fetchToken(); a.err == nil {
		t.Errorf("token: got %+v, want an error", a)
	}
	p.s.SetFaults(Faults{Unstored5xx: 1})
	if a := p.do("PATCH", "/v1/simulator/customers/"+id+"/verify", ""); a.status != 202 {
		t.Errorf("the simulator has no faults: got %+v, want status 202", a)
	}
}

func TestExpiredTokenNeverTwiceRunning(t *testing.T) {
	p := open(t, func(c *Config) { c.Faults = Faults{ExpiredToken: 0.6} })
	var occurred int
	for range 60 {
		was := len(p.s.History()) > 0 && slices.Contains(p.last().Faults, expiredToken)
		a := p.do("GET", "/v1/customers", "")
		if a.status == 401 && was {
			t.Fatal("got a second 401 in a row, want none: it looks like a wrong set-up")
		}
		if a.status == 401 {
			occurred++
		}
	}
	if occurred == 0 {
		t.Error("got no 401, want some")
	}
}

func TestProbabilityIsKept(t *testing.T) {
	p := open(t, func(c *Config) { c.Faults = Faults{Unstored5xx: 0.25} })
	const n = 400
	occurred := 0
	x := &exchange{s: p.s, st: p.s.state.Load(), op: OpCreate, attempt: 1}
	for i := range n {
		x.subject = fmt.Sprint(i)
		if x.drawEarly() != "" {
			occurred++
		}
	}
	if occurred < n/6 || occurred > n/3 {
		t.Errorf("probability 0.25: got %d of %d, want %d to %d", occurred, n, n/6, n/3)
	}
}

func TestHostileChallenges(t *testing.T) {
	from, to := slices.Index(allFaults(), challengeAddress), slices.Index(allFaults(), challengeNonce)
	for i, fault := range allFaults()[from:to] { // challengeNonce is in TestUsedNonce
		t.Run(string(fault), func(t *testing.T) {
			var f Faults
			f.Limit = 1
			*f.probability(fault) = 1
			p := open(t, func(c *Config) { c.Faults, c.Domain = f, "api.partner.example" })
			w := newWallet(i)
			id, challenge := p.create(w)
			text, err := base64.StdEncoding.DecodeString(challenge)
			if err != nil {
				t.Fatal(err)
			}
			policy := siwe.Policy{
				Domain: "api.partner.example", ChainID: 300, Address: crypto.PubkeyToAddress(w.key.PublicKey),
				Statement: vendorStatement,
				MaxAge:    time.Hour, Skew: time.Minute, Now: p.clock.now, AllowHTTP: true,
			}
			m, err := siwe.Parse(string(text))
			if err == nil {
				err = policy.Check(m)
			}
			if err == nil {
				t.Fatalf("got no error of the policy, want one for\n%s", text)
			}
			if c := p.s.Customers()[0]; c.Challenges[0].Hostile != fault || c.Challenges[0].Text != string(text) {
				t.Errorf("Customers: got %+v, want %s with its text", c, fault)
			}

			// A client that signs it gets a 400, and the judge finds it.
			sign := "/v1/customers/" + id + "/challenge/sign"
			if a := p.do("POST", sign, w.submission(t, challenge)); a.status != 400 {
				t.Errorf("signing it: got %+v, want status 400", a)
			}
			v := p.s.Judge(nil).Violations
			if len(v) != 1 || v[0].Rule != BlindSignature || !strings.Contains(v[0].Detail, string(fault)) {
				t.Errorf("verdict: got %+v, want one %s that names %s", v, BlindSignature, fault)
			}
			next := p.do("GET", "/v1/customers/"+id+"/challenge", "").field(t, "challenge")
			if a := p.do("POST", sign, w.submission(t, next)); a.status != 204 {
				t.Errorf("the honest one after it: got %+v, want status 204", a)
			}
		})
	}
}

// TestUsedNonce: once a signature was accepted, the next challenge has the same nonce, and must not be signed.
func TestUsedNonce(t *testing.T) {
	p := open(t, func(c *Config) { c.Faults = Faults{ChallengeNonce: 1, Limit: 1} })
	nonce := func(challenge string) string {
		text, err := base64.StdEncoding.DecodeString(challenge)
		if err != nil {
			t.Fatal(err)
		}
		m, err := siwe.Parse(string(text))
		if err != nil {
			t.Fatal(err)
		}
		return m.Nonce
	}
	first, second := newWallet(1), newWallet(2)
	id, challenge := p.create(first)
	if a := p.do("POST", "/v1/customers/"+id+"/challenge/sign", first.submission(t, challenge)); a.status != 204 {
		t.Fatalf("got %+v to the first signature, want 204", a)
	}
	a := p.do("POST", "/v1/customers", createBody(second.account(), "ext-2"))
	id, again := a.field(t, "id"), a.field(t, "challenge")
	if got, want := nonce(again), nonce(challenge); got != want {
		t.Errorf("got nonce %s, want the first challenge's, %s", got, want)
	}
	sign := "/v1/customers/" + id + "/challenge/sign"
	if a := p.do("POST", sign, second.submission(t, again)); a.status != 400 {
		t.Errorf("got %+v to the second signature, want 400", a)
	}
	if v := p.s.Judge(nil).Violations; len(v) != 1 || v[0].Rule != BlindSignature {
		t.Errorf("got verdict %+v, want one %s", v, BlindSignature)
	}
	next := p.do("GET", "/v1/customers/"+id+"/challenge", "").field(t, "challenge")
	if a := p.do("POST", sign, second.submission(t, next)); a.status != 204 {
		t.Errorf("got %+v to the honest one after it, want 204", a)
	}
}

// TestHostileSignatureIsSeenThroughFaults: a dropped or unauthorised submission counts, too.
func TestHostileSignatureIsSeenThroughFaults(t *testing.T) {
	p := open(t, func(c *Config) { c.Faults = Faults{ChallengeNotSIWE: 1} })
	w := newWallet(1)
	id, challenge := p.create(w)
	sign := "/v1/customers/" + id + "/challenge/sign"
	p.s.SetFaults(Faults{DropBefore: 1})
	p.do("POST", sign, w.submission(t, challenge))
	p.do("POST", sign, w.submission(t, challenge), after(drop("Authorization")))
	if v := p.s.Judge(nil).Violations; len(v) != 2 {
		t.Errorf("verdict: got %+v, want two violations", v)
	}
}

func TestRedirectLeadsToTheCanary(t *testing.T) {
	p := open(t, func(c *Config) { c.Faults = Faults{Redirect: 1, Limit: 1, On: []Operation{OpCreate}} })
	p.do("POST", "/v1/customers", createBody(newWallet(1).account(), "ext-1"))
	p.wantNoViolations(nil)

	p.s.Reset()
	p.login()
	p.http.CheckRedirect = nil // net/http's default: it follows, and sends credentials to another port
	p.do("POST", "/v1/customers", createBody(newWallet(1).account(), "ext-1"))
	v := p.s.Judge(nil).Violations
	if len(v) != 1 || v[0].Rule != NoRedirect || !strings.Contains(v[0].Detail, "Authorization") {
		t.Errorf("verdict: got %+v, want one %s with Authorization", v, NoRedirect)
	}
	p.s.RedirectTo("")
	if a := p.send(mustRequest(t, p.api.URL+p.s.canaryURL(1))); a.status != 204 {
		t.Errorf("canary of the API itself: got %+v, want status 204", a)
	}
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParseFaults(t *testing.T) {
	text := "throttle-429=0.25,drop-after=0.1,challenge-trailing=1,limit=3,on=create+sign,slow-for=2s,pause=5ms," +
		"retry-after=3s"
	f, err := ParseFaults(" " + strings.ReplaceAll(text, ",", " , "))
	if err != nil {
		t.Fatal(err)
	}
	if f.DropAfter != 0.1 || f.Limit != 3 || !slices.Equal(f.On, []Operation{OpCreate, OpSign}) || f.String() != text {
		t.Errorf("got %s, want %s", f, text)
	}
	raw, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var back Faults
	if err := json.Unmarshal(raw, &back); err != nil || back.String() != text {
		t.Errorf("through the JSON %s: got %s, %v; want %s", raw, back, err, text)
	}
	for _, name := range allFaults() {
		f, err := ParseFaults(string(name) + "=1")
		if err != nil || f.String() != string(name)+"=1" {
			t.Errorf("%s: got %s, %v; want it back", name, f, err)
		}
	}
	for _, bad := range []string{
		"nonsense=1", "slow", "slow=2", "slow=-1", "slow=NaN", "slow=x", "limit=-1", "limit=x", "on=verify", "pause=5",
	} {
		if _, err := ParseFaults(bad); err == nil {
			t.Errorf("%s: got nil, want an error", bad)
		}
	}
	for bad, want := range map[string]string{
		"drop-aftr=1": "unknown fault, did you mean drop-after? (want one of limit, on, ",
		"limits=1":    "unknown fault, did you mean limit? (want one of",
		"x=1":         "unknown fault (want one of limit, on, slow-for, pause, retry-after, expired-token, ",
	} {
		if _, err := ParseFaults(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", bad, err, want)
		}
	}
	for _, bad := range []string{
		`{"nonsense":1}`, `{"slow":2}`, `{"slow":"x"}`, `{"on":["verify"]}`, `{"pause":"x"}`, `[]`,
	} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s: got nil, want an error", bad)
		}
	}
	if back.String() != text {
		t.Errorf("after invalid JSON: got %s, want %s", back, text)
	}
}

func FuzzParseFaults(f *testing.F) {
	f.Add("drop-after=0.1,limit=3,on=create+sign,slow-for=2s")
	f.Add("slow=1e-3")
	f.Fuzz(func(t *testing.T, text string) {
		faults, err := ParseFaults(text)
		if err != nil {
			return
		}
		again, err := ParseFaults(faults.String())
		if err != nil || again.String() != faults.String() {
			t.Errorf("%q: got %q, then %q, %v; want the same twice", text, faults, again, err)
		}
	})
}

func FuzzDecodeStrings(f *testing.F) {
	f.Add([]byte(`{"chainId":"eip155:1:0x","externalId":"a"}`))
	f.Add([]byte(`{"chainId":"a","chainId":"b"} x`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decodeStrings(body, "chainId", "externalId")
		if err != nil {
			return
		}
		var loose map[string]string
		if json.Unmarshal(body, &loose) != nil || len(loose) != 2 || loose["chainId"] != got["chainId"] {
			t.Errorf("%q: got %v, want encoding/json's %v", body, got, loose)
		}
	})
}
