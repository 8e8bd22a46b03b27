package client

import (
	"net/http"
	"sync"
	"time"
)

// createdMargin is how far Clock.Created stays behind the partner's clock by default: the partner's server library does
// not accept a signature that was created in its future, however little.
const createdMargin = 2 * time.Second

// Clock estimates the partner's time from the Date headers of its answers. It uses the monotonic clock of this machine,
// so that setting the wall clock during a run does not change it. Its methods may be called by many goroutines.
type Clock struct {
	now    func() time.Time
	margin time.Duration

	mu    sync.Mutex
	known bool
	base  time.Time // a local time, from which local times are counted
	// The partner's time is ahead of the local time counted from base by at least low and at most high.
	low, high time.Duration
	noted     bool // a skew has been seen
}

// NewClock returns a Clock that uses now, and takes it for the partner's time until the first answer. margin is how far
// Created stays behind the partner's time; a Client's own Clock has 2 s.
func NewClock(now func() time.Time, margin time.Duration) *Clock {
	return &Clock{now: now, margin: margin}
}

// Created returns the time for the parameter created of a request signature (RFC 9421 §2.3): the earliest time that the
// partner's clock can show, minus the margin.
func (c *Clock) Created() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		return c.now().Add(-c.margin)
	}
	return c.local(c.now()).Add(c.low - c.margin)
}

// local counts t from base by the monotonic clock, so that it does not matter if the wall clock was set meanwhile.
func (c *Clock) local(t time.Time) time.Time { return c.base.Add(t.Sub(c.base)) }

// Skew returns how far the wall clock of this machine is ahead of the partner's (behind when negative). It is 0 while
// unknown, or below a second and the resolution of Date.
func (c *Clock) Skew() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skew(c.now())
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

// dateOf returns when an answer was written; false if it has no Date, or comes from a cache (RFC 9111 §5.1).
func dateOf(h http.Header) (time.Time, bool) {
	date, err := http.ParseTime(h.Get("Date"))
	return date, err == nil && h.Get("Age") == ""
}

// see evaluates the answer to a request; sent and received are local times. It returns the skew, and whether it is the
// first that was seen.
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
	// Date is truncated to seconds, and was written at some time between sent and received.
	low := date.Sub(c.local(received).Round(0))
	high := date.Add(time.Second).Sub(c.local(sent).Round(0))
	if c.known && low <= c.high && high >= c.low {
		low, high = max(low, c.low), min(high, c.high)
	} // else one of the clocks was set, and the earlier bounds are wrong
	c.known, c.low, c.high = true, low, high
	skew = c.skew(received)
	first = skew != 0 && !c.noted
	c.noted = c.noted || first
	return skew, first
}

// restart forgets earlier answers and evaluates this one: the partner did not accept a signature created by this clock.
func (c *Clock) restart(h http.Header, sent, received time.Time) {
	if _, ok := dateOf(h); !ok {
		return
	}
	c.mu.Lock()
	c.known = false
	c.mu.Unlock()
	c.see(h, sent, received)
}
