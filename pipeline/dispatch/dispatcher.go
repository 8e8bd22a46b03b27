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

// Options configure a Dispatcher. Worker, DeadLetters, DeadLetterTopic, Logger and OnHalt are required.
type Options struct {
	Worker      *onboard.Worker
	DeadLetters pipeline.Publisher
	// DeadLetterTopic receives the messages that cannot be processed.
	DeadLetterTopic string
	Concurrency     int // workers, at least 1
	// SignerConcurrency is the number of separate workers for the signer, at least 1, so that a slow signer does not block
	// requests to the partner.
	SignerConcurrency int
	// SignerPace is waited for before each call of the signer; its error ends the worker's attempt. May be nil.
	SignerPace func(context.Context) error
	// SignerWait is how long a row may wait for a custodian before Defer is called for its messages; 0: for ever
	// (Worker.PollLimit bounds the polls that fail).
	SignerWait time.Duration
	// Home returns the partition of an account's rows. A message in another partition becomes a dead letter, because its
	// row's record would not move with it. May be nil: any partition is accepted.
	Home func(pipeline.Account) int
	// Known reports whether the ledger has a row. A row whose externalId is invalid is processed if the ledger has it from
	// an earlier version, whose rules were less strict; otherwise its message becomes a dead letter. May be nil: it
	// always does.
	Known func(context.Context, pipeline.Row) (bool, error)
	// Authenticate returns nil for a message from one of our importers; other messages become dead letters. May be nil:
	// every message is accepted.
	Authenticate func(pipeline.Message) error
	// Defer tells the Queue that a message will not be acknowledged in this run. It must not block.
	Defer  func(pipeline.Message)
	Logger *slog.Logger
	// OnHalt is called once, with the error that stops the run; it should end the Queue's Run. It must not block.
	OnHalt func(error)
	// OnSettled is called for each row that this run settles. It must not block. May be nil.
	OnSettled func(pipeline.Record)
	// Probe sends the partner a request that changes nothing, and blocks until the response. It is called before the first
	// row is worked on, and whenever the partner seems unavailable; until it returns nil, nothing else is sent. After an
	// error that may be temporary it is repeated for OutageWait; any other error halts the run. May be nil.
	Probe func(context.Context) error
	// OutageWait is how long the run waits for an unavailable partner; 0: not at all.
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

	bad     map[int64]struct{}               // by ledger id: the rows that Tally.BadRows counts
	imports map[string]*pipeline.ImportTally // by import id
	earlier map[string]*idSet                // by import id: the rows of ImportTally.EarlierStages
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
	d := &Dispatcher{
		Options: o, tasks: make(map[int64]*item), bad: make(map[int64]struct{}),
		imports: make(map[string]*pipeline.ImportTally), earlier: make(map[string]*idSet),
		turns: make(map[int]int64), ended: make(chan struct{}),
	}
	d.idle = sync.NewCond(&d.mu)
	for _, q := range d.queues() {
		q.init(&d.mu)
	}
	return d, nil
}

// Start starts the goroutines. Cancelling ctx cancels their requests, which is safe but leaves outcomes unknown. For a
// soft stop, end the Queue's Run, then call Close.
func (d *Dispatcher) Start(ctx context.Context) {
	for range max(1, d.Concurrency) {
		d.done.Go(func() { d.work(ctx, &d.forPartner) })
	}
	for range max(1, d.SignerConcurrency) {
		d.done.Go(func() { d.work(ctx, &d.forSigner) })
	}
	d.done.Go(func() { d.work(ctx, &d.forCustodian) }) // one loop for all of them
}

// Close stops the workers when they have finished their action, and waits for them.
func (d *Dispatcher) Close() {
	d.mu.Lock()
	if !d.closed && d.halted == nil {
		close(d.ended)
	}
	d.closed = true
	d.mu.Unlock()
	d.wakeAll()
	d.done.Wait()
	d.mu.Lock()
	if d.trialEnd != nil {
		d.trialEnd.Stop()
	}
	d.mu.Unlock()
	for _, q := range d.queues() {
		q.stop()
	}
}

// Assigned reports a new assignment: the released partitions have an owner again.
func (d *Dispatcher) Assigned() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.Dropped = 0
}

// Waiting returns the rows that were left to the custodian. A row's reason is the error of its last poll; empty if the
// poll did not fail.
func (d *Dispatcher) Waiting() []pipeline.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.waiting)
}

// Tally returns the counts so far.
func (d *Dispatcher) Tally() pipeline.Tally {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tally
	t.Open, t.BadRows = int64(len(d.tasks)), int64(len(d.bad))
	stats := d.Worker.Stats()
	t.Retried, t.Signatures = stats.Retried, stats.Signatures
	return t
}

