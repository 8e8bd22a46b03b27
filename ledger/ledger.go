package ledger

import (
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

// Options say which ledger to open.
type Options struct {
	// Path of the SQLite file. It is made with mode 0600 if missing, its directory with 0700; beside it are <path>-wal,
	// <path>-shm and <path>.lock. Symbolic links are followed; a file with a second hard link, and a directory that other
	// users may write to, are refused.
	Path string
	// Environment must be the one that the ledger was made with. Both fields are required.
	Environment Environment
	// CanonicalHost gives a host in the form that Environment.APIHost has, so that a ledger or a record of a ledger topic
	// from a version that stored another form is recognised. nil: hosts are compared as they are.
	CanonicalHost func(host string) string
	// Rebind lets a ledger of the same API host be bound to another API key id, because the key was rotated. The earlier
	// id is kept among the Bindings.
	Rebind bool
	// EarlierKeyIDs are ids that the API key had before. Those that the ledger does not know are added to its Bindings.
	EarlierKeyIDs []string
	// Now gives the time stored with every change. Required.
	Now func() time.Time
	// Program is the name and version of this program, which the ledger keeps so that an older one can say what is
	// needed. May be empty.
	Program string
	// Logger gets what the operator should know and no call can return. nil: nothing is logged.
	Logger *slog.Logger
	// Changelog names the topic that the ledger follows, or keeps its place in for the next run that does; see Follow.
	// What is changed while it follows none is not there, so its place in any other topic is forgotten. "": none.
	Changelog string
	// DropSigned has a row give up challenge and signature in the transaction that settles it, and overwrites in the
	// file what it gave up. Ledger.DropSigned does the same for rows settled earlier.
	DropSigned bool
	// Hook is called at named points, for tests that crash there: "ledger.after-append" (with a changelog),
	// "ledger.before-commit" and "ledger.after-commit", in the goroutine that commits. nil: not called.
	Hook func(point string)
}

// Ledger implements pipeline.Ledger. All methods may be called by many goroutines at once.
type Ledger struct {
	queries

	log     *slog.Logger
	lock    *lockfile.Lock // <path>.lock
	file    *lockfile.Lock // the ledger itself
	db      *sql.DB        // has the one connection that writes
	conn    *sql.Conn      // that connection
	writer  *writer
	readers *sql.DB
	own     ownRecords
	// dropSigned is Options.DropSigned.
	dropSigned bool
	// replacing holds a token while a ReplaceDirectory runs: two at once would write to the same copy.
	replacing chan struct{}
	closing   sync.Once
	closeErr  error
}

var _ pipeline.Ledger = (*Ledger)(nil)

// Open opens the ledger, makes it if it is not there, checks the file and brings its schema up to date. The check
// reads all of the file: about 1.5 s for a million rows after a clean stop, 4 s after a crash. ctx bounds Open alone.
//
// Errors: *LockedError, *lockfile.UnsafeError, *EnvironmentError, *SchemaError, *ForeignError, *CorruptError,
// ErrDiskFull, ErrReadOnly, or the system's.
func Open(ctx context.Context, o Options) (*Ledger, error) {
	switch {
	case o.Path == "":
		return nil, errors.New("ledger: no path")
	case o.Environment.APIHost == "" || o.Environment.APIKeyID == "":
		return nil, errors.New("ledger: API host and API key id must both be given")
	case o.Now == nil:
		return nil, errors.New("ledger: no clock")
	}
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
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			_ = l.release()
			err = translate(path, err)
		}
	}()

	if err := createDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if path, err = lockfile.Resolve(path); err != nil {
		return nil, err
	}
	l.path = path
	if err := l.take(); err != nil {
		return nil, err
	}
	l.db = openDB(path, "rw", writerPragmas(o.DropSigned)...)
	l.db.SetMaxOpenConns(1)
	if l.conn, err = l.db.Conn(ctx); err != nil {
		return nil, err
	}
	if err := l.prepareFile(ctx, o, steps); err != nil {
		return nil, err
	}
	l.readers = openDB(path, "ro", readerPragmas()...)
	l.readers.SetMaxOpenConns(maxReaders)
	l.readers.SetMaxIdleConns(maxReaders)
	l.source = l.readers

	// The writer belongs to Close, not to the context of the call that opened it.
	l.writer, err = startWriter(context.WithoutCancel(ctx), l.conn, o, l.own, l.present)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// maxReaders is how many reads run side by side: the partitions' look-ups and a command's query.
const maxReaders = 4

func writerPragmas(dropSigned bool) []string {
	// A row that grows moves, and a copy of its challenge would stay in a page where DropSigned cannot reach it. FAST has
	// zeros written over it in pages that are written anyway, ON in pages that become free, too.
	secureDelete := "secure_delete = FAST"
	if dropSigned {
		secureDelete = "secure_delete = ON"
	}
	return []string{
		secureDelete,
		"foreign_keys = ON",
		"synchronous = FULL",
		// KiB. Sorting for an index takes as much again, and the partner's list is to be read within 64 MiB, all told.
		// What is not here is in the system's cache.
		"cache_size = -8192",
		// In memory, a sort would grow with the list. Such a file has no name, is the owner's alone and ends with its
		// statement.
		"temp_store = FILE",
		// A checkpoint syncs two files: one per 16 MiB of log costs the group commit nothing, and the log is still
		// read back quickly after a crash.
		"wal_autocheckpoint = 4096",
		"journal_size_limit = 67108864",
	}
}

func readerPragmas() []string {
	return []string{"query_only = ON", "cache_size = -4096"}
}

