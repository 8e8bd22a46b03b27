package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/pipeline"
)

// TestLedgerMoves: the next owner of a partition has everything about a row: the keys of all generations, the
// challenge, the signature to be sent and the earlier imports.
func TestLedgerMoves(t *testing.T) {
	shared := newTopic(1)
	first, f1 := newFollower(t, shared)
	now := noClock()
	r := acceptOne(t, first, testRow(1, "i1"), pipeline.Open)
	for generation := range 2 {
		r = advance(t, first, r, pipeline.Creating, func(r *pipeline.Record) {
			r.CreateKey = derived(*r, pipeline.OpCreate, generation)
		})
	}
	r = advance(t, first, r, pipeline.Challenged, func(r *pipeline.Record) {
		r.CustomerID, r.Challenge, r.ChallengeAt = "c1", "sign\nthis, \"please\"", now
		r.CreateKey.Outcome = pipeline.KeySettled
	})
	accept(t, first, testRow(1, "i2")) // imported again while unfinished
	r = advance(t, first, r, pipeline.Signing, func(r *pipeline.Record) { r.ExternalTxID = "tx-1" })
	r = advance(t, first, r, pipeline.Submitting, func(r *pipeline.Record) {
		r.Signature, r.SubmitKey, r.Attempts = "0x1234", derived(*r, pipeline.OpSubmit, 0), 3
	})
	settle(t, first, acceptOne(t, first, testRow(2, "i1"), pipeline.Open), pipeline.Onboarded, "c2")
	settle(t, first, acceptOne(t, first, testRow(3, "i1"), pipeline.Open), pipeline.Failed, "")
	accept(t, first, pair(2, 9, "i1")) // contradicts: its account has a customer
	published := get(t, first, testRow(2, ""))
	if err := first.Published(t.Context(), []pipeline.Record{published}); err != nil {
		t.Fatal(err)
	}
	want := dump(t, first, f1, 0)
	shared.compact()

	second, f2 := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	got := restore(t, second, f2, 0)
	if want := (Restored{To: shared.ends[0], Records: 4, Newer: 4}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if diff := difference(want, dump(t, second, f2, 0)); diff != "" {
		t.Errorf("second ledger: got another record than wanted\n%s", diff)
	}
	moved := get(t, second, testRow(1, ""))
	if moved.Stage != pipeline.Submitting || moved.SubmitKey != r.SubmitKey || moved.Version != r.Version {
		t.Errorf("got %+v, want %+v apart from the id", moved, r)
	}
	// The second ledger publishes the events that the first one has not.
	events, err := second.Unpublished(t.Context(), 10)
	if err != nil || len(events) != 2 || events[0].Stage != pipeline.Failed || events[1].Stage != pipeline.Conflict {
		t.Errorf("outbox: got %+v, %v; want a failed row and a conflict", events, err)
	}
	// An import that the row had before is not new for the second ledger.
	acceptOne(t, second, testRow(3, "i1"), pipeline.Settled)
	acceptOne(t, second, testRow(1, "i1"), pipeline.Open)
	if now := get(t, second, testRow(1, "")); now.ImportID != "i2" {
		t.Errorf("got import %s, want the latest, i2", now.ImportID)
	}
	if again := restore(t, second, f2, 0); again.Records != 0 {
		t.Errorf("restored again: got %+v, want no records: it wrote them itself", again)
	}
}

// TestSameVersionCounts: a record of the same version is applied: an event was published, or a row imported again.
func TestSameVersionCounts(t *testing.T) {
	shared := newTopic(1)
	first, f1 := newFollower(t, shared)
	settled := settle(t, first, acceptOne(t, first, testRow(1, "i1"), pipeline.Open), pipeline.Onboarded, "c1")
	acceptOne(t, first, testRow(2, "i1"), pipeline.Open)
	second, f2 := newFollower(t, shared)
	f2.held[0] = false
	if err := first.Published(t.Context(), []pipeline.Record{get(t, first, settled.Row)}); err != nil {
		t.Fatal(err)
	}
	accept(t, first, testRow(2, "i2"))
	f1.held[0] = false
	if got := restore(t, second, f2, 0); got.Records != 2 || got.Newer != 0 {
		t.Errorf("got %+v, want 2 records, none newer", got)
	}
	if events, err := second.Unpublished(t.Context(), 10); err != nil || len(events) != 0 {
		t.Errorf("outbox: got %+v, %v; want it empty", events, err)
	}
	if now := get(t, second, testRow(2, "")); now.ImportID != "i2" {
		t.Errorf("got import %s, want the latest, i2", now.ImportID)
	}
}

// TestOlderRecordPutBack: an old record is written to the topic again. A ledger with a newer row keeps its row; an
// empty ledger takes the old record.
func TestOlderRecordPutBack(t *testing.T) {
	shared := newTopic(1)
	l, f := newFollower(t, shared)
	settle(t, l, acceptOne(t, l, testRow(1, "i1"), pipeline.Open), pipeline.Onboarded, "c1")
	f.held[0] = false
	forger := &follower{topic: shared, held: map[int]bool{0: true}, epoch: 1}
	if err := forger.Append(t.Context(), []pipeline.Message{shared.partitions[0][0]}); err != nil {
		t.Fatal(err)
	}
	shared.compact()
	restore(t, l, f, 0)
	if got := get(t, l, testRow(1, "")); got.Stage != pipeline.Onboarded {
		t.Errorf("ledger with a newer row: got stage %s, want %s", got.Stage, pipeline.Onboarded)
	}
	next, _ := newFollower(t, shared)
	if got := get(t, next, testRow(1, "")); got.Stage != pipeline.Planned {
		t.Errorf("empty ledger: got stage %s, want %s", got.Stage, pipeline.Planned)
	}
}

// TestOutboxOfOwnPartitions: only the owner of a partition publishes its events: the row may have changed there.
func TestOutboxOfOwnPartitions(t *testing.T) {
	shared := newTopic(1)
	first, f1 := newFollower(t, shared)
	settle(t, first, acceptOne(t, first, testRow(1, "i1"), pipeline.Open), pipeline.Failed, "")
	count := func() int {
		events, err := first.Unpublished(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(events)
	}
	if n := count(); n != 1 {
		t.Errorf("got %d events, want 1", n)
	}
	f1.held[0] = false
	if n := count(); n != 0 {
		t.Errorf("partition that is not ours: got %d events, want 0", n)
	}
	f1.held[0], f1.epoch = true, 2
	if n := count(); n != 0 {
		t.Errorf("partition that is not restored: got %d events, want 0", n)
	}
	written := len(shared.partitions[0])
	if err := first.Published(t.Context(), []pipeline.Record{get(t, first, testRow(1, ""))}); err != nil {
		t.Fatal(err)
	}
	if n := len(shared.partitions[0]); n != written {
		t.Errorf("partition that is not restored: got %d records written, want 0", n-written)
	}
	restore(t, first, f1, 0)
	if n := count(); n != 1 {
		t.Errorf("ours again: got %d events, want 1", n)
	}
}

// TestForeignRecordsBetween: Restore reads records of another producer although this ledger has written after them.
func TestForeignRecordsBetween(t *testing.T) {
	shared := newTopic(1)
	l, f := newFollower(t, shared)
	acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	other, _ := newFollower(t, shared)
	acceptOne(t, other, testRow(2, "i1"), pipeline.Open) // it has lost the partition, but does not know it yet
	acceptOne(t, l, testRow(3, "i1"), pipeline.Open)
	if got := restore(t, l, f, 0); got.Records != 2 || got.Newer != 1 {
		t.Errorf("got %+v, want 2 records, 1 newer", got)
	}
	get(t, l, testRow(2, ""))
}

// TestRecreatedMeanwhile: a topic that was recreated is noticed even if it has outgrown the old one at the next
// Restore.
func TestRecreatedMeanwhile(t *testing.T) {
	shared := newTopic(1)
	l, f := newFollower(t, shared)
	for n := range 5 {
		acceptOne(t, l, testRow(n, "i1"), pipeline.Open)
	}
	*shared = *newTopic(1)
	for n := 5; n < 15; n++ { // beyond the end of the old topic
		acceptOne(t, l, testRow(n, "i1"), pipeline.Open)
	}
	if got := restore(t, l, f, 0); got.Added < 5 {
		t.Errorf("got %+v, want at least 5 rows added", got)
	}
	fresh, g := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	if got := restore(t, fresh, g, 0); got.Newer != 15 {
		t.Errorf("new topic: got %+v, want 15 newer rows", got)
	}
}

// TestFailureTouchesNothing: a failed operation writes nothing to the topic; the others of its group do.
func TestFailureTouchesNothing(t *testing.T) {
	shared := newTopic(1)
	l, _ := newFollower(t, shared)
	a := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	b := acceptOne(t, l, testRow(2, "i1"), pipeline.Open)
	before := len(shared.partitions[0])
	failed := errors.New("no")
	op := func(id int64, err error) *operation {
		return &operation{weight: 1, done: make(chan struct{}), run: func(tx *tx) error {
			tx.touch(id)
			return err
		}}
	}
	group := []*operation{op(a.ID, nil), op(b.ID, failed), op(a.ID, nil)}
	l.writer.mu.Lock()
	l.writer.waiting = append(l.writer.waiting, group...)
	l.writer.wake.Signal()
	l.writer.mu.Unlock()
	for _, o := range group {
		<-o.done
	}
	if !errors.Is(group[1].err, failed) || group[0].err != nil || group[2].err != nil {
		t.Errorf("got errors %v, %v, %v; want nil, %v, nil", group[0].err, group[1].err, group[2].err, failed)
	}
	if written := shared.partitions[0][before:]; len(written) != 1 || string(written[0].Key) != a.Account.String() {
		t.Errorf("got %d records written, %+v; want 1 of %s", len(written), written, a.Account)
	}
}

// TestFenced: rows of partitions that are not ours are neither changed nor written to the topic.
func TestFenced(t *testing.T) {
	shared := newTopic(1)
	l, f := newFollower(t, shared)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	before := len(shared.partitions[0])
	f.held[0] = false
	r.Stage, r.CreateKey = pipeline.Creating, derived(r, pipeline.OpCreate, 0)
	if _, err := l.Update(t.Context(), r); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("Update: got %v, want ErrFenced", err)
	}
	if _, err := l.Accept(t.Context(), []pipeline.Row{testRow(2, "i1")}); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("Accept: got %v, want ErrFenced", err)
	}
	// Ours again, but not restored: another consumer may have changed the row in between.
	f.held[0], f.epoch = true, 2
	if _, err := l.Update(t.Context(), r); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("Update before Restore: got %v, want ErrFenced", err)
	}
	if now := get(t, l, r.Row); now.Stage != pipeline.Planned || len(shared.partitions[0]) != before {
		t.Errorf("got %+v and %d records, want a planned row and %d records", now, len(shared.partitions[0]), before)
	}
	restore(t, l, f, 0)
	if _, err := l.Update(t.Context(), r); err != nil {
		t.Errorf("Update after Restore: got %v, want nil", err)
	}
}

