package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// Sources are read by a Metrics on request. Nil functions are not called.
type Sources struct {
	Tally     func() pipeline.Tally
	Client    func() client.Stats
	Limiter   func() client.RateLimiterState
	Closed    func() time.Duration // how long the rate limiter's gate was closed in all
	Positions func() []Position    // none: no partitions are assigned
	Reachable func() bool          // whether the brokers answer
	Oldest    func() time.Time     // when the oldest message of a row in progress was published; zero: there is none
	// Follows says that the run does not end with the queue: it has succeeded whenever nothing is left.
	Follows bool
}

// Position is the progress of the run in a partition of the queue.
type Position struct {
	Partition int
	Settled   int64 // the offset below which all messages are settled
	Lag       int64 // messages from there on
	Left      int64 // … apart from those that are settled
}

// Watch sets the sources.
func (m *Metrics) Watch(s Sources) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources = s
}

func (m *Metrics) watched() Sources {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sources
}

// live collects what the packages count themselves.
type live struct {
	m                      *Metrics
	single                 []single
	rows                   *prometheus.Desc // by stage
	queueLag, queueSettled *prometheus.Desc // by partition
}

// single is a metric without labels.
type single struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(reading) float64
}

func newLive(m *Metrics) *live {
	l := &live{
		m: m,
		rows: prometheus.NewDesc("purser_rows_total", "Rows that reached a stage in this run, including the terminal "+
			"stages (onboarded, conflict, refused, rejected, failed).", []string{"stage"}, nil),
		queueLag: prometheus.NewDesc("purser_queue_lag",
			"Messages of a partition from the first unsettled message to its end.", []string{"partition"}, nil),
		queueSettled: prometheus.NewDesc("purser_queue_settled_offset",
			"Offset below which all messages of a partition are settled.", []string{"partition"}, nil),
	}
	counter := func(name, help string, value func(reading) float64) {
		l.single = append(l.single, single{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, value})
	}
	gauge := func(name, help string, value func(reading) float64) {
		l.single = append(l.single, single{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, value})
	}
	counter("purser_messages_total", "Messages taken from the queue.",
		func(r reading) float64 { return float64(r.tally.Received) })
	counter("purser_messages_skipped_total",
		"Messages whose row was settled already, or is settled by another message.",
		func(r reading) float64 { return float64(r.tally.Skipped) })
	counter("purser_dead_letters_total", "Messages that cannot be processed and went to the dead letters.",
		func(r reading) float64 { return float64(r.tally.DeadLettered) })
	gauge("purser_rows_in_progress", "Rows taken from the queue and not settled.",
		func(r reading) float64 { return float64(r.tally.Open) })
	gauge("purser_rows_left_to_custodian", "Rows that this run has left to the custodian; the next run polls them.",
		func(r reading) float64 { return float64(r.tally.Waiting) })
	gauge("purser_oldest_unsettled_row_seconds", "Age of the oldest message whose row is in progress; 0: none.",
		func(r reading) float64 { return r.oldest.Seconds() })
	counter("purser_requests_retried_total", "Requests that were sent again.",
		func(r reading) float64 { return float64(r.tally.Retried + r.client.Retried) })
	counter("purser_signatures_total", "Signatures that the signer created.",
		func(r reading) float64 { return float64(r.tally.Signatures) })
	counter("purser_throttles_total", "Responses 429, and 503 with Retry-After.",
		func(r reading) float64 { return float64(r.client.Throttled) })
	gauge("purser_rate_limit", "Requests a second that --rate and this consumer's share of the partitions allow.",
		func(r reading) float64 { return r.limiter.Rate })
	gauge("purser_rate_allowed", "Requests a second that are allowed now: the limit, lowered by throttling.",
		func(r reading) float64 { return r.limiter.InForce })
	counter("purser_rate_gate_closed_seconds_total", "Time for which throttling held all requests back.",
		func(r reading) float64 { return r.closed.Seconds() })
	gauge("purser_clock_skew_seconds", "How far this machine's clock is ahead of the partner's.",
		func(r reading) float64 { return r.client.ClockSkew.Seconds() })
	gauge("purser_broker_reachable", "1 if the latest request to the brokers was answered, otherwise 0.",
		func(r reading) float64 { return number(r.brokers) })
	gauge("purser_outage", "1 while the partner is unavailable and only probed, otherwise 0.",
		func(r reading) float64 { return number(r.outage) })
	counter("purser_outage_seconds_total", "Time for which the partner was unavailable.",
		func(r reading) float64 { return r.outages.Seconds() })
	gauge("purser_last_success_timestamp_seconds", "When all rows of the queue were last settled: the end of a run with "+
		"exit code 0 or 3 or, without --drain, a moment at which nothing was left. Before the first time: when the first "+
		"run began.", func(r reading) float64 { return seconds(r.success) })
	return l
}

