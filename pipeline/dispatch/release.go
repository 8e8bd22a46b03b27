package dispatch

import (
	"context"
	"slices"

	"github.com/purser-onboard/purser/pipeline"
)

// delivery is a message together with its ack. A row may have several, also of other partitions: foreign producers
// choose keys of their own, and partitions may be added.
type delivery struct {
	pipeline.Message
	ack     func(pipeline.Message)
	leaving bool // its partition is being released
}

// Release implements Handler. It takes the partition's messages from rows without a worker at once, and from rows at
// work after their action or when ctx ends. A row without messages is dropped.
func (r *Dispatcher) Release(ctx context.Context, partition int) {
	stop := context.AfterFunc(ctx, r.wakeAll)
	defer stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	var running []*item
	for _, t := range r.tasks {
		if !t.leave(partition) {
			continue
		}
		if t.running {
			running = append(running, t)
			continue
		}
		r.takeAway(t)
	}
	for _, t := range running {
		for t.leaving(partition) && ctx.Err() == nil {
			r.idle.Wait() // for the end of its action, which takes the messages away
		}
		r.takeAway(t)
	}
}

// leave marks the messages of a partition that is released, and reports whether there are any.
func (t *item) leave(partition int) bool {
	some := false
	for i := range t.messages {
		if t.messages[i].Partition == partition {
			t.messages[i].leaving, some = true, true
		}
	}
	return some
}

// leaving reports whether the task still has messages of a partition that is released.
func (t *item) leaving(partition int) bool {
	return slices.ContainsFunc(t.messages, func(d delivery) bool { return d.leaving && d.Partition == partition })
}

// dropLeaving removes the messages that are leaving. The lock is held.
func (r *Dispatcher) dropLeaving(t *item) {
	had := len(t.messages)
	t.messages = slices.DeleteFunc(t.messages, func(d delivery) bool { return d.leaving })
	r.tally.Returned += int64(had - len(t.messages))
}

// takeAway removes the messages that are leaving, and drops a row without any left. The lock is held.
func (r *Dispatcher) takeAway(t *item) {
	r.dropLeaving(t)
	if len(t.messages) == 0 && !t.running && r.tasks[t.ID] == t {
		r.drop(t)
	}
}
