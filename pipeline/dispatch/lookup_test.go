package dispatch

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// duplicatingPartner creates a customer for each key, even if the account has one already. It executes the first
// creation of each row and answers it with a stored 500.
type duplicatingPartner struct {
	*memoryPartner
	mu     sync.Mutex
	bodies map[string]int
	first  map[uuid.UUID]bool
	paged  bool // the list is only a first page
}

func (p *duplicatingPartner) CreateCustomer(ctx context.Context, key uuid.UUID, body []byte) (client.Customer, error) {
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

func (p *duplicatingPartner) Customers(
	ctx context.Context, yield func(client.Customer) error,
) (time.Duration, error) {
	time.Sleep(30 * time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paged {
		if took, err := p.memoryPartner.Customers(ctx, func(client.Customer) error { return nil }); err != nil {
			return took, err
		}
		return 0, &client.PartialListError{Announced: "next"}
	}
	return p.memoryPartner.Customers(ctx, yield)
}

func withDuplicatingPartner(t *testing.T, change func(*duplicatingPartner), test func(*testing.T, *harness, *duplicatingPartner)) {
	t.Helper()
	var p *duplicatingPartner
	withHarness(t, func(h *harness) {
		p = &duplicatingPartner{memoryPartner: h.partner, bodies: map[string]int{}, first: map[uuid.UUID]bool{}}
		if change != nil {
			change(p)
		}
		h.workerOptions.API, h.workerOptions.ListPause, h.options.Concurrency = p, 0, 20
	}, func(t *testing.T, h *harness) { test(t, h, p) })
}

// TestAbsentOnlyFromTheListThatWasSearched: rows that are looked up at the same time share one reading of the list.
// Each searches that reading before it concludes that its customer is absent.
func TestAbsentOnlyFromTheListThatWasSearched(t *testing.T) {
	withDuplicatingPartner(t, nil, func(t *testing.T, h *harness, p *duplicatingPartner) {
		h.take(h.rows(0, 20)...)
		h.await(20)
		for body, n := range p.bodies {
			if n != 1 {
				t.Errorf("got %d executions of %s, want 1", n, body)
			}
		}
		if tally := h.dispatcher.Tally(); tally.Onboarded != 20 {
			t.Errorf("got %d onboarded, want 20", tally.Onboarded)
		}
	})
}

// TestPartialListProvesNothing: no customer is absent because a first page lacks it, also after a later reading has
// failed.
func TestPartialListProvesNothing(t *testing.T) {
	withDuplicatingPartner(t, func(p *duplicatingPartner) { p.paged = true }, func(t *testing.T, h *harness, p *duplicatingPartner) {
		h.take(h.row(0))
		h.await(1) // the list was read in part
		p.mu.Lock()
		p.faults = always("list", errDropped)
		p.mu.Unlock()
		h.take(h.row(1)) // and the next reading fails
		time.Sleep(time.Second)
		synctest.Wait()
		// A row of an earlier API key id has sent nothing in this process, so the first reading is recent enough for it.
		foreign := h.row(2)
		h.ledger.mu.Lock()
		h.ledger.records = append(h.ledger.records, pipeline.Record{
			Row: foreign, ID: int64(len(h.ledger.records) + 1), Version: 1, Stage: pipeline.Creating,
			CreateKey: pipeline.Key{Operation: pipeline.OpCreate, ID: uuid.New(), FirstSent: time.Now(), Outcome: pipeline.KeyOpen},
		})
		h.ledger.mu.Unlock()
		h.take(foreign)
		h.await(2)
		if r := h.ledger.get(foreign); r.Stage != pipeline.Failed || r.CreateKey.Generation != 0 {
			t.Errorf("got stage %s and generation %d, want %s and 0", r.Stage, r.CreateKey.Generation, pipeline.Failed)
		}
		for body, n := range p.bodies {
			if n != 1 {
				t.Errorf("got %d executions of %s, want 1", n, body)
			}
		}
	})
}

// TestFailedReadingWaitsByItself: a reading that fails uses up an attempt of its row. The wait after it is that of a
// first failure, however often the row has failed, and later waits are as long as without it.
func TestFailedReadingWaitsByItself(t *testing.T) {
	var calls []string
	var at []time.Time
	withHarness(t, func(h *harness) {
		h.workerOptions.ListPause = 0
		h.workerOptions.Limits.RetryMin, h.workerOptions.Limits.RetryAlone = 100*time.Millisecond, time.Minute
		drop, inFlight := &fault{err: errDropped}, &fault{err: status(409, client.Conflicting)}
		h.partner.faults = scripted(map[string][]*fault{
			"create": {drop, drop, drop, drop, drop, inFlight}, "list": {drop},
		})
		h.partner.before = func(c call) { calls, at = append(calls, c.op), append(at, time.Now()) }
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.await(1)
		h.wantStage(h.row(0), pipeline.Onboarded, "")
		list := slices.Index(calls, "list")
		if want := []string{"create", "list", "list", "create", "submit"}; !slices.Equal(calls[list-1:], want) {
			t.Fatalf("got %v, want five creations and then %v", calls, want)
		}
		if waited := at[list+1].Sub(at[list]); waited > 100*time.Millisecond {
			t.Errorf("after the failed reading: got a wait of %v, want at most 100ms", waited)
		}
		if waited := at[list+2].Sub(at[list+1]); waited < 1600*time.Millisecond || waited > 3200*time.Millisecond {
			t.Errorf("after six creations without a result: got a wait of %v, want 1.6s to 3.2s", waited)
		}
		most := 0
		for _, r := range h.ledger.updates {
			most = max(most, r.Attempts)
		}
		if most != 7 {
			t.Errorf("got %d attempts, want 7: six creations and the reading", most)
		}
	})
}

// TestFullPartner: with an empty ledger and a partner that has all customers, every row is settled and no customer is
// created again.
func TestFullPartner(t *testing.T) {
	withHarness(t, nil, func(t *testing.T, h *harness) {
		for i, s := range []client.Status{"initiating", "screening", "active", "inactive", "rejected"} {
			c := client.Customer{ID: uuid.NewString(), ChainID: strings.ToLower(h.row(i).Account.String()),
				ExternalID: h.row(i).ExternalID, Status: s}
			h.partner.customers = append(h.partner.customers, c)
		}
		taken := client.Customer{ID: uuid.NewString(), ChainID: h.row(5).Account.String(),
			ExternalID: "customer-of-another-row", Status: "active"}
		h.partner.customers = append(h.partner.customers, taken)
		h.take(h.row(0), h.row(1), h.row(2), h.row(3), h.row(4), h.row(5))
		h.await(6)
		tally := h.dispatcher.Tally()
		if tally.Onboarded != 4 || tally.AlreadyOnboarded != 3 || tally.Rejected != 1 || tally.Conflict != 1 {
			t.Errorf("got %+v, want 4 onboarded (3 already), 1 rejected, 1 in conflict", tally)
		}
		if n := len(h.partner.of("list")); n != 1 {
			t.Errorf("got %d readings of the list, want 1", n)
		}
		if len(h.partner.customers) != 6 {
			t.Errorf("got %d customers, want the 6 of before", len(h.partner.customers))
		}
		if r := h.ledger.get(h.row(5)); !strings.Contains(r.Reason, taken.ExternalID) {
			t.Errorf("got reason %q, want %s in it", r.Reason, taken.ExternalID)
		}
	})
}

// TestWaitUnderANewKey: the waits of a creation under a new key do not go on where those under the earlier key ended. Two
// failures of that one count.
func TestWaitUnderANewKey(t *testing.T) {
	var creations []time.Time
	withHarness(t, func(h *harness) {
		h.workerOptions.Limits.RetryMin, h.workerOptions.Limits.RetryAlone = 100*time.Millisecond, time.Minute
		drop := &fault{err: errDropped}
		h.partner.faults = scripted(map[string][]*fault{
			"create": {drop, drop, drop, {store: true, err: status(500, client.ServerError)}, nil, drop},
		})
		h.partner.before = func(c call) {
			if c.op == "create" {
				creations = append(creations, time.Now())
			}
		}
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.await(1)
		h.wantStage(h.row(0), pipeline.Onboarded, "")
		keys := h.partner.of("create")
		if len(keys) != 7 || keys[4].key == keys[5].key || keys[5].key != keys[6].key {
			t.Fatalf("got %d creations, want five under a key and two under the next", len(keys))
		}
		if waited := creations[6].Sub(creations[5]); waited < 200*time.Millisecond || waited > 400*time.Millisecond {
			t.Errorf("after the first failure under the new key: got a wait of %v, want 200ms to 400ms", waited)
		}
	})
}

// TestListedAsInitiating: a customer that is looked up goes on with its challenge at once if a list that was begun after
// the creation was sent shows it as initiating. In another status it is read.
func TestListedAsInitiating(t *testing.T) {
	for status, want := range map[client.Status][]string{
		client.StatusInitiating: {"list", "challenge", "submit"},
		client.StatusScreening:  {"list", "read"},
	} {
		t.Run(string(status), func(t *testing.T) {
			var calls []string
			withHarness(t, func(h *harness) {
				h.partner.customers = []client.Customer{{ID: uuid.NewString(), ChainID: h.row(0).Account.String(),
					ExternalID: h.row(0).ExternalID, Status: status}}
				h.partner.before = func(c call) {
					calls = append(calls, c.op)
					time.Sleep(time.Millisecond) // the list is begun later than the creation
				}
			}, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				h.await(1)
				h.wantStage(h.row(0), pipeline.Onboarded, "")
				if created := slices.Index(calls, "create"); !slices.Equal(calls[created+1:], want) {
					t.Errorf("got %v, want after the creation, which is answered 409, %v", calls, want)
				}
			})
		})
	}
}

// TestPairsComeFirst: all customers of the pair are looked at before one that shares only a half of it, also if the first
// of them is gone.
func TestPairsComeFirst(t *testing.T) {
	withHarness(t, func(h *harness) {
		row, other := h.row(0), h.row(1)
		customer := func(account, externalID string) client.Customer {
			return client.Customer{ID: uuid.NewString(), ChainID: account, ExternalID: externalID, Status: client.StatusActive}
		}
		h.partner.customers = []client.Customer{
			customer(other.Account.String(), row.ExternalID),
			customer(row.Account.String(), row.ExternalID),
			customer(row.Account.String(), row.ExternalID),
		}
		h.partner.faults = scripted(map[string][]*fault{"read": {{err: status(404, client.NotFound)}}})
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.await(1)
		h.wantStage(h.row(0), pipeline.Onboarded, "")
	})
}

// TestStoredListIsNoVerdict: the list of an earlier run has a customer that is gone. It does not decide a row's end.
func TestStoredListIsNoVerdict(t *testing.T) {
	for name, listed := range map[string]func(h *harness) client.Customer{
		"the externalId was another's": func(h *harness) client.Customer {
			return client.Customer{ChainID: h.row(5).Account.String(), ExternalID: h.row(0).ExternalID}
		},
		"the pair had another id": func(h *harness) client.Customer {
			return client.Customer{ChainID: h.row(0).Account.String(), ExternalID: h.row(0).ExternalID}
		},
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(h *harness) {
				c := listed(h)
				c.ID, c.Status = uuid.NewString(), client.StatusActive
				h.ledger.list = []pipeline.Customer{{ID: c.ID, ChainID: c.ChainID, ExternalID: c.ExternalID, Status: string(c.Status)}}
				h.partner.customers = []client.Customer{{ID: uuid.NewString(), ChainID: h.row(0).Account.String(),
					ExternalID: h.row(0).ExternalID, Status: client.StatusInitiating}}
			}, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				h.await(1)
				h.wantStage(h.row(0), pipeline.Onboarded, "")
				if n := len(h.partner.of("list")); n != 1 {
					t.Errorf("got %d readings of the list, want 1", n)
				}
			})
		})
	}
}