// Oldest returns the publishing time of the oldest message of a row in progress; zero if no row is in progress.
func (d *Dispatcher) Oldest() (oldest time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tasks {
		for _, m := range t.messages {
			if oldest.IsZero() || m.Time.Before(oldest) {
				oldest = m.Time
			}
		}
	}
	return oldest
}

// Bad returns the rows, by their ids in the ledger, that Tally.Bad counts.
func (d *Dispatcher) Bad() []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.bad))
}

// Imports returns the counts of the imports whose messages were taken, by import id, at most 1000 of them.
func (d *Dispatcher) Imports() map[string]pipeline.ImportTally {
	d.mu.Lock()
	defer d.mu.Unlock()
	counts := make(map[string]pipeline.ImportTally, len(d.imports))
	for id, n := range d.imports {
		count := *n
		count.EarlierStages = maps.Clone(n.EarlierStages)
		counts[id] = count
	}
	return counts
}

// queueOf is where a task waits for its next action.
func (d *Dispatcher) queueOf(t *item) *taskQueue {
	switch {
	case t.Action == onboard.DoSign && t.AtCustodian():
		return &d.forCustodian
	case t.Action == onboard.DoSign:
		return &d.forSigner
	}
	return &d.forPartner
}

// push makes a task ready at its time. The lock is held.
func (d *Dispatcher) push(t *item) {
	d.seq++
	t.seq = d.seq
	d.queueOf(t).push(t)
}

func (d *Dispatcher) queues() [3]*taskQueue {
	return [...]*taskQueue{&d.forPartner, &d.forSigner, &d.forCustodian}
}

// wakeWorkers wakes all workers. The lock is held.
func (d *Dispatcher) wakeWorkers() {
	for _, q := range d.queues() {
		q.wake.Broadcast()
	}
}

func (d *Dispatcher) wakeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wakeWorkers()
	d.idle.Broadcast()
}

// work is one worker: it takes the next ready task of its queue and performs actions until the task has to wait.
func (d *Dispatcher) work(ctx context.Context, q *taskQueue) {
	for {
		t := d.takeTask(ctx, q)
		if t == nil {
			return
		}
		d.advance(ctx, t, q)
	}
}

// takeTask blocks for a ready task; nil when the dispatcher closes or has halted.
func (d *Dispatcher) takeTask(ctx context.Context, q *taskQueue) *item {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.closed && d.halted == nil && ctx.Err() == nil {
		if d.mustProbe(q) {
			if !d.probing && q.ready() {
				d.probe(ctx)
			} else {
				q.wake.Wait()
			}
			continue
		}
		// A signer that lags behind holds up new rows: their challenges would run out in its queue. And at most SetupLimit
		// new rows run until one has come through, for at most trialTime, or for as long as the signer only throttles.
		trying := !d.Worker.Through() && (!d.trialOver || d.Worker.SignsNothing())
		fresh := d.forSigner.backlog() < max(1, d.SignerConcurrency) && !(trying && d.trials >= onboard.SetupLimit)
		if t := q.pop(fresh); t != nil {
			t.running = true
			if trying && !t.begun() {
				d.beginTrial(t)
			}
			d.round = max(d.round, t.turn-1)
			if q == &d.forSigner {
				d.forPartner.wake.Signal()
			}
			return t
		}
		q.wake.Wait()
	}
	return nil
}

func (d *Dispatcher) advance(ctx context.Context, t *item, q *taskQueue) {
	for {
		if q == &d.forSigner && d.SignerPace != nil {
			if err := d.SignerPace(ctx); err != nil {
				d.afterStep(ctx, t, q, onboard.Disposition{}, client.ErrStopped)
				return
			}
		}
		next, err := d.step(ctx, t)
		if errors.Is(err, pipeline.ErrStale) {
			var settled bool
			if next, settled, err = d.reload(ctx, t); settled {
				d.skipAll(t)
				return
			}
		}
		if more := d.afterStep(ctx, t, q, next, err); !more {
			return
		}
	}
}