// prepareFile goes from an open connection to a ledger that is known to be ours, sound and up to date. What is not ours
// is not touched.
func (l *Ledger) prepareFile(ctx context.Context, o Options, steps []migration) error {
	have, err := identify(ctx, l.conn, l.path)
	if err != nil {
		return err
	}
	if err := checkSchema(ctx, l.conn, l.path, have, len(steps)); err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} { // made so, but perhaps copied since
		if err := closeToOthers(l.path + suffix); err != nil {
			return err
		}
	}
	if have > 0 {
		if err := checkEnvironment(ctx, l.conn, l.path, o); err != nil {
			return err
		}
		clean, err := readMeta(ctx, l.conn, metaClean)
		if err != nil {
			return err
		}
		begun := o.Now()
		if err := checkIntegrity(ctx, l.conn, l.path, clean == "1"); err != nil {
			return err
		}
		if clean != "1" {
			l.log.Info("the ledger was not closed by its last run; it was checked and is sound",
				"path", l.path, "took", o.Now().Sub(begun).Round(time.Millisecond))
		}
	}
	var mode string
	if err := l.conn.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("ledger %s: the file system cannot share memory between processes (journal mode %s): "+
			"use a local disk", l.path, mode)
	}
	if err := migrate(ctx, l.conn, have, steps, o.Program, o.Now()); err != nil {
		return err
	}
	if o.DropSigned {
		if _, err := l.conn.ExecContext(ctx, signedIndexQuery); err != nil {
			return err
		}
	}
	bindings, err := bind(ctx, l.conn, o)
	if err != nil {
		return err
	}
	l.own = newOwnRecords(o, bindings)
	if have == 0 {
		if err := syncDir(filepath.Dir(l.path)); err != nil {
			return err
		}
	}
	if _, err := l.conn.ExecContext(ctx, `DELETE FROM changelog WHERE topic <> ?`, o.Changelog); err != nil {
		return err
	}
	// This is also the write that finds a read-only file or a full disk now instead of under the first row.
	return writeMeta(ctx, l.conn, metaClean, "0")
}

// Close waits for the calls that are under way, writes the log back into the database and lets the next process have
// the ledger. Calls that come later answer ErrClosed. It may be called again, which waits for the first and answers the
// same. A *GoneError says that the ledger was removed or replaced while it was open.
func (l *Ledger) Close() error {
	l.closing.Do(func() { l.closeErr = translate(l.path, l.close()) })
	return l.closeErr
}

func (l *Ledger) close() error {
	l.writer.stop()
	ctx := l.writer.ctx
	errs := []error{l.present()}
	if !l.writer.suspect.Load() {
		errs = append(errs, writeMeta(ctx, l.conn, metaClean, "1"))
	}
	errs = append(errs, l.readers.Close())
	// A reader of another process may hold the log: then it stays for the next run, and nothing is lost.
	var busy, logged, moved int
	err := l.conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &logged, &moved)
	if err != nil || busy != 0 {
		l.log.Warn("the ledger's log could not be written back; the next run does it", "path", l.path, "error", err)
	}
	errs = append(errs, l.writer.stmts.close())
	return errors.Join(append(errs, l.release())...)
}

// release gives back what open has taken, as far as it came.
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

// Reader is a ledger opened for `consumer status` and the like. Everything it answers is of one moment, the one in
// which it was opened, while a consumer may go on writing.
type Reader struct {
	queries
	db *sql.DB
	tx *sql.Tx
}

// OpenReadOnly opens the ledger for reading, also while a consumer has it. It neither locks nor asks for the
// environment. Keep it open for the length of a command, not of a day: the log cannot be shortened meanwhile.
//
// Errors: fs.ErrNotExist, ErrEmpty, *SchemaError (also when the ledger is older than the program: only a consumer
// migrates), *ForeignError, *CorruptError.
func OpenReadOnly(ctx context.Context, path string) (_ *Reader, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, translate(abs, err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("ledger %s is a directory", abs)
	}
	mode := "ro"
	if frozen(abs) {
		mode = "ro&immutable=1"
	}
	r := &Reader{db: openDB(abs, mode, readerPragmas()...)}
	defer func() {
		if err != nil {
			_ = r.Close()
			err = translate(abs, err)
		}
	}()
	// Close ends the transaction, not the end of the call's context.
	if r.tx, err = r.db.BeginTx(context.WithoutCancel(ctx), nil); err != nil {
		return nil, err
	}
	r.queries = queries{source: r.tx, path: abs}
	steps, err := readMigrations(embedded)
	if err != nil {
		return nil, err
	}
	have, err := identify(ctx, r.tx, abs) // the first read is what fixes the moment
	switch {
	case err != nil:
		return nil, err
	case have == 0:
		return nil, fmt.Errorf("%s: %w", abs, ErrEmpty)
	case have < len(steps):
		return nil, &SchemaError{Path: abs, Have: have, Known: len(steps)}
	}
	return r, checkSchema(ctx, r.tx, abs, have, len(steps))
}

// frozen reports whether the ledger lies, closed properly, where nothing can be written: SQLite could not make the -shm
// that reading a log needs, and does not need it when there is no log.
func frozen(path string) bool {
	info, err := os.Stat(path + "-wal")
	noLog := errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0
	return noLog && unix.Access(filepath.Dir(path), unix.W_OK) != nil
}

// Close lets go of the moment. It may be called twice.
func (r *Reader) Close() error {
	if r.tx != nil {
		if err := r.tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
			return err
		}
	}
	return r.db.Close()
}

// syncDir makes the names of new files durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
