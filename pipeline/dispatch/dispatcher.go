package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/printable"
)

// Options are what a Dispatcher needs. Worker, DeadLetters, DeadLetterTopic, Logger and OnHalt are required.
type Options struct {
	Worker      *onboard.Worker
	DeadLetters pipeline.Publisher
	// DeadLetterTopic receives the messages that cannot be processed.
	DeadLetterTopic string
	Concurrency     int // workers, at least 1
	// SignerConcurrency is how many workers of their own wait for the signer, at least 1: a slow signer does not keep the
	// others from the partner.
	SignerConcurrency int
	// SignerPace is waited for before each call of the signer; its error ends the worker's attempt. May be nil.
	SignerPace func(context.Context) error
	// SignerWait is how long a row may wait for a custodian before Defer is called for its messages; 0: for ever
	// (Worker.PollLimit bounds the polls that fail).
	SignerWait time.Duration
	// Home says which partition the rows of an account have to be in. A message that is in another one becomes a dead
	// letter: what is kept of its row would not move with it. May be nil: then any will do.
	Home func(pipeline.Account) int
	// Authenticate returns nil for a message that comes from one of our importers; another becomes a dead letter. May be
	// nil: then every message is taken.
	Authenticate func(pipeline.Message) error
	// Defer tells the Queue that a message will not be acknowledged in this run. It must not block.
	Defer  func(pipeline.Message)
	Logger *slog.Logger
	// OnHalt is called once, with the error that stops the run; it should end the Queue's Run. It must not block.
	OnHalt func(error)
	// OnSettled is called for each row that this run settles. It must not block. May be nil.
	OnSettled func(pipeline.Record)
	// Probe asks the partner something that changes nothing; it blocks until there is an answer. It is called before the
	// first row is worked on, and whenever the partner seems to be away; until it returns nil, nothing else is sent. An
	// error that the partner may recover from is asked about again for OutageWait, another halts the run. May be nil.
	Probe func(context.Context) error
	// OutageWait is how long the run waits for a partner that is away; 0: not at all.
	OutageWait time.Duration
	// OnOutage is called when the probe fails for the first time, with the cause, and with nil when it is answered again.
	// It must not block. May be nil.
	OnOutage func(cause error)
	// Trace follows each row. May be nil.
	Trace Tracer
}

// Dispatcher is the consumer's loop: it takes batches from a Queue, accepts their rows into the ledger, and has
// goroutines take them from stage to stage. A row that waits occupies none of them. It implements Handler.
type Dispatcher struct {
	Options

	mu    sync.Mutex
	tasks map[int64]*item // by ledger id: a row has one task at most

	forPartner   taskQueue // rows whose next action is ours or the partner's
	forSigner    taskQueue // rows whose next action is the signer's
	forCustodian taskQueue // rows that wait for the custodian, who was asked

	idle    *sync.Cond        // a task has stopped running
	waiting []pipeline.Record // left to the custodian
	seq     int64
	turns   map[int]int64 // by partition: the latest turn that was given to one of its rows
	round   int64         // the turn of the row that was begun last
	closed  bool
	halted  error
	ended   chan struct{} // closed when the dispatcher closes or halts
	probing bool          // a worker has called Probe
	probed  bool          // the partner has answered it once
	trials  int           // rows that run although no row has come through yet
	// trialEnd ends the time in which only a few rows run; nil: it has not begun.
	trialEnd  *time.Timer
	trialOver bool
	outage    time.Time // since when the probe has failed, monotonic; zero: it does not
	tally     pipeline.Tally
	dead      map[string]int64 // dead letters by class, for warnOfDead

	bad     map[int64]struct{}               // by ledger id: the rows that Tally.Bad counts
	imports map[string]*pipeline.ImportTally // by import id
	done    sync.WaitGroup
}

