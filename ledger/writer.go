package ledger

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/purser-onboard/purser/pipeline"
)

// maxGroup bounds the rows in a transaction, so that a commit is not long. A single call with more rows has its own
// transaction.
const maxGroup = 2048

// idleYields takes a few microseconds, a commit some hundred. With 32 callers, BenchmarkTransitions gains 5 to 10 %
// over a single yield; 40 yields gain no more.
const idleYields = 16

// The states of an operation. From opWaiting it goes to opStarted, by the writer, or to opCanceled, by its caller.
const (
	opWaiting int32 = iota
	opStarted
	opCanceled
)

// operation is a call that writes.
type operation struct {
	weight int             // in rows
	alone  bool            // see doAlone
	run    func(*tx) error // may run again; what it did before is then rolled back
	state  atomic.Int32
	done   chan struct{} // closed when err is final
	err    error
}

// tx is the transaction that the operations of a group share.
type tx struct {
	*statements
	ctx context.Context // is never cancelled: a statement is not interrupted
	now time.Time       // the transaction's timestamp, whole microseconds, UTC

	changelog     Changelog     // may be nil
	authenticator Authenticator // may be nil
	own           ownEnvironments
	owns          func(account string) bool
	touched       []int64 // ids of the changed rows, for the ledger topic
	stored        int     // rows beyond the operations' weights
}

// writer owns the writing connection. Its goroutine takes all waiting operations, runs them in a transaction and
// commits. During the fsync the next group collects. An idle writer starts an operation at once.
type writer struct {
	ctx     context.Context
	stmts   *statements
	now     func() time.Time
	hook    func(string)
	watch   func(rows int, took time.Duration) // Options.OnCommit, may be nil
	own     ownEnvironments
	usable  func() error // returns an error if the ledger must not be written to
	suspect atomic.Bool  // after an error of SQLite: the next Open makes the long integrity check

	mu            sync.Mutex
	changelog     Changelog     // may be nil
	authenticator Authenticator // may be nil
	epochs        map[int]int64 // by partition: the epoch for which it was restored
	waiting       []*operation
	wake          *sync.Cond
	closed        bool
	stopped       chan struct{}
}

func startWriter(
	ctx context.Context, conn *sql.Conn, o Options, own ownEnvironments, usable func() error,
) (*writer, error) {
	stmts, err := prepareStatements(ctx, conn)
	if err != nil {
		return nil, err
	}
	w := &writer{
		ctx: ctx, stmts: stmts, now: o.Now, hook: o.Hook, watch: o.OnCommit, own: own, usable: usable,
		stopped: make(chan struct{}),
	}
	if w.hook == nil {
		w.hook = func(string) {}
	}
	w.wake = sync.NewCond(&w.mu)
	go w.loop()
	return w, nil
}

// do runs an operation and returns when its changes are durable, or when it has failed and changed nothing. If ctx ends
// before the operation starts, it never starts; once it has started, do waits for its result.
func (w *writer) do(ctx context.Context, weight int, run func(*tx) error) error {
	return w.wait(ctx, &operation{weight: weight, run: run, done: make(chan struct{})})
}

// doAlone is do in a transaction of its own, without foreign keys. run adds to tx.stored. It is called once, unless it
// touches rows.
func (w *writer) doAlone(ctx context.Context, run func(*tx) error) error {
	return w.wait(ctx, &operation{alone: true, run: run, done: make(chan struct{})})
}

func (w *writer) wait(ctx context.Context, op *operation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return errClosed
	}
	w.waiting = append(w.waiting, op)
	w.wake.Signal()
	w.mu.Unlock()

	select {
	case <-op.done:
	case <-ctx.Done():
		if op.state.CompareAndSwap(opWaiting, opCanceled) {
			return ctx.Err()
		}
		<-op.done
	}
	return op.err
}

// follows returns what Follow has set.
func (w *writer) follows() (Changelog, Authenticator) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changelog, w.authenticator
}