// reload reads a row again that was changed by another caller: a later import was accepted while the row was in
// progress.
func (d *Dispatcher) reload(ctx context.Context, t *item) (next onboard.Disposition, settled bool, err error) {
	accepted, err := d.Worker.Ledger.Accept(ctx, []pipeline.Row{t.Row})
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
func (d *Dispatcher) skipAll(t *item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range t.messages {
		d.skip(t.Record)
		d.ack(m)
	}
	d.forget(t)
}

// afterStep reports whether the worker continues with the task at once.
func (d *Dispatcher) afterStep(ctx context.Context, t *item, q *taskQueue, next onboard.Disposition, err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.idle.Broadcast() // its action has ended: Release may wait for that
	if t.Stage.Terminal() {  // a terminal row is settled even if the breaker halts the run with it
		d.settle(t)
		if err != nil && ctx.Err() == nil {
			d.halt(err)
		}
		return false
	}
	d.dropLeaving(t)
	if err != nil {
		passing := errors.Is(err, client.ErrStopped) || errors.Is(err, pipeline.ErrFenced)
		switch {
		case passing && ctx.Err() == nil && len(t.messages) > 0 && !d.closed && d.halted == nil:
			// Its partition is being released, which takes the row away; or it is ours again already, and a message of the
			// new assignment has come to a row whose action belonged to the old one.
			d.Worker.Resume(t.Task)
			t.ready, t.running = pipeline.Monotonic().Add(onboard.PassingPause), false
			d.push(t)
		default:
			d.drop(t)
		}
		if ctx.Err() == nil && !passing {
			d.halt(err)
		}
		return false
	}
	t.Action = next.Do
	if t.Action == onboard.DoNext {
		d.Worker.Resume(t.Task)
	}
	switch {
	case len(t.messages) == 0 || d.closed || d.halted != nil:
		d.drop(t)
	case t.AtCustodian() && d.tooLong(t):
		d.leaveToCustodian(t)
	case next.After > 0:
		if t.AtCustodian() { // the custodian has it: that is as far as a row comes without a person
			d.finished()
		}
		if q := d.queueOf(t); q == &d.forCustodian { // the more rows wait, the more seldom each is asked after
			next.After = max(next.After, time.Duration(len(q.later.tasks))*pollEvery)
		}
		t.ready, t.running = pipeline.Monotonic().Add(next.After), false
		d.push(t)
	case d.queueOf(t) != q,
		q == &d.forPartner && d.mustProbe(q): // nothing more is sent for it before the partner has answered
		t.ready, t.running = time.Time{}, false
		d.push(t)
	default:
		return true
	}
	return false
}

// tooLong reports whether a row has waited for the custodian for SignerWait.
func (d *Dispatcher) tooLong(t *item) bool {
	if t.asked.IsZero() {
		t.asked = pipeline.Monotonic()
	}
	return d.SignerWait > 0 && pipeline.Monotonic().Sub(t.asked) >= d.SignerWait
}

// pollEvery is the minimum time between two polls of the custodian, for all rows together.
const pollEvery = 100 * time.Millisecond

// leaveToCustodian gives a row up for this run: its messages stay in the queue, and the next run polls the custodian.
// The lock is held.
func (d *Dispatcher) leaveToCustodian(t *item) {
	d.tally.Waiting++
	left := t.Record
	left.Class, left.Reason = "", ""
	if n, last := t.FailedPolls(); n > 0 {
		left.Reason = printable.Line(last.Error(), 500)
	}
	d.waiting = append(d.waiting, left)
	d.tally.Returned += int64(len(t.messages))
	if d.Defer != nil {
		for _, m := range t.messages {
			d.Defer(m.Message)
		}
	}
	d.forget(t)
}

// settle ends a task whose row is terminal. The lock is held.
func (d *Dispatcher) settle(t *item) {
	d.count(t.Record)
	for i, m := range t.messages {
		if i > 0 {
			d.skip(t.Record)
		}
		d.ack(m)
	}
	d.Worker.Hook("settled")
	if t.Stage == pipeline.Onboarded || t.Stage == pipeline.Rejected {
		d.finished()
	}
	if d.OnSettled != nil {
		d.OnSettled(t.Record)
	}
	d.forget(t)
}

// drop gives a row up unsettled: its messages are delivered again. The lock is held.
func (d *Dispatcher) drop(t *item) {
	d.tally.Dropped++
	d.tally.Returned += int64(len(t.messages))
	d.forget(t)
}

func (d *Dispatcher) forget(t *item) {
	t.running, t.messages = false, nil
	if d.tasks[t.ID] == t {
		delete(d.tasks, t.ID)
	}
	if t.index >= 0 {
		d.queueOf(t).remove(t)
		d.forPartner.wake.Signal() // the signer's backlog may be shorter
	}
	if t.trace != nil {
		t.trace.End(t.Record)
		t.trace = nil
	}
	d.endTrial(t) // which changes the place in the queue, so after the row has left it
	d.idle.Broadcast()
}

// halt stops the run once. The lock is held.
func (d *Dispatcher) halt(err error) {
	if d.halted != nil {
		return
	}
	d.halted = err
	if !d.closed {
		close(d.ended)
	}
	d.wakeWorkers()
	d.OnHalt(err)
}