// losing loses all partitions when Epoch was called so many times, or when Replay has ended.
type losing struct {
	*follower
	calls       int
	afterReplay bool
}

func (f *losing) Epoch(partition int) int64 {
	if f.calls--; f.calls < 0 && !f.afterReplay {
		clear(f.held)
	}
	return f.follower.Epoch(partition)
}

func (f *losing) Replay(
	ctx context.Context, partition int, from int64, yield func([]pipeline.Message, int64) error,
) error {
	err := f.follower.Replay(ctx, partition, from, yield)
	if f.afterReplay {
		clear(f.held)
	}
	return err
}

// TestLostWhileWriting: a change of a row whose partition is lost before the change is in the topic fails, and changes
// nothing.
func TestLostWhileWriting(t *testing.T) {
	shared := newTopic(1)
	l, f := newFollower(t, shared)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	before := len(shared.partitions[0])
	if err := l.Follow(&losing{follower: f, calls: 1}, nil); err != nil { // the change itself is allowed
		t.Fatal(err)
	}
	r.Stage, r.CreateKey = pipeline.Creating, derived(r, pipeline.OpCreate, 0)
	if _, err := l.Update(t.Context(), r); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("got %v, want ErrFenced", err)
	}
	if now := get(t, l, r.Row); now.Stage != pipeline.Planned || len(shared.partitions[0]) != before {
		t.Errorf("got %+v and %d records, want a planned row and %d records", now, len(shared.partitions[0]), before)
	}
}

