package client

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// MaxRetryAfter is the longest that the gate stays closed, whatever the partner asks for.
	MaxRetryAfter = 5 * time.Minute

	firstPause   = time.Second     // of a gate closed without a Retry-After; doubles while that goes on
	calm         = 3 * time.Second // without throttling, before the pace rises a step
	calmStep     = 0.1             // of the configured rate
	throttleStep = 0.5             // of the pace in force
	burstTime    = 20 * time.Millisecond
)

// RateLimiter lets the attempts of all workers through, one bucket and one gate for all of them.
//
// In any stretch of time of length T, at most rate·T + burst pass, where burst is 1 plus what the rate gives in 20 ms:
// 1 up to 49/s, 5 at 200/s, 21 at 1,000/s. That much makes up for timers that fire late. The bucket starts empty, so
// that restarting often gives no more than running does, and it is emptied when the gate opens.
//
// One of several that share a rate (SetShare) passes on a grid of the wall clock instead, as long as its pace is so low
// that a bucket would hold one: once in each period of its pace, at a phase that differs from the others'. Buckets of
// their own would let all of them pass at the same moment, which for many of them is far beyond the rate.
//
// Throttling closes the gate and halves the pace, once for all the answers to what was sent before the gate closed,
// down to a floor of 1/s or, if that is more, 1% of the rate. After 3 s without throttling the pace rises by a tenth
// of the rate, and so on every 3 s until the rate is reached.
//
// Only the head of the line looks at the clock; the others queue behind it in order. A changed rate or a closed gate
// therefore counts at once, for those who wait already as well.
type RateLimiter struct {
	line chan struct{} // holds one value while there is a head

	mu      sync.Mutex
	bucket  *rate.Limiter
	limit   float64       // configured, per second
	share   float64       // of limit in force, above 0 and at most 1
	grid    bool          // pass on a grid of the wall clock
	phase   float64       // of the grid, in periods: at least 0 and below 1
	slot    int64         // of the grid, the latest one that was used
	passed  time.Time     // when somebody passed last
	changed chan struct{} // closed and replaced when the head must look again

	open   time.Time // when the gate opens, or opened last
	drain  bool      // the gate was closed: empty the bucket before letting anyone through
	period uint64    // grows each time that the gate closes and the pace is lowered
	blind  int       // such closings in a row without a Retry-After
	since  time.Time // since when it has been calm, or will be

	leased   bool
	until    time.Time // if leased: nobody passes from then on
	recalled bool      // until Admit
	stopped  bool
}

// ErrStopped is returned by Wait, and by every call of a Client, after Stop or Recall: nothing was sent.
var ErrStopped = errors.New("stopped before it was sent")

// Stop lets nobody through any more: whoever waits, and whoever comes, gets ErrStopped. Attempts that have left are not
// touched. It may be called more than once.
func (p *RateLimiter) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.wake()
}

// Recall turns whoever waits, and whoever comes, away with ErrStopped until Admit: what they are about to send is no
// longer theirs to send. Attempts that have left are not touched.
func (p *RateLimiter) Recall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recalled = true
	p.wake()
}

// Admit undoes Recall.
func (p *RateLimiter) Admit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recalled = false
}

func (p *RateLimiter) turnsAway() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped || p.recalled
}

// NewRateLimiter makes a pace of so many attempts a second; see SetRate for special values.
func NewRateLimiter(perSecond float64) *RateLimiter {
	p := &RateLimiter{line: make(chan struct{}, 1), share: 1, changed: make(chan struct{}), bucket: rate.NewLimiter(0, 0)}
	p.setRate(p.now(), perSecond) // from now on it fills
	return p
}

// SetRate changes the configured rate, in attempts a second; a share of the pace lost to throttling stays lost until
// calm returns it. 0 or less (or NaN) lets nobody through until the next SetRate; +Inf leaves only the gate.
func (p *RateLimiter) SetRate(perSecond float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grid = false
	p.setRate(p.now(), perSecond)
	p.wake()
}