// Describe implements prometheus.Collector.
func (l *live) Describe(to chan<- *prometheus.Desc) {
	to <- l.rows
	to <- l.queueLag
	to <- l.queueSettled
	for _, s := range l.single {
		to <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (l *live) Collect(to chan<- prometheus.Metric) {
	r := l.m.read()
	for _, s := range l.single {
		to <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(r))
	}
	for stage, n := range r.rows {
		to <- prometheus.MustNewConstMetric(l.rows, prometheus.CounterValue, float64(n), string(stage))
	}
	for _, p := range r.positions {
		partition := strconv.Itoa(p.Partition)
		to <- prometheus.MustNewConstMetric(l.queueLag, prometheus.GaugeValue, float64(p.Lag), partition)
		to <- prometheus.MustNewConstMetric(l.queueSettled, prometheus.GaugeValue, float64(p.Settled), partition)
	}
}

// reading is what the sources say at one moment.
type reading struct {
	tally     pipeline.Tally
	rows      map[pipeline.Stage]int64
	client    client.Stats
	limiter   client.RateLimiterState
	closed    time.Duration
	positions []Position
	brokers   bool
	oldest    time.Duration
	outage    bool
	outages   time.Duration
	success   time.Time
}

func (m *Metrics) read() (r reading) {
	// The lock is not held meanwhile: a source may wait for the lock of its package, whose holder calls Outage.
	s, now := m.watched(), m.now()
	if s.Tally != nil {
		r.tally = s.Tally()
	}
	if s.Client != nil {
		r.client = s.Client()
	}
	if s.Limiter != nil {
		r.limiter = s.Limiter()
	}
	if s.Closed != nil {
		r.closed = s.Closed()
	}
	if s.Positions != nil {
		r.positions = s.Positions()
	}
	r.brokers = s.Reachable != nil && s.Reachable()
	if s.Oldest != nil {
		if at := s.Oldest(); !at.IsZero() {
			r.oldest = max(0, now.Sub(at))
		}
	}
	r.rows = make(map[pipeline.Stage]int64, len(m.reached))
	for stage, n := range m.reached {
		r.rows[stage] = n.Load()
	}
	// The tally has also the rows that ended when they were accepted.
	t := r.tally
	r.rows[pipeline.Onboarded], r.rows[pipeline.Conflict] = t.Onboarded, t.Conflict
	r.rows[pipeline.Refused], r.rows[pipeline.Rejected], r.rows[pipeline.Failed] = t.Refused, t.Rejected, t.Failed
	m.mu.Lock()
	defer m.mu.Unlock()
	r.outage, r.outages = m.outage()
	if s.Follows && nothingLeft(r) {
		m.success = now
	}
	r.success = m.success
	return r
}

// nothingLeft reports whether the run has partitions and has settled all of their messages.
func nothingLeft(r reading) bool {
	left := r.tally.Open
	for _, p := range r.positions {
		left += p.Lag
	}
	return len(r.positions) > 0 && left == 0
}
