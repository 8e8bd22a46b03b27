package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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
// log and syncs the log before the commit returns; it begins the log anew with a header that it syncs before it writes
// behind it; a checkpoint writes pages into the database when the log that holds them is synced, and syncs the
// database before that log is overwritten (walFrames and walCheckpoint in SQLite's wal.c). A test cannot cut the
// power, but it can keep both files as they are after every commit, and make up everything that a disk may hold
// between two of them.
//
// The model believes the disk: what was synced is there, and what lies beside the bytes that were being written is
// unharmed (SQLITE_IOCAP_POWERSAFE_OVERWRITE).

// instant is what the disk holds when all that was written by then is on it.
type instant struct {
	db, wal []byte
	tables  string           // what the ledger held, read from the running process
	acked   map[string]int64 // versions of the rows whose callers had been told, by externalId
}

// recorder takes an instant after every commit. It also holds a commit back until the test has queued what is to share
// the next one, so that a seed always gives the same transactions.
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

// readTables is everything that the ledger knows, as text; but not whether it was closed well.
func readTables(ctx context.Context, db source) (string, error) {
	var names string
	err := db.QueryRowContext(ctx, `SELECT group_concat(name, ' ') FROM sqlite_schema WHERE type = 'table'`).Scan(&names)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, table := range strings.Fields(names) {
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

// history drives a ledger through the life of some rows and returns the instants, in order; at the last, the ledger is
// closed but for its log.
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

func wantPragma(t *testing.T, l *Ledger, pragma, want string) {
	t.Helper()
	var got string
	if err := l.conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
		t.Fatalf("%s is %s, %v; want %s", pragma, got, err, want)
	}
}

// live accepts rows, moves them along, announces some, lists customers, and reads for a while, which keeps
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
				r.told(a.Record)
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
			settled, err := r.Unannounced(t.Context(), 3)
			if err == nil {
				err = r.Announced(t.Context(), settled)
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

func (r *recorder) told(record pipeline.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked[record.ExternalID] = record.Version
}

// step is the next thing that happens to a row: a transition with a key, or its end.
func (r *recorder) step(t *testing.T, record *pipeline.Record, random *rand.Rand) func() {
	end := random.IntN(8)
	return func() {
		switch {
		case record.Stage.Terminal():
			if err := r.SetPartnerStatus(t.Context(), record.ID, strconv.Itoa(end)); err != nil {
				t.Error(err)
			}
			return // its version is not told
		case record.Stage == pipeline.Creating && end == 0:
			*record = advance(t, r.Ledger, *record, pipeline.Onboarded, nil)
		default:
			*record = advance(t, r.Ledger, *record, pipeline.Creating, func(next *pipeline.Record) {
				next.Attempts = int(next.Version)
				next.CreateKey = createKey(int(next.Version), time.Unix(next.Version, 0).UTC())
				next.Challenge = strings.Repeat("x", 300)
			})
		}
		r.told(*record)
	}
}

// together lets the first call have a transaction of its own and the others share the next one.
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

// image is what a disk may hold after a power loss.
type image struct {
	what    string
	db, wal []byte   // wal nil: there is none
	want    []string // the tables that the ledger may have; nil: whichever
	acked   map[string]int64
}

const (
	logHeader = 32
	logFrame  = 24 + pageSize
	pageSize  = 4096
)

// imagesBetween makes up what a power loss may leave between two commits: a and b are the instants after them.
func imagesBetween(random *rand.Rand, a, b instant) (all []image) {
	add := func(what string, db, wal []byte, want ...string) {
		// Who has been told by the time of b's commit was told of a, or of what came before.
		all = append(all, image{what, db, wal, want, b.acked})
	}
	for range 2 {
		if begunAnew(a, b) {
			header := append(bytes.Clone(b.wal[:logHeader]), a.wal[logHeader:]...)
			add("header of a new log", a.db, torn(random, a.wal, header, span{0, logHeader}), a.tables)
			add("new log", a.db, torn(random, header, b.wal, changed(header, b.wal)), a.tables, b.tables)
		} else {
			add("log", a.db, torn(random, a.wal, b.wal, changed(a.wal, b.wal)), a.tables, b.tables)
		}
		if pages := changedPages(a.db, b.db); len(pages) > 0 {
			add("checkpoint", torn(random, a.db, b.db, pages...), b.wal, b.tables)
		}
	}
	add("nothing torn", b.db, b.wal, b.tables)
	return all
}

// imagesAtTheEnds are those of a ledger that is being made, where nothing is promised yet, and of one being closed.
func imagesAtTheEnds(random *rand.Rand, instants []instant) (all []image) {
	first, last := instants[0], instants[len(instants)-1]
	for range 20 {
		wal := torn(random, nil, first.wal, span{0, len(first.wal)})
		all = append(all, image{what: "being made", db: first.db, wal: wal})
	}
	want := []string{last.tables}
	return append(all,
		image{what: "made as a file", db: []byte{}},
		image{"log emptied", last.db, []byte{}, want, last.acked},
		image{"log removed", last.db, nil, want, last.acked},
	)
}

func begunAnew(a, b instant) bool { return !bytes.Equal(a.wal[:logHeader], b.wal[:logHeader]) }

// span is a part of a file, from its first byte to the one behind its last.
type span struct{ from, to int }

// changed is the part of a log that has been written between a and b.
func changed(a, b []byte) span {
	from, to := 0, len(b)
	for from < len(a) && from < to && a[from] == b[from] {
		from++
	}
	for len(a) == len(b) && to > from && a[to-1] == b[to-1] {
		to--
	}
	return span{from, to}
}

// changedPages are those of the database: they are written as a whole.
func changedPages(a, b []byte) (pages []span) {
	for at := 0; at < len(b); at += pageSize {
		if at >= len(a) || !bytes.Equal(a[at:at+pageSize], b[at:at+pageSize]) {
			pages = append(pages, span{at, at + pageSize})
		}
	}
	return pages
}

// torn is a file on its way from before to after, of which the given parts are being written: each of their sectors,
// which are what a disk writes as one, 512 or 4096 bytes, may have arrived, or not, or be spoilt.
func torn(random *rand.Rand, before, after []byte, parts ...span) []byte {
	sector := []int{512, 4096}[random.IntN(2)]
	now := bytes.Clone(before)
	if more := len(after) - len(before); more > 0 { // how far the file had grown
		now = append(now, make([]byte, random.IntN(more+1))...)
	}
	arrived, spoilt := random.Float64(), 0.0
	switch random.IntN(3) {
	case 0:
		spoilt = random.Float64()
	case 1:
		arrived = 1 - 1/float64(1+random.IntN(64)) // all but a few
	}
	inOrder := random.IntN(3) == 0
	for _, part := range parts {
		for from := part.from; from < min(part.to, len(now)); {
			to := min((from/sector+1)*sector, part.to, len(now))
			switch {
			case random.Float64() < arrived:
				copy(now[from:to], after[from:to])
			case inOrder: // the power went here
				copy(now[from:from+random.IntN(to-from)], after[from:to])
				return now
			case random.Float64() < spoilt:
				spoil(random, now[from:to])
			}
			from = to
		}
	}
	return now
}

// spoil leaves zeros or garbage.
func spoil(random *rand.Rand, sector []byte) {
	kind := random.IntN(2)
	for i := range sector {
		sector[i] = byte(kind * random.IntN(256))
	}
}

// check opens an image in a directory of its own: it has every change that was acknowledged and no part of another,
// and work goes on.
func (im image) check(ctx context.Context, dir string, random *rand.Rand) error {
	o := testOptions(filepath.Join(dir, "ledger.db"))
	files := map[string][]byte{"": im.db}
	if im.wal != nil {
		files["-wal"] = im.wal
	}
	if random.IntN(2) == 0 { // the log's index is never synced: it is there or not, and means nothing
		files["-shm"] = make([]byte, 32<<10)
		spoil(random, files["-shm"])
	}
	for suffix, content := range files {
		if err := os.WriteFile(o.Path+suffix, content, 0o600); err != nil {
			return err
		}
	}
	l, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer l.Close()
	for externalID, version := range im.acked {
		var have int64
		row := l.readers.QueryRowContext(ctx, `SELECT version FROM rows WHERE external_id = ?`, externalID)
		if err := row.Scan(&have); err != nil {
			return fmt.Errorf("%s, of which version %d was acknowledged: %w", externalID, version, err)
		}
		if have < version {
			return fmt.Errorf("%s is at version %d, %d was acknowledged", externalID, have, version)
		}
	}
	tables, err := readTables(ctx, l.readers)
	if err != nil {
		return err
	}
	if im.want != nil && !slices.Contains(im.want, tables) {
		return errors.New("the tables are of no commit that may be here")
	}
	var half int // a transition without the key that it came with
	err = l.readers.QueryRowContext(ctx, `SELECT count(*) FROM rows r WHERE create_generation IS NOT NULL AND
		NOT EXISTS (SELECT 1 FROM keys k WHERE k.row_id = r.id AND k.generation = r.create_generation)`).Scan(&half)
	if err != nil {
		return err
	}
	if half > 0 {
		return fmt.Errorf("%d rows have half an update", half)
	}
	answers, err := l.Accept(ctx, []pipeline.Row{testRow(1_000_000, "after")})
	if err != nil {
		return err
	}
	next := answers[0].Record
	next.Stage = pipeline.Creating
	if _, err := l.Update(ctx, next); err != nil {
		return err
	}
	return l.Close()
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

// Whenever the power goes, the ledger opens again and has what was acknowledged, and of the rest no half.
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
			t.Errorf("%s: %v", im.what, err)
		}
	}
	t.Logf("%d commits, %d images", len(instants)-1, len(images))
}

// The model is worth something only if it notices what would be lost without each of the fsyncs it believes in.
func TestPowerLossWithoutAnFsync(t *testing.T) {
	seed := powerSeed(t)
	source := rand.NewPCG(seed, 0)
	random := rand.New(source)
	instants := history(t, random, 30)
	for name, imagesOf := range map[string]func(a, b, next instant) []image{
		// One frame of an acknowledged commit, by what its callers have been told alone.
		"one frame is cut": func(a, b, next instant) []image {
			if len(b.wal) == len(a.wal) || begunAnew(a, b) {
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
			if !begunAnew(a, b) {
				return nil
			}
			first := instants[0].db
			db := torn(random, first, a.db, changedPages(first, a.db)...)
			return []image{{db: db, wal: b.wal, want: []string{b.tables}}}
		},
		"a new log before its header is synced": func(a, b, _ instant) (all []image) {
			if !begunAnew(a, b) {
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
			t.Errorf("%d images, and the model notices nothing", images)
		})
	}
}
