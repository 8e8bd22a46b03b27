// Package metrics counts and times a run of the consumer. A Metrics is the single source of a run's figures: for
// Prometheus (Handler), for node_exporter's file (WriteText), and for the ledger and the report (Snapshot). The
// measured packages do not know it: they have small hooks, which a Metrics implements, and their own counts, which it
// reads on request (Sources).
//
// Names have the prefix purser_ and base units. The values of labels come from fixed lists, never from a message, an
// answer or an error; docs/monitoring.md lists the metrics.
package metrics

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// Options describe the run.
type Options struct {
	Version string // of this program
	Signer  string // the scheme of the signer's URI, the label backend
	Started time.Time
	Now     func() time.Time // required
}

// Metrics are the metrics of one run. All methods may be called by many goroutines at once.
type Metrics struct {
	now     func() time.Time
	own     *prometheus.Registry // purser_…
	process *prometheus.Registry // go_… and process_…, not for node_exporter, which has its own

	requests map[client.Operation]request
	inFlight prometheus.Gauge
	waited   prometheus.Histogram

	reached      map[pipeline.Stage]*atomic.Int64 // rows that have come to a stage
	stages       map[pipeline.Stage]*durations
	commitTook   prometheus.Histogram
	commitRows   prometheus.Histogram
	signerTook   *durations
	signerErrors prometheus.Counter

	halted prometheus.Gauge
	exit   *prometheus.GaugeVec // has no labels and, while the run goes on, no value

	mu      sync.Mutex
	sources Sources
	success time.Time     // see Settled
	away    time.Time     // since when the partner has been unavailable; zero: it is not
	outages time.Duration // before that, in all
}

// request are the metrics of an operation.
type request struct {
	byStatus map[string]prometheus.Counter
	took     *durations
}

// New returns the metrics of a run that has just started.
func New(o Options) *Metrics {
	m := &Metrics{
		now: o.Now, own: prometheus.NewRegistry(), process: prometheus.NewRegistry(),
		requests: make(map[client.Operation]request),
		reached:  make(map[pipeline.Stage]*atomic.Int64),
		stages:   make(map[pipeline.Stage]*durations),
	}
	m.process.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.own.MustRegister(newLive(m))
	m.addRequests()
	m.addRows()
	m.addLocal(o.Signer)
	m.addRun(o)
	return m
}

func (m *Metrics) addLocal(backend string) {
	m.commitTook = m.histogram("purser_ledger_commit_duration_seconds",
		"Duration of a ledger transaction, including the sync to disk.", local())
	m.commitRows = m.histogram("purser_ledger_commit_transitions",
		"Rows in a ledger transaction.", []float64{1, 2, 5, 10, 20, 50, 100, 500, 1000, 2048})
	took := m.histograms("purser_signer_duration_seconds", "Duration of a signer call.", local(), "backend")
	m.signerTook = &durations{Observer: took.WithLabelValues(backend)}
	m.signerErrors = m.counters("purser_signer_errors_total", "Signer calls that failed.",
		"backend").WithLabelValues(backend)
}

// local are buckets for what is done on this machine or in its network, in seconds.
func local() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 30}
}

