package dispatch

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// careless is a partner that creates a customer for each key, even if the account has one already, and answers the
// first key of each row with a stored 500 although it acted.
type careless struct {
	*memoryPartner
	mu     sync.Mutex
	bodies map[string]int
	first  map[uuid.UUID]bool
	paged  bool // the list announces more
}

func (p *careless) CreateCustomer(ctx context.Context, key uuid.UUID, body []byte) (client.Customer, error) {
	time.Sleep(20 * time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first[key] {
		return client.Customer{}, status(500, client.ServerError)
	}
	p.bodies[string(body)]++
	c, err := p.memoryPartner.CreateCustomer(ctx, key, body)
	if p.bodies[string(body)] == 1 {
		p.first[key] = true
		return client.Customer{}, status(500, client.ServerError)
	}
	return c, err
}

func (p *careless) Customers(ctx context.Context, yield func(client.Customer) error) error {
	time.Sleep(30 * time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paged {
		if err := p.memoryPartner.Customers(ctx, func(client.Customer) error { return nil }); err != nil {
			return err
		}
		return &client.PartialListError{Announced: "next"}
	}
	return p.memoryPartner.Customers(ctx, yield)
}

func carelessBench(t *testing.T, change func(*careless), test func(*testing.T, *bench, *careless)) {
	t.Helper()
	var p *careless
	onBench(t, func(b *bench) {
		p = &careless{memoryPartner: b.partner, bodies: map[string]int{}, first: map[uuid.UUID]bool{}}
		if change != nil {
			change(p)
		}
		b.worker.API, b.worker.ListPause, b.options.Concurrency = p, 0, 20
	}, func(t *testing.T, b *bench) { test(t, b, p) })
}

// TestAbsentOnlyFromTheListThatWasSearched: rows that look up at the same time share one reading of the list, and each
// searches that reading before it takes its customer for absent.
func TestAbsentOnlyFromTheListThatWasSearched(t *testing.T) {
	carelessBench(t, nil, func(t *testing.T, b *bench, p *careless) {
		rows := b.rows(0)
		b.take(rows...)
		b.await(20)
		for body, n := range p.bodies {
			if n != 1 {
				t.Errorf("got %d executions of %s, want 1", n, body)
			}
		}
		if tally := b.runner.Tally(); tally.Onboarded != 20 {
			t.Errorf("got %d onboarded, want 20", tally.Onboarded)
		}
	})
}

// TestPartialListProvesNothing: from a list that announces more, and after a later reading of it has failed, no
// customer is absent.
func TestPartialListProvesNothing(t *testing.T) {
	carelessBench(t, func(p *careless) { p.paged = true }, func(t *testing.T, b *bench, p *careless) {
		b.take(b.row(0))
		b.await(1) // the list was read in part
		p.mu.Lock()
		p.faults = onList(errDropped)
		p.mu.Unlock()
		b.take(b.row(1)) // and cannot be read again
		time.Sleep(time.Second)
		synctest.Wait()
		// A row of an earlier API key id has sent nothing in this process: the first reading is current enough for it.
		foreign := b.row(2)
		b.ledger.mu.Lock()
		b.ledger.records = append(b.ledger.records, pipeline.Record{
			Row: foreign, ID: int64(len(b.ledger.records) + 1), Version: 1, Stage: pipeline.Creating,
			CreateKey: pipeline.Key{Operation: pipeline.OpCreate, ID: uuid.New(), FirstSent: time.Now(), Outcome: pipeline.KeyOpen},
		})
		b.ledger.mu.Unlock()
		b.take(foreign)
		b.await(2)
		if r := b.ledger.get(foreign); r.Stage != pipeline.Failed || r.CreateKey.Generation != 0 {
			t.Errorf("got stage %s and generation %d, want %s and 0", r.Stage, r.CreateKey.Generation, pipeline.Failed)
		}
		for body, n := range p.bodies {
			if n != 1 {
				t.Errorf("got %d executions of %s, want 1", n, body)
			}
		}
	})
}

// onList makes every reading of the list fail.
func onList(err error) func(string, int) *fault {
	return func(op string, _ int) *fault {
		if op == "list" {
			return &fault{err: err}
		}
		return nil
	}
}
