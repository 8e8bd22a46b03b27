package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/pipeline"
)

// Options configure Open.
type Options struct {
	// Path of the SQLite file, with <path>-wal, <path>-shm and <path>.lock in the same directory. A missing file is
	// created with mode 0600, a missing directory with 0700. Symbolic links are followed. A file with a second hard link,
	// and a directory that other users may write to, are errors.
	Path string
	// Environment of the ledger; it must be the one that the ledger is bound to. APIHost and APIKeyID are required.
	Environment Environment
	// CanonicalHost converts a host to the form of Environment.APIHost, for ledgers and records of ledger topics from
	// versions that stored another form. Default nil: no conversion.
	CanonicalHost func(host string) string
	// Rebind allows binding the ledger to another API key id of the same API, after a rotation of the key. Bindings keeps
	// the earlier id.
	Rebind bool
	// EarlierKeyIDs are ids that the API key had before. Open adds those that are missing to the ledger's Bindings.
	EarlierKeyIDs []string
	// Now returns the time that is stored with every change. Required.
	Now func() time.Time
	// Program is the name and version of this program. The ledger stores it, so that an older program that cannot read the
	// schema can name the required program. Default "": unknown.
	Program string
	// Logger receives messages for the operator that no call returns. Default nil: no logging.
	Logger *slog.Logger
	// Changelog is the name of the ledger topic whose positions the ledger keeps; see Follow. Open deletes the positions
	// in all other topics, because changes from now on are not written there. Default "": no ledger topic.
	Changelog string
	// KeepPositions keeps the positions in all topics, for a caller that changes nothing that is in a ledger topic.
	// Default: see Changelog.
	KeepPositions bool
	// DropSigned deletes a row's challenge and signature in the transaction that settles the row, and overwrites them in
	// the file. Ledger.DropSigned does the same for rows settled earlier. Default: they are kept.
	DropSigned bool
	// CheckFirst is the size in bytes up to which a ledger that was closed cleanly is checked before Open returns. Default
	// 64 MiB, a tenth of a second.
	CheckFirst int64
	// Hook is called in the goroutine that commits, for tests that crash there: at "ledger.after-append" (with a ledger
	// topic), "ledger.before-commit" and "ledger.after-commit". Default nil: not called.
	Hook func(point string)
	// OnCommit is called in the goroutine that commits, after each committed transaction, with its number of rows and its
	// duration. It must not block. Default nil: not called.
	OnCommit func(rows int, took time.Duration)
}

// Ledger implements pipeline.Ledger. Its methods are safe for concurrent use.
type Ledger struct {
	queries

	log     *slog.Logger
	lock    *lockfile.Lock // <path>.lock
	file    *lockfile.Lock // the ledger itself
	db      *sql.DB        // pool of the writing connection only
	conn    *sql.Conn      // the writing connection
	writer  *writer
	readers *sql.DB
	own     ownEnvironments
	// checking is the check of a large ledger; nil: there is none.
	checking    *checking
	writingBack sync.WaitGroup // of the log of a fill
	fills       context.Context
	abandon     context.CancelFunc // of fills

	dropSigned bool          // Options.DropSigned
	replacing  chan struct{} // semaphore: two calls of ReplaceDirectory would write to the same copy
	closing    sync.Once
	closeErr   error
}

var _ pipeline.Ledger = (*Ledger)(nil)

// Open opens the ledger, creating it if it is missing, checks the file and migrates its schema. The check reads the
// whole file: about 3 s for a million rows after a crash. After a clean stop a file that is larger than
// Options.CheckFirst is checked while it is in use: if it is damaged, Accept and all calls that write then fail. ctx
// bounds Open, not the Ledger.
//
// Errors: *LockedError if another process has the ledger, *EnvironmentError if it belongs to another environment,
// *lockfile.UnsafeError; others for a newer schema, for a file that is damaged, read-only or not a ledger, for a full
// disk, and the system's.
func Open(ctx context.Context, o Options) (*Ledger, error) {
	switch {
	case o.Path == "":
		return nil, errors.New("ledger: no path")
	case o.Environment.APIHost == "" || o.Environment.APIKeyID == "":
		return nil, errors.New("ledger: API host and API key id must both be given")
	case o.Now == nil:
		return nil, errors.New("ledger: no clock")
	}
	o.CheckFirst = cmp.Or(o.CheckFirst, defaultCheckFirst)
	steps, err := readMigrations(embedded)
	if err != nil {
		return nil, err
	}
	return open(ctx, o, steps)
}

func open(ctx context.Context, o Options, steps []migration) (_ *Ledger, err error) {
	path := o.Path
	l := &Ledger{
		queries: queries{path: path}, log: o.Logger, dropSigned: o.DropSigned, replacing: make(chan struct{}, 1),
	}
	l.fills, l.abandon = context.WithCancel(context.WithoutCancel(ctx))
	l.log = cmp.Or(l.log, slog.New(slog.DiscardHandler))
	defer func() {
		if err != nil {
			_ = l.release()
			err = translate(path, err)
		}
	}()

	if err := lockfile.MakeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if path, err = lockfile.Resolve(path); err != nil {
		return nil, err
	}
	l.path = path
	if err := l.acquire(); err != nil {
		return nil, err
	}
	l.db = openDB(path, "rw", writerPragmas(o.DropSigned)...)
	l.db.SetMaxOpenConns(1)
	if l.conn, err = l.db.Conn(ctx); err != nil {
		return nil, err
	}
	later, err := l.prepareFile(ctx, o, steps)
	if err != nil {
		return nil, err
	}
	l.readers = openDB(path, "ro", readerPragmas()...)
	l.readers.SetMaxOpenConns(maxReaders)
	l.readers.SetMaxIdleConns(maxReaders)
	l.source = l.readers

	// The writer runs until Close, longer than ctx.
	l.writer, err = startWriter(context.WithoutCancel(ctx), l.conn, o, l.own, l.usable)
	if err != nil {
		return nil, err
	}
	if later {
		l.checking = l.checkLater(context.WithoutCancel(ctx), o)
	}
	return l, nil
}

// maxReaders is how many reads run at once: the partitions' look-ups and a command's query.
const maxReaders = 4

func writerPragmas(dropSigned bool) []string {
	// SQLite moves a row that grows, and a copy of its challenge would stay in the old page, out of reach of DropSigned.
	// FAST overwrites it with zeros in pages that are written anyway, ON also in pages that become free.
	secureDelete := "secure_delete = FAST"
	if dropSigned {
		secureDelete = "secure_delete = ON"
	}
	return []string{
		secureDelete,
		"foreign_keys = ON",
		"synchronous = FULL",
		// KiB. Sorting for an index takes the same again, and reading the partner's list has 80 MiB in total. The rest of
		// the file is in the system's cache.
		"cache_size = -8192",
		// In memory, a sort would grow with the partner's list. SQLite unlinks the temporary file when it opens it.
		"temp_store = FILE",
		autoCheckpoint,
		"journal_size_limit = 67108864",
	}
}

// autoCheckpoint is in pages, 16 MiB. A checkpoint syncs two files: at this interval it does not slow down the group
// commit, and after a crash the log is still read quickly.
const autoCheckpoint = "wal_autocheckpoint = 4096"

func readerPragmas() []string {
	return []string{"query_only = ON", "cache_size = -4096"}
}

// prepareFile checks that the file is a ledger of this environment and undamaged, and migrates it. It does not change a
// file that is not a ledger. It reports whether the structure of the file has still to be checked.
func (l *Ledger) prepareFile(ctx context.Context, o Options, steps []migration) (later bool, err error) {
	have, err := identify(ctx, l.conn, l.path)
	if err != nil {
		return false, err
	}
	if err := checkSchema(ctx, l.conn, l.path, have, len(steps)); err != nil {
		return false, err
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} { // a copy may have other permissions
		if err := closeToOthers(l.path + suffix); err != nil {
			return false, err
		}
	}
	if have > 0 {
		if err := checkEnvironment(ctx, l.conn, l.path, o); err != nil {
			return false, err
		}
		if later, err = l.check(ctx, o, have == len(steps)); err != nil {
			return false, err
		}
	}
	var mode string
	if err := l.conn.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode); err != nil {
		return false, err
	}
	if mode != "wal" {
		return false, fmt.Errorf("ledger %s: cannot use a write-ahead log (journal mode %s), the file system does not "+
			"support shared memory: use a local disk", l.path, mode)
	}
	if err := migrate(ctx, l.conn, have, steps, o.Program, o.Now()); err != nil {
		return false, err
	}
	if have > 0 && have < len(steps) {
		l.log.Info("migrated the ledger; an earlier version of the program does not open it any more",
			"path", l.path, "from_schema", have, "to_schema", len(steps))
	}
	if o.DropSigned {
		if _, err := l.conn.ExecContext(ctx, signedIndexQuery); err != nil {
			return false, err
		}
	}
	bindings, err := bind(ctx, l.conn, o)
	if err != nil {
		return false, err
	}
	l.own = newOwnEnvironments(o, bindings)
	if have == 0 { // make the names of the new files durable
		if err := syncPath(filepath.Dir(l.path)); err != nil {
			return false, err
		}
	}
	if !o.KeepPositions {
		if _, err := l.conn.ExecContext(ctx, `DELETE FROM changelog WHERE topic <> ?`, o.Changelog); err != nil {
			return false, err
		}
	}
	// This write also finds a read-only file or a full disk before the first row comes.
	return later, writeMeta(ctx, l.conn, metaClean, "0")
}

