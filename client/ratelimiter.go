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
	// MaxRetryAfter is the longest time that the gate stays closed, whatever the partner asks for.
	MaxRetryAfter = 5 * time.Minute

	firstPause    = time.Second           // of the gate without a Retry-After; doubles with each further closing
	throttleStep  = 0.5                   // of the rate in force
	recoverAfter  = 3 * time.Second       // without throttling, before the rate rises by a step
	recoverStep   = 0.1                   // of the configured rate
	burstDuration = 20 * time.Millisecond // of the rate, on top of one attempt
	slotDistance  = 0.9                   // of a slot: the shortest time between two attempts
)

// RateLimiter limits the attempts of all workers together, with one bucket and one gate.
//
// In any stretch of time of length T, at most rate·T + burst attempts pass, where burst is 1 plus what the rate gives
// in 20 ms: 1 up to 49/s, 5 at 200/s, 21 at 1,000/s. The burst makes up for timers that fire late. In no second do more
// attempts pass than the rate, rounded up (of slots, see below, one more). The bucket starts empty, so that frequent
// restarts do not raise the rate, and is emptied when the gate opens.
//
// A limiter that shares a rate with others (SetShare) divides the wall clock's time into slots, one for each attempt,
// and starts them at another phase than the others do. It does so while its rate is so low that a bucket would hold one
// attempt: the buckets of many limiters would let all of them pass at the same moment, far beyond the rate.
//
// Throttling closes the gate and halves the rate, down to a floor of 1/s or, if that is more, 1% of the configured
// rate. All throttled responses to attempts that passed before the gate closed count as one. After 3 s without
// throttling the rate rises by a tenth of the configured rate, and so on every 3 s until that is reached.
//
// Only the first caller in the queue waits for the clock; the others wait behind it, in order. So a changed rate or a
// closed gate applies at once to callers that are waiting. The creations of customers by a Client have low priority: at
// most one of them waits behind the first caller, which may be another, so that a customer that was created does not
// wait for many others to be created. All methods may be called by many goroutines.
type RateLimiter struct {
	queue       chan struct{} // holds a value while there is a first caller
	lowPriority chan struct{} // holds a value while a caller of low priority waits behind the first

	mu         sync.Mutex
	bucket     *rate.Limiter
	second     lastSecond
	configured float64       // attempts a second
	fraction   float64       // of the configured rate that is in force, above 0 and at most 1
	slotted    bool          // SetShare was called, and SetRate not since
	phase      float64       // of the slots, in slots: at least 0 and below 1
	slot       int64         // number of the latest slot that was used
	passed     time.Time     // when the latest attempt passed in a slot
	changed    chan struct{} // closed and replaced when the first caller must look again

	opens       time.Time     // when the gate opens, or opened last
	closed      time.Duration // how long the gate was closed in all, and will be until opens
	closings    uint64        // how often the gate was closed and the rate lowered
	unstated    int           // such closings in a row without a Retry-After
	emptyBucket bool          // the gate was closed: empty the bucket before the next attempt passes
	recovered   time.Time     // when the rate was raised last or, if later, when the gate opens

	leased   bool
	until    time.Time // if leased: no attempt passes from then on
	recalled bool      // until Admit
	stopped  bool
	halt     chan struct{} // closed while recalled or stopped
}

// NewRateLimiter returns a limiter of so many attempts a second; see SetRate for special values.
func NewRateLimiter(perSecond float64) *RateLimiter {
	l := &RateLimiter{queue: make(chan struct{}, 1), lowPriority: make(chan struct{}, 1),
		fraction: 1, changed: make(chan struct{}), halt: make(chan struct{}), bucket: rate.NewLimiter(0, 0)}
	l.configure(l.now(), perSecond) // the bucket fills from now on
	return l
}

