package ledger

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/purser-onboard/purser/internal/benchtest"
	"github.com/purser-onboard/purser/pipeline"
)

var benchRows = flag.Int("ledger.rows", 1_000_000, "rows of the replay benchmarks (50,000 with -short)")

func rowsForBench() int {
	if testing.Short() {
		return min(*benchRows, 50_000)
	}
	return *benchRows
}

// noClock is a clock without a mutex, so that benchmarks do not measure one.
func noClock() time.Time { return time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC) }

const batchSize = 5_000

// filled creates a ledger with settled rows and returns how long accepting them took.
func filled(b *testing.B, path string, rows int, stage pipeline.Stage) (*Ledger, Options, time.Duration) {
	b.Helper()
	o := testOptions(path)
	o.Now = noClock
	l := reopen(b, o)
	batch := make([]pipeline.Row, 0, batchSize)
	begun := time.Now()
	for n := 0; n < rows; {
		batch = batch[:0]
		for ; n < rows && len(batch) < batchSize; n++ {
			batch = append(batch, testRow(n, "import-1"))
		}
		accept(b, l, batch...)
	}
	took := time.Since(begun)
	// With the columns that a settled row has.
	execSQL(b, l, `UPDATE rows SET stage = ?, customer_id = 'c0ffee00-0000-4000-8000-' || printf('%012d', id),
		version = 6, challenge = printf('%.300c', 'x'), signature = printf('%.132c', 'y'),
		create_generation = 0`, string(stage))
	execSQL(b, l, `INSERT INTO keys SELECT id, 'create', 0, customer_id, randomblob(32), 1, 1, 'settled' FROM rows`)
	return l, o, took
}

