package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/purser-onboard/purser/pipeline"
)

// interrupting cancels when it has replayed some records.
type interrupting struct {
	*follower
	cancel context.CancelFunc
	after  int
}

func (f *interrupting) Replay(
	ctx context.Context, partition int, from int64, yield func([]pipeline.Message, int64) error,
) error {
	return f.follower.Replay(ctx, partition, from, func(batch []pipeline.Message, next int64) error {
		if f.after -= len(batch); f.after < 0 {
			f.cancel()
			<-ctx.Done()
			return ctx.Err()
		}
		return yield(batch, next)
	})
}

// TestFillInterrupted: the next call begins again after few records, or if the fill was cancelled, and continues after
// many.
func TestFillInterrupted(t *testing.T) {
	few := rowsTopic(t, 1, 100)
	many := newTopic(1)
	for n := range worthKeeping + 10_000 {
		r := pipeline.Record{Row: testRow(n, "i1"), Version: 1, Stage: pipeline.Planned, AcceptedAt: noClock(),
			UpdatedAt: noClock()}
		many.put(0, snapshotOf(r, true, testEnvironment).message(t))
	}
	for _, tt := range []struct {
		shared    *topic
		after     int
		abandoned bool
		kept      bool
	}{{few, 50, false, false}, {many, worthKeeping + 8000, false, true}, {many, worthKeeping + 8000, true, false}} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		l, f := openFollower(t, path, tt.shared)
		all := len(tt.shared.partitions[0])
		f.held[0], f.batch = true, all/100
		ctx, cancel := context.WithCancel(t.Context())
		interrupt := func() {
			cancel()
			if tt.abandoned {
				l.Abandon()
			}
		}
		if err := l.Follow(&interrupting{follower: f, cancel: interrupt, after: tt.after}, nil); err != nil {
			t.Fatal(err)
		}
		first, err := l.restoreOne(ctx, 0)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
		if (first.Newer > 0) != tt.kept || first.To != int64(first.Newer) || first.Newer > tt.after {
			t.Errorf("interrupted after %d records: got %+v, want some kept: %t", tt.after, first, tt.kept)
		}
		wantWhole(t, l)
		closed(t, l)
		l, f = openFollower(t, path, tt.shared)
		f.batch = all / 100
		if r := restore(t, l, f, 0); r.From != first.To || r.Newer != all-first.Newer {
			t.Errorf("got %+v, want the rest of %d records after %+v", r, all, first)
		}
		wantWhole(t, l)
	}
}

// fillChild fills a ledger and kills itself when it has read some records, or before it commits. Arguments are the path
// and the number of records, 0: before the commit.
func fillChild(ctx context.Context, arguments []string) error {
	var path string
	var after, commits int
	if _, err := fmt.Sscan(strings.Join(arguments, " "), &path, &after); err != nil {
		return err
	}
	kill := func() {
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Kill()
		select {}
	}
	o := testOptions(path)
	o.Changelog = "onboarding.ledger"
	o.Environment.APIPath = "/v1"
	o.Hook = func(point string) {
		if point != "ledger.before-commit" {
			return
		}
		if commits++; after == 0 && commits == 2 { // the first stores the position
			kill()
		}
	}
	l, err := Open(ctx, o)
	if err != nil {
		return err
	}
	shared := newTopic(1)
	for n := range fillChildRows {
		shared.put(0, largeRecord(n))
	}
	f := &follower{topic: shared, held: map[int]bool{0: true}, epoch: 1, batch: 500}
	killing := &interrupting{follower: f, cancel: kill, after: after}
	if after == 0 {
		killing.after = fillChildRows + 1
	}
	if err := l.Follow(killing, nil); err != nil {
		return err
	}
	_, err = l.restoreOne(ctx, 0)
	return errors.Join(err, errors.New("got no kill, want one"))
}

