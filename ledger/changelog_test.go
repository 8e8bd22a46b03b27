package ledger

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/pipeline"
)

// topic is a compacted topic in memory, for many ledgers.
type topic struct {
	mu         sync.Mutex
	partitions [][]pipeline.Message
	ends       []int64
}

func newTopic(partitions int) *topic {
	return &topic{partitions: make([][]pipeline.Message, partitions), ends: make([]int64, partitions)}
}

// compact keeps the latest message of each key, as the broker may at any time.
func (p *topic) compact() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, messages := range p.partitions {
		latest := map[string]int64{}
		for _, m := range messages {
			latest[string(m.Key)] = m.Offset
		}
		p.partitions[i] = slices.DeleteFunc(messages, func(m pipeline.Message) bool { return latest[string(m.Key)] != m.Offset })
	}
}

// follower is what one ledger sees of the topic.
type follower struct {
	*topic
	held  map[int]bool
	epoch int64
	lose  bool // the next Append writes, and then fails all the same
	batch int  // how many messages Replay hands over at once; 0: three
}

func (f *follower) Topic() string { return "onboarding.ledger" }

func (f *follower) Partition(account string) int {
	hash := fnv.New32a()
	hash.Write([]byte(account))
	return int(hash.Sum32() % uint32(len(f.partitions)))
}

func (f *follower) Epoch(partition int) int64 {
	if !f.held[partition] {
		return 0
	}
	return f.epoch
}

var errLost = errors.New("the answer was lost")

func (f *follower) Append(_ context.Context, messages []pipeline.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range messages {
		m := &messages[i]
		if !f.held[m.Partition] {
			return pipeline.ErrFenced
		}
		m.Offset = f.ends[m.Partition]
		f.ends[m.Partition]++
		f.partitions[m.Partition] = append(f.partitions[m.Partition], *m)
	}
	if f.lose {
		f.lose = false
		return errLost
	}
	return nil
}

func (f *follower) Replay(
	_ context.Context, partition int, from int64, yield func([]pipeline.Message, int64) error,
) error {
	f.mu.Lock()
	messages, end := slices.Clone(f.partitions[partition]), f.ends[partition]
	f.mu.Unlock()
	if from > end {
		return pipeline.ErrChangelogRecreated
	}
	messages = slices.DeleteFunc(messages, func(m pipeline.Message) bool { return m.Offset < from })
	for batch := range slices.Chunk(messages, cmp.Or(f.batch, 3)) {
		if err := yield(batch, batch[len(batch)-1].Offset+1); err != nil {
			return err
		}
	}
	return yield(nil, end)
}

// openFollower opens a ledger that follows the topic, and is given no partition yet.
func openFollower(t testing.TB, path string, p *topic) (*Ledger, *follower) {
	t.Helper()
	o := testOptions(path)
	o.Changelog = "onboarding.ledger"
	o.Environment.APIPath = "/v1"
	l := reopen(t, o)
	f := &follower{topic: p, held: map[int]bool{}, epoch: 1}
	if err := l.Follow(f, nil); err != nil {
		t.Fatal(err)
	}
	return l, f
}

