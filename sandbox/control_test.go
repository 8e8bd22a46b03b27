package sandbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestControl(t *testing.T) {
	p := open(t, nil)
	w := newWallet(1)
	if a := p.ask("GET", "/healthz", ""); a.status != 200 {
		t.Errorf("healthz: got %+v, want status 200", a)
	}

	a := p.ask("PUT", "/faults", `{"unstored-5xx":1,"limit":1,"on":["create"]}`)
	if a.status != 200 || p.s.faults.Load().Faults.Unstored5xx != 1 {
		t.Errorf("PUT /faults: got %+v, %+v; want status 200 and the fault", a, p.s.faults.Load().Faults)
	}
	if a = p.ask("GET", "/faults", ""); !strings.Contains(a.body, `"limit":1`) {
		t.Errorf("GET /faults: got %+v, want a body with limit\":1", a)
	}
	if a = p.ask("PUT", "/faults", `{"unheard-of":1}`); a.status != 400 || p.s.faults.Load().Faults.Unstored5xx != 1 {
		t.Errorf("unknown fault: got %+v, %+v; want status 400 and the faults unchanged", a, p.s.faults.Load().Faults)
	}
	if a = p.do("POST", "/v1/customers", createBody(w.account(), "ext-1")); a.status < 500 {
		t.Errorf("create: got %+v, want a 5xx", a)
	}
	id, _ := p.create(w)

	var found struct{ Entries []Entry }
	for query, want := range map[string]int{
		"":                        3,
		"?operation=create":       2,
		"?fault=unstored-5xx":     1,
		"?status=201":             1,
		"?limit=2":                2,
		"?subject=" + w.account(): 2,
		"?subject=" + id:          1,
		"?key=" + testKey(2):      1,
		"?since=2&until=2":        0, // an event of another kind: the token's answer
	} {
		a = p.ask("GET", "/history"+query, "")
		if err := json.Unmarshal([]byte(a.body), &found); err != nil || len(found.Entries) != want {
			t.Errorf("%s: got %d entries, %v; want %d", query, len(found.Entries), err, want)
		}
	}
	for _, bad := range []string{"?since=x", "?nonsense=1", "?limit=-1"} {
		if a = p.ask("GET", "/history"+bad, ""); a.status != 400 {
			t.Errorf("%s: got %+v, want status 400", bad, a)
		}
	}
	a = p.ask("GET", "/history", "")
	for _, secret := range []string{p.cred.APISecret, p.token} {
		if strings.Contains(a.body, secret) {
			t.Errorf("history: got %s, want it without %s", a.body, secret)
		}
	}

	var stats Stats
	a = p.ask("GET", "/stats", "")
	if err := json.Unmarshal([]byte(a.body), &stats); err != nil || stats.Requests != 3 || stats.Created != 1 ||
		stats.ByFault[unstored5xx] != 1 || stats.ByOp[OpCreate] != 2 || stats.ByStatus[201] != 1 || stats.Customers != 1 {
		t.Errorf("stats: got %+v, %v; want 3 requests, 2 creations, one with the fault, one 201", stats, err)
	}

	a = p.ask("POST", "/customers", createBodyWith(newWallet(2).account(), "ext-2", "active"))
	if a.status != 200 {
		t.Errorf("POST /customers: got %+v, want status 200", a)
	}
	given := a.field(t, "id")
	if a = p.ask("POST", "/customers", createBodyWith(newWallet(2).account(), "ext-3", "active")); a.status != 400 {
		t.Errorf("taken: got %+v, want status 400", a)
	}
	if a = p.ask("PUT", "/customers/"+given, `{"status":"inactive"}`); a.status != 204 {
		t.Errorf("PUT /customers: got %+v, want status 204", a)
	}
	for path, body := range map[string]string{
		"/customers/" + given: `{"status":"gone"}`, "/customers/x": `{"status":"active"}`,
	} {
		if a = p.ask("PUT", path, body); a.status != 400 {
			t.Errorf("PUT %s %s: got %+v, want status 400", path, body, a)
		}
	}
	if a = p.ask("GET", "/customers", ""); strings.Count(a.body, "\n") != 2 || !strings.Contains(a.body, `"inactive"`) {
		t.Errorf("GET /customers: got %s, want two lines, one inactive", a.body)
	}

	rows := `{"chainId":"` + w.account() + `","externalId":"ext-1"}`
	for _, body := range []string{rows + "\n", "[" + rows + "]"} {
		var v Verdict
		a = p.ask("POST", "/judge", body)
		if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.Rows != 1 || v.Seed != 7 || !v.Complete ||
			len(v.Violations) != 1 || v.Violations[0].Rule != RowSettled {
			t.Errorf("POST /judge: got %s, %v; want seed 7, one row and one violation of %s", a.body, err, RowSettled)
		}
	}
	p.do("GET", "/v1/customers", "")
	if a = p.ask("GET", "/judge?rate=0.01", ""); strings.Count(a.body, `"rule":"rate"`) != 2 {
		t.Errorf("GET /judge?rate: got %s, want two violations of the rate", a.body)
	}
	if a = p.ask("GET", "/judge?rate=fast", ""); a.status != 400 {
		t.Errorf("GET /judge?rate=fast: got %+v, want status 400", a)
	}
	if a = p.ask("POST", "/judge", `{"chain":"x"}`); a.status != 400 {
		t.Errorf("bad row: got %+v, want status 400", a)
	}
	if a = p.ask("GET", "/judge", ""); !strings.Contains(a.body, `"violations":[]`) {
		t.Errorf("GET /judge: got %s, want no violations", a.body)
	}
	if a = p.ask("GET", "/leaks", ""); a.status != 200 {
		t.Errorf("GET /leaks: got %+v, want status 200", a)
	}
	if a = p.ask("POST", "/reset", ""); a.status != 204 || len(p.s.Customers()) != 0 || len(p.s.History()) != 0 {
		t.Errorf("POST /reset: got %+v, want status 204 and nothing kept", a)
	}
}

