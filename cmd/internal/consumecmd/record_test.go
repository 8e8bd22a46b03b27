package consumecmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/metrics"
	"github.com/purser-onboard/purser/pipeline/results"
)

// TestRecorder: each minute has what was done in it, the last one too, and a minute without anything is not stored.
func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var now metrics.Snapshot
		do := func(change func(*metrics.Snapshot)) {
			mu.Lock()
			defer mu.Unlock()
			change(&now)
		}
		var stored []results.Minute
		var told []time.Time
		var said strings.Builder
		run := uuid.New()
		r := &recorder{
			run: run,
			snapshot: func() metrics.Snapshot {
				mu.Lock()
				defer mu.Unlock()
				return now
			},
			put: func(_ context.Context, id uuid.UUID, m ledger.Minute) error {
				var minute results.Minute
				if err := json.Unmarshal([]byte(m.Data), &minute); err != nil || id != run || !m.At.Equal(minute.At) {
					t.Errorf("got %+v of run %v, %v; want a minute of run %v", m, id, err, run)
				}
				stored = append(stored, minute)
				return errors.New("disk full")
			},
			progress: func(_ context.Context, now time.Time) { told = append(told, now) },
			log:      slog.New(slog.NewTextHandler(&said, nil)),
		}
		time.Sleep(20 * time.Second) // the first minute is a part of one
		r.start(t.Context())
		begun := time.Now().Truncate(time.Minute).UTC()
		do(func(s *metrics.Snapshot) {
			s.RateAllowed = 20
			s.Requests = map[string]map[string]int64{"create": {"2xx": 30, "429": 10}}
			s.Settled = map[string]int64{"failed": 1}
			s.Throttled, s.Signatures, s.SignerErrors = 10, 5, 1
			s.Outage, s.GateClosed = 3*time.Second, 4*time.Second
		})
		time.Sleep(2*time.Minute + 20*time.Second) // into the third minute after the first
		do(func(s *metrics.Snapshot) {
			s.RateAllowed = 10
			s.Requests = map[string]map[string]int64{"create": {"2xx": 30, "429": 10}, "submit": {"2xx": 7}}
			s.Settled = map[string]int64{"failed": 1, "onboarded": 7}
		})
		time.Sleep(15 * time.Second)
		if last := r.end(t.Context(), time.Now()); last.Settled["onboarded"] != 7 {
			t.Errorf("got %+v at the end, want the final reading", last)
		}
		want := []results.Minute{
			{
				At: begun, Requests: map[string]map[string]int64{"create": {"2xx": 30, "429": 10}},
				Settled: map[string]int64{"failed": 1}, RateAllowed: 20, RateUsed: 1,
				Throttled: 10, Signatures: 5, SignerErrors: 1, OutageSeconds: 3, GateClosedSeconds: 4,
			},
			{
				At: begun.Add(2 * time.Minute), Requests: map[string]map[string]int64{"submit": {"2xx": 7}},
				Settled: map[string]int64{"onboarded": 7}, RateUsed: 7. / 55,
			},
		}
		for i := range stored {
			if i == 1 { // samples of both rates
				if stored[i].RateAllowed <= 10 || stored[i].RateAllowed >= 20 {
					t.Errorf("got rate %v in the last minute, want a mean of 10 and 20", stored[i].RateAllowed)
				}
				stored[i].RateAllowed = 0
			}
		}
		if got, want := fmt.Sprintf("%+v", stored), fmt.Sprintf("%+v", want); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		// 20 s to 175 s after a full minute, the last one excluded
		if len(told) != 31 || !told[0].Equal(begun.Add(25*time.Second)) {
			t.Errorf("got %d times at which progress was recorded, from %v on; want 31, every 5 s", len(told), told)
		}
		if n := strings.Count(said.String(), "disk full"); n != 1 {
			t.Errorf("got %d warnings, want one of the first failure:\n%s", n, said.String())
		}
	})
}

// TestMeasured: a report has the latencies of operations and the times per stage.
func TestMeasured(t *testing.T) {
	var r results.Report
	measured(&r, metrics.Snapshot{
		Latencies: []metrics.Latency{{Operation: "create", Count: 3, P50: .1, P95: .2, P99: .3}},
		Stages:    []metrics.Latency{{Operation: "planned", Count: 2, P50: 1, P95: 2, P99: 3}},
	})
	latencies := []results.Latency{{Operation: "create", Count: 3, P50: .1, P95: .2, P99: .3}}
	stages := []results.StageTime{{Stage: "planned", Count: 2, P50: 1, P95: 2, P99: 3}}
	if !slices.Equal(r.Latencies, latencies) || !slices.Equal(r.Stages, stages) {
		t.Errorf("got %+v and %+v, want %+v and %+v", r.Latencies, r.Stages, latencies, stages)
	}
}