func restore(t testing.TB, l *Ledger, f *follower, partition int) Restored {
	t.Helper()
	f.held[partition] = true
	r, err := l.Restore(t.Context(), partition)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dump is all that a ledger knows of the rows of a partition, without its own numbers.
func dump(t testing.TB, l *Ledger, f *follower, partition int) map[string]*snapshot {
	t.Helper()
	all := map[string]*snapshot{}
	err := l.writer.do(t.Context(), 1, func(tx *tx) error {
		rows, err := l.source.QueryContext(tx.ctx, `SELECT id FROM rows`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			s, err := tx.snapshot(id, testEnvironment)
			if err != nil {
				return err
			}
			if f.Partition(s.ChainID) == partition {
				all[s.ChainID+" "+s.ExternalID] = s
			}
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// difference says which rows two dumps know differently.
func difference(want, got map[string]*snapshot) string {
	var b strings.Builder
	for _, dumps := range [][2]map[string]*snapshot{{want, got}, {got, want}} {
		for row := range dumps[0] {
			if !reflect.DeepEqual(want[row], got[row]) {
				one, _ := json.Marshal(want[row]) // text and numbers: it always can be
				other, _ := json.Marshal(got[row])
				fmt.Fprintf(&b, "want %s\ngot  %s\n", one, other)
			}
		}
	}
	return b.String()
}

// A row moves with all that is known of it: the keys of every generation, the signature that is about to be sent, the
// challenge, the imports it had.
func TestLedgerMoves(t *testing.T) {
	shared := newTopic(1)
	first, f1 := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, first, f1, 0)
	now := noClock()
	r := acceptOne(t, first, testRow(1, "i1"), pipeline.Open)
	r = advance(t, first, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = derived(*r, pipeline.OpCreate, 0) })
	r = advance(t, first, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = derived(*r, pipeline.OpCreate, 1) })
	r = advance(t, first, r, pipeline.Challenged, func(r *pipeline.Record) {
		r.CustomerID, r.Challenge, r.ChallengeAt = "c1", "sign\nthis, \"please\"", now
		r.CreateKey.Outcome = pipeline.KeySettled
	})
	accept(t, first, testRow(1, "i2")) // comes again while it is under way
	r = advance(t, first, r, pipeline.Signing, func(r *pipeline.Record) { r.ExternalTxID = "tx-1" })
	r = advance(t, first, r, pipeline.Submitting, func(r *pipeline.Record) {
		r.Signature, r.SubmitKey, r.Attempts = "0x1234", derived(*r, pipeline.OpSubmit, 0), 3
	})
	settle(t, first, acceptOne(t, first, testRow(2, "i1"), pipeline.Open), pipeline.Onboarded, "c2")
	settle(t, first, acceptOne(t, first, testRow(3, "i1"), pipeline.Open), pipeline.Failed, "")
	accept(t, first, pair(2, 9, "i1")) // contradicts: its account has a customer
	announced := get(t, first, testRow(2, ""))
	if err := first.Announced(t.Context(), []pipeline.Record{announced}); err != nil {
		t.Fatal(err)
	}
	want := dump(t, first, f1, 0)
	shared.compact()

	second, f2 := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	got := restore(t, second, f2, 0)
	if want := (Restored{To: shared.ends[0], Records: 4, Newer: 4}); got != want {
		t.Errorf("%+v", got)
	}
	if diff := difference(want, dump(t, second, f2, 0)); diff != "" {
		t.Errorf("the second ledger differs:\n%s", diff)
	}
	moved := get(t, second, testRow(1, ""))
	if moved.ID = r.ID; moved.Stage != pipeline.Submitting || moved.SubmitKey != r.SubmitKey || moved.Version != r.Version {
		t.Errorf("it goes on with %+v, want %+v", moved, r)
	}
	// What the first one has not announced, the second one does.
	events, err := second.Unannounced(t.Context(), 10)
	if err != nil || len(events) != 2 || events[0].Stage != pipeline.Failed || events[1].Stage != pipeline.Conflict {
		t.Errorf("to be announced: %+v, %v", events, err)
	}
	// An import that the row had before it moved is no news here either.
	acceptOne(t, second, testRow(3, "i1"), pipeline.Settled)
	acceptOne(t, second, testRow(1, "i1"), pipeline.Open)
	if now := get(t, second, testRow(1, "")); now.ImportID != "i2" {
		t.Errorf("the row is of import %s, want its latest", now.ImportID)
	}
	if again := restore(t, second, f2, 0); again.Records != 0 {
		t.Errorf("what it wrote itself was read again: %+v", again)
	}
}

// A record of the version that is known already counts, too: an event was published, an import has come again.
func TestSameVersionCounts(t *testing.T) {
	shared := newTopic(1)
	first, f1 := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, first, f1, 0)
	settled := settle(t, first, acceptOne(t, first, testRow(1, "i1"), pipeline.Open), pipeline.Onboarded, "c1")
	acceptOne(t, first, testRow(2, "i1"), pipeline.Open)
	second, f2 := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, second, f2, 0)
	f2.held[0] = false
	if err := first.Announced(t.Context(), []pipeline.Record{get(t, first, settled.Row)}); err != nil {
		t.Fatal(err)
	}
	accept(t, first, testRow(2, "i2"))
	f1.held[0] = false
	if got := restore(t, second, f2, 0); got.Records != 2 || got.Newer != 0 {
		t.Errorf("%+v", got)
	}
	if events, err := second.Unannounced(t.Context(), 10); err != nil || len(events) != 0 {
		t.Errorf("published once more: %+v, %v", events, err)
	}
	if now := get(t, second, testRow(2, "")); now.ImportID != "i2" {
		t.Errorf("the row is of import %s, want its latest", now.ImportID)
	}
}

