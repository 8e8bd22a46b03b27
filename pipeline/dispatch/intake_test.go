package dispatch

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

func TestRepeatedMessageIsSkipped(t *testing.T) {
	withHarness(t, nil, func(t *testing.T, h *harness) {
		h.take(h.row(0), h.row(0))
		h.await(2)
		h.take(h.row(0))
		h.await(1)
		if tally := h.dispatcher.Tally(); tally.Received != 3 || tally.Skipped != 2 || tally.Onboarded != 1 {
			t.Errorf("got %+v, want 3 received, 2 skipped, 1 onboarded", tally)
		}
		if n := len(h.partner.of("create")); n != 1 {
			t.Errorf("got %d creations, want 1", n)
		}
	})
}

// TestAckedCountsMessages: the messages of a row that is under way are open, whatever their number.
func TestAckedCountsMessages(t *testing.T) {
	withHarness(t, nil, func(t *testing.T, h *harness) {
		answer := make(chan struct{})
		h.partner.before = func(c call) {
			if c.op == "create" {
				<-answer
			}
		}
		h.take(h.row(0), h.row(0), h.row(0))
		synctest.Wait()
		if tally := h.dispatcher.Tally(); tally.Received != 3 || tally.Open != 1 || tally.Acked != 0 {
			t.Errorf("got %+v, want 3 messages received, 1 row open, and no message acknowledged", tally)
		}
		close(answer)
		h.await(3)
		h.take(h.row(0))
		h.await(1)
		bad := pipeline.Message{Value: []byte("{")}
		if err := h.dispatcher.Take(t.Context(), []pipeline.Message{bad}, func(pipeline.Message) {}); err != nil {
			t.Fatal(err)
		}
		if tally := h.dispatcher.Tally(); tally.Received != 5 || tally.Open != 0 || tally.Acked != 5 {
			t.Errorf("got %+v, want 5 messages received and acknowledged", tally)
		}
	})
}

func TestContradictionIsAConflict(t *testing.T) {
	withHarness(t, nil, func(t *testing.T, h *harness) {
		other := h.row(0)
		other.ExternalID = "another"
		reverse := h.row(1)
		reverse.ExternalID = h.row(0).ExternalID
		h.take(h.row(0), other, reverse)
		h.await(3)
		if tally := h.dispatcher.Tally(); tally.Onboarded != 1 || tally.Conflict != 2 || !tally.Bad() {
			t.Errorf("got %+v, want 1 onboarded, 2 in conflict, and a bad run", tally)
		}
	})
}

func TestBadMessageGoesToTheDeadLetters(t *testing.T) {
	withHarness(t, nil, func(t *testing.T, h *harness) {
		bad := pipeline.Message{Topic: "work", Partition: 0, Offset: 1, Key: []byte("k"), Value: []byte("{"),
			Headers: []pipeline.Header{{Key: "h", Value: []byte("v")}}}
		good := h.message(h.row(0))
		good.Offset = 2
		if err := h.dispatcher.Take(t.Context(), []pipeline.Message{bad, good}, func(m pipeline.Message) { h.acked <- m }); err != nil {
			t.Fatal(err)
		}
		h.await(2)
		if len(h.dead.published) != 1 || string(h.dead.published[0].Value) != "{" || len(h.dead.published[0].Headers) != 16 {
			t.Errorf("got dead letters %+v, want 1 with value { and 16 headers", h.dead.published)
		}
		if tally := h.dispatcher.Tally(); tally.DeadLettered != 1 || tally.Onboarded != 1 || tally.Received != 2 {
			t.Errorf("got %+v, want 2 received, 1 dead-lettered, 1 onboarded", tally)
		}
	})
}

// TestMessageInWrongPartition: with a ledger topic, a message outside its account's partition becomes a dead letter,
// and messages in the right partition are processed.
func TestMessageInWrongPartition(t *testing.T) {
	var log bytes.Buffer
	withHarness(t, func(h *harness) {
		h.options.Home = func(pipeline.Account) int { return 3 }
		h.options.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}, func(t *testing.T, h *harness) {
		good := h.message(h.row(0))
		good.Partition = 3
		if err := h.dispatcher.Take(t.Context(), []pipeline.Message{good}, func(m pipeline.Message) { h.acked <- m }); err != nil {
			t.Fatal(err)
		}
		h.await(1)
		bad := make([]pipeline.Message, 12)
		for i := range bad {
			bad[i] = h.message(h.row(1))
		}
		acked := 0
		if err := h.dispatcher.Take(t.Context(), bad, func(pipeline.Message) { acked++ }); err != nil {
			t.Fatal(err)
		}
		tally := h.dispatcher.Tally()
		if acked != 12 || len(h.dead.published) != 12 || tally.DeadLettered != 12 || tally.Onboarded != 1 || !tally.Bad() {
			t.Errorf("got %d acknowledged, %d dead letters, %+v; want 12, 12 and 1 onboarded",
				acked, len(h.dead.published), tally)
		}
		d, err := pipeline.ReadDeadLetter(pipeline.Message{Value: bad[0].Value, Headers: h.dead.published[0].Headers})
		if err != nil || d.Class != "partition" || !strings.Contains(d.Reason, "wrong partition: want 3, got 0") {
			t.Errorf("got %+v (%v), want class partition, and both partitions in the reason", d, err)
		}
		if got := string(d.Again().Key); got != h.row(1).Account.String() {
			t.Errorf("got key %q put back, want %q", got, h.row(1).Account)
		}
	})
	if got := strings.Count(log.String(), "class=partition"); got != 2 || !strings.Contains(log.String(), "messages=10 ") {
		t.Errorf("got log %q, want warnings of the first and the 10th", log.String())
	}
}

// TestNewImportRetries: a failed row starts again with a new import, and only with a new one.
func TestNewImportRetries(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.partner.faults = scripted(map[string][]*fault{"create": {{err: status(400, client.Invalid)}}})
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.await(1)
		h.take(h.row(0))
		h.await(1)
		if tally := h.dispatcher.Tally(); tally.Failed != 1 || tally.Skipped != 1 || tally.BadRows != 1 {
			t.Errorf("got %+v, want 1 failed, 1 skipped, 1 bad row", tally)
		}
		again := h.row(0)
		again.ImportID = "import-2"
		h.take(again)
		h.await(1)
		if tally := h.dispatcher.Tally(); tally.Failed != 1 || tally.Onboarded != 1 || tally.Bad() {
			t.Errorf("got %+v, want 1 failed, 1 onboarded, and no bad row left", tally)
		}
		if r := h.ledger.get(again); r.Stage != pipeline.Onboarded || r.CreateKey.Generation != 1 {
			t.Errorf("got stage %s, generation %d; want onboarded, 1", r.Stage, r.CreateKey.Generation)
		}
		h.checkKeys(t)
	})
}

// fencedLedger accepts no rows.
type fencedLedger struct{ pipeline.Ledger }

func (fencedLedger) Accept(context.Context, []pipeline.Row) ([]pipeline.Acceptance, error) {
	return nil, pipeline.ErrFenced
}

// TestFencedBatch: Take blocks with a batch of a partition that is now another consumer's, until the queue ends ctx.
func TestFencedBatch(t *testing.T) {
	withHarness(t, func(h *harness) { h.workerOptions.Ledger = fencedLedger{h.ledger} }, func(t *testing.T, h *harness) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := h.dispatcher.Take(ctx, []pipeline.Message{h.message(h.row(0))}, func(m pipeline.Message) {
			t.Errorf("got offset %d acknowledged, want none", m.Offset)
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}
