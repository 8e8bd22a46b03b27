package metrics_test

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/metrics"
	"github.com/purser-onboard/purser/pipeline"
)

// night is a clock that stands still unless it is set.
type night struct{ at time.Time }

func newNight() *night { return &night{time.Date(2026, 11, 27, 2, 15, 0, 0, time.UTC)} }

func (n *night) now() time.Time { return n.at }

func newMetrics(n *night) *metrics.Metrics {
	return metrics.New(metrics.Options{Version: "1.2.3", Signer: "keystore", Started: n.at, Now: n.now})
}

// busy has seen some of everything.
func busy(n *night) *metrics.Metrics {
	m := newMetrics(n)
	m.Watch(metrics.Sources{
		Tally: func() pipeline.Tally {
			return pipeline.Tally{Received: 10, Skipped: 1, Onboarded: 4, Conflict: 1, Failed: 2, DeadLettered: 1, Open: 1,
				Signatures: 5, Retried: 3}
		},
		Client:  func() client.Stats { return client.Stats{Sent: 30, Throttled: 2, Retried: 1} },
		Limiter: func() client.RateLimiterState { return client.RateLimiterState{Rate: 20, InForce: 10} },
		Closed:  func() time.Duration { return 3 * time.Second },
		Positions: func() []metrics.Position {
			return []metrics.Position{{Partition: 0, Settled: 7, Lag: 3}, {Partition: 3, Settled: 1}}
		},
		Reachable: func() bool { return true },
		Oldest:    func() time.Time { return n.at.Add(-time.Minute) },
	})
	for _, op := range client.Operations() {
		for _, status := range []int{200, 204, 302, 404, 409, 429, 500, 503, 0} {
			m.Began(op)
			m.Ended(op, status, 80*time.Millisecond)
		}
	}
	m.Began(client.Submit)
	m.Waited(time.Second)
	m.Committed(12, 4*time.Millisecond)
	m.Signed(nil, 3*time.Millisecond)
	m.Signed(errors.New("lost"), time.Second)
	m.Moved(pipeline.Planned, pipeline.Creating, time.Second)
	m.Moved(pipeline.Submitting, pipeline.Onboarded, time.Second)
	return m
}

// scrape parses what Prometheus would read.
func scrape(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("got %v, want metrics that can be parsed; they are %s", err, text)
	}
	return families
}

// value returns the value of a counter or gauge with these labels, name and value in turn.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, l.GetName(), l.GetValue())
		}
		if slices.Equal(have, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Errorf("%s%v: got no value, want one", name, labels)
	return 0
}