// New returns a dispatcher that is ready to Start. An error names what is missing.
func New(o Options) (*Dispatcher, error) {
	switch {
	case o.Worker == nil, o.DeadLetters == nil, o.DeadLetterTopic == "", o.Logger == nil, o.OnHalt == nil:
		return nil, errors.New("dispatch: Worker, DeadLetters, DeadLetterTopic, Logger and OnHalt are required")
	case o.Worker.Probes != (o.Probe != nil):
		return nil, errors.New("dispatch: the worker must know whether there is a probe")
	}
	r := &Dispatcher{
		Options: o, tasks: make(map[int64]*item), bad: make(map[int64]struct{}),
		imports: make(map[string]*pipeline.ImportTally), turns: make(map[int]int64), ended: make(chan struct{}),
	}
	r.idle = sync.NewCond(&r.mu)
	r.forPartner.init(&r.mu)
	r.forSigner.init(&r.mu)
	r.forCustodian.init(&r.mu)
	return r, nil
}

// Start starts the goroutines. ctx bounds what they do: ending it cuts requests short, which is safe but leaves
// outcomes unknown; a soft stop is to end the Queue's Run, then Close.
func (r *Dispatcher) Start(ctx context.Context) {
	for range max(1, r.Concurrency) {
		r.done.Go(func() { r.work(ctx, &r.forPartner) })
	}
	for range max(1, r.SignerConcurrency) {
		r.done.Go(func() { r.work(ctx, &r.forSigner) })
	}
	r.done.Go(func() { r.work(ctx, &r.forCustodian) }) // one loop for all of them
}

// Close stops the workers when they have finished their action, and waits for them.
func (r *Dispatcher) Close() {
	r.mu.Lock()
	if !r.closed && r.halted == nil {
		close(r.ended)
	}
	r.closed = true
	r.mu.Unlock()
	r.wakeAll()
	r.done.Wait()
	r.mu.Lock()
	if r.trialEnd != nil {
		r.trialEnd.Stop()
	}
	r.mu.Unlock()
	r.forPartner.stop()
	r.forSigner.stop()
	r.forCustodian.stop()
}

// Assigned notes that there is a new assignment: the partitions that were given back have an owner again.
func (r *Dispatcher) Assigned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tally.Dropped = 0
}

// Waiting returns the rows that were left to the custodian. The reason of a row is why its last poll failed, and empty
// if it did not.
func (r *Dispatcher) Waiting() []pipeline.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.waiting)
}

// Tally returns the counts so far.
func (r *Dispatcher) Tally() pipeline.Tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tally
	t.Open, t.BadRows = int64(len(r.tasks)), int64(len(r.bad))
	stats := r.Worker.Stats()
	t.Retried, t.Signatures = stats.Retried, stats.Signatures
	return t
}

// Oldest returns when the message was published that has waited longest among those of rows under way; the zero time if
// no row is under way.
func (r *Dispatcher) Oldest() (oldest time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tasks {
		for _, m := range t.messages {
			if oldest.IsZero() || m.Time.Before(oldest) {
				oldest = m.Time
			}
		}
	}
	return oldest
}

// Bad returns the rows, by their ids in the ledger, that Tally.Bad counts.
func (r *Dispatcher) Bad() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.bad))
}

// Imports returns the counts of the imports whose messages were taken, by import id, at most 1000 of them.
func (r *Dispatcher) Imports() map[string]pipeline.ImportTally {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make(map[string]pipeline.ImportTally, len(r.imports))
	for id, n := range r.imports {
		counts[id] = *n
	}
	return counts
}

// queueOf is where a task waits for its next action.
func (r *Dispatcher) queueOf(t *item) *taskQueue {
	switch {
	case t.Action == onboard.DoSign && t.AtCustodian():
		return &r.forCustodian
	case t.Action == onboard.DoSign:
		return &r.forSigner
	}
	return &r.forPartner
}

// push makes a task ready at its time. The lock is held.
func (r *Dispatcher) push(t *item) {
	r.seq++
	t.seq = r.seq
	r.queueOf(t).push(t)
}

func (r *Dispatcher) wakeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forPartner.wake.Broadcast()
	r.forSigner.wake.Broadcast()
	r.forCustodian.wake.Broadcast()
	r.idle.Broadcast()
}