// owns reports whether this ledger may change an account's rows: with a ledger topic only while their partition is ours
// and restored.
func (w *writer) owns(account string) bool {
	log, _ := w.follows()
	if log == nil {
		return true
	}
	p := log.Partition(account)
	epoch := log.Epoch(p)
	return epoch != 0 && w.restored(p) == epoch
}

// restored returns the epoch for which a partition was last restored.
func (w *writer) restored(partition int) (epoch int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epochs[partition]
}

// markRestored records that a partition was restored.
func (w *writer) markRestored(partition int, epoch int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epochs == nil {
		w.epochs = make(map[int]int64)
	}
	w.epochs[partition] = epoch
}

// stop waits until the writer has run all waiting operations and ended.
func (w *writer) stop() {
	w.mu.Lock()
	w.closed = true
	w.wake.Signal()
	w.mu.Unlock()
	<-w.stopped
}

func (w *writer) loop() {
	defer close(w.stopped)
	for {
		group := w.gather()
		if group == nil {
			return
		}
		w.commit(group)
		w.awaitCallers(len(group))
	}
}

// awaitCallers yields the processor until want operations wait, or until idleYields in a row have brought none. The
// callers that have just returned may call again at once. Otherwise they would miss the next group, and groups would
// alternate between two halves of the callers.
func (w *writer) awaitCallers(want int) {
	seen := 0
	for idle := 0; idle < idleYields && seen < want; idle++ {
		runtime.Gosched()
		w.mu.Lock()
		if n := len(w.waiting); n > seen {
			seen, idle = n, 0
		}
		w.mu.Unlock()
	}
}

// gather blocks until operations wait and returns as many as fit in a transaction, in order; nil after stop.
func (w *writer) gather() []*operation {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.waiting) == 0 {
		if w.closed {
			return nil
		}
		w.wake.Wait()
	}
	n, weight := 0, 0
	for n < len(w.waiting) && (n == 0 || weight+w.waiting[n].weight <= maxGroup && !w.waiting[n].alone) {
		weight += w.waiting[n].weight
		if n++; w.waiting[n-1].alone {
			break
		}
	}
	group := w.waiting[:n:n]
	w.waiting = w.waiting[n:]
	if len(w.waiting) == 0 {
		w.waiting = nil
	}
	return group
}

// commit runs a group in a transaction and completes each operation.
func (w *writer) commit(group []*operation) {
	started := make([]*operation, 0, len(group))
	for _, op := range group {
		if op.state.CompareAndSwap(opWaiting, opStarted) {
			started = append(started, op)
		}
	}
	if len(started) == 0 {
		return
	}
	transact := w.transact
	if group[0].alone {
		transact = w.transactUnreferenced
	}
	if err := transact(started); err != nil {
		for _, op := range started {
			op.err = err // even if it had failed alone: what it failed on may have been rolled back with the group
		}
	}
	for _, op := range started {
		close(op.done)
	}
}

// transactUnreferenced is transact without foreign keys.
func (w *writer) transactUnreferenced(group []*operation) (err error) {
	if _, err := w.stmts.conn.ExecContext(w.ctx, `PRAGMA foreign_keys = OFF`); err != nil {
		return err
	}
	defer func() {
		_, on := w.stmts.conn.ExecContext(w.ctx, `PRAGMA foreign_keys = ON`)
		err = errors.Join(err, on)
	}()
	return w.transact(group)
}