// Until lets nobody through from that moment on, by the monotonic or the wall clock, whichever says so first, until it
// is called again with a later one. Without a call there is no such moment.
func (p *RateLimiter) Until(moment time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leased, p.until = true, moment
	p.wake()
}

func (p *RateLimiter) setRate(now time.Time, perSecond float64) {
	if !(perSecond > 0) {
		perSecond = 0
	}
	p.limit = perSecond
	p.apply(now)
}

// SetShare is SetRate for one of several whose rates add up to one. phase, at least 0 and below 1, says when in each
// period of its pace it passes; those of the others should lie evenly between 0 and 1, too. Clocks that differ cost
// evenness and nothing else.
func (p *RateLimiter) SetShare(perSecond, phase float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grid, p.phase = true, phase
	p.setRate(p.now(), perSecond)
	p.wake()
}

// apply gives the bucket the pace in force.
func (p *RateLimiter) apply(now time.Time) {
	pace := p.rateNow()
	if math.IsInf(pace, 1) {
		p.bucket.SetLimitAt(now, rate.Inf)
		return
	}
	p.bucket.SetBurstAt(now, 1+int(pace*burstTime.Seconds()))
	p.bucket.SetLimitAt(now, rate.Limit(pace))
	if pace > 0 {
		p.slot, _ = p.slotAt(now) // with another pace it is another grid: its next slot is the first
	}
}

// slotAt numbers the slot of the grid in which a moment lies, and says how long it lasts from then on.
func (p *RateLimiter) slotAt(now time.Time) (slot int64, left time.Duration) {
	at := float64(now.UnixMicro())/1e6*p.rateNow() - p.phase // in periods
	slot = int64(math.Floor(at))
	return slot, time.Duration((float64(slot+1) - at) / p.rateNow() * float64(time.Second))
}

// onGrid reports whether the grid decides.
func (p *RateLimiter) onGrid() bool { return p.grid && p.rateNow()*burstTime.Seconds() < 1 }

// tryGrid takes the present slot of the grid, or says how long it will be until the next. Two that follow each other
// keep nine tenths of a period between them, though the first was late or the grid has changed.
func (p *RateLimiter) tryGrid(now time.Time) (wait time.Duration) {
	slot, left := p.slotAt(now)
	if slot < p.slot { // the clock was set back
		p.slot = slot
	}
	apart := time.Duration(float64(time.Second) / p.rateNow() * 0.9)
	switch since := now.Sub(p.passed); {
	case slot == p.slot:
		return left + time.Microsecond
	case since >= 0 && since < apart:
		return apart - since
	}
	p.slot, p.passed = slot, now
	return 0
}

func (p *RateLimiter) rateNow() float64 {
	if math.IsInf(p.limit, 1) {
		return p.limit
	}
	return max(p.limit*p.share, min(p.limit, max(1, p.limit/100)))
}

func (p *RateLimiter) empty(now time.Time) {
	if tokens := int(p.bucket.TokensAt(now)); tokens > 0 {
		p.bucket.AllowN(now, tokens)
	}
}

// Wait blocks until the gate is open and it is this caller's turn. The error is ctx's, or ErrStopped.
func (p *RateLimiter) Wait(ctx context.Context) error {
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.leave()
	_, err := p.take(ctx)
	return err
}

// enter waits to be the head of the line; leave must follow.
func (p *RateLimiter) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case p.line <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *RateLimiter) leave() { <-p.line }

// take waits, as the head of the line, for a place, and returns the period in which it was given.
func (p *RateLimiter) take(ctx context.Context) (uint64, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if p.turnsAway() {
			return 0, ErrStopped
		}
		wait, period, changed := p.try(p.now())
		if wait == 0 {
			return period, nil
		}
		if err := sleep(ctx, wait, changed); err != nil {
			return 0, err
		}
	}
}