// ErrStopped is returned by Wait, and by every call of a Client, after Stop or Recall: no request was sent that changes
// something at the partner, or it was answered as one whose signature is wrong, which could not be confirmed.
var ErrStopped = errors.New("stopped before the request was sent or answered")

// Stop makes all calls of Wait return ErrStopped, those that are waiting too. A Client ends its requests in flight that
// change nothing at the partner, and waits for the others. It may be called more than once.
func (l *RateLimiter) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
	l.stopped = true
}

// Recall does what Stop does, until Admit: another consumer may send the requests by now.
func (l *RateLimiter) Recall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
	l.recalled = true
}

// end begins a stop or a recall, unless one is in force. The caller holds l.mu and sets the reason.
func (l *RateLimiter) end() {
	if !l.stopped && !l.recalled {
		close(l.halt)
		l.notify()
	}
}

// Admit undoes Recall.
func (l *RateLimiter) Admit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recalled && !l.stopped {
		l.halt = make(chan struct{})
	}
	l.recalled = false
}

// halted is closed while the limiter is stopped or recalled.
func (l *RateLimiter) halted() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.halt
}

func (l *RateLimiter) stoppedOrRecalled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped || l.recalled
}

// Until lets no attempt pass from that moment on, by the monotonic or the wall clock, whichever reaches it first. A
// call with a later moment extends it; without a call there is no end.
func (l *RateLimiter) Until(moment time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leased, l.until = true, moment
	l.notify()
}

// SetRate changes the configured rate, in attempts a second. A rate that was lowered by throttling stays lowered by the
// same factor until it has recovered. With 0 or less (or NaN) no attempt passes until the next SetRate; with +Inf only
// the gate holds attempts up.
func (l *RateLimiter) SetRate(perSecond float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slotted = false
	l.configure(l.now(), perSecond)
	l.notify()
}

// SetShare is SetRate for one of several limiters that share a rate. phase, at least 0 and below 1, says when in each
// slot an attempt passes; the phases of all limiters should lie evenly between 0 and 1. If the machines' clocks differ,
// attempts are spread less evenly, and nothing else changes.
func (l *RateLimiter) SetShare(perSecond, phase float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slotted, l.phase = true, phase
	l.configure(l.now(), perSecond)
	l.notify()
}

func (l *RateLimiter) configure(now time.Time, perSecond float64) {
	if !(perSecond > 0) {
		perSecond = 0
	}
	l.configured = perSecond
	l.apply(now)
}

// inForce is the rate after throttling, in attempts a second.
func (l *RateLimiter) inForce() float64 {
	if math.IsInf(l.configured, 1) {
		return l.configured
	}
	return max(l.configured*l.fraction, min(l.configured, max(1, l.configured/100)))
}

// apply sets the bucket and the slots to the rate in force.
func (l *RateLimiter) apply(now time.Time) {
	perSecond := l.inForce()
	if math.IsInf(perSecond, 1) {
		l.bucket.SetLimitAt(now, rate.Inf)
		return
	}
	l.bucket.SetBurstAt(now, 1+int(perSecond*burstDuration.Seconds()))
	l.bucket.SetLimitAt(now, rate.Limit(perSecond))
	if perSecond > 0 {
		l.second.most = int(math.Ceil(perSecond))
		l.slot, _ = l.slotAt(now) // slots are numbered by the rate: the next attempt passes in the next slot
	}
}

// slotAt returns the number of the slot in which a moment lies, and how long the slot lasts from then on.
func (l *RateLimiter) slotAt(now time.Time) (slot int64, left time.Duration) {
	at := float64(now.UnixMicro())/1e6*l.inForce() - l.phase
	slot = int64(math.Floor(at))
	return slot, time.Duration((float64(slot+1) - at) / l.inForce() * float64(time.Second))
}

// usesSlots reports whether slots decide, and not the bucket.
func (l *RateLimiter) usesSlots() bool { return l.slotted && l.inForce()*burstDuration.Seconds() < 1 }

