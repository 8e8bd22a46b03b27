package ledger

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// The power-loss model. When the power goes, a file holds what was written to it before its last fsync; of what was
// written after that, any part may be there, torn, out of order, zero or garbage. SQLite writes a transaction to the
// log and syncs the log before the commit returns; it restarts the log with a header that it syncs before it writes
// more; a checkpoint writes pages into the database when the log that holds them is synced, and syncs the
// database before that log is overwritten (walFrames and walCheckpoint in SQLite's wal.c). A test cannot cut the
// power, but it can copy both files after every commit and construct the contents that a disk may have between two
// commits.
//
// The model trusts the disk: synced bytes are there, and the bytes next to those being written are unharmed
// (SQLITE_IOCAP_POWERSAFE_OVERWRITE).

// instant is the content of the disk when everything written so far is on it.
type instant struct {
	db, wal []byte
	tables  string           // what the ledger held, read from the running process
	acked   map[string]int64 // acknowledged versions of the rows, by externalId
}

// recorder takes an instant after every commit. It also holds a commit back until the test has queued the calls that
// share the next one, so that a seed always gives the same transactions.
type recorder struct {
	*Ledger
	ctx              context.Context
	files            [2]*os.File // database and log; closing one would drop SQLite's locks, so they stay open
	hold             bool
	arrived, release chan struct{}

	mu       sync.Mutex
	acked    map[string]int64
	instants []instant
	err      error
}

func (r *recorder) hook(point string) { // in the writer's goroutine
	if point == "ledger.before-commit" && r.hold {
		r.hold = false
		r.arrived <- struct{}{}
		<-r.release
	}
	if point == "ledger.after-commit" && r.err == nil {
		r.err = r.take()
	}
}

func (r *recorder) take() (err error) {
	r.mu.Lock()
	now := instant{acked: maps.Clone(r.acked)}
	r.mu.Unlock()
	for i, into := range []*[]byte{&now.db, &now.wal} {
		if *into, err = io.ReadAll(io.NewSectionReader(r.files[i], 0, 1<<30)); err != nil {
			return err
		}
	}
	now.tables, err = readTables(r.ctx, r.readers)
	r.instants = append(r.instants, now)
	return err
}

// readTables returns the content of the tables as text, without whether the ledger was closed cleanly.
func readTables(ctx context.Context, db source) (string, error) {
	var names string
	err := db.QueryRowContext(ctx, `SELECT group_concat(name, ' ') FROM sqlite_schema WHERE type = 'table'`).Scan(&names)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for table := range strings.FieldsSeq(names) {
		if err := readTable(ctx, db, table, &b); err != nil {
			return "", err
		}
	}
	return strings.Replace(b.String(), "meta|clean|1|", "meta|clean|0|", 1), nil
}

func readTable(ctx context.Context, db source, table string, to *strings.Builder) error {
	rows, err := db.QueryContext(ctx, "SELECT * FROM "+table) // in the order of the primary key
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	values := make([]any, len(columns))
	for i := range values {
		values[i] = new(any)
	}
	for rows.Next() {
		if err := rows.Scan(values...); err != nil {
			return err
		}
		fmt.Fprintf(to, "%s|", table)
		for _, v := range values {
			fmt.Fprintf(to, "%v|", *v.(*any))
		}
		to.WriteByte('\n')
	}
	return rows.Err()
}

