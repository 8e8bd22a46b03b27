package broker_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/pipeline"
)

// segmentMessages fill a segment of 8 MiB.
const segmentMessages = 16

// large returns messages of half a mebibyte.
func large(from, n int) []pipeline.Message {
	all := rows(from, n)
	for i := range all {
		all[i].Value = append(all[i].Value, make([]byte, 512<<10)...)
	}
	return all
}

// discarding opens the embedded broker with one partition, whose messages need not stay once they were read.
func discarding(t *testing.T, dir string) *broker.Embedded {
	t.Helper()
	return openWith(t, broker.EmbeddedOptions{Dir: dir, Topics: map[string]int{topic: 1}, Discard: []string{topic}})
}

// readUpTo acknowledges so many messages for a group, and stops.
func readUpTo(t *testing.T, e *broker.Embedded, group string, n int) {
	t.Helper()
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	s := new(sink)
	s.take = func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		for _, m := range batch {
			if int(m.Offset) < n {
				ack(m)
			}
			if int(m.Offset) == n-1 {
				stop()
			}
		}
		return nil
	}
	q := consumer(t, e.Cluster, func(o *broker.ConsumerOptions) { o.Group = group })
	if err := q.Run(ctx, s); err != nil {
		t.Fatal(err)
	}
	lags, err := e.Lag(within(t), topic, group)
	if err != nil || lags[0].Committed != int64(n) {
		t.Fatalf("group %s: got %+v, %v; want offset %d committed", group, lags, err, n)
	}
}

// wantSegments fails unless the partition has so many segments on the disk.
func wantSegments(t *testing.T, when, dir string, most int) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "data", "partitions", topic+"-0", "*.dat"))
	if err != nil || len(found) == 0 || len(found) > most {
		t.Errorf("%s: got segments %v, %v; want 1 to %d", when, found, err, most)
	}
}

func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	e := discarding(t, dir)
	publish(t, e.Cluster, large(0, 6*segmentMessages))
	readUpTo(t, e, group, 5*segmentMessages)
	readUpTo(t, e, "slow", 2*segmentMessages)
	if err := e.DiscardRead(within(t), topic); err != nil {
		t.Fatal(err)
	}
	wantSegments(t, "with a slow group", dir, 5)
	rest := func(group string) map[int]int {
		s := new(sink)
		q := consumer(t, e.Cluster, func(o *broker.ConsumerOptions) { o.Group, o.Drain = group, true })
		if err := run(t, q, s); err != nil {
			t.Fatal(err)
		}
		return counts(s.all())
	}
	if seen := rest("slow"); len(seen) != 4*segmentMessages || seen[2*segmentMessages] != 1 {
		t.Errorf("the slow group: got %d messages, want all %d that it had not read", len(seen), 4*segmentMessages)
	}
	if seen := rest(group); len(seen) != segmentMessages {
		t.Errorf("the other group: got %d messages, want the %d that it had not read", len(seen), segmentMessages)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	wantSegments(t, "when all was read", dir, 2)

	// The next run sees new messages only, and offsets go on.
	e = discarding(t, dir)
	publish(t, e.Cluster, rows(1000, 10))
	if seen := counts(drained(t, e.Cluster)); len(seen) != 10 || seen[1000] != 1 {
		t.Errorf("the next run: got %d messages, want the 10 new ones", len(seen))
	}
	if at := committed(t, e.Cluster); at[0] != 6*segmentMessages+10 {
		t.Errorf("got offset %d committed, want %d", at[0], 6*segmentMessages+10)
	}
}

