package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/printable"
)

// RunnerOptions are what a Runner needs. Worker, DeadLetters, DeadLetterTopic, Logger and OnHalt are required.
type RunnerOptions struct {
	Worker      *Worker
	DeadLetters Publisher
	// DeadLetterTopic receives the messages that cannot be processed.
	DeadLetterTopic string
	Concurrency     int // workers, at least 1
	// SignerConcurrency is how many workers of their own wait for the signer, at least 1: a slow signer does not keep the
	// others from the partner.
	SignerConcurrency int
	// SignerPace is waited for before each call of the signer; its error ends the worker's attempt. May be nil.
	SignerPace func(context.Context) error
	// SignerWait is how long a row may wait for a custodian before Abandon is called for its messages; 0: for ever
	// (Worker.PollLimit bounds the polls that fail).
	SignerWait time.Duration
	// Home says which partition the rows of an account have to be in. A message that is in another one becomes a dead
	// letter: what is kept of its row would not move with it. May be nil: then any will do.
	Home func(Account) int
	// Authenticate returns nil for a message that comes from one of our importers; another becomes a dead letter. May be
	// nil: then every message is taken.
	Authenticate func(Message) error
	// Abandon tells the Queue that a message will not be settled in this run. It must not block.
	Abandon func(Message)
	Logger  *slog.Logger
	// OnHalt is called once, with the error that stops the run; it should end the Queue's Run. It must not block.
	OnHalt func(error)
	// OnSettled is called for each row that this run settles. It must not block. May be nil.
	OnSettled func(Record)
	// Probe asks the partner something that changes nothing; it blocks until there is an answer. It is called before the
	// first row is worked on, and whenever the partner seems to be away; until it returns nil, nothing else is sent. An
	// error that the partner may recover from is asked about again for OutageWait, another halts the run. May be nil.
	Probe func(context.Context) error
	// OutageWait is how long the run waits for a partner that is away; 0: not at all.
	OutageWait time.Duration
	// OnOutage is called when the probe fails for the first time, with the cause, and with nil when it is answered again.
	// It must not block. May be nil.
	OnOutage func(cause error)
}

// Runner is the consumer's loop: it takes batches from a Queue, accepts their rows into the ledger, and has goroutines
// take them from stage to stage. A row that waits occupies none of them. It implements Handler.
type Runner struct {
	RunnerOptions
	worker *Worker

	mu    sync.Mutex
	tasks map[int64]*item // by ledger id: a row has one task at most

	forPartner   taskQueue // rows whose next action is ours or the partner's
	forSigner    taskQueue // rows whose next action is the signer's
	forCustodian taskQueue // rows that wait for the custodian, who was asked

	idle    *sync.Cond // a task has stopped running
	waiting []Record   // abandoned to the custodian
	seq     int64
	turns   map[int]int64 // by partition: the latest turn that was given to one of its rows
	round   int64         // the turn of the row that was begun last
	closed  bool
	halted  error
	ended   chan struct{} // closed when the runner closes or halts
	probing bool          // a worker has called Probe
	probed  bool          // the partner has answered it once
	trials  int           // rows that run although no row has come through yet
	// trialEnd ends the time in which only a few rows run; nil: it has not begun.
	trialEnd  *time.Timer
	trialOver bool
	outage    time.Time // since when the probe has failed, monotonic; zero: it does not
	tally     Tally
	dead      map[string]int64 // dead letters by class, for warnOfDead

	bad  map[int64]struct{} // by ledger id: the rows that Tally.Bad counts
	done sync.WaitGroup
}

// NewRunner returns a runner that is ready to Start. An error names what is missing.
func NewRunner(o RunnerOptions) (*Runner, error) {
	switch {
	case o.Worker == nil, o.DeadLetters == nil, o.DeadLetterTopic == "", o.Logger == nil, o.OnHalt == nil:
		return nil, errors.New("dispatch: Worker, DeadLetters, DeadLetterTopic, Logger and OnHalt are required")
	case o.Worker.Probes != (o.Probe != nil):
		return nil, errors.New("dispatch: the worker must know whether there is a probe")
	}
	r := &Runner{
		RunnerOptions: o, worker: o.Worker, tasks: make(map[int64]*item), bad: make(map[int64]struct{}),
		turns: make(map[int]int64), ended: make(chan struct{}),
	}
	r.idle = sync.NewCond(&r.mu)
	r.forPartner.init(&r.mu)
	r.forSigner.init(&r.mu)
	r.forCustodian.init(&r.mu)
	return r, nil
}