// TestLostWhileMerging: rows that were not written to the topic, because the partition was lost, are written by the next
// Restore.
func TestLostWhileMerging(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	alone := reopen(t, testOptions(path))
	acceptOne(t, alone, testRow(1, "i1"), pipeline.Open)
	closed(t, alone)
	shared := newTopic(1)
	l, f := openFollower(t, path, shared)
	if err := l.Follow(&losing{follower: f, afterReplay: true}, nil); err != nil {
		t.Fatal(err)
	}
	f.held[0] = true
	if got, err := l.restoreOne(t.Context(), 0); !errors.Is(err, pipeline.ErrFenced) || got.Added != 0 {
		t.Errorf("got %+v, %v; want none added, ErrFenced", got, err)
	}
	f.epoch = 2
	if err := l.Follow(f, nil); err != nil {
		t.Fatal(err)
	}
	if got := restore(t, l, f, 0); got.Added != 1 || len(shared.partitions[0]) != 1 {
		t.Errorf("got %+v and %d records, want 1 added", got, len(shared.partitions[0]))
	}
}

// TestLostAnswer: a write to the topic whose answer is lost fails the change; the next Restore reads it from the topic.
func TestLostAnswer(t *testing.T) {
	shared := newTopic(1)
	l, f := newFollower(t, shared)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	f.lose = true
	next := r
	next.Stage, next.CreateKey = pipeline.Creating, derived(next, pipeline.OpCreate, 0)
	if _, err := l.Update(t.Context(), next); !errors.Is(err, errLost) {
		t.Fatalf("got %v, want errLost", err)
	}
	if now := get(t, l, r.Row); now.Stage != pipeline.Planned {
		t.Fatalf("got %+v, want the row still planned", now)
	}
	if got := restore(t, l, f, 0); got.Newer != 1 {
		t.Errorf("got %+v, want 1 newer", got)
	}
	if now := get(t, l, r.Row); now.Stage != pipeline.Creating || now.CreateKey.ID != next.CreateKey.ID {
		t.Errorf("got %+v, want stage creating with key %s", now, next.CreateKey.ID)
	}
}

// TestMerge: a ledger that follows a topic for the first time writes its rows there once, and again to a recreated
// topic.
func TestMerge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	alone := reopen(t, testOptions(path))
	settle(t, alone, acceptOne(t, alone, testRow(1, "i1"), pipeline.Open), pipeline.Onboarded, "c1")
	acceptOne(t, alone, testRow(2, "i1"), pipeline.Open)
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	shared := newTopic(1)
	l, f := openFollower(t, path, shared)
	if got := restore(t, l, f, 0); got.Added != 2 || len(shared.partitions[0]) != 2 {
		t.Errorf("got %+v and %d records, want 2 added and 2 records", got, len(shared.partitions[0]))
	}
	if got := restore(t, l, f, 0); got.Added != 0 {
		t.Errorf("restored again: got %+v, want none added", got)
	}
	*shared = *newTopic(1)
	if got := restore(t, l, f, 0); got.Added != 2 || len(shared.partitions[0]) != 2 {
		t.Errorf("recreated topic: got %+v and %d records, want 2 added and 2 records", got, len(shared.partitions[0]))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A run without the topic does not write its changes there, so the next run with the topic merges all rows.
	alone = reopen(t, testOptions(path))
	settle(t, alone, get(t, alone, testRow(2, "")), pipeline.Failed, "")
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	l, f = openFollower(t, path, shared)
	if got := restore(t, l, f, 0); got.Records != 2 || got.Newer != 0 || got.Added != 2 {
		t.Errorf("after a run without the topic: got %+v, want 2 records, none newer, 2 added", got)
	}
	if now := get(t, l, testRow(2, "")); now.Stage != pipeline.Failed {
		t.Errorf("got %+v, want the row still failed", now)
	}
}

// TestContradictionThatMoved: two consumers have started rows that contradict each other. When the partition of the
// first row moves to the second consumer, the row keeps its stage; the second row keeps its claim.
func TestContradictionThatMoved(t *testing.T) {
	a, b := testRow(1, "i1"), pair(2, 1, "i1") // the same externalId, two accounts
	p := func(r pipeline.Row) int {
		return (&follower{topic: newTopic(2)}).Partition(r.Account.String())
	}
	for n := 3; p(a) == p(b); n++ {
		b = pair(n, 1, "i1")
	}
	shared := newTopic(2)
	first, f1 := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	second, f2 := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, first, f1, p(a))
	restore(t, second, f2, p(b))
	creating := func(r *pipeline.Record) { r.CreateKey = derived(*r, pipeline.OpCreate, 0) }
	advance(t, first, acceptOne(t, first, a, pipeline.Open), pipeline.Creating, creating)
	advance(t, second, acceptOne(t, second, b, pipeline.Open), pipeline.Creating, creating)
	f1.held[p(a)] = false
	restore(t, second, f2, p(a))
	came := get(t, second, a)
	if came.Stage != pipeline.Creating || came.CreateKey.IsZero() {
		t.Fatalf("got %+v, want stage creating with a create key", came)
	}
	acceptOne(t, second, a, pipeline.Open)
	advance(t, second, came, pipeline.Onboarded, func(r *pipeline.Record) { r.CustomerID = "c1" })
	advance(t, second, get(t, second, b), pipeline.Conflict, nil)
}

