package dispatch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// Whoever asks what a message waits for is told its row and what is being done with it.
func TestHolding(t *testing.T) {
	onBench(t, func(b *bench) {
		b.partner.faults = scripted(map[string][]*fault{"create": {
			{err: &client.Error{Op: "test", Kind: client.Throttled, Status: 429, RetryAfter: time.Minute}},
		}})
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		synctest.Wait()
		row, doing, ok := b.runner.Holding(0, 1)
		if !ok || row.Row != b.row(0) || row.Stage != pipeline.Creating || !strings.HasPrefix(doing, "create, again in 1m") {
			t.Errorf("%+v, %q, %v", row, doing, ok)
		}
		if _, _, ok := b.runner.Holding(0, 7); ok {
			t.Error("a message that nobody has taken")
		}
		b.await(1)
		if _, _, ok := b.runner.Holding(0, 1); ok {
			t.Error("a message that is settled")
		}
	})
}

// A row whose partition went to somebody else is given up, unsettled, and stops nothing.
func TestFencedRowIsGivenUp(t *testing.T) {
	onBench(t, nil, func(t *testing.T, b *bench) {
		b.partner.before = func(c call) {
			if c.op == "create" {
				b.ledger.mu.Lock()
				b.ledger.fail = pipeline.ErrFenced
				b.ledger.mu.Unlock()
			}
		}
		b.take(b.row(0))
		synctest.Wait()
		b.runner.Release(t.Context(), 0)
		if tally := b.runner.Tally(); tally.Dropped != 1 || tally.Open != 0 || len(b.settled) != 0 || len(b.halted) != 0 {
			t.Fatalf("%+v, %d settled, %d halts", tally, len(b.settled), len(b.halted))
		}
		b.runner.Assigned()
		if tally := b.runner.Tally(); tally.Dropped != 0 {
			t.Errorf("after a new assignment: %+v", tally)
		}
		b.ledger.mu.Lock()
		b.ledger.fail = nil
		b.ledger.mu.Unlock()
		b.partner.before = func(call) {}
		b.take(b.row(0)) // it comes again, here or elsewhere
		b.await(1)
		if n := len(b.partner.customers); n != 1 {
			t.Errorf("%d customers", n)
		}
	})
}

// The partition comes back while an act is under way that is of the assignment before: the message that comes anew is
// settled all the same.
func TestMessageOfTheNextAssignment(t *testing.T) {
	onBench(t, nil, func(t *testing.T, b *bench) {
		arrived, answer := make(chan struct{}), make(chan struct{})
		var first sync.Once
		b.partner.before = func(call) {
			first.Do(func() {
				close(arrived)
				<-answer
			})
		}
		b.take(b.row(0))
		<-arrived
		over, cancel := context.WithCancel(t.Context())
		cancel()
		b.runner.Release(over, 0) // it does not wait for the act
		b.take(b.row(0))
		b.ledger.mu.Lock()
		b.ledger.fail = pipeline.ErrFenced // not restored yet
		b.ledger.mu.Unlock()
		close(answer)
		synctest.Wait()
		b.ledger.mu.Lock()
		b.ledger.fail = nil
		b.ledger.mu.Unlock()
		b.await(1)
		if n := len(b.partner.customers); n != 1 || b.ledger.get(b.row(0)).Stage != pipeline.Onboarded {
			t.Errorf("%d customers, %+v", n, b.ledger.get(b.row(0)))
		}
	})
}

// fencedLedger does not accept anything.
type fencedLedger struct{ pipeline.Ledger }

func (fencedLedger) Accept(context.Context, []pipeline.Row) ([]pipeline.Acceptance, error) {
	return nil, pipeline.ErrFenced
}

// A batch of a partition that went to somebody else waits for the queue to find that out.
func TestFencedBatch(t *testing.T) {
	onBench(t, func(b *bench) { b.worker.Ledger = fencedLedger{b.ledger} }, func(t *testing.T, b *bench) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := b.runner.Take(ctx, []pipeline.Message{b.message(b.row(0))}, func(pipeline.Message) { t.Error("settled") })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// With records that follow their rows, a message outside of its account's partition becomes a dead letter, and what is
// in the right one is worked on.
func TestMessageInWrongPartition(t *testing.T) {
	var log bytes.Buffer
	onBench(t, func(b *bench) {
		b.options.Home = func(pipeline.Account) int { return 3 }
		b.options.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}, func(t *testing.T, b *bench) {
		good := b.message(b.row(0))
		good.Partition = 3
		if err := b.runner.Take(t.Context(), []pipeline.Message{good}, func(m pipeline.Message) { b.settled <- m }); err != nil {
			t.Fatal(err)
		}
		b.await(1)
		bad := make([]pipeline.Message, 12)
		for i := range bad {
			bad[i] = b.message(b.row(1))
		}
		settled := 0
		if err := b.runner.Take(t.Context(), bad, func(pipeline.Message) { settled++ }); err != nil {
			t.Fatal(err)
		}
		tally := b.runner.Tally()
		if settled != 12 || len(b.dead.published) != 12 || tally.DeadLettered != 12 || tally.Onboarded != 1 || !tally.Bad() {
			t.Errorf("got %d settled, %d dead letters, %+v; want 12, 12 and 1 onboarded", settled, len(b.dead.published), tally)
		}
		d, err := pipeline.ReadDeadLetter(pipeline.Message{Value: bad[0].Value, Headers: b.dead.published[0].Headers})
		if err != nil || d.Class != "partition" || !strings.Contains(d.Reason, "wrong partition: want 3, got 0") {
			t.Errorf("got %+v (%v), want the partitions named", d, err)
		}
		if got := string(d.Again().Key); got != b.row(1).Account.String() {
			t.Errorf("got key %q put back, want the account", got)
		}
	})
	if got := strings.Count(log.String(), "class=partition"); got != 2 || !strings.Contains(log.String(), "messages=10 ") {
		t.Errorf("got log %q, want warnings of the first and the 10th", log.String())
	}
}

// Partitions take turns: one with few rows does not wait until another with many is through.
func TestPartitionsTakeTurns(t *testing.T) {
	var both chan struct{}
	onBench(t, func(b *bench) {
		both = make(chan struct{})
		b.options.Concurrency = 1
		b.partner.before = func(call) { <-both }
	}, func(t *testing.T, b *bench) {
		batch := func(partition int, rows ...int) {
			var messages []pipeline.Message
			for _, i := range rows {
				m := b.message(b.row(i))
				m.Partition = partition
				messages = append(messages, m)
			}
			if err := b.runner.Take(t.Context(), messages, func(m pipeline.Message) { b.settled <- m }); err != nil {
				t.Error(err)
			}
		}
		batch(0, 0, 1, 2, 3, 4, 5)
		synctest.Wait() // the first row is on its way
		batch(1, 10, 11)
		close(both)
		b.await(8)
		var order []string
		for _, c := range b.partner.of("create") {
			var body struct{ ExternalID string }
			if err := json.Unmarshal([]byte(c.body), &body); err != nil {
				t.Fatal(err)
			}
			order = append(order, strings.TrimPrefix(body.ExternalID, "customer-"))
		}
		if got := strings.Join(order, " "); got != "0 10 1 11 2 3 4 5" {
			t.Errorf("they were begun in the order %s", got)
		}
	})
}
