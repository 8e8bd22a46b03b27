package sandbox

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestPatientClientIsInnocent runs a client that keeps the rules against all faults at once: the judge must find no
// violation. The clients of the rows share nothing.
func TestPatientClientIsInnocent(t *testing.T) {
	const rows, workers = 40, 8
	f := Faults{Limit: 2, SlowFor: 60 * time.Millisecond, Pause: 10 * time.Microsecond}
	for _, name := range allFaults() {
		*f.probability(name) = 0.06
	}
	for _, seed := range []uint64{1, 2} {
		p := open(t, func(c *Config) { c.Seed, c.Faults, c.ErrorShape = seed, f, ShapeRotate })
		p.http.Timeout = 50 * time.Millisecond // less than slow takes
		for p.token == "" {
			if a := p.fetchToken(); a.err == nil && a.status == 200 && json.Valid([]byte(a.body)) {
				var v struct{ Token any }
				_ = json.Unmarshal([]byte(a.body), &v)
				p.token, _ = v.Token.(string)
			}
		}
		work := make(chan int)
		expected := make([]Expected, rows)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range work {
					expected[i] = p.onboard(i)
				}
			})
		}
		for i := range rows {
			work <- i
		}
		close(work)
		wg.Wait()
		p.wantNoViolations(expected)
		occurred := p.s.Stats().ByFault
		if len(occurred) < 15 {
			t.Errorf("seed %d: got the faults %v, want 15 or more", seed, occurred)
		}
	}
}

// onboard onboards a row: silence keeps the key, an answer that settles nothing takes the next key.
func (p *partner) onboard(row int) Expected {
	w, external := newWallet(row), fmt.Sprint("ext-", row)
	out := Expected{ChainID: w.account(), ExternalID: external}
	worker := &partner{
		t: p.t, s: p.s, clock: p.clock, api: p.api, http: p.http, cred: p.cred, signer: p.signer, token: p.token,
	}
	key := row * 1000
	var id string
	for id == "" {
		a := worker.do("POST", "/v1/customers", createBody(w.account(), external), withKey(testKey(key)))
		throttled := a.header.Get("Retry-After") != ""
		switch {
		case a.err == nil && a.status == 201 && hasID(a.body):
			id = a.field(p.t, "id")
		case a.err == nil && a.status/100 == 5 && !throttled:
			key++
		case a.err == nil && a.status == 409: // exists, or in flight: look it up
			id = worker.find(w.account())
		}
	}
	path := "/v1/customers/" + id
	for {
		a := worker.do("GET", path+"/challenge", "")
		if a.err == nil && a.status == 409 {
			out.Stage = "onboarded"
			return out
		}
		var v struct{ Challenge any }
		if a.err != nil || a.status != 200 || json.Unmarshal([]byte(a.body), &v) != nil {
			continue
		}
		challenge, ok := v.Challenge.(string)
		if !ok {
			continue
		}
		for _, c := range p.s.Customers() { // the server says which challenges are hostile
			if n := len(c.Challenges); c.ID == id && c.Challenges[n-1].Hostile != "" {
				out.Stage = "refused"
				return out
			}
		}
		key++
		worker.do("POST", path+"/challenge/sign", w.submission(p.t, challenge), withKey(testKey(key)))
	}
}

func (p *partner) find(account string) string {
	for {
		a := p.do("GET", "/v1/customers", "")
		var list []view
		if a.err != nil || a.status != 200 || json.Unmarshal([]byte(a.body), &list) != nil || list == nil {
			continue
		}
		for _, c := range list {
			if c.ChainID == account {
				return c.ID
			}
		}
		return ""
	}
}