// changelogKeys derives the keys of a topic from secrets, each a repeated letter.
func changelogKeys(t *testing.T, topic string, secrets ...string) *messageauth.Keys {
	t.Helper()
	var file string
	for _, s := range secrets {
		file += base64.StdEncoding.EncodeToString([]byte(strings.Repeat(s, 31)+".")) + "\n"
	}
	k, err := messageauth.New([]byte(file), messageauth.Ledgers, topic)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestCheckChangelogWarnsOfTheKey: if no record is authentic, the key may be wrong. Authentic records of another
// environment show that it is right.
func TestCheckChangelogWarnsOfTheKey(t *testing.T) {
	var out bytes.Buffer
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	o.Changelog, o.Logger = "onboarding.ledger", slog.New(slog.NewTextHandler(&out, nil))
	l := reopen(t, o)
	shared := newTopic(1)
	f := &follower{topic: shared, held: map[int]bool{}, epoch: 1}
	if err := l.Follow(f, changelogKeys(t, "another.ledger", "a")); err == nil {
		t.Error("keys of another topic: got no error, want one")
	}
	keys := changelogKeys(t, f.Topic(), "a")
	if err := l.Follow(f, keys); err != nil {
		t.Fatal(err)
	}
	warned := func(want bool) {
		t.Helper()
		out.Reset()
		err := l.CheckChangelog(t.Context(), 1)
		if got := strings.Contains(out.String(), "no record of the ledger topic is authentic"); got != want || err != nil {
			t.Errorf("got a warning %v, error %v, log %q; want %v and no error", got, err, out.String(), want)
		}
	}
	warned(false)
	shared.put(0, goodSnapshot(1).message(t))
	warned(true)
	foreign := []pipeline.Message{altered(t, 2, func(m map[string]any) { m["apiHost"] = "other.example.com" })}
	keys.Sign(foreign)
	shared.put(0, foreign...)
	warned(false)
}

// TestAuthenticatedChangelog: records under unknown keys are ignored. Records under a key that is being withdrawn are
// written again, both the rows of this ledger and those that it reads.
func TestAuthenticatedChangelog(t *testing.T) {
	shared := newTopic(1)
	keys := func(secrets ...string) *messageauth.Keys { return changelogKeys(t, "onboarding.ledger", secrets...) }
	paths := [3]string{}
	for i := range paths {
		paths[i] = filepath.Join(t.TempDir(), "ledger.db")
	}
	open := func(path string, k *messageauth.Keys) (*Ledger, *follower) {
		l, f := openFollower(t, path, shared)
		if err := l.Follow(f, k); err != nil {
			t.Fatal(err)
		}
		return l, f
	}
	// There is an unauthenticated record of the first row. Another ledger has the second row.
	shared.put(0, goodSnapshot(1).message(t))
	l, f := open(paths[0], keys("a"))
	if got, want := restore(t, l, f, 0), (Restored{To: 1, Records: 1, Ignored: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	closed(t, l)
	l, f = open(paths[1], keys("a"))
	restore(t, l, f, 0)
	acceptOne(t, l, testRow(2, "i1"), pipeline.Open)
	closed(t, l)
	// Under the new key the first ledger writes its own row and the row that it reads.
	l, f = open(paths[0], keys("b", "a"))
	if got := restore(t, l, f, 0); got.Newer != 1 || got.Resigned != 2 || got.Added != 1 || got.Ignored != 1 {
		t.Errorf("got %+v, want 1 newer, 2 resigned, 1 added, 1 ignored", got)
	}
	if got := restore(t, l, f, 0); got.Newer != 0 || got.Resigned != 0 || got.Added != 0 {
		t.Errorf("again: got %+v, want nothing newer, resigned or added", got)
	}
	closed(t, l)
	shared.compact()
	l, f = open(paths[2], keys("b"))
	if got := restore(t, l, f, 0); got.Newer != 2 || got.Ignored > 1 {
		t.Errorf("an empty ledger with the new key alone: got %+v, want both rows", got)
	}
	for n := 1; n <= 2; n++ {
		acceptOne(t, l, testRow(n, "i1"), pipeline.Open)
	}
}
