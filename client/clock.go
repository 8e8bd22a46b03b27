package client

import (
	"net/http"
	"sync"
	"time"
)

// CreatedMargin is how far Clock.Created stays behind the partner's clock by default: its server library refuses a
// signature that was created even a moment in its future.
const CreatedMargin = 2 * time.Second

// Clock knows the partner's time from the Date headers of its answers. It runs on the monotonic clock of this machine,
// so that setting the wall clock during a run does not move it. Its methods may be called by many goroutines.
type Clock struct {
	now    func() time.Time
	margin time.Duration

	mu    sync.Mutex
	known bool
	base  time.Time // a local time, from which local times are counted
	// The partner's time is ahead of the local time counted from base by at least low and at most high.
	low, high time.Duration
	first     time.Time // when a skew was first noticed
}

// NewClock returns a Clock that counts on now and takes it for the partner's time until an answer was seen. margin is
// how far Created stays behind the partner's time, CreatedMargin unless there is a reason.
func NewClock(now func() time.Time, margin time.Duration) *Clock {
	return &Clock{now: now, margin: margin}
}

// Created is the time for the parameter created of a request signature (RFC 9421 §2.3): the margin before the earliest
// time that the partner's clock can show.
func (c *Clock) Created() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		return c.now().Add(-c.margin)
	}
	return c.local(c.now()).Add(c.low - c.margin)
}

// local counts t from base, so that a wall clock that was set meanwhile does not matter.
func (c *Clock) local(t time.Time) time.Time { return c.base.Add(t.Sub(c.base)) }

// Skew is how far the wall clock of this machine is ahead of the partner's (behind when negative); 0 when that is
// within a second and what Date can tell, and while it is unknown. first is when a skew was first seen, zero if never.
func (c *Clock) Skew() (skew time.Duration, first time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skew(c.now()), c.first
}

func (c *Clock) skew(now time.Time) time.Duration {
	if !c.known {
		return 0
	}
	partner := c.local(now).Add((c.low + c.high) / 2)
	// Without its monotonic reading, now is what the wall clock shows.
	skew := now.Round(0).Sub(partner.Round(0))
	if skew.Abs() <= time.Second+(c.high-c.low)/2 {
		return 0
	}
	return skew
}

// dateOf is when an answer was written; false when it does not say, or comes from a cache (RFC 9111 §5.1).
func dateOf(h http.Header) (time.Time, bool) {
	date, err := http.ParseTime(h.Get("Date"))
	return date, err == nil && h.Get("Age") == ""
}

// see takes in one answer to a request that was sent and whose header was received at these local times. It returns
// the skew, and whether it is the first to be noticed.
func (c *Clock) see(h http.Header, sent, received time.Time) (skew time.Duration, first bool) {
	date, ok := dateOf(h)
	if !ok {
		return 0, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		c.base = received
	}
	// Date has whole seconds, cut off, and was written some time between.
	low := date.Sub(c.local(received).Round(0))
	high := date.Add(time.Second).Sub(c.local(sent).Round(0))
	if c.known && low <= c.high && high >= c.low {
		low, high = max(low, c.low), min(high, c.high)
	} // else one of the clocks was set: what was known is of no use
	c.known, c.low, c.high = true, low, high
	skew = c.skew(received)
	if skew == 0 || !c.first.IsZero() {
		return skew, false
	}
	c.first = sent
	return skew, true
}

// restart takes in an answer as see does and forgets all that was known before: the partner has refused what was
// created by this clock.
func (c *Clock) restart(h http.Header, sent, received time.Time) {
	if _, ok := dateOf(h); !ok {
		return
	}
	c.mu.Lock()
	c.known = false
	c.mu.Unlock()
	c.see(h, sent, received)
}
