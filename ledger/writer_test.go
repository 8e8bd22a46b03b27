package ledger

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// held is a ledger whose commits the test can hold back.
type held struct {
	*Ledger
	commits int
	hold    bool
	arrived chan struct{} // receives when a commit is held
	release chan struct{}
}

func openHeld(t *testing.T) *held {
	h := &held{arrived: make(chan struct{}), release: make(chan struct{})}
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	o.Hook = func(point string) { // in the writer's goroutine
		if point != "ledger.before-commit" {
			return
		}
		h.commits++
		if h.hold {
			h.hold = false
			h.arrived <- struct{}{}
			<-h.release
		}
	}
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	h.Ledger = l
	return h
}

// TestGroupCommit: calls that come during a commit share the next one.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHeld(t)
		defer h.Close()
		const workers = 100
		records := make([]pipeline.Record, workers)
		for i := range records {
			records[i] = acceptOne(t, h.Ledger, testRow(i, "i1"), pipeline.Open)
		}
		h.commits, h.hold = 0, true
		var wg sync.WaitGroup
		wg.Go(func() { acceptOne(t, h.Ledger, testRow(workers, "i1"), pipeline.Open) })
		<-h.arrived
		for _, r := range records {
			wg.Go(func() { advance(t, h.Ledger, r, pipeline.Creating, nil) })
		}
		synctest.Wait() // all are in the queue
		h.release <- struct{}{}
		wg.Wait()
		if h.commits != 2 {
			t.Errorf("got %d commits, want 2", h.commits)
		}
	})
}

// TestOneFailureDoesNotSpoilTheGroup: a call that fails in a shared transaction changes nothing; the others succeed.
func TestOneFailureDoesNotSpoilTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHeld(t)
		defer h.Close()
		good := acceptOne(t, h.Ledger, testRow(1, "i1"), pipeline.Open)
		stale := acceptOne(t, h.Ledger, testRow(2, "i1"), pipeline.Open)
		keyed := advance(t, h.Ledger, acceptOne(t, h.Ledger, testRow(3, "i1"), pipeline.Open), pipeline.Creating,
			func(r *pipeline.Record) { r.CreateKey = createKey(0, r.AcceptedAt) })
		last := acceptOne(t, h.Ledger, testRow(4, "i1"), pipeline.Open)

		h.hold = true
		var wg sync.WaitGroup
		wg.Go(func() { acceptOne(t, h.Ledger, testRow(5, "i1"), pipeline.Open) })
		<-h.arrived
		update := func(r pipeline.Record) (err error) {
			_, err = h.Update(t.Context(), r)
			return err
		}
		var errs [4]error
		start := func(i int, r pipeline.Record) {
			wg.Go(func() { errs[i] = update(r) })
			synctest.Wait()
		}
		good.Stage, last.Stage = pipeline.Creating, pipeline.Creating
		stale.Stage = pipeline.Creating
		stale.Version = 9
		keyed.Class = "changed"
		keyed.CreateKey.Digest[0]++ // fails after the row was written
		start(0, good)
		start(1, stale)
		start(2, keyed)
		start(3, last)
		h.release <- struct{}{}
		wg.Wait()

		var key *keyError
		if errs[0] != nil || !errors.Is(errs[1], pipeline.ErrStale) || !errors.As(errs[2], &key) || errs[3] != nil {
			t.Errorf("got errors %v, want nil, ErrStale, a keyError, nil", errs)
		}
		for _, c := range []struct {
			row     pipeline.Row
			version int64
		}{{good.Row, 2}, {stale.Row, 1}, {keyed.Row, 2}, {last.Row, 2}} {
			if r := get(t, h.Ledger, c.row); r.Version != c.version || r.Class != "" {
				t.Errorf("%s: got %+v, want version %d without class", c.row.Where(), r, c.version)
			}
		}
	})
}

// TestFailedCommitFailsTheGroup: if the commit fails, all calls of the group fail and nothing is stored. Later calls
// succeed.
func TestFailedCommitFailsTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHeld(t)
		defer h.Close()
		r := acceptOne(t, h.Ledger, testRow(1, "i1"), pipeline.Open)
		h.hold = true
		var wg sync.WaitGroup
		wg.Go(func() { acceptOne(t, h.Ledger, testRow(2, "i1"), pipeline.Open) })
		<-h.arrived
		var updateErr, brokenErr error
		wg.Go(func() {
			next := r
			next.Stage = pipeline.Creating
			_, updateErr = h.Update(t.Context(), next)
		})
		wg.Go(func() { // a foreign key that is checked at the commit only
			brokenErr = h.writer.do(t.Context(), 1, func(tx *tx) error {
				_, err := h.conn.ExecContext(tx.ctx, `PRAGMA defer_foreign_keys = ON;
					INSERT INTO row_imports (row_id, import_id) VALUES (4711, 'i')`)
				return err
			})
		})
		synctest.Wait()
		h.release <- struct{}{}
		wg.Wait()
		if updateErr == nil || brokenErr == nil {
			t.Fatalf("got errors %v and %v, want two errors", updateErr, brokenErr)
		}
		if got := get(t, h.Ledger, r.Row); got.Version != 1 {
			t.Errorf("got %+v, want version 1", got)
		}
		advance(t, h.Ledger, r, pipeline.Creating, nil)
	})
}

