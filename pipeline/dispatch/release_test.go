package dispatch

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// TestRelease: waiting rows are given back at once. A running row finishes its action and goes no further.
func TestRelease(t *testing.T) {
	arrived, answer := make(chan struct{}, 10), make(chan struct{})
	withHarness(t, func(h *harness) {
		arrived, answer = make(chan struct{}, 10), make(chan struct{})
		h.options.Concurrency = 1
		h.partner.before = func(call) { arrived <- struct{}{}; <-answer }
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0), h.row(1), h.row(2))
		<-arrived
		released := make(chan struct{})
		go func() { h.dispatcher.Release(t.Context(), 0); close(released) }()
		synctest.Wait()
		select {
		case <-released:
			t.Fatal("got the end of the release while a request was in flight, want it after the answer")
		default:
		}
		close(answer)
		<-released
		if tally := h.dispatcher.Tally(); tally.Open != 0 || tally.Dropped != 3 {
			t.Errorf("got %+v, want 0 open, 3 dropped", tally)
		}
		if r := h.ledger.get(h.row(0)); r.Stage != pipeline.Challenged {
			t.Errorf("got stage %s, want challenged: the answer is stored", r.Stage)
		}
		if len(h.partner.calls) != 1 {
			t.Errorf("got calls %+v, want 1: none after the release", h.partner.calls)
		}
		h.partner.before = func(call) {}
		h.take(h.row(0), h.row(1), h.row(2)) // redelivered
		h.await(3)
		if tally := h.dispatcher.Tally(); tally.Onboarded != 3 {
			t.Errorf("got %+v, want 3 onboarded", tally)
		}
	})
}

// slowPartner takes the same time for each request.
type slowPartner struct {
	*memoryPartner
	takes time.Duration
}

func (p slowPartner) CreateCustomer(ctx context.Context, key uuid.UUID, body []byte) (client.Customer, error) {
	time.Sleep(p.takes)
	return p.memoryPartner.CreateCustomer(ctx, key, body)
}

func (p slowPartner) Challenge(ctx context.Context, id string) (string, error) {
	time.Sleep(p.takes)
	return p.memoryPartner.Challenge(ctx, id)
}

func (p slowPartner) SubmitSignature(ctx context.Context, id string, key uuid.UUID, body []byte) error {
	time.Sleep(p.takes)
	return p.memoryPartner.SubmitSignature(ctx, id, key, body)
}

// TestReleaseTakesOneRequest releases all partitions at 200 moments of a run under load, with some rows that have
// messages on two of them. Each release ends with the request in flight, and no message is acknowledged afterwards.
func TestReleaseTakesOneRequest(t *testing.T) {
	const takes, partitions = 400 * time.Millisecond, 4
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			h := newHarness(t, func(h *harness) {
				h.options.Concurrency = 6
				h.workerOptions.API = slowPartner{h.partner, takes}
				h.partner.faults = func(op string, n int) *fault {
					if n%7 == 3 && op != "probe" {
						return &fault{err: errDropped}
					}
					return nil
				}
			})
			released := make([]bool, partitions)
			var batches [partitions][]pipeline.Message
			for i := range 20 {
				m := h.message(h.row(i))
				m.Partition = random.IntN(partitions)
				batches[m.Partition] = append(batches[m.Partition], m)
				if random.IntN(3) == 0 {
					twin := h.message(h.row(i))
					twin.Partition = random.IntN(partitions)
					batches[twin.Partition] = append(batches[twin.Partition], twin)
				}
			}
			for _, batch := range batches {
				err := h.dispatcher.Take(t.Context(), batch, func(m pipeline.Message) {
					if released[m.Partition] {
						t.Errorf("seed %d: got offset %d of partition %d acknowledged after its release, want none",
							seed, m.Offset, m.Partition)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Duration(random.Int64N(int64(6 * time.Second))))
			start := time.Now()
			var all sync.WaitGroup
			for p := range partitions { // all at once, as the consumer does
				all.Go(func() {
					h.dispatcher.Release(t.Context(), p)
					h.dispatcher.mu.Lock()
					defer h.dispatcher.mu.Unlock()
					released[p] = true
				})
			}
			all.Wait()
			if took := time.Since(start); took > takes {
				t.Errorf("seed %d: got a release of %v, want at most the %v of the request in flight", seed, took, takes)
			}
			h.dispatcher.Close()
		})
	}
}

