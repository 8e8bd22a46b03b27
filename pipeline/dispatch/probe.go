package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

const (
	// ProbeInterval is the longest wait between two probes of an unavailable partner.
	ProbeInterval = 5 * time.Second
	// probeFirst is the first; it doubles. A single request may be lost.
	probeFirst = 100 * time.Millisecond
	// probeStrange is the shortest after an answer of an unknown shape.
	probeStrange = 500 * time.Millisecond
	// probeShapes is how often in a row the probe may be answered in an unknown shape.
	probeShapes = 3
)

// mustProbe reports whether the partner must be probed before a task is taken: from any queue at the start, later, when
// the partner seems unavailable, only from the partner's queue. The lock is held.
func (d *Dispatcher) mustProbe(q *taskQueue) bool {
	if d.Probe == nil {
		return false
	}
	return !d.probed || q == &d.forPartner && (d.probing || d.Worker.Suspect())
}

// probe repeats the probe until the partner answers, and halts the run on a set-up error or after OutageWait. The lock
// is held; probe unlocks it meanwhile. A rebalance ends this call, but not an outage.
func (d *Dispatcher) probe(ctx context.Context) {
	d.probing = true
	outage := d.outage
	d.mu.Unlock()
	answered := false
	var halt error
	for wait, strange := probeFirst, 0; ; wait = min(2*wait, ProbeInterval) {
		err := d.Probe(ctx)
		if err == nil {
			answered = true
			break
		}
		if errors.Is(err, client.ErrStopped) || ctx.Err() != nil {
			d.pause(ctx, onboard.PassingPause) // partitions are dealt out again, or the run ends
			break
		}
		var failure *client.Error
		passing := errors.As(err, &failure) && failure.Passing()
		// After a first good probe, an unexpected 2xx is taken for a maintenance page: an outage, not a wrong set-up.
		passing = passing || d.probed && failure != nil && failure.Kind == client.Unexpected && failure.Status/100 == 2
		if failure != nil && failure.Root().Kind == client.Unrecognized {
			strange++
			passing = strange < probeShapes
			wait = max(wait, probeStrange)
		} else {
			strange = 0
		}
		if onboard.Exhausted(err) {
			halt = &onboard.HaltError{Class: onboard.HaltResources, Err: err}
			break
		}
		if !passing { // any other failure is the set-up's
			halt = &onboard.HaltError{
				Class: onboard.HaltConfiguration, Err: fmt.Errorf("the probe of the partner failed: %w", err),
			}
			break
		}
		if outage.IsZero() {
			outage = pipeline.Monotonic()
			if d.OnOutage != nil {
				d.OnOutage(err)
			}
		}
		waited := pipeline.Monotonic().Sub(outage)
		if waited >= d.OutageWait {
			halt = &onboard.HaltError{Class: onboard.HaltUnreachable, Err: fmt.Errorf(
				"no usable response from the partner for %v: %w", waited.Round(time.Second), err)}
			break
		}
		if !d.pause(ctx, min(wait, d.OutageWait-waited)) {
			break
		}
	}
	d.mu.Lock()
	d.probing, d.outage = false, outage
	if halt != nil {
		d.halt(halt)
		return
	}
	if answered {
		d.Worker.NoteProbe()
		d.probed, d.outage = true, time.Time{}
		if !outage.IsZero() && d.OnOutage != nil {
			d.OnOutage(nil)
		}
	}
	d.wakeWorkers()
}

// pause waits, and reports false when the run ended meanwhile.
func (d *Dispatcher) pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-d.ended:
	case <-ctx.Done():
	}
	return false
}