// history processes some rows and returns the instants, in order. At the last one, the ledger is closed except for its
// log.
func history(t *testing.T, random *rand.Rand, rounds int) []instant {
	t.Helper()
	r := &recorder{arrived: make(chan struct{}), release: make(chan struct{}), acked: map[string]int64{}}
	synctest.Test(t, func(t *testing.T) {
		r.arrived, r.release = make(chan struct{}), make(chan struct{}) // of the bubble
		o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
		o.Hook = r.hook
		l, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r.Ledger, r.ctx = l, context.WithoutCancel(t.Context())
		wantPragma(t, l, "synchronous", "2") // FULL: what the model stands on
		wantPragma(t, l, "journal_mode", "wal")
		// Checkpoints and new beginnings of the log every few commits instead of every 16 MiB.
		wantPragma(t, l, "wal_autocheckpoint = 40", "40")
		for i, name := range []string{o.Path, o.Path + "-wal"} {
			if r.files[i], err = os.Open(name); err != nil {
				t.Fatal(err)
			}
			defer r.files[i].Close()
		}
		if err := r.take(); err != nil {
			t.Fatal(err)
		}
		r.live(t, random, rounds)
		// Close marks the ledger as closed well, writes the log back, and removes it.
		execSQL(t, l, `UPDATE meta SET value = '1' WHERE key = 'clean'`)
		last := r.instants[len(r.instants)-1]
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if last.db, err = io.ReadAll(io.NewSectionReader(r.files[0], 0, 1<<30)); err != nil {
			t.Fatal(err)
		}
		r.instants = append(r.instants, last)
	})
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.instants
}

func wantPragma(t testing.TB, l *Ledger, pragma, want string) {
	t.Helper()
	var got string
	if err := l.conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
		t.Fatalf("%s is %s, %v; want %s", pragma, got, err, want)
	}
}