// work is one worker: it takes the next ready task of its queue and brings it as far as it goes without waiting.
func (r *Dispatcher) work(ctx context.Context, q *taskQueue) {
	for {
		t := r.takeTask(ctx, q)
		if t == nil {
			return
		}
		r.advance(ctx, t, q)
	}
}

// takeTask blocks for a ready task; nil when the dispatcher closes or has halted.
func (r *Dispatcher) takeTask(ctx context.Context, q *taskQueue) *item {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed && r.halted == nil && ctx.Err() == nil {
		if r.mustProbe(q) {
			if !r.probing && q.ready() {
				r.probe(ctx)
			} else {
				q.wake.Wait()
			}
			continue
		}
		// A signer that lags behind holds up new rows: their challenges would run out in its queue. And at most SetupLimit
		// new rows run, for at most trialTime, until one has come through.
		trying := !r.trialOver && !r.Worker.Through()
		fresh := r.forSigner.backlog() < max(1, r.SignerConcurrency) && !(trying && r.trials >= onboard.SetupLimit)
		if t := q.pop(fresh); t != nil {
			t.running = true
			if trying && !t.begun() {
				r.beginTrial(t)
			}
			r.round = max(r.round, t.turn-1)
			if q == &r.forSigner {
				r.forPartner.wake.Signal()
			}
			return t
		}
		q.wake.Wait()
	}
	return nil
}

func (r *Dispatcher) advance(ctx context.Context, t *item, q *taskQueue) {
	for {
		if q == &r.forSigner && r.SignerPace != nil {
			if err := r.SignerPace(ctx); err != nil {
				r.afterStep(ctx, t, q, onboard.Disposition{}, client.ErrStopped)
				return
			}
		}
		d, err := r.step(ctx, t)
		if errors.Is(err, pipeline.ErrStale) {
			var settled bool
			if d, settled, err = r.reload(ctx, t); settled {
				r.skipAll(t)
				return
			}
		}
		if more := r.afterStep(ctx, t, q, d, err); !more {
			return
		}
	}
}

// reload reads a row again that was changed by another caller: a later import was accepted while the row was in
// progress.
func (r *Dispatcher) reload(ctx context.Context, t *item) (d onboard.Disposition, settled bool, err error) {
	accepted, err := r.Worker.Ledger.Accept(ctx, []pipeline.Row{t.Row})
	switch {
	case errors.Is(err, pipeline.ErrFenced):
		return onboard.Disposition{}, false, err
	case err != nil:
		return onboard.Disposition{}, false, &onboard.HaltError{Class: onboard.HaltLedger, Row: t.Row, Err: err}
	}
	t.Record = accepted[0].Record
	switch accepted[0].Admission {
	case pipeline.Open:
		return onboard.Disposition{Stage: t.Stage, Do: onboard.DoNext}, false, nil
	case pipeline.Settled:
		return onboard.Disposition{}, true, nil
	}
	return onboard.Disposition{Stage: t.Stage, Do: onboard.DoSettle}, false, nil
}

// skipAll ends a task whose row another task has settled, and counted.
func (r *Dispatcher) skipAll(t *item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range t.messages {
		r.skip(t.Record)
		m.ack(m.Message)
	}
	r.forget(t)
}