func createBodyWith(account, externalID, status string) string {
	return strings.TrimSuffix(createBody(account, externalID), "}") + `,"status":"` + status + `"}`
}

func TestControlMovesTheClock(t *testing.T) {
	p := open(t, nil)
	p.login()
	if a := p.ask("POST", "/clock", `{"advance":"2h"}`); a.status != 200 || !strings.Contains(a.body, "20:21:53Z") {
		t.Errorf("got %+v, want status 200, a body with 20:21:53Z", a)
	}
	a := p.do("GET", "/v1/customers", "")
	if a.status != 401 || a.header.Get("Date") != "Fri, 17 Jan 2025 20:21:53 GMT" {
		t.Errorf("skewed client: got %+v, want status 401, Date Fri, 17 Jan 2025 20:21:53 GMT", a)
	}
	if a := p.ask("POST", "/clock", `{"advance":"-2h"}`); a.status != 200 {
		t.Errorf("back: got %+v, want status 200", a)
	}
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("clock moved back: got %+v, want status 200", a)
	}
	if a := p.ask("POST", "/clock", `{"advance":"soon"}`); a.status != 400 {
		t.Errorf("nonsense: got %+v, want status 400", a)
	}
}

func TestHistoryIsBoundedAndLogged(t *testing.T) {
	var log bytes.Buffer
	p := open(t, func(c *Config) { c.HistoryLimit, c.HistoryLog = 5, &log })
	for i := range 7 {
		p.do("GET", "/v1/customers/"+testKey(i), "")
	}
	entries := p.s.History()
	if len(entries) != 5 || p.s.Stats().Dropped != 3 || p.s.Judge(nil).Complete { // a token and seven reads
		t.Errorf("got %d entries, %+v; want 5, 3 dropped, and an incomplete verdict", len(entries), p.s.Stats())
	}
	for i, e := range entries {
		if want := "/v1/customers/" + testKey(i+2); e.Path != want || e.Status != 404 || !e.Complete {
			t.Errorf("entry %d: got %+v, want a complete 404 of %s", i, e, want)
		}
	}
	lines := 0
	for in := bufio.NewScanner(&log); in.Scan(); lines++ {
		var e Entry
		if err := json.Unmarshal(in.Bytes(), &e); err != nil || e.Seq == 0 || e.Time.Before(p.clock.now().Add(-time.Hour)) {
			t.Errorf("line %d: got %+v, %v; want an entry of the last hour", lines, e, err)
		}
	}
	if lines != 8 {
		t.Errorf("got %d lines, want 8", lines)
	}
}

func TestHistoryLogThatFails(t *testing.T) {
	p := open(t, func(c *Config) { c.HistoryLog = full{} })
	if a := p.do("GET", "/v1/customers", ""); a.status != 200 {
		t.Errorf("got %+v, want status 200", a)
	}
	if got := p.s.Stats().Log; !strings.Contains(got, "no space") {
		t.Errorf("stats: got log %q, want the error of the write", got)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }
