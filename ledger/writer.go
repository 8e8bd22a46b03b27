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
)

// maxGroup bounds what one transaction takes along, in rows, so that nobody waits long for a commit. A single call may
// be heavier; it then goes alone.
const maxGroup = 2048

// An operation is either waiting, begun by the writer, or given up by its caller; the last two exclude each other.
const (
	opWaiting int32 = iota
	opBegun
	opGivenUp
)

// operation is one call that writes.
type operation struct {
	ctx    context.Context
	weight int             // in rows
	run    func(*tx) error // may be called twice, the first call's transaction being undone
	state  atomic.Int32
	done   chan struct{} // closed when err is final
	err    error
}

// tx is what an operation sees of the transaction it shares.
type tx struct {
	*statements
	ctx context.Context // without end: a statement is never interrupted half-way
	now time.Time       // the transaction's timestamp, whole microseconds, UTC

	changelog     Changelog     // nil: none
	authenticator Authenticator // nil: none
	own           ownRecords
	holds         func(account string) bool
	touched       []int64 // ids of the rows that were changed, for the changelog
}

// writer owns the writing connection. Its goroutine takes whatever is waiting, runs it in one transaction and
// commits once; while the disk syncs, the next group gathers. When nothing waits, an operation starts at once.
type writer struct {
	ctx     context.Context
	conn    *sql.Conn
	stmts   *statements
	now     func() time.Time
	hook    func(string)
	own     ownRecords
	present func() error // whether the ledger is still where it was opened
	// suspect is set when SQLite has failed in a way that the next open should look into.
	suspect atomic.Bool

	mu            sync.Mutex
	changelog     Changelog     // nil: none
	authenticator Authenticator // nil: none
	epochs        map[int]int64 // by partition: the assignment for which it was restored
	waiting       []*operation
	wake          *sync.Cond
	closed        bool
	stopped       chan struct{}
}

func startWriter(
	ctx context.Context, conn *sql.Conn, o Options, own ownRecords, present func() error,
) (*writer, error) {
	stmts, err := prepareStatements(ctx, conn)
	if err != nil {
		return nil, err
	}
	w := &writer{
		ctx: ctx, conn: conn, stmts: stmts, now: o.Now, hook: o.Hook, own: own, present: present,
		stopped: make(chan struct{}),
	}
	if w.hook == nil {
		w.hook = func(string) {}
	}
	w.wake = sync.NewCond(&w.mu)
	go w.loop()
	return w, nil
}

// do runs an operation and returns when it is durable, or has failed and left nothing behind. When ctx ends before
// the operation is begun, it never will be; after that, do waits for the outcome.
func (w *writer) do(ctx context.Context, weight int, run func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	op := &operation{ctx: ctx, weight: weight, run: run, done: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrClosed
	}
	w.waiting = append(w.waiting, op)
	w.wake.Signal()
	w.mu.Unlock()

	select {
	case <-op.done:
	case <-ctx.Done():
		if op.state.CompareAndSwap(opWaiting, opGivenUp) {
			return ctx.Err()
		}
		<-op.done
	}
	return op.err
}

func (w *writer) follows() (Changelog, Authenticator) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changelog, w.authenticator
}

// holds reports whether an account's rows are ours to change: always without a changelog, and with one while their
// partition is ours and restored.
func (w *writer) holds(account string) bool {
	log, _ := w.follows()
	if log == nil {
		return true
	}
	p := log.Partition(account)
	epoch := log.Epoch(p)
	return epoch != 0 && w.restored(p) == epoch
}

// restored is the assignment for which a partition was brought up to its changelog last.
func (w *writer) restored(partition int) (epoch int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epochs[partition]
}

// markRestored notes that a partition was brought up to its changelog.
func (w *writer) markRestored(partition int, epoch int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epochs == nil {
		w.epochs = make(map[int]int64)
	}
	w.epochs[partition] = epoch
}

// stop lets the writer finish what is waiting and waits for it.
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
		// Those who were just answered are about to come again. Let them come first, or they make up every other group.
		runtime.Gosched()
	}
}

