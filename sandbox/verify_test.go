package sandbox

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// badSignature stands for the status of a wrong request signature: 400 with VerifyVendor, 401 with VerifyRFC.
const badSignature = -1

// wantBadSignature checks the answer to a wrong request signature, and its cause in the history.
func (p *partner) wantBadSignature(t *testing.T, a answer, cause string) {
	t.Helper()
	says, status, kind := "invalid required signature", 400, "text/plain"
	if p.s.cfg.Verify == VerifyRFC {
		says, status, kind = cause, 401, "application/problem+json"
	}
	if a.err != nil || a.status != status || a.header.Get("Content-Type") != kind || !strings.Contains(a.body, says) ||
		status == 400 && a.body != says {
		t.Errorf("got %+v, want %d, %s and %q", a, status, kind, says)
	}
	if e := p.last(); !strings.Contains(e.Reason, cause) || !e.BadSignature {
		t.Errorf("history: got the reason %q, want %q", e.Reason, cause)
	}
}

// TestVerifications has requests on which the two ways to verify disagree.
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
					t.Errorf("got %+v with the reason %q, want 200", a, p.last().Reason)
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
			t.Errorf("Date: got %s, want %s", got, want)
		}
		if c.cause != "" {
			p.wantBadSignature(t, a, c.cause)
		} else if a.status != 200 {
			t.Errorf("%s: got %+v with the reason %q, want 200", c.date, a, p.last().Reason)
		}
	}
}

// TestBadSignatureSettlesNothing: a 400 for the signature does not say what became of an earlier request with the key.
func TestBadSignatureSettlesNothing(t *testing.T) {
	p := open(t, nil)
	p.s.SetFaults(Faults{DropAfter: 1, Limit: 1, On: []Operation{OpCreate}})
	body := createBody(newWallet(1).account(), "ext-1")
	p.do("POST", "/v1/customers", body, withKey(testKey(1)))
	p.do("POST", "/v1/customers", body, withKey(testKey(1)), after(drop("Signature")))
	p.do("POST", "/v1/customers", body, withKey(testKey(2)))
	v := p.s.Judge(nil).Violations
	if len(v) != 1 || v[0].Rule != OpenKey {
		t.Errorf("verdict: got %+v, want one of %s", v, OpenKey)
	}
}