// Close waits for running calls, writes the log back into the database and unlocks the ledger. Later calls fail.
// Calling Close again waits for the first call and returns its error. It is an error if the ledger was removed or
// replaced while it was open.
func (l *Ledger) Close() error {
	l.closing.Do(func() { l.closeErr = translate(l.path, l.close()) })
	return l.closeErr
}

func (l *Ledger) close() error {
	l.writer.stop()
	l.checking.end()
	l.writingBack.Wait()
	ctx := l.writer.ctx
	errs := []error{l.usable()}
	if l.dropSigned && !l.writer.suspect.Load() {
		l.overwriteGaps(ctx)
	}
	if !l.writer.suspect.Load() {
		errs = append(errs, writeMeta(ctx, l.conn, metaClean, "1"))
	}
	errs = append(errs, l.readers.Close())
	// If a reader of another process still uses the log, the log stays for the next run; nothing is lost.
	var busy, logged, moved int
	err := l.conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &logged, &moved)
	if err != nil || busy != 0 {
		l.log.Warn("cannot checkpoint the ledger's WAL; the next run will", "path", l.path, "error", err)
	}
	errs = append(errs, l.writer.stmts.close())
	return errors.Join(append(errs, l.release())...)
}

// release closes everything that open has opened so far.
func (l *Ledger) release() error {
	var errs []error
	if l.readers != nil {
		errs = append(errs, l.readers.Close())
	}
	if l.conn != nil {
		errs = append(errs, l.conn.Close())
	}
	if l.db != nil {
		errs = append(errs, l.db.Close())
	}
	if l.file != nil {
		errs = append(errs, l.file.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Release())
	}
	return errors.Join(errs...)
}

// Reader reads a ledger, for commands such as `consumer status`. It sees the ledger as it was when it was opened (a
// snapshot); a consumer may continue to write.
type Reader struct {
	queries
	db *sql.DB
	tx *sql.Tx
}

// OpenReadOnly opens the ledger for reading, also while a consumer has it open. It takes no lock and does not check the
// environment. Close it soon: while it is open the log cannot be truncated.
//
// Errors: fs.ErrNotExist, ErrEmpty; others for a schema that is newer or older than this program's (only a consumer
// migrates) and for a file that is damaged or not a ledger.
func OpenReadOnly(ctx context.Context, path string) (*Reader, error) {
	r, s, err := openReader(ctx, path)
	if err == nil && s.Have < s.Known {
		err = errors.Join(&schemaError{Path: r.path, Have: s.Have, Known: s.Known}, r.Close())
	}
	return r, err
}

// Schema is the schema of a ledger, and the newest that this program knows. Open migrates a ledger from an earlier
// schema.
type Schema struct {
	Have, Known int
}

// Identify returns the environment of a ledger and its schema, which may be earlier than this program's. It changes
// nothing. Errors: as OpenReadOnly, except that an earlier schema is none.
func Identify(ctx context.Context, path string) (Environment, Schema, error) {
	r, s, err := openReader(ctx, path)
	if err != nil {
		return Environment{}, s, err
	}
	e, err := r.Environment(ctx)
	return e, s, errors.Join(err, r.Close())
}

// openReader opens a ledger of this or an earlier schema.
func openReader(ctx context.Context, path string) (_ *Reader, s Schema, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, s, err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, s, translate(abs, err)
	}
	if info.IsDir() {
		return nil, s, fmt.Errorf("ledger %s is a directory", abs)
	}
	r := &Reader{db: openDB(abs, readMode(abs), readerPragmas()...)}
	defer func() {
		if err != nil {
			_ = r.Close()
			err = translate(abs, err)
		}
	}()
	// The transaction lasts until Close, longer than ctx.
	if r.tx, err = r.db.BeginTx(context.WithoutCancel(ctx), nil); err != nil {
		return nil, s, err
	}
	r.queries = queries{source: r.tx, path: abs}
	s.Have, s.Known, err = readSchema(ctx, r.tx, abs) // the first read fixes the snapshot
	return r, s, err
}

// readMode is the mode in which a ledger is opened that is only read. If it was closed cleanly and is in a read-only
// directory, SQLite could not create the -shm file there, which it needs only to read a log.
func readMode(path string) string {
	info, err := os.Stat(path + "-wal")
	noLog := errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0
	if noLog && unix.Access(filepath.Dir(path), unix.W_OK) != nil {
		return "ro&immutable=1"
	}
	return "ro"
}

// Close ends the snapshot. It may be called twice.
func (r *Reader) Close() error {
	if r.tx != nil {
		if err := r.tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
			return err
		}
	}
	return r.db.Close()
}

// syncPath calls fsync on a file or a directory.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