// Start starts the goroutines. ctx bounds what they do: ending it cuts requests short, which is safe but leaves outcomes
// unknown; a soft stop is to end the Queue's Run, then Close.
func (r *Runner) Start(ctx context.Context) {
	for range max(1, r.Concurrency) {
		r.done.Go(func() { r.work(ctx, &r.forPartner) })
	}
	for range max(1, r.SignerConcurrency) {
		r.done.Go(func() { r.work(ctx, &r.forSigner) })
	}
	r.done.Go(func() { r.work(ctx, &r.forCustodian) }) // one loop for all of them
}

// Close stops the workers when they have finished the act they are at, and waits for them.
func (r *Runner) Close() {
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

// Assigned tells that partitions are dealt out anew: what was given back before has been given to somebody.
func (r *Runner) Assigned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tally.Dropped = 0
}

// Waiting returns the rows that were left to the custodian. One whose last polls failed has the class SignerFailed and
// the last cause as its reason.
func (r *Runner) Waiting() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.waiting)
}

// Tally returns the counts so far.
func (r *Runner) Tally() Tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tally
	t.Open, t.BadRows = int64(len(r.tasks)), int64(len(r.bad))
	stats := r.worker.Stats()
	t.Retried, t.Signatures = stats.Retried, stats.Signatures
	return t
}

