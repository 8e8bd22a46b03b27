package dispatch

import (
	"context"
	"slices"

	"github.com/purser-onboard/purser/pipeline"
)

// delivery is a message together with its ack. A row may have several, also from other partitions: other producers may
// use other keys, and partitions may be added.
type delivery struct {
	pipeline.Message
	ack     func(pipeline.Message)
	leaving bool // its partition is being released
}

// Release implements Handler. It takes the partition's messages from rows without a worker at once, and from rows at
// work after their action or when ctx ends. A row without messages is dropped.
func (d *Dispatcher) Release(ctx context.Context, partition int) {
	stop := context.AfterFunc(ctx, d.wakeAll)
	defer stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	var running []*item
	for _, t := range d.tasks {
		if !t.leave(partition) {
			continue
		}
		if t.running {
			running = append(running, t)
			continue
		}
		d.takeAway(t)
	}
	for _, t := range running {
		for t.leaving(partition) && ctx.Err() == nil {
			d.idle.Wait() // for the end of its action, which takes the messages away
		}
		d.takeAway(t)
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
func (d *Dispatcher) dropLeaving(t *item) {
	had := len(t.messages)
	t.messages = slices.DeleteFunc(t.messages, func(m delivery) bool { return m.leaving })
	d.tally.Returned += int64(had - len(t.messages))
}

// takeAway removes the messages that are leaving, and drops a row without any left. The lock is held.
func (d *Dispatcher) takeAway(t *item) {
	d.dropLeaving(t)
	if len(t.messages) == 0 && !t.running && d.tasks[t.ID] == t {
		d.drop(t)
	}
}