// transact returns an error if the whole group failed. The error of an operation that failed alone is in the operation.
func (w *writer) transact(group []*operation) error {
	if err := w.usable(); err != nil { // callers must not act on a change that is lost with the file
		return err
	}
	begun := pipeline.Monotonic()
	if _, err := w.stmts.begin.ExecContext(w.ctx); err != nil {
		return w.failed(err)
	}
	log, authenticator := w.follows()
	// time.Time drops its monotonic reading here and compares equal to what is read back.
	t := &tx{
		statements: w.stmts, ctx: w.ctx, now: time.UnixMicro(w.now().UnixMicro()).UTC(),
		changelog: log, authenticator: authenticator, own: w.own, owns: w.owns,
	}
	if err := w.runAndPublish(t, group); err != nil {
		_, _ = w.stmts.rollback.ExecContext(w.ctx) // fails when SQLite has rolled back by itself
		return w.failed(err)
	}
	if len(group) == 1 && group[0].err != nil {
		if _, err := w.stmts.rollback.ExecContext(w.ctx); err != nil {
			return w.failed(err)
		}
		return nil
	}
	w.hook("ledger.before-commit")
	if _, err := w.stmts.commit.ExecContext(w.ctx); err != nil {
		_, _ = w.stmts.rollback.ExecContext(w.ctx)
		return w.failed(err)
	}
	w.hook("ledger.after-commit")
	if w.watch != nil {
		rows := t.stored
		for _, op := range group {
			rows += op.weight
		}
		w.watch(rows, pipeline.Monotonic().Sub(begun))
	}
	return nil
}

// runAndPublish runs the operations and writes what they changed to the ledger topic: the topic first, so that it has
// everything that the file has. After a crash between the two, Restore reads the change from the topic. If a partition
// was lost meanwhile, all run again, and those that change rows of it fail.
func (w *writer) runAndPublish(t *tx, group []*operation) error {
	for {
		if err := w.runAll(t, group); err != nil || len(group) == 1 && group[0].err != nil || len(t.touched) == 0 {
			return err
		}
		err := t.publish(w.own.current)
		if err == nil {
			w.hook("ledger.after-append")
		}
		if !errors.Is(err, errPartitionLost) {
			return err
		}
		if err := w.startAgain(t); err != nil {
			return err
		}
	}
}

// startAgain undoes what the operations have done so far.
func (w *writer) startAgain(t *tx) error {
	if _, err := w.stmts.rollback.ExecContext(w.ctx); err != nil {
		return err
	}
	t.touched = nil
	_, err := w.stmts.begin.ExecContext(w.ctx)
	return err
}

// runAll runs the operations in order. It returns only errors that concern the whole transaction. Operations rarely
// fail, and a savepoint costs as much as an operation, so they first run without savepoints. If an operation of a group
// fails, the transaction is rolled back and all run again, each in a savepoint, so that the others succeed.
func (w *writer) runAll(t *tx, group []*operation) error {
	for _, op := range group {
		if op.err = op.run(t); op.err == nil {
			continue
		}
		if err := breaksTransaction(op.err); err != nil || len(group) == 1 {
			return err
		}
		return w.runApart(t, group)
	}
	return nil
}

func (w *writer) runApart(t *tx, group []*operation) error {
	if err := w.startAgain(t); err != nil {
		return err
	}
	for _, op := range group {
		if _, err := w.stmts.savepoint.ExecContext(w.ctx); err != nil {
			return err
		}
		touched := len(t.touched)
		if op.err = op.run(t); op.err != nil {
			if err := breaksTransaction(op.err); err != nil {
				return err
			}
			t.touched = t.touched[:touched]
			if _, err := w.stmts.rollbackTo.ExecContext(w.ctx); err != nil {
				return err
			}
		}
		if _, err := w.stmts.releasePoint.ExecContext(w.ctx); err != nil {
			return err
		}
	}
	return nil
}

// breaksTransaction returns err if it is an error of SQLite other than a constraint violation: after a full disk, an
// I/O error or lack of memory, SQLite may have rolled back the whole transaction (sqlite.org/lang_transaction.html,
// section 3.1).
func breaksTransaction(err error) error {
	var lite sqlite3.Error
	if errors.As(err, &lite) && lite.Code != sqlite3.ErrConstraint {
		return err
	}
	return nil
}

func (w *writer) failed(err error) error {
	var lite sqlite3.Error
	if errors.As(err, &lite) && lite.Code != sqlite3.ErrBusy && lite.Code != sqlite3.ErrInterrupt {
		w.suspect.Store(true)
	}
	return err
}
