package broker

import (
	"context"
	"time"
)

// Stall is a partition of which nothing was settled for long although messages of it are with the handler.
type Stall struct {
	Partition   int
	Offset      int64         // of the first message that is not settled
	Outstanding int           // messages delivered and neither settled nor abandoned
	Full        bool          // as many as MaxOutstanding lets through: nothing more is read
	For         time.Duration // since something was settled, or the first of these was delivered
}

// watch calls Membership.Stalled for each partition of which nothing was settled for StalledAfter, and again every
// StalledAfter as long as that goes on; when it is over, it says so in the log.
func (s *session) watch(ctx context.Context) {
	c := s.consumer
	if c.o.Membership == nil {
		return
	}
	type seen struct {
		settled int64
		since   time.Time // when it was first seen so
		told    int
	}
	last := make(map[int]seen, len(s.readers))
	tick := time.NewTicker(max(c.o.StalledAfter/10, time.Millisecond))
	defer tick.Stop()
	for {
		var now time.Time
		select {
		case now = <-tick.C:
		case <-ctx.Done():
			return
		}
		for p, r := range s.readers {
			settled, offset, open := r.offsets.progress()
			before, ok := last[p]
			if !ok || settled != before.settled || open == 0 {
				if before.told > 0 {
					c.o.Logger.Info("the partition makes progress again", "topic", c.o.Topic, "partition", p)
				}
				last[p] = seen{settled: settled, since: now}
				continue
			}
			if stalled := now.Sub(before.since); stalled >= time.Duration(before.told+1)*c.o.StalledAfter {
				before.told++
				last[p] = before
				c.o.Membership.Stalled(Stall{
					Partition: p, Offset: offset, Outstanding: open, Full: open >= c.o.MaxOutstanding, For: stalled,
				})
			}
		}
	}
}
