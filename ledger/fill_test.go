package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/purser-onboard/purser/pipeline"
)

// schemaOf returns the indexes and triggers of a ledger, sorted.
func schemaOf(t testing.TB, l *Ledger) (schema []string) {
	t.Helper()
	rows, err := l.source.QueryContext(t.Context(), `SELECT type || ' ' || name || ' ' || coalesce(sql, '')
		FROM sqlite_schema WHERE type IN ('index', 'trigger') ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		schema = append(schema, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return schema
}

// wantWhole checks a ledger after a restore: the structure, the indexes' content and the schema of a new ledger.
func wantWhole(t testing.TB, l *Ledger) {
	t.Helper()
	fresh, _ := openTest(t)
	wantIntact(t, l, schemaOf(t, fresh))
}

func wantIntact(t testing.TB, l *Ledger, want []string) {
	t.Helper()
	l.writingBack.Wait()
	if err := checkIntegrity(t.Context(), l.source, l.path, "integrity_check"); err != nil {
		t.Error(err)
	}
	var orphans int
	err := l.source.QueryRowContext(t.Context(), `SELECT count(*) FROM pragma_foreign_key_check`).Scan(&orphans)
	if err != nil || orphans > 0 {
		t.Errorf("got %d rows without the row that they refer to, %v; want none", orphans, err)
	}
	for pragma, want := range map[string]string{"foreign_keys": "1", "wal_autocheckpoint": "4096"} {
		wantPragma(t, l, pragma, want)
	}
	if got := schemaOf(t, l); !slices.Equal(got, want) {
		t.Errorf("got the schema\n%s\nwant that of a new ledger\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// inOrder is a ledger to which the records were applied one by one, with the indexes in place.
func inOrder(t testing.TB, p *topic, partition int) map[string]*snapshot {
	t.Helper()
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), p)
	f.held[partition] = true
	in := &intake{
		log: f, partition: partition, own: l.writer.own,
		suspects: map[recordKind]suspects{}, ignored: map[recordKind]*ignored{},
	}
	for _, m := range p.partitions[partition] {
		snapshots, err := in.read([]pipeline.Message{m})
		if err == nil {
			err = l.writer.do(t.Context(), 1, func(t *tx) error {
				_, err := t.applyBatch(partition, 1, snapshots, 0)
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	in.report(slog.Default())
	return dump(t, l, f, partition)
}

// drawRecord is a record of one of a few rows, which contradict each other: in accounts, externalIds, nonces and
// versions.
func drawRecord(t *rapid.T) *snapshot {
	r := pipeline.Record{
		Row:     pair(rapid.IntRange(1, 5).Draw(t, "account"), rapid.IntRange(1, 5).Draw(t, "externalId"), "i1"),
		Version: int64(rapid.IntRange(1, 4).Draw(t, "version")),
		Stage: rapid.SampledFrom([]pipeline.Stage{pipeline.Planned, pipeline.Creating, pipeline.Onboarded,
			pipeline.Failed, pipeline.Conflict}).Draw(t, "stage"),
		CustomerID: "c1", Reason: rapid.SampledFrom([]string{"", "why"}).Draw(t, "reason"),
		AcceptedAt: noClock(), UpdatedAt: noClock(),
	}
	s := snapshotOf(r, rapid.IntRange(0, 3).Draw(t, "claims") > 0, testEnvironment)
	if n := rapid.IntRange(0, 2).Draw(t, "keys"); n > 0 {
		for generation := range n {
			s.addKey(derived(r, pipeline.OpCreate, generation))
		}
		latest := n - 1
		s.CreateGeneration = &latest
	}
	for range rapid.IntRange(0, 2).Draw(t, "nonces") {
		nonce, challenge := rapid.IntRange(1, 4).Draw(t, "nonce"), rapid.IntRange(1, 2).Draw(t, "challenge")
		s.Nonces = append(s.Nonces, nonceUseOf(fmt.Sprint(nonce), fmt.Sprint(challenge)))
	}
	s.Imports = rapid.SampledFrom([][]string{nil, {"i0"}, {"i0", "i00"}, {"i0", "i0"}}).Draw(t, "imports")
	s.Unpublished = rapid.Bool().Draw(t, "unpublished")
	return s
}

// TestFillIsRestore: filling an empty ledger gives what applying the records one by one gives, whatever the records.
func TestFillIsRestore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		shared := newTopic(1)
		for range rapid.IntRange(1, 30).Draw(rt, "records") {
			shared.put(0, drawRecord(rt).message(t))
		}
		l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
		f.batch = rapid.IntRange(1, 30).Draw(rt, "batch")
		schema := schemaOf(t, l)
		if r := restore(t, l, f, 0); r.Records != len(shared.partitions[0]) || r.To != shared.ends[0] || r.Ignored != 0 {
			rt.Errorf("got %+v, want all of %d records", r, len(shared.partitions[0]))
		}
		if diff := difference(inOrder(t, shared, 0), dump(t, l, f, 0)); diff != "" {
			rt.Errorf("got another ledger than in order\n%s", diff)
		}
		wantIntact(t, l, schema)
		if err := l.Close(); err != nil {
			rt.Error(err)
		}
	})
}

// TestFillInAnyOrder: the latest version of a row counts, wherever in the topic its record is.
func TestFillInAnyOrder(t *testing.T) {
	var records []pipeline.Message
	for n := range 50 {
		s := goodSnapshot(n)
		s.CustomerID, s.Keys = "c", s.Keys[:2] // the submit key depends on the customer
		s.Stage, s.SubmitGeneration, s.Signature = string(pipeline.Creating), nil, ""
		s.Nonces = []nonceUse{nonceUseOf(fmt.Sprint(n), "challenge")}
		for version := range int64(3) {
			s.Version, s.Attempts = version+1, int(version)
			records = append(records, s.message(t))
		}
	}
	var want map[string]*snapshot
	rapid.Check(t, func(rt *rapid.T) {
		shared := newTopic(1)
		shared.put(0, rapid.Permutation(records).Draw(rt, "records")...)
		l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
		f.batch = 7
		restore(t, l, f, 0)
		got := dump(t, l, f, 0)
		if len(got) != 50 {
			rt.Errorf("got %d rows, want 50", len(got))
		}
		for row, s := range got {
			if s.Version != 3 || s.Attempts != 2 {
				rt.Errorf("row %q: got version %d, want the latest, 3", row, s.Version)
			}
		}
		if want == nil {
			want = got
		}
		if diff := difference(want, got); diff != "" {
			rt.Errorf("got another ledger than in another order\n%s", diff)
		}
		if err := l.Close(); err != nil {
			rt.Error(err)
		}
	})
}

// rowsTopic is a topic with a record for each row, in the partition of its account.
func rowsTopic(t testing.TB, partitions, rows int) *topic {
	t.Helper()
	shared := newTopic(partitions)
	where := &follower{topic: shared}
	for n := range rows {
		s := goodSnapshot(n)
		s.Nonces = []nonceUse{nonceUseOf(fmt.Sprint(n), "challenge")}
		shared.put(where.Partition(s.ChainID), s.message(t))
	}
	return shared
}

// TestFillOfSeveralPartitions: more partitions than are read at once; afterwards another partition comes, with a row
// that contradicts a row which is being processed.
func TestFillOfSeveralPartitions(t *testing.T) {
	const partitions, rows = 7, 300
	shared := rowsTopic(t, partitions, rows)
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	var first []int
	for p := range partitions - 1 {
		f.held[p] = true
		first = append(first, p)
	}
	all, err := l.Restore(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range all {
		n := len(shared.partitions[first[i]])
		if want := (Restored{To: int64(n), Records: n, Newer: n}); r != want {
			t.Errorf("partition %d: got %+v, want %+v", first[i], r, want)
		}
	}
	for _, p := range first {
		if diff := difference(inOrder(t, shared, p), dump(t, l, f, p)); diff != "" {
			t.Errorf("partition %d: got another ledger than in order\n%s", p, diff)
		}
	}
	wantWhole(t, l)

	last := partitions - 1
	here, there := rows, rows // new rows with one externalId, in a partition that is being processed and in the last
	for f.Partition(account(here).String()) == last {
		here++
	}
	for f.Partition(account(there).String()) != last {
		there++
	}
	mine := acceptOne(t, l, pair(here, rows, "i1"), pipeline.Open)
	other := goodSnapshot(there)
	other.ExternalID = mine.ExternalID
	r := pipeline.Record{Row: pair(there, rows, "i1"), CustomerID: other.CustomerID}
	other.Keys = nil
	for generation := range 2 {
		other.addKey(derived(r, pipeline.OpCreate, generation))
	}
	other.addKey(derived(r, pipeline.OpSubmit, 0))
	shared.put(last, other.message(t))
	restore(t, l, f, last)
	got := dump(t, l, f, last)
	if came := got[other.ChainID+" "+other.ExternalID]; came == nil || came.HasClaims || came.Stage != other.Stage {
		t.Errorf("got %+v, want the row of the last partition, without the claims of the row that is here", came)
	}
	if n := len(shared.partitions[last]); len(got) != n {
		t.Errorf("last partition: got %d rows, want %d", len(got), n)
	}
	advance(t, l, mine, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = derived(*r, pipeline.OpCreate, 0) })
	wantWhole(t, l)
}

// TestFillEndsWithManySetAside: most records are of rows that were there before. The fill ends in the middle.
func TestFillEndsWithManySetAside(t *testing.T) {
	shared := newTopic(1)
	const rows, versions = 10, maxAside/10 + 500
	for version := range versions {
		for n := range rows {
			s := goodSnapshot(n)
			s.Version, s.Stage, s.Keys = int64(version+1), string(pipeline.Planned), nil
			s.CreateGeneration, s.SubmitGeneration = nil, nil
			shared.put(0, s.message(t))
		}
	}
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	f.batch = 1000
	want := Restored{To: rows * versions, Records: rows * versions, Newer: rows * versions}
	if r := restore(t, l, f, 0); r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	for row, s := range dump(t, l, f, 0) {
		if s.Version != versions {
			t.Errorf("row %q: got version %d, want %d", row, s.Version, versions)
		}
	}
	wantWhole(t, l)
}

// TestFillFails: what the indexes do not allow is an error, and leaves an empty ledger with its indexes, which can be
// filled again.
func TestFillFails(t *testing.T) {
	shared := rowsTopic(t, 1, 100)
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	run := &replaying{log: f}
	fill := &filling{l: l}
	err := l.writer.doAlone(t.Context(), func(tx *tx) error {
		create, err := fill.begin(tx)
		if err != nil {
			return err
		}
		for range 2 { // as if the second had not been recognised
			fill.seen = seen{seed: maphash.MakeSeed()}
			if err := fill.add(tx.ctx, replayed{run: run, snapshots: []*snapshot{goodSnapshot(1)}}, true); err != nil {
				return err
			}
		}
		return fill.end(tx, create)
	})
	if err == nil || !strings.Contains(err.Error(), "UNIQUE constraint failed") {
		t.Errorf("got %v, want a violation of a unique index", err)
	}
	if got := dump(t, l, f, 0); len(got) != 0 {
		t.Errorf("got %d rows, want none", len(got))
	}
	wantWhole(t, l)
	if r := restore(t, l, f, 0); r.Newer != 100 {
		t.Errorf("again: got %+v, want 100 newer", r)
	}
	wantWhole(t, l)
}

// TestFillOfAFullDisk: the error says so once, nothing is stored, and the next call fills the ledger.
func TestFillOfAFullDisk(t *testing.T) {
	shared := newTopic(1)
	const rows = 3000
	for n := range rows {
		shared.put(0, largeRecord(n))
	}
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	f.held[0] = true
	for _, pages := range []int{200, 1100} { // while rows are inserted, and while indexes are created
		execSQL(t, l, fmt.Sprintf(`PRAGMA max_page_count = %d`, pages))
		r, err := l.restoreOne(t.Context(), 0)
		if !errors.Is(err, errDiskFull) || strings.Contains(err.Error(), "\n") || r != (Restored{}) {
			t.Errorf("%d pages: got %+v, %v; want nothing stored, and errDiskFull on one line", pages, r, err)
		}
		execSQL(t, l, `PRAGMA max_page_count = 1000000`)
		wantWhole(t, l)
	}
	if r := restore(t, l, f, 0); r.Newer != rows {
		t.Errorf("got %+v, want %d newer", r, rows)
	}
	wantWhole(t, l)
}

// TestFillOfAMisfit: a topic that this ledger cannot follow leaves nothing of any partition in an empty ledger.
func TestFillOfAMisfit(t *testing.T) {
	shared := rowsTopic(t, 2, 100)
	for n := range minSuspects {
		shared.put(1, altered(t, n, func(m map[string]any) { m["v"] = 99 }))
	}
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	f.held[0], f.held[1] = true, true
	for range 2 { // also the next run fails
		all, err := l.Restore(t.Context(), []int{0, 1})
		if !errors.As(err, new(*SnapshotError)) {
			t.Fatalf("got %v, want a SnapshotError", err)
		}
		if want := make([]Restored, 2); !slices.Equal(all, want) {
			t.Errorf("got %+v, want nothing restored", all)
		}
		if n := len(dump(t, l, f, 0)) + len(dump(t, l, f, 1)); n != 0 {
			t.Errorf("got %d rows, want none", n)
		}
		wantWhole(t, l)
	}
}

// late holds the replay of partition 1 back until the fill has taken records of partition 0.
type late struct{ heldBack }

func (f *late) Replay(
	ctx context.Context, partition int, from int64, yield func([]pipeline.Message, int64) error,
) error {
	if partition == 1 {
		return f.heldBack.Replay(ctx, partition, from, yield)
	}
	batches := 0
	return f.follower.Replay(ctx, partition, from, func(batch []pipeline.Message, next int64) error {
		if batches++; batches == 6 { // up to four wait, so that one was taken
			close(f.resume)
		}
		return yield(batch, next)
	})
}

// TestFillBesideARecreatedPartition: a partition of which an empty ledger has a position was recreated, which has to be
// written down while another partition fills the ledger.
func TestFillBesideARecreatedPartition(t *testing.T) {
	shared := newTopic(2)
	shared.put(1, pipeline.Message{Key: []byte("k"), Value: []byte("no record")})
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	if r := restore(t, l, f, 1); r.Ignored != 1 || r.To != 1 {
		t.Fatalf("got %+v, want one record ignored", r)
	}
	*shared = *rowsTopic(t, 2, 100)
	rows := shared.partitions[1]
	shared.partitions[1], shared.ends[1] = nil, 0
	f.held[0] = true
	if err := l.Follow(&late{heldBack{f, make(chan struct{})}}, nil); err != nil {
		t.Fatal(err)
	}
	all, err := l.Restore(t.Context(), []int{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(shared.partitions[0]); all[0].Newer != n || all[1] != (Restored{}) {
		t.Errorf("got %+v, want %d newer and nothing", all, n)
	}
	shared.put(1, rows...)
	if err := l.Follow(f, nil); err != nil {
		t.Fatal(err)
	}
	if r := restore(t, l, f, 1); r.Newer != len(rows) {
		t.Errorf("got %+v, want %d newer", r, len(rows))
	}
	wantWhole(t, l)
}

// TestFillWhileTheKeyIsRotated: records under the earlier key are applied and written again.
func TestFillWhileTheKeyIsRotated(t *testing.T) {
	shared := rowsTopic(t, 1, 20)
	early := changelogKeys(t, "onboarding.ledger", "a")
	both := changelogKeys(t, "onboarding.ledger", "b", "a")
	both.Sign(shared.partitions[0][:10])
	early.Sign(shared.partitions[0][10:])
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	if err := l.Follow(f, both); err != nil {
		t.Fatal(err)
	}
	if r := restore(t, l, f, 0); r.Newer != 20 || r.Resigned != 10 || len(shared.partitions[0]) != 30 {
		t.Errorf("got %+v and %d records in the topic, want 20 newer, and 10 written again", r, len(shared.partitions[0]))
	}
	for _, m := range shared.partitions[0][20:] {
		if !both.Current(m) {
			t.Errorf("offset %d: got a record under the earlier key, want the present", m.Offset)
		}
	}
	wantWhole(t, l)
}

const fillChildRows = 16_000 // more than SQLite keeps in memory

// largeRecord is a settled row with a challenge.
func largeRecord(n int) pipeline.Message {
	r := pipeline.Record{
		Row: testRow(n, "i1"), Version: 5, Stage: pipeline.Onboarded, CustomerID: "c",
		Challenge: strings.Repeat("x", 900), AcceptedAt: noClock(), UpdatedAt: noClock(),
	}
	s := snapshotOf(r, true, testEnvironment)
	digest := sha256.Sum256(fmt.Append(nil, n))
	s.Nonces = []nonceUse{digest}
	value, err := json.Marshal(s)
	if err != nil {
		panic(err) // it always can be
	}
	return pipeline.Message{Key: s.key(), Value: value}
}

// TestFillIsWrittenBack: the log of a fill is written back without another commit, and later commits write theirs back.
func TestFillIsWrittenBack(t *testing.T) {
	shared := newTopic(1)
	for n := range 5_000 {
		shared.put(0, largeRecord(n))
	}
	l, _ := newFollower(t, shared)
	l.writingBack.Wait()
	info, err := os.Stat(l.path)
	if err != nil || info.Size() < 5_000*900 {
		t.Errorf("got a file of %v, %v; want the rows in it", info, err)
	}
	wantWhole(t, l)
}
