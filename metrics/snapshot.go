package metrics

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// OperationSign is the operation of the signer's calls in Snapshot.Latencies.
const OperationSign = "sign"

// Snapshot is what the run has done so far. What happened between two moments is the difference of their snapshots.
type Snapshot struct {
	Requests     map[string]map[string]int64 // by operation and status class; only those that occurred
	Settled      map[string]int64            // rows by the stage in which they ended; only those that occurred
	Throttled    int64
	Signatures   int64
	SignerErrors int64
	Outage       time.Duration // in all
	GateClosed   time.Duration // in all
	RateAllowed  float64       // requests a second, now
	Latencies    []Latency     // of the operations that occurred, and of the signer
	Stages       []Latency     // of the time that rows spent in a stage, which is the operation
}

// Latency describes the durations of an operation, in seconds.
type Latency struct {
	Operation string
	Count     int64
	// As a quantile of Prometheus is taken from a histogram, but not above the longest duration.
	P50, P95, P99 float64
}

// Snapshot returns what the run has done so far.
func (m *Metrics) Snapshot() Snapshot {
	now := m.read()
	s := Snapshot{
		Requests: make(map[string]map[string]int64), Settled: make(map[string]int64),
		Throttled: now.client.Throttled, Signatures: now.tally.Signatures, SignerErrors: int64(countOf(m.signerErrors)),
		Outage: now.outages, GateClosed: now.closed, RateAllowed: now.limiter.InForce,
	}
	for stage, n := range now.rows {
		if n > 0 && stage.Terminal() {
			s.Settled[string(stage)] = n
		}
	}
	for _, op := range client.Operations() {
		r := m.requests[op]
		for class, c := range r.byStatus {
			if n := int64(countOf(c)); n > 0 {
				if s.Requests[string(op)] == nil {
					s.Requests[string(op)] = make(map[string]int64)
				}
				s.Requests[string(op)][class] = n
			}
		}
		s.Latencies = appendLatency(s.Latencies, string(op), r.took)
	}
	s.Latencies = appendLatency(s.Latencies, OperationSign, m.signerTook)
	for _, stage := range pipeline.Stages() {
		if took, ok := m.stages[stage]; ok {
			s.Stages = appendLatency(s.Stages, string(stage), took)
		}
	}
	return s
}

// durations is a histogram of durations that also knows the longest: in a wide bucket a quantile may be far above it.
type durations struct {
	prometheus.Observer
	longest atomic.Uint64 // bits of seconds, which are not negative: they are in the order of their bits
}

// Observe implements prometheus.Observer.
func (d *durations) Observe(seconds float64) {
	bits := math.Float64bits(max(seconds, 0))
	for longest := d.longest.Load(); bits > longest && !d.longest.CompareAndSwap(longest, bits); {
		longest = d.longest.Load()
	}
	d.Observer.Observe(seconds)
}

// appendLatency appends the durations of an operation that has occurred.
func appendLatency(list []Latency, operation string, d *durations) []Latency {
	h := valueOf(d.Observer).GetHistogram()
	if h.GetSampleCount() == 0 {
		return list
	}
	longest := math.Float64frombits(d.longest.Load())
	return append(list, Latency{
		Operation: operation, Count: int64(h.GetSampleCount()),
		P50: min(quantile(h, .5), longest), P95: min(quantile(h, .95), longest), P99: min(quantile(h, .99), longest),
	})
}

func countOf(counter any) float64 { return valueOf(counter).GetCounter().GetValue() }

// valueOf reads a metric of this package; they all are prometheus.Metrics that can be written.
func valueOf(metric any) *dto.Metric {
	var value dto.Metric
	if m, ok := metric.(interface{ Write(*dto.Metric) error }); ok {
		_ = m.Write(&value) // fails for invalid text in labels only
	}
	return &value
}

// quantile is Prometheus's histogram_quantile: within a bucket, durations are taken to be evenly distributed, and what
// is above the last bound counts as that.
func quantile(h *dto.Histogram, q float64) float64 {
	rank := q * float64(h.GetSampleCount())
	var below, from float64
	for _, b := range h.GetBucket() {
		n, to := float64(b.GetCumulativeCount()), b.GetUpperBound()
		if math.IsInf(to, 1) {
			break
		}
		if n >= rank && n > below {
			return from + (to-from)*(rank-below)/(n-below)
		}
		below, from = n, to
	}
	return from
}
