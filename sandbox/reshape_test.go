package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// member is a member of the answer's JSON object as text, "" when there is none.
func (a answer) member(name string) string {
	var m map[string]json.RawMessage
	if json.Unmarshal([]byte(a.body), &m) != nil {
		return ""
	}
	return strings.Trim(string(m[name]), `"`)
}

// everySeed runs the test under several seeds, which choose among the forms of a fault.
func everySeed(t *testing.T, n uint64, test func(t *testing.T, p *partner)) {
	t.Helper()
	for seed := range n {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			test(t, open(t, func(c *Config) { c.Seed = seed }))
		})
	}
}

func TestShownStatus(t *testing.T) {
	seen := map[string]bool{}
	everySeed(t, 12, func(t *testing.T, p *partner) {
		id, _ := p.create(newWallet(1))
		for fault, odd := range map[Fault]func(string) bool{
			statusUnknown: func(s string) bool { return !Status(strings.ToLower(s)).known() },
			statusCase:    func(s string) bool { return s != "rejected" && strings.EqualFold(s, "rejected") },
		} {
			if err := p.s.setStatus(id, StatusRejected); err != nil {
				t.Fatal(err)
			}
			var f Faults
			*f.probability(fault) = 1
			p.s.SetFaults(f)
			read := p.do("GET", "/v1/customers/"+id, "")
			if s := read.member("status"); read.status != 200 || read.member("id") != id || !odd(s) {
				t.Errorf("%s of a read: got %+v, want the customer in another status", fault, read)
			}
			seen[read.member("status")] = true
			if !slices.Equal(p.last().Faults, []Fault{fault}) || !p.last().Complete {
				t.Errorf("history: got %+v, want it complete with %s", p.last(), fault)
			}
			var list []view
			a := p.do("GET", "/v1/customers", "")
			if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list) != 1 || !odd(string(list[0].Status)) {
				t.Errorf("%s of a list: got %+v, %v; want one customer in another status", fault, a, err)
			}
			if c := p.s.Customers()[0]; c.Status != StatusRejected {
				t.Errorf("the customer itself: got %s, want %s", c.Status, StatusRejected)
			}
		}
	})
	if len(seen) < 6 {
		t.Errorf("got the statuses %v, want 6 or more", seen)
	}
}

func TestOther2xx(t *testing.T) {
	seen := map[string]bool{}
	everySeed(t, 12, func(t *testing.T, p *partner) {
		w := newWallet(1)
		id, challenge := p.create(w)
		path := "/v1/customers/" + id + "/challenge/sign"

		p.s.SetFaults(Faults{Sign2xxUndone: 1, Limit: 1})
		undone := p.do("POST", path, w.submission(t, challenge), withKey(testKey(50)))
		again := p.do("POST", path, w.submission(t, challenge), withKey(testKey(50)))
		if undone.status/100 != 2 || undone.status == 204 || again.status != undone.status || again.body != undone.body {
			t.Errorf("undone: got %+v, then %+v; want the same 2xx twice, no 204", undone, again)
		}
		if c := p.s.Customers()[0]; c.Status != StatusInitiating {
			t.Errorf("customer: got %s, want %s", c.Status, StatusInitiating)
		}
		p.s.SetFaults(Faults{Sign2xx: 1, Limit: 1})
		bad := p.do("POST", path, "{}", withKey(testKey(51)))
		if bad.status != 400 || len(p.last().Faults) != 0 {
			t.Errorf("an invalid submission: got %+v, want its 400", bad)
		}
		done := p.do("POST", path, w.submission(t, challenge), withKey(testKey(52)))
		if done.status/100 != 2 || done.status == 204 || !slices.Equal(p.last().Faults, []Fault{sign2xx}) {
			t.Errorf("done: got %+v, want a 2xx that is no 204, by %s", done, sign2xx)
		}
		if c := p.s.Customers()[0]; c.Status != StatusScreening {
			t.Errorf("customer: got %s, want %s", c.Status, StatusScreening)
		}
		if a := p.do("POST", path, w.submission(t, challenge), withKey(testKey(52))); a.status != 204 {
			t.Errorf("under its key once more: got %+v, want 204", a)
		}
		seen[fmt.Sprint(done.status, done.body != "")], seen[fmt.Sprint(undone.status, undone.body != "")] = true, true
		p.wantNoViolations(nil)
	})
	if len(seen) != 6 {
		t.Errorf("got %v, want 200, 201 and 202 with and without a body", seen)
	}
}

func TestOtherNames(t *testing.T) {
	everySeed(t, 6, func(t *testing.T, p *partner) {
		id, challenge := p.create(newWallet(1))
		p.s.SetFaults(Faults{Renamed: 1})
		if a := p.fetchToken(); strings.Count(a.member("accessToken"), ".") != 2 || a.member("token") != "" {
			t.Errorf("token: got %+v, want it as accessToken", a)
		}
		if a := p.do("GET", "/v1/customers/"+id+"/challenge", ""); a.member("message") != challenge || p.last().Complete {
			t.Errorf("challenge: got %+v, want it as message, and the answer incomplete", a)
		}
		if a := p.do("GET", "/v1/customers/"+id, ""); a.member("customerId") != id || a.member("id") != "" {
			t.Errorf("customer: got %+v, want customerId %s, no id", a, id)
		}
		p.s.SetFaults(Faults{Wrapped: 1})
		if a := p.do("GET", "/v1/customers/"+id, ""); !strings.Contains(a.member("data")+a.member("customer"), id) {
			t.Errorf("customer: got %+v, want it in data or customer", a)
		}
	})
}