// TestDiscardThenKill: a kill after messages were removed loses no message, and none is delivered again. The broker's
// directory is copied while it runs, as a kill leaves it, with the snapshot of an earlier run and without.
func TestDiscardThenKill(t *testing.T) {
	for name, earlier := range map[string]int{"first run": 0, "second run": 10} {
		t.Run(name, func(t *testing.T) {
			dir, killed := t.TempDir(), filepath.Join(t.TempDir(), "killed")
			e := discarding(t, dir)
			if earlier > 0 {
				publish(t, e.Cluster, large(0, earlier))
				drained(t, e.Cluster)
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				e = discarding(t, dir)
			}
			publish(t, e.Cluster, large(earlier, 4*segmentMessages))
			drained(t, e.Cluster)
			if err := e.DiscardRead(within(t), topic); err != nil {
				t.Fatal(err)
			}
			wantSegments(t, "before the kill", dir, 2)
			publish(t, e.Cluster, rows(1000, 5))
			if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}

			e = discarding(t, killed)
			publish(t, e.Cluster, rows(1005, 5))
			if seen := counts(drained(t, e.Cluster)); len(seen) != 10 || seen[1000] != 1 || seen[1009] != 1 {
				t.Errorf("after the kill: got %v, want rows 1000 to 1009 once", seen)
			}
			if at := committed(t, e.Cluster); at[0] != int64(earlier+4*segmentMessages+10) {
				t.Errorf("got offset %d committed, want %d", at[0], earlier+4*segmentMessages+10)
			}
		})
	}
}

// TestDiscardNothing: without a group, or with a group that has committed nothing, all messages stay.
func TestDiscardNothing(t *testing.T) {
	dir := t.TempDir()
	e := discarding(t, dir)
	publish(t, e.Cluster, large(0, 3*segmentMessages))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if seen := counts(drained(t, open(t, dir).Cluster)); len(seen) != 3*segmentMessages {
		t.Errorf("got %d messages, want %d", len(seen), 3*segmentMessages)
	}
}

// TestDiscardUnderAReader: a group that reads and has committed nothing yet keeps the messages, also if another group
// has read them all.
func TestDiscardUnderAReader(t *testing.T) {
	e := discarding(t, t.TempDir())
	publish(t, e.Cluster, large(0, 4*segmentMessages))
	drained(t, e.Cluster)
	once := sync.Once{}
	s := new(sink)
	s.take = func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		var err error
		once.Do(func() { err = e.DiscardRead(within(t), topic) })
		for _, m := range batch {
			ack(m)
		}
		return err
	}
	q := consumer(t, e.Cluster, func(o *broker.ConsumerOptions) {
		o.Group, o.Drain, o.MaxBatch, o.MaxBytes = "new", true, 1, 1<<20
	})
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	if seen := counts(s.all()); len(seen) != 4*segmentMessages {
		t.Errorf("got %d messages, want all %d", len(seen), 4*segmentMessages)
	}
}

// TestDiscardBeforeAReaderJoins: a group that has begun to read, and has neither members nor offsets yet, loses nothing
// that another group has read.
func TestDiscardBeforeAReaderJoins(t *testing.T) {
	e := discarding(t, t.TempDir())
	publish(t, e.Cluster, large(0, 4*segmentMessages))
	drained(t, e.Cluster)
	joining := e.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	s := new(sink)
	q := consumer(t, e.Cluster, func(o *broker.ConsumerOptions) { o.Group, o.Drain = "new", true })
	done := make(chan error, 1)
	go func() { done <- q.Run(within(t), s) }()
	if err := joining.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	if err := e.DiscardRead(within(t), topic); err != nil {
		t.Error(err)
	}
	joining.Remove()
	if err := recv(t, "the drain", done); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	if seen := counts(s.all()); len(seen) != 4*segmentMessages {
		t.Errorf("got %d messages, want all %d", len(seen), 4*segmentMessages)
	}
}

// TestDiscardReplaced: in a directory that took the place of the broker's, nothing is removed.
func TestDiscardReplaced(t *testing.T) {
	dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	e, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{
		Dir: dir, Topics: map[string]int{topic: 1}, Discard: []string{topic},
	})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, e.Cluster, large(0, 4*segmentMessages))
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	drained(t, e.Cluster)
	if err := errors.Join(os.Rename(dir, dir+".away"), os.Rename(backup, dir)); err != nil {
		t.Fatal(err)
	}
	if err := e.DiscardRead(within(t), topic); !errors.As(err, new(*lockfile.GoneError)) {
		t.Errorf("got %v, want a *lockfile.GoneError", err)
	}
	if err := e.Close(); !errors.As(err, new(*lockfile.GoneError)) {
		t.Errorf("Close: got %v, want a *lockfile.GoneError", err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "data", "partitions", topic+"-0", "*.dat"))
	if err != nil || len(found) != 4 {
		t.Errorf("got segments %v, %v; want 4", found, err)
	}
}
