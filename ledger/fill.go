package ledger

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mattn/go-sqlite3"
)

// filling stores the records of all partitions of a Restore into an empty ledger: in one transaction, which first
// drops the indexes and triggers of the rows and creates them again at its end. So the ledger is never seen without
// them, and a crash leaves it empty. Nothing else can write meanwhile.
//
// Without indexes a row is inserted unseen. That is right for a row of which neither account, externalId nor a nonce
// was in an earlier record. Records of which one may have been are set aside, and applied in order once there are
// indexes. When there are many, the fill ends, and Restore goes on without it.
type filling struct {
	l       *Ledger
	batches chan replayed // without a buffer: a batch that was sent is stored
	stop    chan struct{} // closed by finish
	once    sync.Once
	least   atomic.Int64  // roll back instead if fewer records were stored
	done    chan struct{} // closed when err is final
	err     error

	seen    seen
	aside   []asideRecord
	runs    []*replaying // whose records were stored
	inserts rawInserts
}

type asideRecord struct {
	run *replaying
	*snapshot
}

// maxAside is how many records are set aside before the fill ends: about 20 MB.
const maxAside = 1 << 14

// worthKeeping is from how many records on an interrupted fill is kept: about a second's work. With fewer the ledger
// stays empty, so that the next call fills it again. A fleet that starts rebalances several times.
const worthKeeping = 100_000

// errAbandoned rolls a fill back.
var errAbandoned = errors.New("the fill was cancelled")

// startFill returns nil if the ledger is not empty. finish must be called on what it returns.
func (l *Ledger) startFill(ctx context.Context) (*filling, error) {
	var empty bool
	if err := l.source.QueryRowContext(ctx, emptyQuery).Scan(&empty); err != nil || !empty {
		return nil, err
	}
	f := &filling{
		l: l, batches: make(chan replayed), stop: make(chan struct{}), done: make(chan struct{}),
		seen: seen{seed: maphash.MakeSeed()},
	}
	go func() {
		defer close(f.done)
		select {
		case first := <-f.batches:
			// It ends with finish or drop, not with ctx.
			f.err = l.writer.doAlone(context.WithoutCancel(ctx), func(t *tx) error { return f.store(t, first) })
		case <-f.stop:
		}
	}()
	return f, nil
}

const emptyQuery = `SELECT NOT EXISTS (SELECT 1 FROM rows)`

// take has a batch stored. It returns false if the fill has ended, also with an error, and has committed what it took.
func (f *filling) take(ctx context.Context, batch replayed) (taken bool, err error) {
	if f == nil {
		return false, nil
	}
	if batch.Resigned > 0 { // to be written to the topic again
		return false, f.finish()
	}
	select {
	case f.batches <- batch:
		return true, nil
	case <-f.done:
		return false, f.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// finish ends the fill and waits until it is committed. It may be called several times, and on nil.
func (f *filling) finish() error {
	if f == nil {
		return nil
	}
	f.once.Do(func() { close(f.stop) })
	<-f.done
	return f.err
}

// drop is finish, but rolls back if fewer than least records were stored, unless the fill has ended before.
func (f *filling) drop(least int) error {
	if f != nil {
		f.least.Store(int64(least))
	}
	return f.finish()
}

// Abandon makes Restore return soon: it rolls back the fill of an empty ledger instead of keeping what was stored,
// because creating the indexes may take minutes. It has effect until Close. It may be called at any time, and several
// times.
func (l *Ledger) Abandon() { l.abandon() }

// store stores batches until the fill ends.
func (f *filling) store(t *tx, batch replayed) (err error) {
	var empty bool
	if err := f.l.conn.QueryRowContext(t.ctx, emptyQuery).Scan(&empty); err != nil {
		return err
	}
	create := ""
	defer func() { err = errors.Join(err, f.inserts.close()) }()
	syncAgain, endSyncing := syncWhile(f.l.path + "-wal")
	defer endSyncing()
	for more := true; more; {
		if len(batch.snapshots) > 0 && empty && create == "" {
			if create, err = f.begin(t); err != nil {
				return err
			}
		}
		if err := f.add(t.ctx, batch, empty); err != nil {
			return err
		}
		t.stored += len(batch.snapshots)
		syncAgain()
		// Rows that are in the ledger since startFill, if any, are for the slow path.
		if !empty || len(f.aside) > maxAside {
			break
		}
		select {
		case batch = <-f.batches:
		case <-f.stop:
			more = false
		}
	}
	if int64(t.stored) < f.least.Load() {
		return errAbandoned
	}
	if t.stored >= worthKeeping { // otherwise it takes no second
		f.l.log.Info("creating the ledger's indexes; a first signal waits for them", "path", f.l.path, "records", t.stored)
	}
	if err := f.end(t, create); err != nil {
		return err
	}
	if err := f.l.usable(); err != nil {
		return err
	}
	// The log is as large as the ledger, and the commit would write it back before it returns.
	if _, err := f.l.conn.ExecContext(t.ctx, `PRAGMA wal_autocheckpoint = 0`); err != nil {
		return err
	}
	f.l.writingBack.Go(func() { // before the writer stops, so that Close waits for it
		<-f.done
		f.l.writeBack(t.ctx)
	})
	return nil
}

// writeBack writes the log of a fill back into the ledger while the ledger is used, and has later commits do so again.
func (l *Ledger) writeBack(ctx context.Context) {
	db := openDB(l.path, "rw", writerPragmas(l.dropSigned)...)
	_, err := db.ExecContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`)
	_, failed := l.conn.ExecContext(ctx, `PRAGMA `+autoCheckpoint)
	if err = errors.Join(err, failed, db.Close()); err != nil {
		l.log.Warn("cannot checkpoint the ledger's WAL; a later change will", "path", l.path, "error", err)
	}
}

// syncWhile opens a file that is synced soon after each call of again, until end: the disk works while rows are parsed
// and inserted, and little is left to sync for the commit. That it fails does not matter: the commit syncs the file.
func syncWhile(path string) (again, end func()) {
	file, err := os.Open(path)
	if err != nil {
		return func() {}, func() {}
	}
	wake, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for range wake {
			_ = file.Sync()
		}
	}()
	again = func() {
		select {
		case wake <- struct{}{}:
		default: // it is going to be
		}
	}
	return again, func() {
		close(wake)
		<-ended
		_ = file.Close()
	}
}

// begin drops the indexes and triggers, and returns the statements that create them again.
func (f *filling) begin(t *tx) (create string, err error) {
	var drop string
	err = f.l.conn.QueryRowContext(t.ctx, `SELECT group_concat(format('DROP %s "%w"', type, name), ';'),
		group_concat(sql, ';' || char(10) ORDER BY rowid) FROM sqlite_schema
		WHERE tbl_name IN ('rows', 'nonces') AND type IN ('index', 'trigger') AND sql IS NOT NULL
		AND name <> 'rows_account_rest' -- has few rows, and creating it reads the whole table
		`).Scan(&drop, &create)
	if err != nil {
		return "", err
	}
	if _, err := f.l.conn.ExecContext(t.ctx, drop+`;`+createFillNonces); err != nil {
		return "", err
	}
	return create, f.l.conn.Raw(func(conn any) (err error) {
		f.inserts, err = prepareInserts(conn)
		return err
	})
}

// createFillNonces creates a table for the nonces in the order of their rows. At the end they go into their own table,
// which has them by value, in its order: one by one, each would change a page of its own. Foreign keys are off,
// because looking up the row of each, anywhere in the rows, would take longer than storing it.
const createFillNonces = `CREATE TEMP TABLE fill_nonces (nonce BLOB, row_id INTEGER, challenge BLOB)`

const moveFillNonces = `INSERT INTO nonces (nonce, row_id, challenge)
	SELECT nonce, row_id, challenge FROM temp.fill_nonces ORDER BY nonce, rowid ON CONFLICT DO NOTHING;
	DROP TABLE temp.fill_nonces`

// end creates the indexes, applies what was set aside and stores the positions.
func (f *filling) end(t *tx, create string) error {
	if create != "" {
		err := f.l.conn.Raw(func(any) error { return errors.Join(f.inserts.flush(t.ctx), f.inserts.close()) })
		if err == nil {
			_, err = f.l.conn.ExecContext(f.l.fills, moveFillNonces+`;`+create)
		}
		if f.l.fills.Err() != nil { // SQLite may have rolled the transaction back
			return errors.Join(errAbandoned, sqlite3.Error{Code: sqlite3.ErrInterrupt})
		}
		if err != nil {
			return fmt.Errorf("fill the ledger: %w", err)
		}
	}
	for _, s := range f.aside {
		_, isNewer, err := t.applySnapshot(s.snapshot)
		if err != nil {
			return applyError(t.changelog.Topic(), s.run.partition, s.snapshot, err)
		}
		if isNewer {
			s.run.filled.Newer++
		}
	}
	for _, run := range f.runs {
		if _, err := t.setPosition.ExecContext(t.ctx, run.filled.To, t.changelog.Topic(), run.partition); err != nil {
			return err
		}
	}
	return nil
}

// add inserts the rows of a batch, or sets them aside.
func (f *filling) add(ctx context.Context, batch replayed, empty bool) error {
	run := batch.run
	if !slices.Contains(f.runs, run) {
		f.runs = append(f.runs, run)
	}
	batch.Newer = run.filled.Newer
	run.filled = batch.Restored
	return f.l.conn.Raw(func(any) error {
		for _, s := range batch.snapshots {
			if !empty || f.seen.any(s) {
				f.aside = append(f.aside, asideRecord{run, s})
				continue
			}
			if err := f.inserts.insert(ctx, s); err != nil { // of this record, or of one just before
				return applyError(run.log.Topic(), run.partition, s, err)
			}
			run.filled.Newer++
		}
		return nil
	})
}