// takeSlot takes the present slot, or returns how long to wait for the next. Two attempts are at least nine tenths of a
// slot apart, even if the first was late in its slot or the slots have changed.
func (l *RateLimiter) takeSlot(now time.Time) (wait time.Duration) {
	slot, left := l.slotAt(now)
	if slot < l.slot { // the clock was set back
		l.slot = slot
	}
	apart := time.Duration(float64(time.Second) / l.inForce() * slotDistance)
	switch since := now.Sub(l.passed); {
	case slot == l.slot:
		return left + time.Microsecond
	case since >= 0 && since < apart:
		return apart - since
	}
	l.slot, l.passed = slot, now
	return 0
}

// Wait blocks until the gate is open and it is this caller's turn. The error is ctx's, or ErrStopped.
func (l *RateLimiter) Wait(ctx context.Context) error {
	if err := l.join(ctx, false); err != nil {
		return err
	}
	defer l.leave()
	_, err := l.take(ctx)
	return err
}

// join waits to be the first in the queue; leave must follow. A caller of low priority first waits until no other waits
// behind the first.
func (l *RateLimiter) join(ctx context.Context, lowPriority bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if lowPriority {
		select {
		case l.lowPriority <- struct{}{}:
			defer func() { <-l.lowPriority }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case l.queue <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *RateLimiter) leave() { <-l.queue }

// take waits, as the first in the queue, until an attempt may pass, and returns the number of closings until then.
func (l *RateLimiter) take(ctx context.Context) (closings uint64, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if l.stoppedOrRecalled() {
			return 0, ErrStopped
		}
		wait, closings, changed := l.try(l.now())
		if wait == 0 {
			return closings, nil
		}
		if err := sleep(ctx, wait, changed); err != nil {
			return 0, err
		}
	}
}

// try lets an attempt pass, or returns how long to wait before trying again unless changed is closed earlier.
func (l *RateLimiter) try(now time.Time) (wait time.Duration, closings uint64, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.opens) {
		return l.opens.Sub(now), l.closings, l.changed
	}
	if l.configured == 0 || l.leased && (!now.Before(l.until) || !now.Round(0).Before(l.until.Round(0))) {
		return math.MaxInt64, l.closings, l.changed
	}
	l.recover(now)
	if l.emptyBucket {
		l.emptyBucket = false
		if tokens := int(l.bucket.TokensAt(now)); tokens > 0 {
			l.bucket.AllowN(now, tokens)
		}
		if l.inForce() > 0 && !math.IsInf(l.inForce(), 1) {
			l.slot, _ = l.slotAt(now)
		}
	}
	if l.usesSlots() {
		wait := l.takeSlot(now)
		if wait == 0 {
			l.second.add(now)
		}
		return wait, l.closings, l.changed
	}
	if math.IsInf(l.inForce(), 1) {
		return 0, l.closings, l.changed
	}
	if wait := l.second.full(now); wait > 0 {
		return wait, l.closings, l.changed
	}
	if l.bucket.AllowN(now, 1) {
		l.second.add(now)
		return 0, l.closings, l.changed
	}
	seconds := (1 - l.bucket.TokensAt(now)) / l.inForce()
	// At least a microsecond: rounded to 0, the wait would become a busy loop.
	wait = time.Duration(min(seconds*float64(time.Second), float64(time.Hour))) + time.Microsecond
	return wait, l.closings, l.changed
}

// lastSecond bounds the attempts in any second.
type lastSecond struct {
	most   int         // attempts in a second
	passed []time.Time // when the attempts of the last second passed, in order
}

// full returns how long to wait until another attempt may pass, 0 if it may pass now.
func (s *lastSecond) full(now time.Time) (wait time.Duration) {
	over := len(s.passed) - s.most
	if over < 0 {
		return 0
	}
	return max(0, time.Second-now.Sub(s.passed[over]))
}

