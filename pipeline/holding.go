package pipeline

import (
	"fmt"
	"time"

	"github.com/purser-onboard/purser/printable"
)

// Holding returns the row that a message is about and what is being done with it, for an operator who wonders. It is
// false for a message that no row is on its way for.
func (r *Runner) Holding(partition int, offset int64) (row Record, doing string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tasks {
		for _, m := range t.messages {
			if m.Partition == partition && m.Offset == offset {
				return t.Record, t.doing(), true
			}
		}
	}
	return Record{}, "", false
}

func (t *task) doing() string {
	act := string(t.act)
	switch {
	case t.running:
		return act + ", now"
	case t.polls > 0 && t.Stage == Signing:
		what := "waiting for the custodian's transaction " + t.ExternalTxID
		if t.failing.polls > 0 {
			what += fmt.Sprintf("; its last %d polls failed: %s", t.failing.polls, printable.Line(t.failing.err.Error(), 200))
		}
		return what
	case !t.ready.IsZero():
		return fmt.Sprintf("%s, again in %v", act, t.ready.Sub(monotonic()).Round(time.Second))
	}
	return act + ", in line for a worker"
}