// TestCancelledWhileWaiting: a call whose context ends while it waits does not run; a call that has started completes.
func TestCancelledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHeld(t)
		defer h.Close()
		waiting := acceptOne(t, h.Ledger, testRow(1, "i1"), pipeline.Open)
		ctx, cancel := context.WithCancel(t.Context())
		h.hold = true
		var wg sync.WaitGroup
		var startedErr, waitingErr error
		wg.Go(func() { _, startedErr = h.Accept(ctx, []pipeline.Row{testRow(2, "i1")}) })
		<-h.arrived
		wg.Go(func() {
			next := waiting
			next.Stage = pipeline.Creating
			_, waitingErr = h.Update(ctx, next)
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !errors.Is(waitingErr, context.Canceled) {
			t.Errorf("waiting call: got %v, want context.Canceled", waitingErr)
		}
		h.release <- struct{}{}
		wg.Wait()
		if startedErr != nil {
			t.Errorf("started call: got %v, want nil", startedErr)
		}
		get(t, h.Ledger, testRow(2, "i1"))
		if got := get(t, h.Ledger, waiting.Row); got.Version != 1 {
			t.Errorf("got %+v, want version 1", got)
		}
	})
}

// TestCloseWaitsForQueuedWork: Close waits for all earlier calls.
func TestCloseWaitsForQueuedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHeld(t)
		h.hold = true
		var wg sync.WaitGroup
		wg.Go(func() { acceptOne(t, h.Ledger, testRow(1, "i1"), pipeline.Open) })
		<-h.arrived
		wg.Go(func() { acceptOne(t, h.Ledger, testRow(2, "i1"), pipeline.Open) })
		synctest.Wait()
		wg.Go(func() {
			if err := h.Close(); err != nil {
				t.Errorf("Close: got %v, want nil", err)
			}
		})
		synctest.Wait()
		h.release <- struct{}{}
		wg.Wait()
		if h.commits != 2 {
			t.Errorf("got %d commits, want 2", h.commits)
		}
	})
}

// TestCompareAndSetUnderContention: 256 workers update the same few rows, and every version is reached exactly once.
func TestCompareAndSetUnderContention(t *testing.T) {
	l, _ := openTest(t)
	const workers, rows, each = 256, 16, 5
	ids := make([]pipeline.Record, rows)
	for i := range ids {
		ids[i] = advance(t, l, acceptOne(t, l, testRow(i, "i1"), pipeline.Open), pipeline.Creating, nil)
	}
	var mu sync.Mutex
	reached := make(map[[2]int64]int)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := range each {
				r := ids[(w+n)%rows]
				for {
					version, err := l.Update(t.Context(), r)
					if err == nil {
						mu.Lock()
						reached[[2]int64{r.ID, version}]++
						mu.Unlock()
						break
					}
					if !errors.Is(err, pipeline.ErrStale) {
						t.Errorf("Update: got %v, want nil or ErrStale", err)
						return
					}
					if r, err = l.get(t.Context(), r.Account.String(), r.ExternalID); err != nil {
						t.Errorf("get: got %v, want the row", err)
						return
					}
					r.Attempts++
				}
			}
		})
	}
	wg.Wait()
	if len(reached) != workers*each {
		t.Errorf("got %d versions, want %d", len(reached), workers*each)
	}
	total := int64(0)
	for _, r := range ids {
		total += get(t, l, r.Row).Version - r.Version
	}
	if total != workers*each {
		t.Errorf("got %d updates by the versions, want %d", total, workers*each)
	}
}

// TestOnCommit: it is told of each transaction that was committed.
func TestOnCommit(t *testing.T) {
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	committed := 0
	o.OnCommit = func(rows int, took time.Duration) {
		committed += rows
		if took <= 0 {
			t.Errorf("commit of %d rows: got duration %v, want more than 0", rows, took)
		}
	}
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(t.Context(), []pipeline.Row{testRow(1, "a"), testRow(2, "a"), testRow(3, "a")}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if committed != 3 {
		t.Errorf("got commits of %d rows, want 3", committed)
	}
}