// gather blocks until something waits, and takes as much of it as fits one transaction, in order; nil when there will
// be no more.
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
	for n < len(w.waiting) && (n == 0 || weight+w.waiting[n].weight <= maxGroup) {
		weight += w.waiting[n].weight
		n++
	}
	group := w.waiting[:n:n]
	w.waiting = w.waiting[n:]
	if len(w.waiting) == 0 {
		w.waiting = nil
	}
	return group
}

// commit runs a group in one transaction and tells each caller how it ended.
func (w *writer) commit(group []*operation) {
	begun := make([]*operation, 0, len(group))
	for _, op := range group {
		if op.state.CompareAndSwap(opWaiting, opBegun) {
			begun = append(begun, op)
		}
	}
	if len(begun) == 0 {
		return
	}
	if err := w.transact(begun); err != nil {
		for _, op := range begun {
			op.err = err // also of those that had failed for themselves: their reason may be gone with the group
		}
	}
	for _, op := range begun {
		close(op.done)
	}
}

// transact returns an error when the whole group failed; the error of an operation that failed alone is in the
// operation.
func (w *writer) transact(group []*operation) error {
	if err := w.present(); err != nil { // what follows a write must not happen on the strength of a lost file
		return err
	}
	if _, err := w.stmts.begin.ExecContext(w.ctx); err != nil {
		return w.failed(err)
	}
	log, authenticator := w.follows()
	// time.Time drops its monotonic reading here and compares equal to what is read back.
	t := &tx{
		statements: w.stmts, ctx: w.ctx, now: time.UnixMicro(w.now().UnixMicro()).UTC(),
		changelog: log, authenticator: authenticator, own: w.own, holds: w.holds,
	}
	if err := w.runAll(t, group); err != nil {
		_, _ = w.stmts.rollback.ExecContext(w.ctx) // fails when SQLite has rolled back by itself
		return w.failed(err)
	}
	if len(group) == 1 && group[0].err != nil {
		if _, err := w.stmts.rollback.ExecContext(w.ctx); err != nil {
			return w.failed(err)
		}
		return nil
	}
	if len(t.touched) > 0 {
		// First the changelog, then the file: what is in here can then be relied upon to be there. The reverse, a crash
		// between the two, is what Restore is for.
		if err := t.publish(w.own.inForce); err != nil {
			_, _ = w.stmts.rollback.ExecContext(w.ctx)
			return w.failed(err)
		}
		w.hook("ledger.after-append")
	}
	w.hook("ledger.before-commit")
	if _, err := w.stmts.commit.ExecContext(w.ctx); err != nil {
		_, _ = w.stmts.rollback.ExecContext(w.ctx)
		return w.failed(err)
	}
	w.hook("ledger.after-commit")
	return nil
}

// runAll runs the operations one after the other. Hardly ever does one fail, so they run without savepoints, which cost
// as much as what they guard. When one does fail, the transaction begins anew and each runs in a savepoint, so that it
// fails without spoiling its neighbours: an operation may be run twice, the first time in vain. One that is alone needs
// neither. Only an error that concerns the transaction is returned.
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
	if _, err := w.stmts.rollback.ExecContext(w.ctx); err != nil {
		return err
	}
	if _, err := w.stmts.begin.ExecContext(w.ctx); err != nil {
		return err
	}
	t.touched = nil
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

// breaksTransaction returns err if it comes from SQLite and is no broken constraint: after a full disk, an I/O error
// or memory running out, SQLite may have rolled back the whole transaction, and nothing more may be added to it
// (sqlite.org/lang_transaction.html, section 3.1).
func breaksTransaction(err error) error {
	var lite sqlite3.Error
	if errors.As(err, &lite) && lite.Code != sqlite3.ErrConstraint {
		return err
	}
	return nil
}

func (w *writer) failed(err error) error {
	var lite sqlite3.Error
	if errors.As(err, &lite) && lite.Code != sqlite3.ErrBusy {
		w.suspect.Store(true)
	}
	return err
}
