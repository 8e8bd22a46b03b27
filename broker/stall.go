package broker

import (
	"context"
	"time"
)

// Stall is a partition in which no message was acknowledged for a while, although the handler has some of its messages.
type Stall struct {
	Partition   int
	Offset      int64         // of the first message that is not acknowledged
	Outstanding int           // messages delivered and neither acknowledged nor deferred
	Full        bool          // MaxOutstanding is reached: the partition is not read
	For         time.Duration // since the last acknowledgement, or since the first of these messages was delivered
}

// watchStalls calls Membership.Stalled for each partition in which no message was acknowledged for StalledAfter, and
// again every StalledAfter while that lasts. The end of a stall is logged. It blocks until ctx ends.
func (a *assignment) watchStalls(ctx context.Context) {
	c := a.consumer
	if c.o.Membership == nil {
		return
	}
	type seen struct {
		acked   int64
		since   time.Time // when acked was first seen
		reports int
	}
	last := make(map[int]seen, len(a.readers))
	tick := time.NewTicker(max(c.o.StalledAfter/10, time.Millisecond))
	defer tick.Stop()
	for {
		var now time.Time
		select {
		case now = <-tick.C:
		case <-ctx.Done():
			return
		}
		for p, r := range a.readers {
			acked, offset, open := r.offsets.progress()
			before, ok := last[p]
			if !ok || acked != before.acked || open == 0 {
				if before.reports > 0 {
					c.o.Logger.Info("the partition makes progress again", "topic", c.o.Topic, "partition", p)
				}
				last[p] = seen{acked: acked, since: now}
				continue
			}
			if stalled := now.Sub(before.since); stalled >= time.Duration(before.reports+1)*c.o.StalledAfter {
				before.reports++
				last[p] = before
				c.o.Membership.Stalled(Stall{
					Partition: p, Offset: offset, Outstanding: open, Full: open >= c.o.MaxOutstanding, For: stalled,
				})
			}
		}
	}
}
