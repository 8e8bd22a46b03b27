package dispatch

import (
	"fmt"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// Holding returns the row of a message and its current action, for a report to the operator. It is false for a message
// without a row in progress.
func (d *Dispatcher) Holding(partition int, offset int64) (row pipeline.Record, doing string, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tasks {
		for _, m := range t.messages {
			if m.Partition == partition && m.Offset == offset {
				return t.Record, t.doing(), true
			}
		}
	}
	return pipeline.Record{}, "", false
}

func (t *item) doing() string {
	action := string(t.Action)
	switch {
	case t.running:
		return action + ", now"
	case t.AtCustodian():
		what := "waiting for the custodian's transaction " + t.ExternalTxID
		if n, last := t.FailedPolls(); n > 0 {
			what += fmt.Sprintf("; its last %d polls failed: %s", n, printable.Line(last.Error(), 200))
		}
		return what
	case !t.ready.IsZero():
		return fmt.Sprintf("%s, again in %v", action, t.ready.Sub(pipeline.Monotonic()).Round(time.Second))
	}
	return action + ", waiting for a worker"
}
