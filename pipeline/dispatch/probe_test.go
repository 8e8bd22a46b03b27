package dispatch

import (
	"context"
	"testing"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// TestProbeComesFirst: nothing is sent before the probe has passed, and a failed probe ends no row.
func TestProbeComesFirst(t *testing.T) {
	for name, tt := range map[string]struct {
		err   error
		class onboard.Class
	}{
		"request signature":    {status(400, client.RequestSignature), "configuration"},
		"certificate":          {&client.Error{Kind: client.Unconnectable}, "configuration"},
		"wrong secret":         {&client.Error{Kind: client.NoToken, Err: status(401, client.Unauthorized)}, "configuration"},
		"another API":          {status(200, client.Unexpected), "configuration"},
		"another API's tokens": {&client.Error{Kind: client.NoToken, Err: status(200, client.Unrecognized)}, "configuration"},
		"outage":               {errDropped, "unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, onlyFor("probe", tt.err), func(t *testing.T, h *harness) {
				h.take(h.row(0), h.row(1))
				h.awaitHalt(tt.class)
				h.stop()
				if len(h.partner.calls) != 0 {
					t.Errorf("got %d calls, want none", len(h.partner.calls))
				}
				for _, r := range h.ledger.records {
					if r.Stage != pipeline.Planned {
						t.Errorf("%s: got stage %s, want %s", r.Where(), r.Stage, pipeline.Planned)
					}
				}
			})
		})
	}
}

// TestLostProbe: a probe that is lost is repeated after 100 ms. One with an answer of an unknown shape is left 500 ms: it
// may be a page that is there for a moment.
func TestLostProbe(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want time.Duration
	}{
		"lost":          {errDropped, 100 * time.Millisecond},
		"unknown shape": {&client.Error{Kind: client.Unrecognized, Status: 200}, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(h *harness) {
				h.partner.faults = scripted(map[string][]*fault{"probe": {{err: tt.err}}})
			}, func(t *testing.T, h *harness) {
				begun := time.Now()
				h.take(h.row(0))
				h.await(1)
				if took := time.Since(begun); took != tt.want {
					t.Errorf("got the row onboarded after %v, want %v", took, tt.want)
				}
			})
		})
	}
}

// TestOutage: an outage costs the rows nothing, and the run goes on if the partner is back within OutageWait. Responses
// of an unknown shape, in the middle of a run, are an outage while the probe gets them, too, and a changed API if it
// does not.
func TestOutage(t *testing.T) {
	page := &client.Error{Kind: client.Unrecognized, Status: 200}
	pageToProbe := &client.Error{Kind: client.Unexpected, Status: 200}
	for name, tt := range map[string]struct {
		from     int           // the creation at which the outage begins; 0: with the run
		lasts    time.Duration // the outage
		requests error         // the answer to every other request meanwhile; nil: none fails
		probe    error         // the answer to the probe meanwhile; nil: it succeeds
		wait     time.Duration // OutageWait; 0: 2 minutes
		class    onboard.Class // of the halt; empty: none
	}{
		"dropped, back in time":    {from: 4, lasts: 90 * time.Second, requests: errDropped, probe: errDropped},
		"dropped for long":         {from: 4, lasts: time.Hour, requests: errDropped, probe: errDropped, class: "unreachable"},
		"page, back in time":       {from: 8, lasts: time.Minute, requests: page, probe: pageToProbe},
		"page for long":            {from: 8, lasts: time.Hour, requests: page, probe: pageToProbe, class: "unreachable"},
		"page, probe succeeds":     {from: 8, lasts: time.Hour, requests: page, class: "configuration"},
		"back just before it ends": {lasts: 19300 * time.Millisecond, probe: errDropped, wait: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(h *harness) {
				var began time.Time
				if tt.from == 0 {
					began = time.Now()
				}
				away := func() bool { return !began.IsZero() && time.Since(began) < tt.lasts }
				h.partner.faults = func(op string, n int) *fault {
					if op == "create" && n == tt.from {
						began = time.Now()
					}
					if tt.requests != nil && away() {
						return &fault{err: tt.requests}
					}
					return nil
				}
				h.options.Probe = func(context.Context) error {
					h.partner.mu.Lock()
					defer h.partner.mu.Unlock()
					if away() {
						return tt.probe
					}
					return nil
				}
				if tt.wait != 0 {
					h.options.OutageWait = tt.wait
				}
			}, func(t *testing.T, h *harness) {
				h.take(h.rows(0, 20)...)
				if tt.class == "" {
					h.await(20)
					if tally := h.dispatcher.Tally(); tally.Onboarded != 20 {
						t.Errorf("got %d onboarded, want 20", tally.Onboarded)
					}
					return
				}
				h.awaitHalt(tt.class)
				h.stop()
				if tally := h.dispatcher.Tally(); tally.Failed != 0 {
					t.Errorf("got %d rows that failed, want none", tally.Failed)
				}
			})
		})
	}
}

// TestOutageOutlastsRebalances: an outage is measured from its beginning, also when rebalances cut probes short.
func TestOutageOutlastsRebalances(t *testing.T) {
	reports := 0
	withHarness(t, func(h *harness) {
		n := 0
		h.options.OnOutage = func(error) { reports++ }
		h.options.Probe = func(context.Context) error {
			if n++; n%3 == 0 {
				return client.ErrStopped
			}
			return errDropped
		}
	}, func(t *testing.T, h *harness) {
		start := time.Now()
		h.take(h.row(0))
		h.awaitHalt("unreachable")
		if took := time.Since(start); took > h.options.OutageWait+time.Second || reports != 1 {
			t.Errorf("got a halt after %v and %d reports of the outage, want at most %v and 1", took, reports,
				h.options.OutageWait)
		}
	})
}

// TestEndlessThrottling: a partner that throttles every request is an outage after a while, even if the probe succeeds.
func TestEndlessThrottling(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.partner.faults = func(op string, _ int) *fault {
			return &fault{err: &client.Error{Op: op, Kind: client.Throttled, Status: 503, RetryAfter: time.Minute}}
		}
		h.options.Probe = func(context.Context) error { return nil }
	}, func(t *testing.T, h *harness) {
		start := time.Now()
		h.take(h.row(0))
		h.awaitHalt("unreachable")
		if took := time.Since(start); took < 2*client.MaxRetryAfter || took > 2*client.MaxRetryAfter+10*time.Minute {
			t.Errorf("got a halt after %v, want it at most 10m after %v", took, 2*client.MaxRetryAfter)
		}
	})
}

// TestRowsOwnTroubleEndsTheRow: while the probe succeeds, a row that keeps failing ends when its attempts are spent,
// also when no other row is left and most attempts were spent by earlier runs.
func TestRowsOwnTroubleEndsTheRow(t *testing.T) {
	for _, earlier := range []int{0, 11} {
		withHarness(t, func(h *harness) {
			h.workerOptions.HaltAfter = 100
			onlyFor("create", status(500, client.ServerError))(h)
			for i := range 13 {
				r := h.row(i)
				h.ledger.records = append(h.ledger.records, pipeline.Record{
					Row: r, ID: int64(i + 1), Version: 1, Stage: pipeline.Creating, Attempts: earlier,
					CreateKey: pipeline.Key{
						Operation: pipeline.OpCreate, ID: h.workerOptions.Keyring.Create(r, 0),
						FirstSent: time.Now(), Outcome: pipeline.KeyOpen,
					},
				})
			}
		}, func(t *testing.T, h *harness) {
			h.take(h.rows(0, 13)...)
			h.await(13)
			if tally := h.dispatcher.Tally(); tally.Failed != 13 {
				t.Errorf("%d earlier attempts: got %d failed, want 13", earlier, tally.Failed)
			}
		})
	}
}

// TestLoneRowEndsSoon: while the probe succeeds, the attempts of a single failing row are spent within a minute.
func TestLoneRowEndsSoon(t *testing.T) {
	withHarness(t, onlyFor("create", status(500, client.ServerError)), func(t *testing.T, h *harness) {
		start := time.Now()
		h.take(h.row(0))
		h.await(1)
		if took := time.Since(start); took > time.Minute {
			t.Errorf("got the row's end after %v, want it within a minute", took)
		}
	})
}
