package dispatch

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/purser-onboard/purser/pipeline"
)

// TestBegunRowsGoFirst: with one worker and many waiting rows, a started row is finished before the next row starts:
// its challenge must not expire in the queue.
func TestBegunRowsGoFirst(t *testing.T) {
	withHarness(t, func(h *harness) { h.options.Concurrency, h.options.SignerConcurrency = 1, 1 }, func(t *testing.T, h *harness) {
		h.take(h.rows(0, 10)...)
		h.await(10)
		open, most := 0, 0
		for _, c := range h.partner.calls {
			switch c.op {
			case "create":
				open++
			case "submit":
				open--
			}
			most = max(most, open)
		}
		if most > 3 { // at the signer, waiting for it, being created
			t.Errorf("got %d rows in progress at once, want at most 3", most)
		}
	})
}

// TestPartitionsTakeTurns: a partition with few rows does not wait until all rows of another are done.
func TestPartitionsTakeTurns(t *testing.T) {
	var both chan struct{}
	withHarness(t, func(h *harness) {
		both = make(chan struct{})
		h.options.Concurrency = 1
		h.partner.before = func(call) { <-both }
	}, func(t *testing.T, h *harness) {
		batch := func(partition int, rows ...int) {
			var messages []pipeline.Message
			for _, i := range rows {
				m := h.message(h.row(i))
				m.Partition = partition
				messages = append(messages, m)
			}
			if err := h.dispatcher.Take(t.Context(), messages, func(m pipeline.Message) { h.acked <- m }); err != nil {
				t.Error(err)
			}
		}
		batch(0, 0, 1, 2, 3, 4, 5)
		synctest.Wait() // the first row has started
		batch(1, 10, 11)
		close(both)
		h.await(8)
		var order []string
		for _, c := range h.partner.of("create") {
			var body struct{ ExternalID string }
			if err := json.Unmarshal([]byte(c.body), &body); err != nil {
				t.Fatal(err)
			}
			order = append(order, strings.TrimPrefix(body.ExternalID, "customer-"))
		}
		if got, want := strings.Join(order, " "), "0 10 1 11 2 3 4 5"; got != want {
			t.Errorf("got rows created in the order %s, want %s", got, want)
		}
	})
}