// live accepts rows, updates them, publishes some, lists customers, and reads for a while, which keeps
// checkpoints from finishing.
func (r *recorder) live(t *testing.T, random *rand.Rand, rounds int) {
	var records []pipeline.Record
	var reader *Reader
	for round := range rounds {
		var fresh []pipeline.Row
		for range 1 + random.IntN(20) {
			fresh = append(fresh, testRow(len(records)+len(fresh), "i1"))
		}
		var answers []pipeline.Acceptance
		calls := []func(){func() {
			answers = accept(t, r.Ledger, fresh...)
			for _, a := range answers {
				r.acknowledge(a.Record)
			}
		}}
		for _, i := range random.Perm(len(records))[:min(len(records), random.IntN(9))] {
			calls = append(calls, r.step(t, &records[i], random))
		}
		r.together(calls)
		for _, a := range answers {
			records = append(records, a.Record)
		}
		switch {
		case round%7 == 3:
			list := make([]pipeline.Customer, random.IntN(60))
			for i := range list {
				list[i] = testCustomer(i)
			}
			replace(t, r.Ledger, time.Now(), list...)
		case round%5 == 2:
			settled, err := r.Unpublished(t.Context(), 3)
			if err == nil {
				err = r.Published(t.Context(), settled)
			}
			if err != nil {
				t.Fatal(err)
			}
		case round%10 == 4:
			var err error
			if reader, err = OpenReadOnly(t.Context(), r.path); err != nil {
				t.Fatal(err)
			}
		case round%10 == 8:
			if err := reader.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (r *recorder) acknowledge(record pipeline.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked[record.ExternalID] = record.Version
}

// step is the next change of a row: a transition with a key, or a terminal stage.
func (r *recorder) step(t *testing.T, record *pipeline.Record, random *rand.Rand) func() {
	end := random.IntN(8)
	return func() {
		switch {
		case record.Stage.Terminal():
			if err := r.SetPartnerStatuses(t.Context(), map[int64]string{record.ID: strconv.Itoa(end)}); err != nil {
				t.Errorf("got %v, want nil", err)
			}
			return // the version does not change
		case record.Stage == pipeline.Creating && end == 0:
			*record = advance(t, r.Ledger, *record, pipeline.Onboarded, nil)
		default:
			*record = advance(t, r.Ledger, *record, pipeline.Creating, func(next *pipeline.Record) {
				next.Attempts = int(next.Version)
				next.CreateKey = createKey(int(next.Version), time.Unix(next.Version, 0).UTC())
				next.Challenge = strings.Repeat("x", 300)
			})
		}
		r.acknowledge(*record)
	}
}

// together runs the first call in its own transaction and the others in the next.
func (r *recorder) together(calls []func()) {
	var wg sync.WaitGroup
	r.hold = true
	wg.Go(calls[0])
	<-r.arrived
	for _, call := range calls[1:] {
		wg.Go(call)
		synctest.Wait() // it is in the queue, behind those before it
	}
	r.release <- struct{}{}
	wg.Wait()
}

// powerSeed is $LEDGER_TEST_SEED, which repeats a history and its images, or a new one.
func powerSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("LEDGER_TEST_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LEDGER_TEST_SEED=%d repeats this", seed)
	return seed
}

// TestPowerLoss: after a power loss at any moment the ledger opens, has all acknowledged changes and no partial ones.
func TestPowerLoss(t *testing.T) {
	random := rand.New(rand.NewPCG(powerSeed(t), 0))
	instants := history(t, random, 30)
	images := imagesAtTheEnds(random, instants)
	for i := 1; i < len(instants); i++ {
		for _, im := range imagesBetween(random, instants[i-1], instants[i]) {
			im.what = fmt.Sprintf("%s after commit %d", im.what, i)
			images = append(images, im)
		}
	}
	if testing.Short() {
		random.Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
		images = images[:len(images)/4]
	}
	for _, im := range images {
		if err := im.check(t.Context(), t.TempDir(), random); err != nil {
			t.Errorf("%s: got %v, want a sound ledger", im.what, err)
		}
	}
	t.Logf("%d commits, %d images", len(instants)-1, len(images))
}

// TestPowerLossWithoutAnFsync: without any of SQLite's fsyncs the model must find a loss.
func TestPowerLossWithoutAnFsync(t *testing.T) {
	seed := powerSeed(t)
	source := rand.NewPCG(seed, 0)
	random := rand.New(source)
	instants := history(t, random, 30)
	for name, imagesOf := range map[string]func(a, b, next instant) []image{
		// A frame of an acknowledged commit.
		"a frame is cut": func(a, b, next instant) []image {
			if len(b.wal) == len(a.wal) || logRestarted(a, b) {
				return nil
			}
			return []image{{db: a.db, wal: b.wal[:len(b.wal)-logFrame], acked: next.acked}}
		},
		// As with synchronous=NORMAL.
		"a commit returns before its log is synced": func(a, b, _ instant) []image {
			return []image{{db: a.db, wal: torn(random, a.wal, b.wal, changed(a.wal, b.wal)), want: []string{b.tables}}}
		},
		// As with synchronous=OFF, and the two below.
		"a checkpoint before the log is synced": func(a, b, _ instant) (all []image) {
			pages := changedPages(a.db, b.db)
			for range min(len(pages), 8) {
				db := torn(random, a.db, b.db, pages...)
				all = append(all, image{db: db, wal: a.wal, want: []string{a.tables, b.tables}})
			}
			return all
		},
		"a new log before the pages of the old one are synced": func(a, b, _ instant) []image {
			if !logRestarted(a, b) {
				return nil
			}
			first := instants[0].db
			db := torn(random, first, a.db, changedPages(first, a.db)...)
			return []image{{db: db, wal: b.wal, want: []string{b.tables}}}
		},
		"a new log before its header is synced": func(a, b, _ instant) (all []image) {
			if !logRestarted(a, b) {
				return nil
			}
			// What was written last has arrived, and the old log's beginning is still there.
			for at := logHeader + logFrame; at < changed(a.wal, b.wal).to; at += logFrame {
				wal := append(bytes.Clone(a.wal[:at]), b.wal[at:]...)
				all = append(all, image{db: a.db, wal: wal, want: []string{a.tables, b.tables}})
			}
			return all
		},
	} {
		t.Run(name, func(t *testing.T) {
			source.Seed(seed, 1) // or it would depend on which name came first
			images := 0
			for i := 1; i < len(instants)-2; i++ {
				for _, im := range imagesOf(instants[i-1], instants[i], instants[i+1]) {
					images++
					if err := im.check(t.Context(), t.TempDir(), random); err != nil {
						t.Logf("image %d, between commits %d and %d: %v", images, i-1, i, err)
						return
					}
				}
			}
			t.Errorf("got no error in %d images, want one: the model misses this fsync", images)
		})
	}
}