// afterStep says whether the worker goes on with the task at once.
func (r *Dispatcher) afterStep(ctx context.Context, t *item, q *taskQueue, d onboard.Disposition, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.idle.Broadcast() // its action has ended: Release may wait for that
	if t.Stage.Terminal() {  // a terminal row is settled even if the breaker halts the run with it
		r.settle(t)
		if err != nil && ctx.Err() == nil {
			r.halt(err)
		}
		return false
	}
	r.dropLeaving(t)
	if err != nil {
		passing := errors.Is(err, client.ErrStopped) || errors.Is(err, pipeline.ErrFenced)
		switch {
		case passing && ctx.Err() == nil && len(t.messages) > 0 && !r.closed && r.halted == nil:
			// Its partition is being released, which takes the row away; or it is ours again already, and a message of the
			// new assignment has come to a row whose action belonged to the old one.
			r.Worker.Resume(t.Task)
			t.ready, t.running = pipeline.Monotonic().Add(onboard.PassingPause), false
			r.push(t)
		default:
			r.drop(t)
		}
		if ctx.Err() == nil && !passing {
			r.halt(err)
		}
		return false
	}
	t.Action = d.Do
	if t.Action == onboard.DoNext {
		r.Worker.Resume(t.Task)
	}
	switch {
	case len(t.messages) == 0 || r.closed || r.halted != nil:
		r.drop(t)
	case t.AtCustodian() && r.tooLong(t):
		r.leaveToCustodian(t)
	case d.After > 0:
		if t.AtCustodian() { // the custodian has it: that is as far as a row comes without a person
			r.finished()
		}
		if q := r.queueOf(t); q == &r.forCustodian { // the more rows wait, the more seldom each is asked after
			d.After = max(d.After, time.Duration(len(q.later.tasks))*pollEvery)
		}
		t.ready = pipeline.Monotonic().Add(d.After)
		t.running = false
		r.push(t)
	case r.queueOf(t) != q:
		t.ready = time.Time{}
		t.running = false
		r.push(t)
	case q == &r.forPartner && r.mustProbe(q): // nothing more is sent for it before the partner has answered
		t.ready = time.Time{}
		t.running = false
		r.push(t)
	default:
		return true
	}
	return false
}

// tooLong reports whether a row has waited for the custodian as long as this run is willing to.
func (r *Dispatcher) tooLong(t *item) bool {
	if t.asked.IsZero() {
		t.asked = pipeline.Monotonic()
	}
	return r.SignerWait > 0 && pipeline.Monotonic().Sub(t.asked) >= r.SignerWait
}

// pollEvery is the least time between two questions to the custodian, about whichever rows.
const pollEvery = 100 * time.Millisecond

// leaveToCustodian gives a row up for this run: its messages stay in the queue, and the next run asks the custodian
// what became of it. The lock is held.
func (r *Dispatcher) leaveToCustodian(t *item) {
	r.tally.Waiting++
	left := t.Record
	left.Class, left.Reason = "", ""
	if n, last := t.FailedPolls(); n > 0 {
		left.Reason = printable.Line(last.Error(), 500)
	}
	r.waiting = append(r.waiting, left)
	r.tally.Returned += int64(len(t.messages))
	if r.Defer != nil {
		for _, m := range t.messages {
			r.Defer(m.Message)
		}
	}
	r.forget(t)
}

// settle ends a task whose row is terminal. The lock is held.
func (r *Dispatcher) settle(t *item) {
	r.count(t.Record)
	for i, m := range t.messages {
		if i > 0 {
			r.skip(t.Record)
		}
		m.ack(m.Message)
	}
	r.Worker.Hook("settled")
	if t.Stage == pipeline.Onboarded || t.Stage == pipeline.Rejected {
		r.finished()
	}
	if r.OnSettled != nil {
		r.OnSettled(t.Record)
	}
	r.forget(t)
}

// drop gives a row up unsettled: its messages come again. The lock is held.
func (r *Dispatcher) drop(t *item) {
	r.tally.Dropped++
	r.tally.Returned += int64(len(t.messages))
	r.forget(t)
}

func (r *Dispatcher) forget(t *item) {
	t.running, t.messages = false, nil
	if r.tasks[t.ID] == t {
		delete(r.tasks, t.ID)
	}
	if t.index >= 0 {
		r.queueOf(t).remove(t)
		r.forPartner.wake.Signal() // the signer's backlog may be shorter
	}
	if t.trace != nil {
		t.trace.End(t.Record)
		t.trace = nil
	}
	r.endTrial(t) // which changes the place in the queue, so after the row has left it
	r.idle.Broadcast()
}

// halt stops the run once. The lock is held.
func (r *Dispatcher) halt(err error) {
	if r.halted != nil {
		return
	}
	r.halted = err
	if !r.closed {
		close(r.ended)
	}
	r.forPartner.wake.Broadcast()
	r.forSigner.wake.Broadcast()
	r.forCustodian.wake.Broadcast()
	r.OnHalt(err)
}