// TestOlderRecordPutBack: somebody writes a record of the topic once more. The ledger that knows more keeps it; one
// that knows nothing begins where that record stands.
func TestOlderRecordPutBack(t *testing.T) {
	shared := newTopic(1)
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, l, f, 0)
	settle(t, l, acceptOne(t, l, testRow(1, "i1"), pipeline.Open), pipeline.Onboarded, "c1")
	f.held[0] = false
	forger := &follower{topic: shared, held: map[int]bool{0: true}, epoch: 1}
	if err := forger.Append(t.Context(), []pipeline.Message{shared.partitions[0][0]}); err != nil {
		t.Fatal(err)
	}
	shared.compact()
	restore(t, l, f, 0)
	if got := get(t, l, testRow(1, "")); got.Stage != pipeline.Onboarded {
		t.Errorf("got stage %s where more was known, want %s", got.Stage, pipeline.Onboarded)
	}
	next, g := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, next, g, 0)
	if got := get(t, next, testRow(1, "")); got.Stage != pipeline.Planned {
		t.Errorf("got stage %s where nothing was known, want %s", got.Stage, pipeline.Planned)
	}
}

// Events of a partition that is another's are the other's to publish: the row may have been settled anew there.
func TestOnlyOurOwnIsAnnounced(t *testing.T) {
	shared := newTopic(1)
	first, f1 := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, first, f1, 0)
	settle(t, first, acceptOne(t, first, testRow(1, "i1"), pipeline.Open), pipeline.Failed, "")
	count := func() int {
		events, err := first.Unannounced(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(events)
	}
	if n := count(); n != 1 {
		t.Errorf("%d events, want the one", n)
	}
	f1.held[0] = false
	if n := count(); n != 0 {
		t.Errorf("%d events of a partition that is not ours", n)
	}
	f1.held[0], f1.epoch = true, 2
	if n := count(); n != 0 {
		t.Errorf("%d events of a partition that is not restored", n)
	}
	written := len(shared.partitions[0])
	if err := first.Announced(t.Context(), []pipeline.Record{get(t, first, testRow(1, ""))}); err != nil {
		t.Fatal(err)
	}
	if n := len(shared.partitions[0]); n != written {
		t.Errorf("%d records were written to a partition that is not restored", n-written)
	}
	restore(t, first, f1, 0)
	if n := count(); n != 1 {
		t.Errorf("%d events when it is ours again, want the one", n)
	}
}

// What somebody else has written between is not passed over by what we write behind it.
func TestForeignRecordsBetween(t *testing.T) {
	shared := newTopic(1)
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, l, f, 0)
	acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	other, g := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, other, g, 0)
	acceptOne(t, other, testRow(2, "i1"), pipeline.Open) // it should not, but it was about to when it was stopped
	acceptOne(t, l, testRow(3, "i1"), pipeline.Open)
	if got := restore(t, l, f, 0); got.Records != 2 || got.Newer != 1 {
		t.Errorf("%+v", got)
	}
	get(t, l, testRow(2, ""))
}

// A topic that ends before what was read of it is another one, also if that shows only when something is written.
func TestMadeAnewMeanwhile(t *testing.T) {
	shared := newTopic(1)
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, l, f, 0)
	for n := range 5 {
		acceptOne(t, l, testRow(n, "i1"), pipeline.Open)
	}
	*shared = *newTopic(1)
	for n := 5; n < 15; n++ { // the new one grows beyond the old one's end
		acceptOne(t, l, testRow(n, "i1"), pipeline.Open)
	}
	if got := restore(t, l, f, 0); got.Added < 5 {
		t.Errorf("%+v", got)
	}
	fresh, g := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	if got := restore(t, fresh, g, 0); got.Newer != 15 {
		t.Errorf("the new one has %+v, want all 15 rows", got)
	}
}

// An operation that fails leaves nothing behind in the topic, and its neighbours their own.
func TestFailureTouchesNothing(t *testing.T) {
	shared := newTopic(1)
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, l, f, 0)
	a := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	b := acceptOne(t, l, testRow(2, "i1"), pipeline.Open)
	before := len(shared.partitions[0])
	failed := errors.New("no")
	op := func(id int64, err error) *operation {
		return &operation{ctx: t.Context(), weight: 1, done: make(chan struct{}), run: func(tx *tx) error {
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
		t.Errorf("%v, %v, %v", group[0].err, group[1].err, group[2].err)
	}
	if written := shared.partitions[0][before:]; len(written) != 1 || string(written[0].Key) != a.Account.String() {
		t.Errorf("%d records were written: %+v", len(written), written)
	}
}

// What is not ours is neither changed nor written.
func TestFenced(t *testing.T) {
	shared := newTopic(1)
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, l, f, 0)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	before := len(shared.partitions[0])
	f.held[0] = false
	r.Stage, r.CreateKey = pipeline.Creating, derived(r, pipeline.OpCreate, 0)
	if _, err := l.Update(t.Context(), r); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("update: %v", err)
	}
	if _, err := l.Accept(t.Context(), []pipeline.Row{testRow(2, "i1")}); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("accept: %v", err)
	}
	// It is ours again, and has not been restored: what another one did meanwhile is not known yet.
	f.held[0], f.epoch = true, 2
	if _, err := l.Update(t.Context(), r); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("update before it was restored: %v", err)
	}
	if now := get(t, l, r.Row); now.Stage != pipeline.Planned || len(shared.partitions[0]) != before {
		t.Errorf("it was changed all the same: %+v, %d records", now, len(shared.partitions[0]))
	}
	restore(t, l, f, 0)
	if _, err := l.Update(t.Context(), r); err != nil {
		t.Errorf("update after that: %v", err)
	}
}

// A write to the topic whose answer is lost fails the change here, and is found there when the partition is ours again.
func TestLostAnswer(t *testing.T) {
	shared := newTopic(1)
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	restore(t, l, f, 0)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	f.lose = true
	next := r
	next.Stage, next.CreateKey = pipeline.Creating, derived(next, pipeline.OpCreate, 0)
	if _, err := l.Update(t.Context(), next); !errors.Is(err, errLost) {
		t.Fatalf("got %v", err)
	}
	if now := get(t, l, r.Row); now.Stage != pipeline.Planned {
		t.Fatalf("the change was kept: %+v", now)
	}
	if got := restore(t, l, f, 0); got.Newer != 1 {
		t.Errorf("%+v", got)
	}
	if now := get(t, l, r.Row); now.Stage != pipeline.Creating || now.CreateKey.ID != next.CreateKey.ID {
		t.Errorf("what was written is not found: %+v", now)
	}
}

// A ledger that has worked without the topic gives it what it knows, once; and again when the topic was recreated.
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
		t.Errorf("%+v, %d records", got, len(shared.partitions[0]))
	}
	if got := restore(t, l, f, 0); got.Added != 0 {
		t.Errorf("once more: %+v", got)
	}
	*shared = *newTopic(1)
	if got := restore(t, l, f, 0); got.Added != 2 || len(shared.partitions[0]) != 2 {
		t.Errorf("a recreated topic: %+v, %d records", got, len(shared.partitions[0]))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A run without the topic: what it changes is not there, so the next one with it looks at all of it.
	alone = reopen(t, testOptions(path))
	settle(t, alone, get(t, alone, testRow(2, "")), pipeline.Failed, "")
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	l, f = openFollower(t, path, shared)
	if got := restore(t, l, f, 0); got.Records != 2 || got.Newer != 0 || got.Added != 2 {
		t.Errorf("after a run without it: %+v", got)
	}
	if now := get(t, l, testRow(2, "")); now.Stage != pipeline.Failed {
		t.Errorf("the older record was taken over: %+v", now)
	}
}

// Two consumers began rows that contradict each other. When one of them comes to the other's ledger it comes as far as
// it got; the claim stays where it was.
func TestContradictionThatMoved(t *testing.T) {
	a, b := testRow(1, "i1"), pair(2, 1, "i1") // one externalId, two accounts
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
		t.Fatalf("it came as %+v", came)
	}
	acceptOne(t, second, a, pipeline.Open)
	advance(t, second, came, pipeline.Onboarded, func(r *pipeline.Record) { r.CustomerID = "c1" })
	advance(t, second, get(t, second, b), pipeline.Conflict, nil)
}

// changelogKeys derives the keys of a topic from secrets of one letter.
func changelogKeys(t *testing.T, topic string, secrets ...string) *messageauth.Keys {
	t.Helper()
	var file string
	for _, s := range secrets {
		file += base64.StdEncoding.EncodeToString([]byte(strings.Repeat(s, 32))) + "\n"
	}
	k, err := messageauth.New([]byte(file), messageauth.Ledgers, topic)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestCheckChangelogWarnsOfTheKey: that no record is authentic points at the key. Authentic ones of another environment
// show that the key is the fleet's.
func TestCheckChangelogWarnsOfTheKey(t *testing.T) {
	var out bytes.Buffer
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	o.Changelog, o.Logger = "onboarding.ledger", slog.New(slog.NewTextHandler(&out, nil))
	l := reopen(t, o)
	shared := newTopic(1)
	f := &follower{topic: shared, held: map[int]bool{}, epoch: 1}
	if err := l.Follow(f, changelogKeys(t, "another.ledger", "a")); err == nil {
		t.Error("got no error for the keys of another topic")
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

// TestAuthenticatedChangelog: what is signed with no key of ours is as if it were not there, and what is signed with a
// key that is about to be withdrawn is written again: the rows of this ledger and those that it reads.
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
	// An unauthenticated record claims the first row; another ledger has the second one.
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
	// Under the new key the first ledger gives its own row again, and the one that it reads.
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