// TestRowOnTwoPartitions: each message is acknowledged with the callback of its own batch, and releasing one partition
// leaves the row to the other.
func TestRowOnTwoPartitions(t *testing.T) {
	type ack struct {
		batch, partition int // the partition that Take was called for, and the message's
		offset           int64
	}
	take := func(t *testing.T, h *harness, got chan ack, partition int, offset int64) {
		t.Helper()
		m := h.message(h.row(0))
		m.Partition, m.Offset = partition, offset
		err := h.dispatcher.Take(t.Context(), []pipeline.Message{m}, func(m pipeline.Message) { got <- ack{partition, m.Partition, m.Offset} })
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("both acknowledged", func(t *testing.T) {
		withHarness(t, nil, func(t *testing.T, h *harness) {
			got := make(chan ack, 10)
			take(t, h, got, 0, 10)
			take(t, h, got, 1, 77)
			for range 2 {
				if s := <-got; s.batch != s.partition {
					t.Errorf("got offset %d acknowledged with the callback of partition %d, want %d", s.offset, s.batch, s.partition)
				}
			}
		})
	})
	t.Run("one released", func(t *testing.T) {
		var arrived, answer chan struct{}
		withHarness(t, func(h *harness) {
			arrived, answer = make(chan struct{}, 10), make(chan struct{})
			h.partner.before = func(call) { arrived <- struct{}{}; <-answer }
		}, func(t *testing.T, h *harness) {
			got := make(chan ack, 10)
			take(t, h, got, 0, 10)
			take(t, h, got, 1, 77)
			<-arrived
			released := make(chan struct{})
			go func() { h.dispatcher.Release(t.Context(), 0); close(released) }()
			synctest.Wait()
			close(answer)
			<-released
			before := len(got)
			synctest.Wait()
			all := map[int]int{}
			for i := range len(got) {
				s := <-got
				all[s.partition]++
				if i >= before && s.partition == 0 {
					t.Errorf("got offset %d of partition 0 acknowledged after its release, want none", s.offset)
				}
			}
			if all[1] != 1 {
				t.Errorf("got %v acknowledged by partition, want 1 of partition 1", all)
			}
		})
	})
}

// TestMessageOfTheNextAssignment: a partition is assigned again while an action of its previous assignment is running.
// The redelivered message is acknowledged all the same.
func TestMessageOfTheNextAssignment(t *testing.T) {
	withHarness(t, nil, func(t *testing.T, h *harness) {
		arrived, answer := make(chan struct{}), make(chan struct{})
		var first sync.Once
		h.partner.before = func(call) {
			first.Do(func() {
				close(arrived)
				<-answer
			})
		}
		h.take(h.row(0))
		<-arrived
		over, cancel := context.WithCancel(t.Context())
		cancel()
		h.dispatcher.Release(over, 0) // without waiting for the action
		h.take(h.row(0))
		h.ledger.mu.Lock()
		h.ledger.fail = pipeline.ErrFenced // not restored yet
		h.ledger.mu.Unlock()
		close(answer)
		synctest.Wait()
		h.ledger.mu.Lock()
		h.ledger.fail = nil
		h.ledger.mu.Unlock()
		h.await(1)
		if n := len(h.partner.customers); n != 1 || h.ledger.get(h.row(0)).Stage != pipeline.Onboarded {
			t.Errorf("got %d customers, %+v; want 1, onboarded", n, h.ledger.get(h.row(0)))
		}
	})
}

// TestFencedRowIsGivenUp: a row whose partition is now another consumer's is dropped without an acknowledgment or a
// halt.
func TestFencedRowIsGivenUp(t *testing.T) {
	withHarness(t, nil, func(t *testing.T, h *harness) {
		h.partner.before = func(c call) {
			if c.op == "create" {
				h.ledger.mu.Lock()
				h.ledger.fail = pipeline.ErrFenced
				h.ledger.mu.Unlock()
			}
		}
		h.take(h.row(0))
		synctest.Wait()
		h.dispatcher.Release(t.Context(), 0)
		if tally := h.dispatcher.Tally(); tally.Dropped != 1 || tally.Open != 0 || len(h.acked) != 0 || len(h.halted) != 0 {
			t.Fatalf("got %+v, %d acknowledged, %d halts; want 1 dropped, 0 open, 0, 0", tally, len(h.acked), len(h.halted))
		}
		h.dispatcher.Assigned()
		if tally := h.dispatcher.Tally(); tally.Dropped != 0 {
			t.Errorf("after a new assignment: got %+v, want 0 dropped", tally)
		}
		h.ledger.mu.Lock()
		h.ledger.fail = nil
		h.ledger.mu.Unlock()
		h.partner.before = func(call) {}
		h.take(h.row(0)) // redelivered
		h.await(1)
		if n := len(h.partner.customers); n != 1 {
			t.Errorf("got %d customers, want 1", n)
		}
	})
}
