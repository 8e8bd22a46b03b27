package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// faultKinds are the faults of requests in the model. The answers among them close their key.
func faultKinds() map[string]fault {
	return map[string]fault{
		"none":             {},
		"lost before":      {err: errDropped},
		"lost after":       {execute: true, err: errDropped},
		"truncated":        {execute: true, err: &client.Error{Kind: client.Malformed, Status: 201}},
		"500":              {err: status(500, client.ServerError)},
		"500 stored":       {err: status(500, client.ServerError), store: true},
		"500 after":        {execute: true, err: status(500, client.ServerError)},
		"500 after stored": {execute: true, err: status(500, client.ServerError), store: true},
		"in flight":        {err: status(409, client.Conflicting)},
		"429":              {err: &client.Error{Kind: client.Throttled, Status: 429, RetryAfter: 3 * time.Second}},
		"no token":         {err: &client.Error{Kind: client.NoToken, Err: errDropped}},
	}
}

// TestModel runs rows through random faults, crashes and clock steps, with an in-memory ledger and partner, and checks
// what must always hold: one customer for each row, one payload for each key, no new creation key while another is
// open, and in the end every row onboarded.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plan := drawPlan(rt)
		var problem error
		synctest.Test(t, func(t *testing.T) { problem = plan.run(t) })
		if problem != nil {
			rt.Fatal(problem)
		}
	})
}

// plan is the input of one run of the model.
type plan struct {
	rows    int
	faults  map[string][]string // operation to the faults of its first calls
	crashes []int               // for the first runs: the update at which the process dies
	steps   []time.Duration     // for the first runs: how far the clock is off
}

func drawPlan(rt *rapid.T) plan {
	fault := rapid.SampledFrom(append(slices.Sorted(maps.Keys(faultKinds())), "none", "none", "none"))
	p := plan{rows: rapid.IntRange(1, 4).Draw(rt, "rows"), faults: map[string][]string{}}
	for _, op := range []string{"create", "submit", "read", "challenge", "list"} {
		p.faults[op] = rapid.SliceOfN(fault, 0, 8).Draw(rt, op)
	}
	p.crashes = rapid.SliceOfN(rapid.IntRange(1, 12), 0, 3).Draw(rt, "crashes at update")
	for _, seconds := range rapid.SliceOfN(rapid.IntRange(-3*3600, 3*3600), 0, 3).Draw(rt, "clock off by seconds") {
		p.steps = append(p.steps, time.Duration(seconds)*time.Second)
	}
	return p
}

// run returns the first rule that was broken, nil for none.
func (p plan) run(t *testing.T) error {
	kinds := faultKinds()
	ledger := &memoryLedger{restarted: map[string]bool{}}
	partner := newMemoryPartner(time.Now)
	partner.faults = func(op string, n int) *fault {
		if n > len(p.faults[op]) {
			return nil
		}
		if f := kinds[p.faults[op][n-1]]; f.err != nil {
			return &f
		}
		return nil
	}
	var problem error
	open := map[string]map[uuid.UUID]bool{} // body of a creation to its keys without an answer
	partner.before = func(c call) {
		if c.op != "create" {
			return
		}
		for key := range open[c.body] {
			if key != c.key {
				problem = fmt.Errorf("got the new creation key %s, want the open key %s", c.key, key)
			}
		}
		if open[c.body] == nil {
			open[c.body] = map[uuid.UUID]bool{}
		}
		open[c.body][c.key] = true
	}
	partner.answered = func(c call, err error) {
		var e *client.Error
		answer := err == nil || errors.As(err, &e) && (e.Kind == client.ServerError || e.Kind == client.Invalid ||
			e.Kind == client.KeyReused || e.Kind == client.Conflicting && !errors.Is(err, kinds["in flight"].err))
		if c.op == "create" && answer {
			delete(open[c.body], c.key)
		}
	}
	for run := 0; ; run++ {
		if run > 20 {
			return fmt.Errorf("got %+v after %d runs, want all settled", ledger.records, run)
		}
		var offset time.Duration
		if run < len(p.steps) {
			offset = p.steps[run]
		}
		ledger.fail, ledger.failAt = nil, 0
		if run < len(p.crashes) {
			ledger.failAt = len(ledger.updates) + p.crashes[run]
		}
		if runModel(t, ledger, partner, p.rows, offset) {
			break
		}
	}
	if problem != nil {
		return problem
	}
	if len(partner.customers) != p.rows {
		return fmt.Errorf("got %d customers, want %d", len(partner.customers), p.rows)
	}
	for _, r := range ledger.records {
		if c := partner.find(r.CustomerID); r.Stage != pipeline.Onboarded || c == nil || c.Status == client.StatusInitiating {
			return fmt.Errorf("%s: got %s (%s: %s) and customer %+v, want onboarded and a customer past initiating",
				r.Where(), r.Stage, r.Class, r.Reason, c)
		}
	}
	bodies := map[uuid.UUID]string{}
	for _, c := range partner.calls {
		if earlier, ok := bodies[c.key]; c.key != uuid.Nil && ok && earlier != c.body {
			return fmt.Errorf("key %s: got payload %s, want the first one, %s", c.key, c.body, earlier)
		}
		bodies[c.key] = c.body
	}
	return nil
}

// runModel is one process. It takes all rows and ends when all are settled, or with a halt: after a crash, the ledger
// fails every update. It reports whether all rows were settled.
func runModel(t *testing.T, ledger *memoryLedger, partner *memoryPartner, rows int, offset time.Duration) bool {
	h := newHarnessFor(t, ledger, partner, func(h *harness) {
		h.workerOptions.Now = func() time.Time { return time.Now().Add(offset) }
		h.workerOptions.CheckClock = func(context.Context) error {
			if offset.Abs() > 2*time.Minute {
				return fmt.Errorf("the clock is off by %v", offset)
			}
			return nil
		}
		h.workerOptions.Limits.MaxAttempts = 60
	})
	defer h.stop()
	for i := range rows {
		h.take(h.row(i))
	}
	for range rows {
		select {
		case <-h.acked:
		case err := <-h.halted:
			t.Log(err) // shown when something else goes wrong
			return false
		case <-time.After(240 * time.Hour):
			t.Fatalf("got %+v after 10 days, want all rows settled", h.dispatcher.Tally())
		}
	}
	return true
}
