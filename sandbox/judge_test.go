package sandbox

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	accountA = "eip155:300:0x00000000000000000000000000000000000000aa"
	accountB = "eip155:300:0x00000000000000000000000000000000000000bb"
)

// creation is a POST /customers with its answer, well and whole.
func creation(seq uint64, key string, status int) Entry {
	return Entry{
		Seq: seq, Answered: seq + 1, Time: newClock().now().Add(time.Duration(seq) * time.Second),
		Elapsed: time.Duration(seq) * time.Second, Method: "POST", Path: "/v1/customers", Op: OpCreate, Key: key,
		Digest: "d", Account: accountA, ExternalID: "a", Status: status, Complete: status != 0,
	}
}

func (e Entry) but(change func(*Entry)) Entry {
	change(&e)
	return e
}

func judged(e evidence) string {
	if e.KeyTTL == 0 {
		e.KeyTTL = time.Hour
	}
	var rules []string
	for _, v := range judge(e).Violations {
		rules = append(rules, string(v.Rule))
	}
	return strings.Join(rules, " ")
}

func TestJudgeRequests(t *testing.T) {
	made := func(e Entry) Entry { return e.but(func(e *Entry) { e.Created = true }) }
	otherBody := func(e *Entry) { e.Digest = "x" }
	otherPath := func(e *Entry) { e.Path = "/x" }
	cutShort := func(e *Entry) { e.Complete = false }
	throttled := func(e *Entry) { e.Throttled = true }
	inFlight := func(e *Entry) { e.InFlight = true }
	late := func(e *Entry) { e.Answered = 9 }
	otherAccount := func(e *Entry) { e.Account = accountB }
	anHourOn := func(e *Entry) { e.Time = e.Time.Add(time.Hour) }
	signedS := func(e *Entry) { e.SigHash = "s" }
	signedR := func(e *Entry) { e.SigHash = "r" }
	first, next := creation(1, "k1", 0), creation(3, "k1", 201)
	signed := func(s Signed, f Fault) Entry {
		return Entry{Seq: 1, Op: OpSign, CustomerID: "c", Signed: s, HostileAs: f}
	}
	for name, c := range map[string]struct {
		entries []Entry
		want    Rule
	}{
		"one creation":                     {[]Entry{made(creation(1, "k1", 201))}, ""},
		"same key again":                   {[]Entry{made(creation(1, "k1", 0)), creation(3, "k1", 201)}, ""},
		"created twice":                    {[]Entry{made(creation(1, "k1", 201)), made(creation(3, "k2", 201))}, OneCustomer},
		"one key, two payloads":            {[]Entry{first, next.but(otherBody)}, OnePayload},
		"one key, body of a killed client": {[]Entry{first, next.but(func(e *Entry) { e.Digest, e.Cut = "", true })}, ""},
		"one key, two paths":               {[]Entry{first, next.but(otherPath)}, OnePayload},
		"new key after an answered 500":    {[]Entry{creation(1, "k1", 500), creation(3, "k2", 201)}, ""},
		"new key after 422":                {[]Entry{creation(1, "k1", 422), creation(3, "k2", 201)}, ""},
		"new key after silence":            {[]Entry{creation(1, "k1", 0), creation(3, "k2", 201)}, OpenKey},
		"new key after silence, then 500":  {[]Entry{first, creation(3, "k1", 500), creation(5, "k2", 201)}, ""},
		"new key after a truncated 201":    {[]Entry{creation(1, "k1", 201).but(cutShort), creation(3, "k2", 409)}, OpenKey},
		"new key after 401":                {[]Entry{creation(1, "k1", 401), creation(3, "k2", 201)}, OpenKey},
		"new key after a redirect":         {[]Entry{creation(1, "k1", 307), creation(3, "k2", 201)}, OpenKey},
		"new key after 429":                {[]Entry{creation(1, "k1", 429).but(throttled), creation(3, "k2", 201)}, OpenKey},
		"new key after a throttling 503":   {[]Entry{creation(1, "k1", 503).but(throttled), creation(3, "k2", 201)}, OpenKey},
		"new key after in-flight 409":      {[]Entry{creation(1, "k1", 409).but(inFlight), creation(3, "k2", 201)}, OpenKey},
		"new key before the answer left":   {[]Entry{creation(1, "k1", 500).but(late), creation(3, "k2", 201)}, OpenKey},
		"new key, other account":           {[]Entry{creation(1, "k1", 0), creation(3, "k2", 201).but(otherAccount)}, ""},
		"new key after the hour":           {[]Entry{creation(1, "k1", 0), creation(3, "k2", 201).but(anHourOn)}, ""},
		"signed own challenge":             {[]Entry{signed(signedOwn, "")}, ""},
		"signed a hostile challenge":       {[]Entry{signed(signedHostile, challengeChain)}, BlindSignature},
		"signed something else":            {[]Entry{signed(signedOther, "")}, BlindSignature},
		"two attempts, one signature":      {[]Entry{first.but(signedS), next.but(signedS)}, SignedAnew},
		"two attempts, two signatures":     {[]Entry{first.but(signedS), next.but(signedR)}, ""},
	} {
		if got := judged(evidence{Entries: c.entries}); got != string(c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestJudgeState(t *testing.T) {
	a := Customer{ID: "1", ChainID: accountA, ExternalID: "a", Status: StatusScreening}
	other := Customer{ID: "2", ChainID: accountB, ExternalID: "a"}
	folded := Customer{ID: "3", ChainID: strings.ToUpper(accountA), ExternalID: "b"}
	if got := judged(evidence{Customers: []Customer{a}}); got != "" {
		t.Errorf("one customer: got %q, want no violation", got)
	}
	for _, twin := range []Customer{other, folded} {
		if got := judged(evidence{Customers: []Customer{a, twin}}); got != string(OneCustomer) {
			t.Errorf("%+v: got %q, want %q", twin, got, OneCustomer)
		}
	}
	if got := judged(evidence{Leaks: []leak{{Carried: []string{"Authorization"}}}}); got != string(NoRedirect) {
		t.Errorf("a redirect followed with credentials: got %q, want %q", got, NoRedirect)
	}
	if got := judged(evidence{Leaks: []leak{{Method: "GET"}}}); got != "" {
		t.Errorf("a redirect followed without credentials: got %q, want no violation", got)
	}
	if v := judge(evidence{Dropped: 1}); v.Complete {
		t.Errorf("an entry dropped: got %+v, want it incomplete", v)
	}
}

func TestJudgeRate(t *testing.T) {
	arrivals := func(n int, apart time.Duration) (out []Entry) {
		for i := range n {
			out = append(out, Entry{Seq: uint64(i + 1), Elapsed: time.Duration(i) * apart})
		}
		return out
	}
	const rate = 100
	for name, c := range map[string]struct {
		entries []Entry
		want    string
	}{
		"at the rate":                  {arrivals(2000, 10*time.Millisecond), ""},
		"a burst":                      {append(arrivals(10, 0), arrivals(1000, 10*time.Millisecond)...), ""},
		"a tenth too fast":             {arrivals(2000, 9*time.Millisecond), "rate"}, // only ten seconds show it
		"half a second's work at once": {arrivals(140, 0), "rate"},
		"twice too fast":               {arrivals(4000, 5*time.Millisecond), "rate rate"},
	} {
		if got := judged(evidence{Entries: c.entries, Rate: rate}); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got := judged(evidence{Entries: arrivals(4000, 0)}); got != "" {
		t.Errorf("no declared rate: got %q, want no violation", got)
	}
}

func TestJudgeRows(t *testing.T) {
	hostile := []Challenge{{Number: 1, Hostile: challengeURI}}
	customer := func(status Status, ch []Challenge) []Customer {
		return []Customer{{ID: "1", ChainID: accountA, ExternalID: "a", Status: status, Challenges: ch}}
	}
	row := func(stage string) []Expected { return []Expected{{strings.ToUpper(accountA), "a", stage}} }
	row2 := func(account, externalID string) []Expected {
		return append(row("onboarded"), Expected{account, externalID, "conflict"})
	}
	given := customer(StatusActive, nil)
	given[0].Given = true
	for name, c := range map[string]struct {
		customers []Customer
		rows      []Expected
		want      Rule
	}{
		"onboarded":                   {customer(StatusScreening, nil), row("onboarded"), ""},
		"nothing said, onboarded":     {customer(StatusActive, nil), row(""), ""},
		"nothing said, initiating":    {customer(StatusInitiating, nil), row(""), RowSettled},
		"onboarded, initiating":       {customer(StatusInitiating, nil), row("onboarded"), RowSettled},
		"onboarded, not there":        {nil, row("onboarded"), RowSettled},
		"lost row":                    {nil, row(""), RowSettled},
		"not terminal":                {customer(StatusInitiating, nil), row("submitting"), RowSettled},
		"failed":                      {nil, row("failed"), ""},
		"rejected":                    {customer(StatusRejected, nil), row("rejected"), ""},
		"rejected, active":            {customer(StatusActive, nil), row("rejected"), RowSettled},
		"refused":                     {customer(StatusInitiating, hostile), row("refused"), ""},
		"refused, honest challenges":  {customer(StatusInitiating, nil), row("refused"), RowSettled},
		"conflict without another":    {customer(StatusScreening, nil), row("conflict"), RowSettled},
		"conflict at the partner":     {customer(StatusScreening, nil), row2(accountA, "b"), ""},
		"conflict by externalId":      {customer(StatusScreening, nil), row2(accountB, "a"), ""},
		"contradiction in the export": {nil, []Expected{{accountA, "a", "failed"}, {accountA, "b", "conflict"}}, ""},
		"no rows, a customer":         {customer(StatusScreening, nil), []Expected{}, NobodyElse},
		"no rows, a given customer":   {given, []Expected{}, ""},
		"rows not judged":             {customer(StatusInitiating, nil), nil, ""},
	} {
		if got := judged(evidence{Customers: c.customers, Expected: c.rows}); got != string(c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestJudgeFindsABadClient judges a history that the server itself has recorded.
func TestJudgeFindsABadClient(t *testing.T) {
	p := open(t, func(c *Config) { c.Faults = Faults{DropAfter: 1, Limit: 1, On: []Operation{OpCreate}} })
	w := newWallet(1)
	body := createBody(w.account(), "ext-1")
	p.do("POST", "/v1/customers", body, withKey(testKey(1))) // dropped
	p.do("POST", "/v1/customers", body, withKey(testKey(2))) // impatient: another key
	r := p.request("GET", "/v1/customers", "")
	p.send(r)
	p.send(r) // the same signature again
	rules := map[Rule]bool{}
	for _, v := range p.s.Judge([]Expected{{w.account(), "ext-1", ""}}).Violations {
		rules[v.Rule] = true
	}
	if len(rules) != 3 || !rules[OpenKey] || !rules[SignedAnew] || !rules[RowSettled] {
		t.Errorf("got violations of %v, want of %s, %s and %s", rules, OpenKey, SignedAnew, RowSettled)
	}
}

func TestJudgeCapsItsList(t *testing.T) {
	var entries []Entry
	for i := range 3000 {
		entries = append(entries, Entry{Seq: uint64(i), SigHash: "s", Subject: fmt.Sprint(i)})
	}
	if n := len(judge(evidence{Entries: entries}).Violations); n != 1000 {
		t.Errorf("got %d violations, want 1000", n)
	}
}