// TestFillKilled: a ledger whose fill was killed is empty, has its indexes, and is filled by the next run.
func TestFillKilled(t *testing.T) {
	for _, after := range []int{fillChildRows * 3 / 4, 0} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		child := startChild(t, "fill", path, fmt.Sprint(after))
		for child.lines.Scan() {
			t.Log(child.lines.Text())
		}
		if err := child.Wait(); err == nil || child.ProcessState.ExitCode() != -1 {
			t.Fatalf("got %v, want the child killed\n%s", err, child.stderr.String())
		}
		if info, err := os.Stat(path + "-wal"); err != nil || info.Size() < 1<<20 {
			t.Errorf("got a log of %v, %v; want the rows that were not committed", info, err)
		}
		shared := newTopic(1)
		for n := range fillChildRows {
			shared.put(0, largeRecord(n))
		}
		l, f := openFollower(t, path, shared)
		if got := dump(t, l, f, 0); len(got) != 0 {
			t.Errorf("killed after %d: got %d rows, want none", after, len(got))
		}
		wantWhole(t, l)
		f.batch = 500
		if r := restore(t, l, f, 0); r.From != 0 || r.Newer != fillChildRows {
			t.Errorf("killed after %d: got %+v, want all %d rows newer", after, r, fillChildRows)
		}
		wantWhole(t, l)
		closed(t, l)
	}
}

// heldBack holds the replay of partition 1 back.
type heldBack struct {
	*follower
	resume chan struct{}
}

func (f *heldBack) Replay(
	ctx context.Context, partition int, from int64, yield func([]pipeline.Message, int64) error,
) error {
	if partition == 1 {
		<-f.resume
	}
	return f.follower.Replay(ctx, partition, from, yield)
}

// TestCloseDuringAFill: Close waits for the fill and for its log.
func TestCloseDuringAFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
		o.Changelog, o.Environment.APIPath = "onboarding.ledger", "/v1"
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		l, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		f := &follower{topic: rowsTopic(t, 2, 100), held: map[int]bool{0: true, 1: true}, epoch: 1}
		resume := make(chan struct{})
		if err := l.Follow(&heldBack{f, resume}, nil); err != nil {
			t.Fatal(err)
		}
		var restored, closed error
		var running sync.WaitGroup
		running.Go(func() { _, restored = l.Restore(t.Context(), []int{0, 1}) })
		synctest.Wait() // it has the records of partition 0
		running.Go(func() { closed = l.Close() })
		synctest.Wait() // it waits
		close(resume)
		running.Wait()
		if restored != nil || closed != nil || log.Len() > 0 {
			t.Errorf("got %v, %v and the log %q; want no errors and no warning", restored, closed, log.String())
		}
		again, err := OpenReadOnly(t.Context(), o.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		var rows int
		if err := again.source.QueryRowContext(t.Context(), `SELECT count(*) FROM rows`).Scan(&rows); err != nil || rows != 100 {
			t.Errorf("got %d rows, %v; want 100", rows, err)
		}
	})
}

// unnoticed is a context that ends at the last moment: its Done is still open.
type unnoticed struct {
	context.Context
	ended *atomic.Bool
}

func (c unnoticed) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return c.Context.Err()
}

// ending ends a context when all records were replayed.
type ending struct {
	*follower
	ended *atomic.Bool
}

func (f *ending) Replay(
	ctx context.Context, partition int, from int64, yield func([]pipeline.Message, int64) error,
) error {
	defer f.ended.Store(true)
	return f.follower.Replay(ctx, partition, from, yield)
}

// TestFillInterruptedAtItsEnd: a fill that is rolled back after its last record does not leave its partition for
// restored.
func TestFillInterruptedAtItsEnd(t *testing.T) {
	shared := rowsTopic(t, 1, 10)
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	f.held[0] = true
	var ended atomic.Bool
	if err := l.Follow(&ending{f, &ended}, nil); err != nil {
		t.Fatal(err)
	}
	r, err := l.restoreOne(unnoticed{t.Context(), &ended}, 0)
	if !errors.Is(err, context.Canceled) || r != (Restored{}) {
		t.Errorf("got %+v, %v; want nothing restored, %v", r, err, context.Canceled)
	}
	if _, err := l.Accept(t.Context(), []pipeline.Row{testRow(1, "i2")}); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("a row of the partition: got %v, want %v", err, pipeline.ErrFenced)
	}
	wantWhole(t, l)
}