// try takes a place, or says how long it will be until there is one and what would change that.
func (p *RateLimiter) try(now time.Time) (time.Duration, uint64, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.open) {
		return p.open.Sub(now), p.period, p.changed
	}
	if p.limit == 0 || p.leased && (!now.Before(p.until) || !now.Round(0).Before(p.until.Round(0))) {
		return math.MaxInt64, p.period, p.changed
	}
	p.recover(now)
	if p.drain {
		p.drain = false
		p.empty(now)
		if p.rateNow() > 0 && !math.IsInf(p.rateNow(), 1) {
			p.slot, _ = p.slotAt(now)
		}
	}
	if p.onGrid() {
		return p.tryGrid(now), p.period, p.changed
	}
	if p.bucket.AllowN(now, 1) {
		return 0, p.period, p.changed
	}
	missing := 1 - p.bucket.TokensAt(now)
	seconds := missing / p.rateNow()
	// At least a microsecond, lest rounding make the head spin.
	return time.Duration(min(seconds*float64(time.Second), float64(time.Hour))) + time.Microsecond, p.period, p.changed
}

// recover returns the steps that a calm time has earned.
func (p *RateLimiter) recover(now time.Time) {
	if p.share == 1 && p.blind == 0 {
		return
	}
	steps := int(now.Sub(p.since) / calm)
	if steps < 1 {
		return
	}
	p.blind = 0
	p.since = p.since.Add(time.Duration(steps) * calm)
	p.share += calmStep * float64(steps)
	if p.share > 1-calmStep/2 { // sums of tenths are not exact
		p.share = 1
	}
	p.apply(now)
}

// Throttled closes the gate for retryAfter, at most 5 minutes; when that is 0, for 1 s, 2 s, 4 s and so on. A gate that
// is closed for longer already stays so. The pace is lowered unless the gate was closed anyway.
func (p *RateLimiter) Throttled(retryAfter time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.throttle(p.now(), p.period, retryAfter)
}

// throttledIn is Throttled for the answer to an attempt that left in that period.
func (p *RateLimiter) throttledIn(period uint64, retryAfter time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.throttle(p.now(), period, retryAfter)
}

func (p *RateLimiter) throttle(now time.Time, period uint64, pause time.Duration) {
	news := period == p.period && !now.Before(p.open)
	if news {
		p.recover(now)
		p.period++
		p.share *= throttleStep
		if p.limit > 0 && !math.IsInf(p.limit, 1) {
			p.share = p.rateNow() / p.limit // not below the floor, or the way back would begin under it
		}
		p.apply(now)
	}
	if pause <= 0 {
		if !news {
			return // another answer to what closed the gate
		}
		pause = min(firstPause<<min(p.blind, 10), MaxRetryAfter)
		p.blind++
	}
	if until := now.Add(min(pause, MaxRetryAfter)); until.After(p.open) {
		p.open = until
		p.since = until
		p.drain = true
	}
	p.wake()
}

// now is the clock of the timers that sleep uses: another one could not be waited for. In a test both are synctest's.
func (p *RateLimiter) now() time.Time {
	return time.Now() //nolint:forbidigo // see above
}

func (p *RateLimiter) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// RateLimiterState is a Pace at one moment.
type RateLimiterState struct {
	Rate   float64       // configured, attempts a second
	Pace   float64       // in force, at most Rate
	Closed time.Duration // how long the gate stays closed; 0: it is open
}

// State says how fast attempts go now.
func (p *RateLimiter) State() RateLimiterState {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if !now.Before(p.open) {
		p.recover(now)
	}
	return RateLimiterState{Rate: p.limit, Pace: p.rateNow(), Closed: max(0, p.open.Sub(now))}
}

// rest waits, as the head of the line, for a time and not for a place. The error is ctx's, or ErrStopped.
func (p *RateLimiter) rest(ctx context.Context, d time.Duration) error {
	for end := p.now().Add(d); ; {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		wait := end.Sub(p.now())
		switch {
		case p.turnsAway():
			return ErrStopped
		case wait <= 0:
			return nil
		}
		if err := sleep(ctx, wait, changed); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration, changed <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