// add records that an attempt passes.
func (s *lastSecond) add(now time.Time) {
	for len(s.passed) > 0 && now.Sub(s.passed[0]) >= time.Second {
		s.passed = s.passed[1:]
	}
	s.passed = append(s.passed, now)
}

// recover raises the rate by a step for each stretch of recoverAfter without throttling.
func (l *RateLimiter) recover(now time.Time) {
	if l.fraction == 1 && l.unstated == 0 {
		return
	}
	steps := int(now.Sub(l.recovered) / recoverAfter)
	if steps < 1 {
		return
	}
	before := l.inForce()
	l.unstated = 0
	l.recovered = l.recovered.Add(time.Duration(steps) * recoverAfter)
	l.fraction += recoverStep * float64(steps)
	if l.fraction > 1-recoverStep/2 { // sums of tenths are not exact
		l.fraction = 1
	}
	if l.inForce() != before { // otherwise a slot longer than recoverAfter would be skipped each time
		l.apply(now)
	}
}

// Throttled closes the gate for retryAfter, at most 5 minutes; when that is 0, for 1 s, 2 s, 4 s and so on. A gate that
// is closed for longer already stays so. The rate is lowered unless the gate was closed already.
func (l *RateLimiter) Throttled(retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.throttle(l.now(), l.closings, retryAfter)
}

// throttledAt is Throttled for the response to an attempt that passed after so many closings.
func (l *RateLimiter) throttledAt(closings uint64, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.throttle(l.now(), closings, retryAfter)
}

func (l *RateLimiter) throttle(now time.Time, closings uint64, pause time.Duration) {
	first := closings == l.closings && !now.Before(l.opens) // of the responses that count as one
	if first {
		l.recover(now)
		l.closings++
		l.fraction *= throttleStep
		if l.configured > 0 && !math.IsInf(l.configured, 1) {
			l.fraction = l.inForce() / l.configured // not below the floor, or it would have to recover from less
		}
		l.apply(now)
	}
	if pause <= 0 {
		if !first {
			return
		}
		pause = min(firstPause<<min(l.unstated, 10), MaxRetryAfter)
		l.unstated++
	}
	if until := now.Add(min(pause, MaxRetryAfter)); until.After(l.opens) {
		l.closed += until.Sub(later(now, l.opens))
		l.opens, l.recovered = until, until
		l.emptyBucket = true
	}
	l.notify()
}

// now is the clock of sleep's timers: no other clock can be waited for. In a test both are synctest's.
func (l *RateLimiter) now() time.Time {
	return time.Now() //nolint:forbidigo // see above
}

// notify makes the first caller in the queue look again. The caller holds l.mu.
func (l *RateLimiter) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// RateLimiterState is a RateLimiter at one moment.
type RateLimiterState struct {
	Rate    float64       // configured, attempts a second
	InForce float64       // after throttling, at most Rate
	Closed  time.Duration // how long the gate stays closed; 0: it is open
}

// State returns the rates and the gate as they are now.
func (l *RateLimiter) State() RateLimiterState {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if !now.Before(l.opens) {
		l.recover(now)
	}
	return RateLimiterState{Rate: l.configured, InForce: l.inForce(), Closed: max(0, l.opens.Sub(now))}
}

// ClosedInAll returns how long the gate has been closed since NewRateLimiter.
func (l *RateLimiter) ClosedInAll() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed - max(0, l.opens.Sub(l.now()))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// rest waits for d, as the first in the queue, without letting an attempt pass. The error is ctx's, or ErrStopped.
func (l *RateLimiter) rest(ctx context.Context, d time.Duration) error {
	for end := l.now().Add(d); ; {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		wait := end.Sub(l.now())
		switch {
		case l.stoppedOrRecalled():
			return ErrStopped
		case wait <= 0:
			return nil
		}
		if err := sleep(ctx, wait, changed); err != nil {
			return err
		}
	}
}

// sleep waits for d, or until changed is closed. The error is ctx's.
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
