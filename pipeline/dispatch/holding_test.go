package dispatch

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// TestHolding: Holding returns the row of a message and what is being done for it.
func TestHolding(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.partner.faults = scripted(map[string][]*fault{"create": {
			{err: &client.Error{Op: "test", Kind: client.Throttled, Status: 429, RetryAfter: time.Minute}},
		}})
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		synctest.Wait()
		row, doing, ok := h.dispatcher.Holding(0, 1)
		if !ok || row.Row != h.row(0) || row.Stage != pipeline.Creating || !strings.HasPrefix(doing, "create, again in 1m") {
			t.Errorf("got %+v, %q, %v; want row 0 at creating, again in 1m, true", row, doing, ok)
		}
		if _, _, ok := h.dispatcher.Holding(0, 7); ok {
			t.Error("message that was not taken: got a row, want none")
		}
		h.await(1)
		if _, _, ok := h.dispatcher.Holding(0, 1); ok {
			t.Error("acknowledged message: got a row, want none")
		}
	})
}