// fill adds n customers.
func (p *partner) fill(n int) {
	p.t.Helper()
	for i := range n {
		if _, err := p.s.Add(newWallet(i).account(), fmt.Sprint("ext-", i), StatusActive); err != nil {
			p.t.Fatal(err)
		}
	}
}

func TestListPaged(t *testing.T) {
	forms := map[string]bool{}
	everySeed(t, 80, func(t *testing.T, p *partner) {
		p.s.SetFaults(Faults{ListPaged: 1})
		if a := p.do("GET", "/v1/customers", ""); a.body != "[]" {
			t.Errorf("empty list: got %+v, want nothing announced", a)
		}
		p.fill(5)
		a := p.do("GET", "/v1/customers", "")
		var list []view
		if total := a.header.Get("X-Total-Count"); total != "" {
			if err := json.Unmarshal([]byte(a.body), &list); err != nil || total != "5" {
				t.Errorf("got %+v, %v; want an array and X-Total-Count 5", a, err)
			}
			forms["header"] = true
		} else {
			var body map[string]json.RawMessage
			if err := json.Unmarshal([]byte(a.body), &body); err != nil || len(body) != 2 {
				t.Fatalf("got %+v, %v; want an object with data and one other member", a, err)
			}
			if err := json.Unmarshal(body["data"], &list); err != nil {
				t.Errorf("got %+v, %v; want the customers in data", a, err)
			}
			for name, value := range body {
				if name != "data" {
					forms[name+string(value)] = true
				}
			}
		}
		if len(list) != 2 {
			t.Errorf("got %d customers, want 2 of 5", len(list))
		}
	})
	if len(forms) != 13 {
		t.Errorf("got %d forms, %v; want 13", len(forms), forms)
	}
}

func TestListNoList(t *testing.T) {
	forms := map[string]bool{}
	everySeed(t, 20, func(t *testing.T, p *partner) {
		p.fill(2)
		p.s.SetFaults(Faults{ListNoList: 1})
		a := p.do("GET", "/v1/customers", "")
		if a.status != 200 || !json.Valid([]byte(a.body)) || strings.Contains(a.body, "[") {
			t.Errorf("got %+v, want a 200 with JSON that is not a list", a)
		}
		forms[a.body] = true
	})
	if len(forms) != 6 {
		t.Errorf("got %d forms, %v; want 6", len(forms), forms)
	}
}

// TestListLink follows the links to the end.
func TestListLink(t *testing.T) {
	everySeed(t, 4, func(t *testing.T, p *partner) {
		p.s.SetFaults(Faults{ListLink: 1})
		p.signer = signerOf(t, p.cred, p.clock.now, append([]string{"@query"}, vendorComponents()...)...)
		if a := p.do("GET", "/v1/customers", ""); a.body != "[]" || a.header.Get("Link") != "" {
			t.Errorf("empty list: got %+v, want no link", a)
		}
		const n = 7
		p.fill(n)
		var got []string
		pages, next := 0, "/v1/customers"
		for next != "" {
			a := p.do("GET", next, "")
			var list []view
			if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.status != 200 {
				t.Fatalf("%s: got %+v, %v; want an array", next, a, err)
			}
			for _, c := range list {
				got = append(got, c.ExternalID)
			}
			pages++
			next = nextLink(t, p.api.URL, a.header)
		}
		if pages != 3 || len(got) != n {
			t.Fatalf("got %d customers on %d pages, %v; want %d on 3", len(got), pages, got, n)
		}
		for i, external := range got {
			if want := fmt.Sprint("ext-", i); external != want {
				t.Errorf("customer %d: got %s, want %s", i, external, want)
			}
		}
	})
}

// nextLink is the path and query of the next page, which must be of the same origin.
func nextLink(t *testing.T, base string, h http.Header) string {
	t.Helper()
	for part := range strings.SplitSeq(h.Get("Link"), ", <") {
		target, params, _ := strings.Cut(strings.TrimPrefix(part, "<"), ">")
		if !strings.Contains(params, `rel="next"`) {
			continue
		}
		u, err := url.Parse(target)
		if err != nil || u.IsAbs() && u.Scheme+"://"+u.Host != base {
			t.Fatalf("link: got %q, %v; want one to %s", target, err, base)
		}
		return u.RequestURI()
	}
	return ""
}

func TestOnlyOwnCursors(t *testing.T) {
	p := open(t, nil)
	p.signer = signerOf(t, p.cred, p.clock.now, append([]string{"@query"}, vendorComponents()...)...)
	p.fill(3)
	good := p.s.cursor(page{1, 1})
	for _, query := range []string{
		"cursor=", "cursor=1", "cursor=2" + good[1:], "cursor=" + good + "&x=y", "x=y&cursor=" + good, "page=2",
	} {
		if a := p.do("GET", "/v1/customers?"+query, ""); a.status != 400 || !strings.Contains(a.body, "no query") {
			t.Errorf("%s: got %+v, want 400", query, a)
		}
	}
	if a := p.do("GET", "/v1/customers/"+testKey(1)+"?cursor="+good, ""); a.status != 400 {
		t.Errorf("another endpoint: got %+v, want 400", a)
	}
	if a := p.do("GET", "/v1/customers?cursor="+good, ""); a.status != 200 || !strings.Contains(a.body, "ext-1") {
		t.Errorf("got %+v, want the second customer", a)
	}
	p.signer = signerOf(t, p.cred, p.clock.now, vendorComponents()...)
	p.wantBadSignature(t, p.do("GET", "/v1/customers?cursor="+good, ""), "@query")
}
