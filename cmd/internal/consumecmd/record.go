package consumecmd

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/metrics"
	"github.com/purser-onboard/purser/pipeline/results"
)

// sampling is how often the allowed rate is read for the mean of a minute. A minute is a multiple of it.
const sampling = time.Second

// progressEvery is how often a run records its progress, if something has changed: at its multiples.
const progressEvery = 5 * sampling

// recorder stores what the run does in each minute in the ledger. It reads the metrics, and the difference of two
// readings is the minute's.
type recorder struct {
	run      uuid.UUID
	snapshot func() metrics.Snapshot
	put      func(context.Context, uuid.UUID, ledger.Minute) error
	progress func(context.Context, time.Time) // records it
	log      *slog.Logger

	last    metrics.Snapshot // at since
	since   time.Time        // the beginning of what is not stored yet
	allowed float64          // sum of the samples since then
	samples int
	failed  bool // the latest write

	stop context.CancelFunc
	done sync.WaitGroup
}

// start begins to record; end must follow. ctx bounds the writes.
func (r *recorder) start(ctx context.Context) {
	r.last, r.since = r.snapshot(), time.Now()
	running, stop := context.WithCancel(ctx)
	r.stop = stop
	r.done.Go(func() { r.keep(running, ctx) })
}

// keep samples at the multiples of the interval, so that one sample is at the turn of each minute, until running ends.
func (r *recorder) keep(running, ctx context.Context) {
	for {
		now := time.Now()
		timer := time.NewTimer(now.Truncate(sampling).Add(sampling).Sub(now))
		select {
		case <-timer.C:
			r.sample(ctx, time.Now())
		case <-running.Done():
			timer.Stop()
			return
		}
	}
}

// sample reads the metrics, and stores a minute that is over.
func (r *recorder) sample(ctx context.Context, now time.Time) {
	s := r.snapshot()
	r.allowed, r.samples = r.allowed+s.RateAllowed, r.samples+1
	if now.Truncate(time.Minute).After(r.since) {
		r.store(ctx, s, now)
	}
	if now.Truncate(sampling).Equal(now.Truncate(progressEvery)) {
		r.progress(ctx, now)
	}
}

// end stores the rest of the last minute and returns the final reading.
func (r *recorder) end(ctx context.Context, now time.Time) metrics.Snapshot {
	r.stop()
	r.done.Wait()
	s := r.snapshot() // of a rate limiter that allows nothing any more
	r.store(ctx, s, now)
	return s
}

// store writes the activity since the latest write, if any. A failure does not affect the run; the first of several is
// logged.
func (r *recorder) store(ctx context.Context, s metrics.Snapshot, now time.Time) {
	minute := r.minute(s, now.Sub(r.since).Seconds())
	r.last, r.since, r.allowed, r.samples = s, now, 0, 0
	if idle(minute) {
		return
	}
	data, err := json.Marshal(minute)
	if err == nil {
		err = r.put(ctx, r.run, ledger.Minute{At: minute.At, Data: string(data)})
	}
	if err != nil && !r.failed && ctx.Err() == nil {
		r.log.Warn("cannot store the run's figures of a minute", "error", err)
	}
	r.failed = err != nil
}

// minute is the difference between two readings that lie these seconds apart.
func (r *recorder) minute(s metrics.Snapshot, took float64) results.Minute {
	m := results.Minute{
		At: r.since.UTC().Truncate(time.Minute), Settled: grown(s.Settled, r.last.Settled),
		Throttled:  s.Throttled - r.last.Throttled,
		Signatures: s.Signatures - r.last.Signatures, SignerErrors: s.SignerErrors - r.last.SignerErrors,
		OutageSeconds:     (s.Outage - r.last.Outage).Seconds(),
		GateClosedSeconds: (s.GateClosed - r.last.GateClosed).Seconds(),
	}
	var sent int64
	for operation, now := range s.Requests {
		n := grown(now, r.last.Requests[operation])
		if len(n) == 0 {
			continue
		}
		if m.Requests == nil {
			m.Requests = make(map[string]map[string]int64)
		}
		m.Requests[operation] = n
		for _, of := range n {
			sent += of
		}
	}
	if r.samples > 0 {
		m.RateAllowed = r.allowed / float64(r.samples)
	}
	if took > 0 {
		m.RateUsed = float64(sent) / took
	}
	return m
}

// idle reports whether nothing was done in the minute.
func idle(m results.Minute) bool {
	return len(m.Requests) == 0 && len(m.Settled) == 0 && m.Throttled == 0 && m.Signatures == 0 && m.SignerErrors == 0 &&
		m.OutageSeconds == 0 && m.GateClosedSeconds == 0
}

// grown is the growth of each count, without unchanged counts.
func grown(now, before map[string]int64) map[string]int64 {
	n := maps.Clone(now)
	maps.DeleteFunc(n, func(key string, count int64) bool { return count == before[key] })
	for key := range n {
		n[key] -= before[key]
	}
	return n
}

// measured adds the latencies and the times per stage to a report.
func measured(report *results.Report, s metrics.Snapshot) {
	for _, l := range s.Latencies {
		report.Latencies = append(report.Latencies, results.Latency(l))
	}
	for _, l := range s.Stages {
		report.Stages = append(report.Stages, results.StageTime{
			Stage: l.Operation, Count: l.Count, P50: l.P50, P95: l.P95, P99: l.P99,
		})
	}
}