// remote are buckets for what the partner and its rate limit take, in seconds.
func remote() []float64 {
	return []float64{.005, .01, .025, .05, .075, .1, .15, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
}

func (m *Metrics) addRequests() {
	m.inFlight = m.gauge("purser_requests_in_flight", "Requests whose response is not yet read.")
	m.waited = m.histogram("purser_rate_wait_seconds", "Time that requests waited for the rate limiter.", remote())
	sent := m.counters("purser_requests_total",
		"Requests to the partner by status: 2xx, 3xx, 4xx, 409, 429, 5xx, or error if there is none.", "operation", "status")
	took := m.histograms("purser_request_duration_seconds",
		"Time from sending a request to the end of its response.", remote(), "operation")
	for _, op := range client.Operations() {
		r := request{
			byStatus: make(map[string]prometheus.Counter), took: &durations{Observer: took.WithLabelValues(string(op))},
		}
		for _, class := range statusClasses() {
			r.byStatus[class] = sent.WithLabelValues(string(op), class)
		}
		m.requests[op] = r
	}
}

func (m *Metrics) addRows() {
	inStage := m.histograms("purser_stage_duration_seconds", "Time that a row spent in a stage.",
		[]float64{.01, .05, .1, .5, 1, 5, 30, 60, 300, 900, 3600, 4 * 3600}, "stage")
	for _, stage := range pipeline.Stages() {
		if stage != pipeline.Planned { // a row begins there
			m.reached[stage] = new(atomic.Int64)
		}
		if !stage.Terminal() {
			m.stages[stage] = &durations{Observer: inStage.WithLabelValues(string(stage))}
		}
	}
}

func (m *Metrics) addRun(o Options) {
	m.halted = m.gauge("purser_halted", "1 if the run has halted, otherwise 0.")
	m.exit = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "purser_exit_code",
		Help: "Exit code of the run; absent while it is in progress."}, nil)
	m.own.MustRegister(m.exit)
	m.gauge("purser_run_started_timestamp_seconds", "When the run started.").Set(seconds(o.Started))
	m.success = o.Started
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "purser_build_info",
		Help: "Always 1; the version is in the labels."}, []string{"version", "goversion"})
	m.own.MustRegister(info)
	info.WithLabelValues(o.Version, runtime.Version()).Set(1)
}

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	m.own.MustRegister(g)
	return g
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.own.MustRegister(c)
	return c
}

func (m *Metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	m.own.MustRegister(h)
	return h
}

func (m *Metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.own.MustRegister(h)
	return h
}

var _ client.Observer = (*Metrics)(nil)

// Waited implements client.Observer.
func (m *Metrics) Waited(d time.Duration) { m.waited.Observe(d.Seconds()) }

// Began implements client.Observer.
func (m *Metrics) Began(client.Operation) { m.inFlight.Inc() }

// Ended implements client.Observer.
func (m *Metrics) Ended(op client.Operation, status int, took time.Duration) {
	m.inFlight.Dec()
	if r, ok := m.requests[op]; ok {
		r.byStatus[statusClass(status)].Inc()
		r.took.Observe(took.Seconds())
	}
}

// statusClasses are the values of the label status.
func statusClasses() []string { return []string{"2xx", "3xx", "4xx", "409", "429", "5xx", "error"} }

// statusClass is the value of the label status for a status; 0: there was no answer.
func statusClass(status int) string {
	switch {
	case status == 409, status == 429:
		return strconv.Itoa(status)
	case status >= 200 && status < 600:
		return strconv.Itoa(status/100) + "xx"
	}
	return "error"
}

// Committed counts a transaction of the ledger (ledger.Options.OnCommit).
func (m *Metrics) Committed(rows int, took time.Duration) {
	m.commitRows.Observe(float64(rows))
	m.commitTook.Observe(took.Seconds())
}

// Signed counts a call of the signer (onboard.Options.OnSigner).
func (m *Metrics) Signed(err error, took time.Duration) {
	m.signerTook.Observe(took.Seconds())
	if err != nil {
		m.signerErrors.Inc()
	}
}

// Moved counts a row that has gone from a stage to another (onboard.Options.OnStage).
func (m *Metrics) Moved(from, to pipeline.Stage, after time.Duration) {
	if stage, ok := m.stages[from]; ok {
		stage.Observe(after.Seconds())
	}
	if n, ok := m.reached[to]; ok {
		n.Add(1)
	}
}

// Outage notes that the partner has become unavailable, or available again (dispatch.Options.OnOutage).
func (m *Metrics) Outage(is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case is && m.away.IsZero():
		m.away = m.now()
	case !is && !m.away.IsZero():
		m.outages += m.now().Sub(m.away)
		m.away = time.Time{}
	}
}

// outage returns whether the partner is unavailable, and for how long it has been in all. The lock is held.
func (m *Metrics) outage() (is bool, inAll time.Duration) {
	if m.away.IsZero() {
		return false, m.outages
	}
	return true, m.outages + m.now().Sub(m.away)
}

// Settled sets when all rows of the queue were last settled.
func (m *Metrics) Settled(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.success = at
}

// End notes the end of the run: its exit code, and whether it halted.
func (m *Metrics) End(exit int, halted bool) {
	m.exit.WithLabelValues().Set(float64(exit))
	m.halted.Set(number(halted))
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }
