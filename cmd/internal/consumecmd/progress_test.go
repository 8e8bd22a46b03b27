package consumecmd

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/metrics"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
)

// TestProgressLine: each moment is ten seconds after the one before.
func TestProgressLine(t *testing.T) {
	calm := client.RateLimiterState{Rate: 60, InForce: 60}
	taking, stop := context.WithCancel(t.Context())
	var now metrics.Now
	p := &progress{taking: taking, now: func() metrics.Now { return now }}
	at := time.Date(2026, 11, 27, 2, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		now  metrics.Now
		stop bool
		want string
	}{
		{name: "before the assignment", now: metrics.Now{Limiter: calm},
			want: "waiting for partitions · 0 rows · 0/s of 60/s · 0 failed · 0 throttled"},
		{name: "the first rows",
			now: metrics.Now{Limiter: calm, Assigned: true, Left: 2000, Tally: pipeline.Tally{Received: 8, Open: 8},
				Client: client.Stats{Sent: 8}},
			want: "0 of 2,000 rows · 0 % · 1/s of 60/s · 0 failed · 0 throttled"},
		{name: "in the middle",
			now: metrics.Now{Limiter: calm, Assigned: true, Left: 760, Client: client.Stats{Sent: 488},
				Tally: pipeline.Tally{Received: 1250, Acked: 1240, Open: 7, Returned: 2, Failed: 3}},
			want: "1,240 of 2,000 rows · 62 % · 48/s of 60/s · 3 failed · 0 throttled · 6 s left"},
		{name: "throttled",
			now: metrics.Now{Limiter: client.RateLimiterState{Rate: 60, InForce: 30, Closed: 8 * time.Second},
				Assigned: true, Left: 700, Client: client.Stats{Sent: 588, Throttled: 1},
				Tally: pipeline.Tally{Received: 1310, Acked: 1300, Open: 10, Failed: 3, Conflict: 1, Refused: 2, Rejected: 4,
					DeadLettered: 5}},
			want: "throttled for 8 s · 1,300 of 2,000 rows · 65 % · 10/s of 30/s, lowered from 60/s · 3 failed · " +
				"1 in conflict · 2 refused · 4 rejected · 5 dead letters · 1 throttled · 2 min left"},
		{name: "an outage",
			now: metrics.Now{Limiter: calm, Assigned: true, Left: 690, Outage: true, Client: client.Stats{Sent: 590},
				Tally: pipeline.Tally{Received: 1320, Acked: 1310, Open: 10}},
			want: "outage: the partner is unavailable · 1,310 of 2,000 rows · 65 % · 0/s of 60/s · 0 failed · 0 throttled"},
		{name: "all settled",
			now: metrics.Now{Limiter: calm, Assigned: true, Client: client.Stats{Sent: 1190},
				Tally: pipeline.Tally{Received: 2000, Acked: 2000}},
			want: "waiting for rows · 2,000 of 2,000 rows · 100 % · 60/s of 60/s · 0 failed · 0 throttled"},
		{name: "a high rate",
			now: metrics.Now{Limiter: client.RateLimiterState{Rate: 2500, InForce: 1250}, Assigned: true,
				Client: client.Stats{Sent: 31190}, Tally: pipeline.Tally{Received: 2000, Acked: 2000}},
			want: "waiting for rows · 2,000 of 2,000 rows · 100 % · 3,000/s of 1,250/s, lowered from 2,500/s · 0 failed · " +
				"0 throttled"},
		{name: "a soft stop", stop: true,
			now: metrics.Now{Limiter: calm, Assigned: true, Left: 3, Client: client.Stats{Sent: 31190},
				Tally: pipeline.Tally{Received: 2003, Acked: 2000, Open: 2}},
			want: "stopping · 2,000 of 2,003 rows · 99 % · 0/s of 60/s · 0 failed · 0 throttled"},
	} {
		if tt.stop {
			stop()
		}
		now = tt.now
		at = at.Add(window)
		var texts []string
		for _, f := range fieldsOf(p.measure(at)) {
			if f.Text != "" {
				texts = append(texts, f.Text)
			}
		}
		if got := strings.Join(texts, " · "); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
	stop()
}

// TestProgressRecorder: progress is recorded when something has changed, again after a failure, and the first failure is logged.
func TestProgressRecorder(t *testing.T) {
	now := metrics.Now{Assigned: true, Left: 5, Tally: pipeline.Tally{Received: 8, Acked: 3, Onboarded: 3, Open: 5}}
	var stored []results.Report
	var failure error
	var said strings.Builder
	at := time.Date(2026, 11, 27, 2, 0, 0, 0, time.UTC)
	recorder := &progressRecorder{
		progress: progress{taking: t.Context(), now: func() metrics.Now { return now }},
		report:   results.Begun("01a21b0a-0000-7000-8000-000000000000", at),
		put: func(_ context.Context, text string) error {
			var r results.Report
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Error(err)
			}
			stored = append(stored, r)
			return failure
		},
		log: slog.New(slog.NewTextHandler(&said, nil)),
	}
	step := func(what string, want int) {
		t.Helper()
		at = at.Add(progressEvery)
		if recorder.record(t.Context(), at); len(stored) != want {
			t.Fatalf("%s: got %d reports, want %d", what, len(stored), want)
		}
	}
	step("the first", 1)
	step("nothing has changed", 1)
	got := stored[0]
	if p := got.Progress; got.State != results.Running || p == nil || p.Rows.Onboarded != 3 || p.Settled != 3 ||
		p.Left == nil || *p.Left != 5 || p.Doing != results.Working {
		t.Errorf("got %+v with the progress %+v, want a run with 3 rows onboarded and 5 left", got, p)
	}
	now.Left, now.Tally.Open, now.Tally.Acked, now.Tally.Onboarded = 4, 4, 4, 4
	failure = errors.New("disk full")
	step("a failure", 2)
	step("and again", 3)
	failure = nil
	step("it can be written again", 4)
	if n := strings.Count(said.String(), "disk full"); n != 1 {
		t.Errorf("got %d warnings, want one of the first failure:\n%s", n, said.String())
	}
}