func text(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	var out bytes.Buffer
	if err := m.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestExposition: what is scraped can be parsed, and says what was counted.
func TestExposition(t *testing.T) {
	n := newNight()
	m := busy(n)
	m.Outage(true)
	n.at = n.at.Add(time.Minute)
	m.End(1, true)
	families := scrape(t, text(t, m))
	for _, want := range []struct {
		name   string
		labels []string
		value  float64
	}{
		{"purser_rows_total", []string{"stage", "creating"}, 1},
		{"purser_rows_total", []string{"stage", "onboarded"}, 4}, // the dispatcher's count, not the worker's
		{"purser_rows_total", []string{"stage", "failed"}, 2},
		{"purser_rows_total", []string{"stage", "rejected"}, 0},
		{"purser_requests_total", []string{"operation", "create", "status", "2xx"}, 2},
		{"purser_requests_total", []string{"operation", "create", "status", "4xx"}, 1},
		{"purser_requests_total", []string{"operation", "create", "status", "409"}, 1},
		{"purser_requests_total", []string{"operation", "list", "status", "429"}, 1},
		{"purser_requests_total", []string{"operation", "probe", "status", "5xx"}, 2},
		{"purser_requests_total", []string{"operation", "token", "status", "error"}, 1},
		{"purser_requests_in_flight", nil, 1},
		{"purser_requests_retried_total", nil, 4},
		{"purser_throttles_total", nil, 2},
		{"purser_rate_allowed", nil, 10},
		{"purser_rate_gate_closed_seconds_total", nil, 3},
		{"purser_queue_lag", []string{"partition", "0"}, 3},
		{"purser_queue_settled_offset", []string{"partition", "3"}, 1},
		{"purser_oldest_unsettled_row_seconds", nil, 60},
		{"purser_signatures_total", nil, 5},
		{"purser_signer_errors_total", []string{"backend", "keystore"}, 1},
		{"purser_dead_letters_total", nil, 1},
		{"purser_outage", nil, 1},
		{"purser_outage_seconds_total", nil, 60},
		{"purser_halted", nil, 1},
		{"purser_exit_code", nil, 1},
	} {
		if got := value(t, families, want.name, want.labels...); got != want.value {
			t.Errorf("%s%v: got %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	h := families["purser_ledger_commit_transitions"].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 1 || h.GetSampleSum() != 12 {
		t.Errorf("commit: got %d transactions of %v rows, want 1 of 12", h.GetSampleCount(), h.GetSampleSum())
	}
}

// TestHandler: a scrape has the metrics of the run and those of the process, the file for node_exporter, which has
// metrics of its own process, has the run's only.
func TestHandler(t *testing.T) {
	m := busy(newNight())
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	families := scrape(t, string(body))
	for _, name := range []string{"purser_rows_total", "purser_build_info", "go_goroutines", "process_start_time_seconds"} {
		if families[name] == nil {
			t.Errorf("scrape: got no %s, want it", name)
		}
	}
	for name := range scrape(t, text(t, m)) {
		if !strings.HasPrefix(name, "purser_") {
			t.Errorf("file: got %s, want metrics with the prefix purser_ only", name)
		}
	}
}

// TestNames: the names, units and help texts are as Prometheus's linter wants them.
func TestNames(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(text(t, busy(newNight())))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: got %s, want a clean name", p.Metric, p.Text)
	}
}

// TestCardinality: what comes from outside makes no new series.
func TestCardinality(t *testing.T) {
	m := busy(newNight())
	before := strings.Count(text(t, m), "\n")
	for status := -1; status < 2000; status++ {
		m.Began(client.Find)
		m.Ended(client.Find, status, time.Duration(status)*time.Second)
	}
	for _, hostile := range []string{"eip155:1:0xAb5801a7D398351b8bE11C439e05C5B3259aeC9B", "\"}\npurser_rows_total 1", "\xff"} {
		m.Signed(errors.New(hostile), time.Second)
		m.Moved(pipeline.Stage(hostile), pipeline.Stage(hostile), time.Second)
		m.Began(client.Operation(hostile))
		m.Ended(client.Operation(hostile), 200, time.Second)
		if got := text(t, m); strings.Contains(got, hostile) {
			t.Errorf("got metrics with %q, want none of it", hostile)
		}
	}
	if after := strings.Count(text(t, m), "\n"); after != before {
		t.Errorf("got %d lines after hostile input, want %d as before", after, before)
	}
}

// TestLastSuccess: it is what the earlier runs say until this one has settled everything.
func TestLastSuccess(t *testing.T) {
	n := newNight()
	m := newMetrics(n)
	const name = "purser_last_success_timestamp_seconds"
	yesterday := n.at.Add(-24 * time.Hour)
	m.Settled(yesterday)
	positions := []metrics.Position{{Lag: 1}}
	m.Watch(metrics.Sources{Positions: func() []metrics.Position { return positions }, Follows: true})
	if got := value(t, scrape(t, text(t, m)), name); got != float64(yesterday.Unix()) {
		t.Errorf("with rows left: got %v, want %v of yesterday", got, yesterday.Unix())
	}
	positions = nil // another consumer has them
	if got := value(t, scrape(t, text(t, m)), name); got != float64(yesterday.Unix()) {
		t.Errorf("without partitions: got %v, want %v of yesterday", got, yesterday.Unix())
	}
	positions = []metrics.Position{{Lag: 0}}
	if got := value(t, scrape(t, text(t, m)), name); got != float64(n.at.Unix()) {
		t.Errorf("with nothing left: got %v, want %v of now", got, n.at.Unix())
	}
}

// TestSnapshot: what the ledger keeps is what is scraped.
func TestSnapshot(t *testing.T) {
	s := busy(newNight()).Snapshot()
	if got := s.Requests["create"]; len(s.Requests) != len(client.Operations()) || got["2xx"] != 2 || got["5xx"] != 2 {
		t.Errorf("requests: got %v, want each operation, create with 2 of 2xx and 2 of 5xx", s.Requests)
	}
	if s.Settled["onboarded"] != 4 || len(s.Settled) != 3 {
		t.Errorf("settled: got %v, want 4 onboarded, conflict and failed", s.Settled)
	}
	if s.Throttled != 2 || s.Signatures != 5 || s.SignerErrors != 1 || s.RateAllowed != 10 || s.GateClosed != 3*time.Second {
		t.Errorf("got %+v, want 2 throttled, 5 signatures, 1 error, rate 10, closed for 3s", s)
	}
	last := s.Latencies[len(s.Latencies)-1]
	if last.Operation != metrics.OperationSign || last.Count != 2 || last.P99 <= .5 || last.P99 > 1 {
		t.Errorf("the signer's latency: got %+v, want 2 calls, the slower of 1 s", last)
	}
	first := s.Latencies[0]
	if first.Operation != "create" || first.Count != 9 || first.P50 <= .075 || first.P50 > .1 {
		t.Errorf("latency of create: got %+v, want 9 requests, p50 between 75 and 100 ms", first)
	}
	if got := newMetrics(newNight()).Snapshot(); len(got.Requests)+len(got.Settled)+len(got.Latencies) != 0 {
		t.Errorf("of a run that has done nothing: got %+v, want nothing", got)
	}
}

// TestQuantilesAreNotAboveTheLongest: the buckets of stages are wide, and the quantiles in them are bounded by the
// longest time.
func TestQuantilesAreNotAboveTheLongest(t *testing.T) {
	m := newMetrics(newNight())
	for _, took := range []time.Duration{130 * time.Second, 140 * time.Second, 90 * time.Second} {
		m.Moved(pipeline.Planned, pipeline.Creating, took)
	}
	got := m.Snapshot().Stages
	if len(got) != 1 || got[0].P50 > 140 || got[0].P95 != 140 || got[0].P99 != 140 {
		t.Errorf("got %+v, want one stage whose p95 and p99 are the longest time, 140 s", got)
	}
}

// TestReady names what is missing.
func TestReady(t *testing.T) {
	m := newMetrics(newNight())
	var positions []metrics.Position
	reachable := false
	m.Watch(metrics.Sources{
		Positions: func() []metrics.Position { return positions }, Reachable: func() bool { return reachable },
	})
	check := func(want string) {
		t.Helper()
		switch err := m.Ready(); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("got %v, want %q", err, want)
		}
	}
	check("partitions")
	positions = []metrics.Position{{}}
	check("brokers")
	reachable = true
	check("")
	m.Outage(true)
	check("partner")
	m.Outage(false)
	check("")
}

// TestSourcesMayWait: a source may wait for a lock whose holder tells of an outage.
func TestSourcesMayWait(t *testing.T) {
	m := newMetrics(newNight())
	m.Watch(metrics.Sources{Tally: func() pipeline.Tally {
		m.Outage(true)
		return pipeline.Tally{}
	}})
	if got := value(t, scrape(t, text(t, m)), "purser_outage"); got != 1 {
		t.Errorf("purser_outage: got %v, want 1", got)
	}
}

// BenchmarkRow is what a row costs: three requests, five stages, a signature and its share of a commit.
func BenchmarkRow(b *testing.B) {
	m := newMetrics(newNight())
	for b.Loop() {
		for _, op := range []client.Operation{client.Create, client.Challenge, client.Submit} {
			m.Waited(time.Millisecond)
			m.Began(op)
			m.Ended(op, 200, 50*time.Millisecond)
		}
		stages := pipeline.Stages()
		for i := range 5 {
			m.Moved(stages[i], stages[i+1], 20*time.Millisecond)
		}
		m.Signed(nil, time.Millisecond)
		m.Committed(8, time.Millisecond)
	}
}

// TestDocument: docs/monitoring.md lists every metric with its type and labels, and no other.
func TestDocument(t *testing.T) {
	document, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	n := newNight()
	m := busy(n)
	m.End(0, false)
	families := scrape(t, text(t, m))
	line := regexp.MustCompile("(?m)^\\| `(purser_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*?) ?\\|")
	for _, found := range line.FindAllStringSubmatch(string(document), -1) {
		name := found[1]
		family := families[name]
		if family == nil {
			t.Errorf("%s: got it in the document, want it among the metrics", name)
			continue
		}
		delete(families, name)
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		listed := strings.Split(found[3], ", ")
		slices.Sort(listed)
		if want := strings.ToLower(family.GetType().String()); found[2] != want {
			t.Errorf("%s: got type %s in the document, want %s", name, found[2], want)
		}
		if found[3] != "" && !slices.Equal(listed, labels) || found[3] == "" && len(labels) > 0 {
			t.Errorf("%s: got labels %s in the document, want %s", name, found[3], labels)
		}
	}
	for name := range families {
		t.Errorf("%s: got no line in the document, want one", name)
	}
}

// BenchmarkScrape is what a scrape costs, or a writing of the file.
func BenchmarkScrape(b *testing.B) {
	m := busy(newNight())
	for b.Loop() {
		if err := m.WriteText(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