// Take implements Handler.
func (r *Runner) Take(ctx context.Context, batch []Message, settled func(Message)) error {
	rows := make([]Row, 0, len(batch))
	messages := make([]Message, 0, len(batch))
	var dead []Message
	for _, m := range batch {
		row, err := r.read(m)
		if err != nil {
			letter := NewDeadLetter(m, err)
			dead = append(dead, letter)
			r.warnOfDead(letter.Header(HeaderClass), m, err)
			continue
		}
		rows, messages = append(rows, row), append(messages, m)
	}
	if len(dead) > 0 {
		if err := r.DeadLetters.Publish(ctx, r.DeadLetterTopic, dead); err != nil {
			return err
		}
		i := 0
		for _, m := range batch { // those that are not among messages
			if i < len(messages) && messages[i].Offset == m.Offset {
				i++
				continue
			}
			settled(m)
		}
	}
	var accepted []Acceptance
	if len(rows) > 0 {
		var err error
		if accepted, err = r.worker.Ledger.Accept(ctx, rows); err != nil {
			if errors.Is(err, ErrFenced) {
				<-ctx.Done() // the queue is about to find out, too
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &HaltError{Class: "ledger", Row: rows[0], Err: err}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tally.Received += int64(len(batch))
	r.tally.DeadLettered += int64(len(dead))
	for i, a := range accepted {
		r.admit(a, messages[i], settled)
	}
	return nil
}

// read returns the row of a message that may be processed; otherwise *MessageError.
func (r *Runner) read(m Message) (Row, error) {
	if r.Authenticate != nil {
		if err := r.Authenticate(m); err != nil {
			return Row{}, &MessageError{Class: "unauthenticated", Reason: err.Error()}
		}
	}
	row, err := ParseMessage(m.Value)
	if err == nil && r.Home != nil && r.Home(row.Account) != m.Partition {
		err = Misplaced(m, r.Home(row.Account))
	}
	return row, err
}

// warnOfDead warns of the first dead letter of a class, the 10th, the 100th, and so on: one bad export or producer can
// make millions.
func (r *Runner) warnOfDead(class string, m Message, cause error) {
	r.mu.Lock()
	if r.dead == nil {
		r.dead = make(map[string]int64)
	}
	r.dead[class]++
	n := r.dead[class]
	r.mu.Unlock()
	for power := int64(1); power <= n; power *= 10 {
		if power == n {
			r.Logger.Warn("messages cannot be processed and go to the dead letters", "class", class, "messages", n,
				"partition", m.Partition, "offset", m.Offset, "reason", cause.Error())
		}
	}
}

// admit takes up one accepted row. The lock is held.
func (r *Runner) admit(a Acceptance, m Message, settled func(Message)) {
	switch a.Verdict {
	case Settled:
		r.skip(a.Record)
		settled(m)
		return
	case Contradicted:
		r.count(a.Record)
		settled(m)
		return
	}
	d := delivery{Message: m, settled: settled}
	if t, ok := r.tasks[a.Record.ID]; ok {
		t.messages = append(t.messages, d) // the row is under way: this message is settled with it
		return
	}
	t := &item{Task: r.worker.Begin(a), messages: []delivery{d}, index: -1}
	r.tasks[a.Record.ID] = t
	// A partition with few rows is not kept waiting behind one with many: each is in turn, and the rate that this consumer
	// has for all of its partitions is used to the end.
	t.turn = max(r.turns[m.Partition], r.round) + 1
	r.turns[m.Partition] = t.turn
	r.push(t)
}

func (r *Runner) skip(rec Record) {
	r.tally.Skipped++
	r.judge(rec)
}

// judge takes in how a row stands. The last word counts: a message of an old import, whose row fails or had failed, may
// come before that of the new one, which has the row onboarded.
func (r *Runner) judge(rec Record) {
	if rec.Stage == Onboarded {
		delete(r.bad, rec.ID)
	} else {
		r.bad[rec.ID] = struct{}{}
	}
}

// queueOf is where a task waits for its next act.
func (r *Runner) queueOf(t *item) *taskQueue {
	switch {
	case t.Action == DoSign && t.Polled():
		return &r.forCustodian
	case t.Action == DoSign:
		return &r.forSigner
	}
	return &r.forPartner
}

// push makes a task ready at its time. The lock is held.
func (r *Runner) push(t *item) {
	r.seq++
	t.seq = r.seq
	r.queueOf(t).push(t)
}

func (r *Runner) wakeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forPartner.wake.Broadcast()
	r.forSigner.wake.Broadcast()
	r.forCustodian.wake.Broadcast()
	r.idle.Broadcast()
}

// work is one worker: it takes the next ready task of its lane and brings it as far as it goes without waiting.
func (r *Runner) work(ctx context.Context, l *taskQueue) {
	for {
		t := r.next(ctx, l)
		if t == nil {
			return
		}
		r.advance(ctx, t, l)
	}
}

// trialTime is how long at most SetupLimit new rows run, until one has come through.
const trialTime = 30 * time.Second

// next blocks for a ready task; nil when the runner closes or has halted.
func (r *Runner) next(ctx context.Context, l *taskQueue) *item {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed && r.halted == nil && ctx.Err() == nil {
		if r.mustProbe(l) {
			if !r.probing && l.ready() {
				r.probe(ctx)
			} else {
				l.wake.Wait()
			}
			continue
		}
		// A signer that lags behind holds up new rows: their challenges would run out in its queue. And at most SetupLimit
		// new rows run, for at most trialTime, until one has come through.
		trying := !r.trialOver && !r.worker.Through()
		fresh := r.forSigner.backlog() < max(1, r.SignerConcurrency) && !(trying && r.trials >= SetupLimit)
		if t := l.pop(fresh); t != nil {
			t.running = true
			if trying && !t.begun() {
				r.beginTrial(t)
			}
			r.round = max(r.round, t.turn-1)
			if l == &r.forSigner {
				r.forPartner.wake.Signal()
			}
			return t
		}
		l.wake.Wait()
	}
	return nil
}

func (r *Runner) advance(ctx context.Context, t *item, l *taskQueue) {
	for {
		if l == &r.forSigner && r.SignerPace != nil {
			if err := r.SignerPace(ctx); err != nil {
				r.afterStep(ctx, t, l, Disposition{}, client.ErrStopped)
				return
			}
		}
		d, err := r.worker.Step(ctx, t.Task)
		if errors.Is(err, ErrStale) {
			var settled bool
			if d, settled, err = r.reload(ctx, t); settled {
				r.skipAll(t)
				return
			}
		}
		if more := r.afterStep(ctx, t, l, d, err); !more {
			return
		}
	}
}

// reload asks the ledger anew about a row that somebody else moved: a later import of it, while it was on its way.
func (r *Runner) reload(ctx context.Context, t *item) (d Disposition, settled bool, err error) {
	accepted, err := r.worker.Ledger.Accept(ctx, []Row{t.Row})
	switch {
	case errors.Is(err, ErrFenced):
		return Disposition{}, false, err
	case err != nil:
		return Disposition{}, false, &HaltError{Class: "ledger", Row: t.Row, Err: err}
	}
	t.Record = accepted[0].Record
	switch accepted[0].Verdict {
	case Open:
		return Disposition{Stage: t.Stage, Do: DoNext}, false, nil
	case Settled:
		return Disposition{}, true, nil
	}
	return Disposition{Stage: t.Stage, Do: DoSettle}, false, nil
}

// skipAll ends a task whose row another task has settled, and counted.
func (r *Runner) skipAll(t *item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range t.messages {
		r.skip(t.Record)
		m.settled(m.Message)
	}
	r.forget(t)
}

// afterStep says whether the worker goes on with the task at once.
func (r *Runner) afterStep(ctx context.Context, t *item, l *taskQueue, d Disposition, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.idle.Broadcast() // its act has ended, whatever comes now: Release may wait for that
	if t.Stage.Terminal() {  // also when this row was one too many and the run halts for it
		r.settle(t)
		if err != nil && ctx.Err() == nil {
			r.halt(err)
		}
		return false
	}
	t.dropLeaving()
	if err != nil {
		passing := errors.Is(err, client.ErrStopped) || errors.Is(err, ErrFenced)
		switch {
		case passing && ctx.Err() == nil && len(t.messages) > 0 && !r.closed && r.halted == nil:
			// Its partition is being released, which takes the row away; or it is ours again already, and a message of the
			// new assignment has come to a row whose act was still of the old one.
			r.worker.Resume(t.Task)
			t.ready, t.running = Monotonic().Add(PassingPause), false
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
	if t.Action == DoNext {
		r.worker.Resume(t.Task)
	}
	switch {
	case len(t.messages) == 0 || r.closed || r.halted != nil:
		r.drop(t)
	case t.AtCustodian() && r.tooLong(t):
		r.leaveToCustodian(t)
	case d.After > 0:
		if t.Polled() { // the custodian has it: that is as far as a row comes without a person
			r.finished()
		}
		if l := r.queueOf(t); l == &r.forCustodian { // the more rows wait, the more seldom each is asked after
			d.After = max(d.After, time.Duration(len(l.later.tasks))*pollEvery)
		}
		t.ready = Monotonic().Add(d.After)
		t.running = false
		r.push(t)
	case r.queueOf(t) != l:
		t.ready = time.Time{}
		t.running = false
		r.push(t)
	case l == &r.forPartner && r.mustProbe(l): // nothing more is sent for it before the partner has answered
		t.ready = time.Time{}
		t.running = false
		r.push(t)
	default:
		return true
	}
	return false
}

// tooLong reports whether a row has waited for the custodian as long as this run is willing to.
func (r *Runner) tooLong(t *item) bool {
	if t.asked.IsZero() {
		t.asked = Monotonic()
	}
	return r.SignerWait > 0 && Monotonic().Sub(t.asked) >= r.SignerWait
}

// pollEvery is the least time between two questions to the custodian, about whichever rows.
const pollEvery = 100 * time.Millisecond

// leaveToCustodian gives a row up for this run: its messages stay in the queue, and the next run asks the custodian
// what became of it. The lock is held.
func (r *Runner) leaveToCustodian(t *item) {
	r.tally.Waiting++
	left := t.Record
	left.Class, left.Reason = "", ""
	if n, last := t.FailedPolls(); n > 0 {
		left.Class, left.Reason = string(SignerFailed), printable.Line(last.Error(), 500)
	}
	r.waiting = append(r.waiting, left)
	if r.Abandon != nil {
		for _, m := range t.messages {
			r.Abandon(m.Message)
		}
	}
	r.forget(t)
}

// settle ends a task whose row is terminal. The lock is held.
func (r *Runner) settle(t *item) {
	r.count(t.Record)
	for i, m := range t.messages {
		if i > 0 {
			r.skip(t.Record)
		}
		m.settled(m.Message)
	}
	r.worker.Hook("settled")
	if t.Stage == Onboarded || t.Stage == Rejected {
		r.finished()
	}
	if r.OnSettled != nil {
		r.OnSettled(t.Record)
	}
	r.forget(t)
}

// drop gives a row up unsettled: its messages come again. The lock is held.
func (r *Runner) drop(t *item) {
	r.tally.Dropped++
	r.forget(t)
}

// finished notes that a row has come through. The lock is held.
func (r *Runner) finished() {
	if !r.worker.Through() {
		r.worker.NoteThrough()
		r.forPartner.wake.Broadcast()
	}
}

// beginTrial counts a row that runs before any has come through. The lock is held.
func (r *Runner) beginTrial(t *item) {
	t.trial = true
	r.trials++
	if r.trialEnd != nil {
		return
	}
	r.trialEnd = time.AfterFunc(trialTime, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.trialOver = true
		r.forPartner.wake.Broadcast()
	})
}

// endTrial lets another row run in the place of this one. The lock is held.
func (r *Runner) endTrial(t *item) {
	if t.trial {
		t.trial = false
		r.trials--
		r.forPartner.wake.Signal()
	}
}

func (r *Runner) forget(t *item) {
	t.running, t.messages = false, nil
	if r.tasks[t.ID] == t {
		delete(r.tasks, t.ID)
	}
	if t.index >= 0 {
		r.queueOf(t).remove(t)
		r.forPartner.wake.Signal() // the signer's backlog may be shorter
	}
	r.endTrial(t) // which changes the place in the queue, so after the row has left it
	r.idle.Broadcast()
}

func (r *Runner) count(rec Record) {
	r.judge(rec)
	switch rec.Stage {
	case Onboarded:
		r.tally.Onboarded++
		if rec.AlreadyOnboarded {
			r.tally.AlreadyOnboarded++
		}
	case Conflict:
		r.tally.Conflict++
	case Refused:
		r.tally.Refused++
	case Rejected:
		r.tally.Rejected++
	case Failed:
		r.tally.Failed++
	}
}

// halt stops the run once. The lock is held.
func (r *Runner) halt(err error) {
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