// BenchmarkReplaySettled skips a settled export, a batch per operation.
func BenchmarkReplaySettled(b *testing.B) {
	rows := rowsForBench()
	l, _, took := filled(b, filepath.Join(b.TempDir(), "ledger.db"), rows, pipeline.Onboarded)
	b.Logf("accepting %d new rows: %.0f rows/s", rows, float64(rows)/took.Seconds())
	for _, importID := range []string{"import-1", "import-2"} {
		b.Run(fmt.Sprintf("rows=%d/%s", rows, importID), func(b *testing.B) {
			batch := make([]pipeline.Row, batchSize)
			done := 0
			for b.Loop() {
				b.StopTimer()
				for i := range batch {
					batch[i] = testRow((done+i)%rows, importID)
				}
				b.StartTimer()
				for _, a := range accept(b, l, batch...) {
					if a.Admission != pipeline.Settled {
						b.Fatalf("got %+v, want it settled", a)
					}
				}
				done += len(batch)
			}
			b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkReplayUnfinished imports an export again whose rows are in the ledger and not settled, as after a night that
// was killed: each row moves to its newest import.
func BenchmarkReplayUnfinished(b *testing.B) {
	rows := rowsForBench() / 20
	l, _, _ := filled(b, filepath.Join(b.TempDir(), "ledger.db"), rows, pipeline.Creating)
	batch := make([]pipeline.Row, 500) // about what a partition's first answer holds
	done := 0
	for b.Loop() {
		b.StopTimer()
		for i := range batch {
			batch[i] = testRow((done+i)%rows, fmt.Sprintf("import-%d", 2+(done+i)/rows))
		}
		b.StartTimer()
		for _, a := range accept(b, l, batch...) {
			if a.Admission != pipeline.Open {
				b.Fatalf("got %+v, want it open", a)
			}
		}
		done += len(batch)
	}
	b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkOpen opens a ledger of many rows after a clean stop and after a crash.
func BenchmarkOpen(b *testing.B) {
	rows := rowsForBench()
	path := filepath.Join(b.TempDir(), "ledger.db")
	l, o, _ := filled(b, path, rows, pipeline.Onboarded)
	for _, clean := range []bool{true, false} {
		b.Run(fmt.Sprintf("rows=%d/clean=%t", rows, clean), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				l.writer.suspect.Store(!clean) // a suspect ledger is closed like one that crashed
				if err := l.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				l = reopen(b, o)
			}
		})
	}
}

// BenchmarkTransitions compares durable updates with raw SQLite that commits batches of as many updates as there are
// workers. x-raw is the ledger's rate divided by that of raw SQLite. The updates of topic are written to a ledger topic
// in memory, too.
func BenchmarkTransitions(b *testing.B) {
	for _, workers := range []int{1, 32, 256} {
		raw := 0.0
		b.Run(fmt.Sprintf("raw/batch=%d", workers), func(b *testing.B) { raw = benchRaw(b, workers) })
		b.Run(fmt.Sprintf("ledger/workers=%d", workers), func(b *testing.B) {
			l := reopen(b, testOptions(filepath.Join(b.TempDir(), "ledger.db")))
			if rate := benchTransitions(b, workers, l); raw > 0 { // raw may have been deselected
				b.ReportMetric(rate/raw, "x-raw")
			}
		})
		b.Run(fmt.Sprintf("topic/workers=%d", workers), func(b *testing.B) {
			l, _ := newFollower(b, newTopic(1))
			benchTransitions(b, workers, l)
		})
	}
}

func benchTransitions(b *testing.B, workers int, l *Ledger) (perSecond float64) {
	var commits atomic.Int64
	l.writer.hook = func(point string) { // nothing is written yet
		if point == "ledger.after-commit" {
			commits.Add(1)
		}
	}
	records := make([]pipeline.Record, workers)
	for i := range records {
		records[i] = acceptOne(b, l, testRow(i, "import-1"), pipeline.Open)
	}
	commits.Store(0)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for _, r := range records {
		wg.Go(func() {
			r.Stage = pipeline.Creating
			r.CreateKey = createKey(0, noClock())
			for left.Add(-1) >= 0 {
				r.Attempts++
				r.CreateKey.LastSent = r.CreateKey.LastSent.Add(time.Millisecond)
				version, err := l.Update(b.Context(), r)
				if err != nil {
					b.Errorf("Update: got %v, want nil", err)
					return
				}
				r.Version = version
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	perSecond = float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(perSecond, "updates/s")
	b.ReportMetric(float64(b.N)/float64(max(commits.Load(), 1)), "updates/commit")
	return perSecond
}

// benchRaw runs the same two statements without the ledger around them.
func benchRaw(b *testing.B, batch int) (perSecond float64) {
	o := testOptions(filepath.Join(b.TempDir(), "ledger.db"))
	l := reopen(b, o)
	for i := range batch {
		acceptOne(b, l, testRow(i, "import-1"), pipeline.Open)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	db := openDB(l.path, "rw", writerPragmas(false)...)
	defer db.Close()
	ctx := b.Context()
	update, err := db.PrepareContext(ctx, updateQuery)
	if err != nil {
		b.Fatal(err)
	}
	key, err := db.PrepareContext(ctx, putKeyQuery)
	if err != nil {
		b.Fatal(err)
	}
	k := createKey(0, noClock())
	from := stagesBefore(pipeline.Creating)
	versions := make([]int64, batch)
	b.ResetTimer()
	for n := 0; n < b.N; {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{})
		if err != nil {
			b.Fatal(err)
		}
		u, p := tx.StmtContext(ctx, update), tx.StmtContext(ctx, key) //nolint:sqlclosecheck // Commit does
		for i := 0; i < batch && n < b.N; i, n = i+1, n+1 {
			versions[i]++
			if _, err := u.Exec("creating", "", "", "", "", "", nil, "", "", 0, versions[i], false, 0, nil, 1, i+1,
				versions[i], from); err != nil {
				b.Fatal(err)
			}
			if _, err := p.Exec(i+1, "create", 0, k.ID.String(), k.Digest[:], 1, versions[i], "open"); err != nil {
				b.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	perSecond = float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(perSecond, "updates/s")
	return perSecond
}

// BenchmarkReplaceDirectory stores the partner's list twice, so that the old copy is deleted as well.
func BenchmarkReplaceDirectory(b *testing.B) {
	rows := rowsForBench()
	o := testOptions(filepath.Join(b.TempDir(), "ledger.db"))
	l := reopen(b, o)
	for b.Loop() {
		err := l.ReplaceDirectory(b.Context(), noClock(), func(add func(pipeline.Customer) error) error {
			for n := range rows {
				r := testRow(n, "")
				c := pipeline.Customer{
					ID: fmt.Sprintf("c0ffee00-0000-4000-8000-%012d", n), ChainID: r.Account.String(),
					ExternalID: r.ExternalID, Status: "active", CreatedAt: noClock(), UpdatedAt: noClock(),
				}
				if err := add(c); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "customers/s")
}

// BenchmarkRestore restores a partition of settled rows into an empty ledger: as records were in earlier benchmarks,
// and with a nonce and line feeds in the challenge, as a run writes them. x-raw is its rate divided by that of raw
// SQLite, which stores the records as they are, durably, in transactions of 5,000, without an index. rows/s-back counts
// the time until the log is written back, too, which rows need not wait for; so does cpu-µs/row.
func BenchmarkRestore(b *testing.B) {
	rows := rowsForBench() / 10
	raw := 0.0
	for _, kind := range []string{"plain", "nonce"} {
		shared := settledTopic(b, rows, kind == "nonce")
		perRecord := 0
		for _, m := range shared.partitions[0] {
			perRecord += len(m.Value)
		}
		perRecord /= rows
		if kind == "plain" {
			b.Run("raw", func(b *testing.B) { raw = benchRawRestore(b, shared.partitions[0]) })
		}
		b.Run(kind, func(b *testing.B) {
			var back, cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				l, f := openFollower(b, filepath.Join(b.TempDir(), "ledger.db"), shared)
				f.batch = 1000 // about what an answer of the broker holds
				before := benchtest.ProcessorTime(b)
				b.StartTimer()
				if r := restore(b, l, f, 0); r.Newer != rows {
					b.Fatalf("got %+v, want all rows newer", r)
				}
				b.StopTimer()
				begun := time.Now()
				l.writingBack.Wait()
				back += time.Since(begun)
				cpu += benchtest.ProcessorTime(b) - before
				if err := l.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			rate := float64(rows) * float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(rate, "rows/s")
			b.ReportMetric(float64(rows)*float64(b.N)/(b.Elapsed()+back).Seconds(), "rows/s-back")
			b.ReportMetric(float64(perRecord), "B/record")
			b.ReportMetric(float64(cpu.Microseconds())/float64(rows*b.N), "cpu-µs/row")
			if raw > 0 { // it may have been deselected
				b.ReportMetric(rate/raw, "x-raw")
			}
		})
	}
}

// settledTopic is a partition of settled rows.
func settledTopic(b *testing.B, rows int, nonces bool) *topic {
	b.Helper()
	shared := newTopic(1)
	for n := range rows {
		r := pipeline.Record{Row: testRow(n, "import-1"), Version: 6, Stage: pipeline.Onboarded,
			CustomerID: "c0ffee00-0000-4000-8000-000000000000", PartnerStatus: "screening",
			Challenge: strings.Repeat("x", 400), ChallengeAt: noClock(), Signature: "0x" + strings.Repeat("y", 130),
			AcceptedAt: noClock(), UpdatedAt: noClock()}
		if nonces {
			r.Challenge = strings.Repeat(strings.Repeat("x", 39)+"\n", 10)
		}
		r.CreateKey, r.SubmitKey = derived(r, pipeline.OpCreate, 0), derived(r, pipeline.OpSubmit, 0)
		s := snapshotOf(r, true, testEnvironment)
		s.addKey(r.CreateKey)
		s.addKey(r.SubmitKey)
		if nonces {
			s.Nonces = []nonceUse{nonceUseOf(r.ExternalID, r.Challenge)}
		}
		shared.put(0, s.message(b))
	}
	return shared
}

func benchRawRestore(b *testing.B, records []pipeline.Message) (perSecond float64) {
	ctx := b.Context()
	for b.Loop() {
		b.StopTimer()
		path := filepath.Join(b.TempDir(), "raw.db")
		if err := createFile(path); err != nil {
			b.Fatal(err)
		}
		db := openDB(path, "rw", append([]string{"journal_mode = WAL"}, writerPragmas(false)...)...)
		if _, err := db.ExecContext(ctx, `CREATE TABLE raw (id INTEGER PRIMARY KEY, value BLOB)`); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for batch := range slices.Chunk(records, batchSize) {
			if err := insertRaw(ctx, db, batch); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	perSecond = float64(len(records)) * float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(perSecond, "rows/s")
	return perSecond
}

func insertRaw(ctx context.Context, db *sql.DB, batch []pipeline.Message) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // fails after the commit
	insert, err := tx.PrepareContext(ctx, `INSERT INTO raw (value) VALUES (?)`)
	if err != nil {
		return err
	}
	defer insert.Close()
	for _, m := range batch {
		if _, err := insert.ExecContext(ctx, m.Value); err != nil {
			return err
		}
	}
	return tx.Commit()
}
