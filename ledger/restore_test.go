package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// backedUp makes a ledger in which row 1 is onboarded and row 2 is open, and a backup of it. After the backup row 2 was
// onboarded and row 3 accepted. The ledger is as a crash leaves it: with a log that has all of it.
func backedUp(t *testing.T) (o RestoreOptions) {
	t.Helper()
	dir := t.TempDir()
	clock := newClock()
	options := testOptions(filepath.Join(dir, "live", "ledger.db"))
	options.Now = clock.Now
	l := reopen(t, options)
	settle(t, l, acceptOne(t, l, testRow(1, "i1"), pipeline.Open), pipeline.Onboarded, "c1")
	second := acceptOne(t, l, testRow(2, "i1"), pipeline.Open)

	o = RestoreOptions{Path: filepath.Join(dir, "data", "ledger.db"), Backup: emptyFile(t, "backup.db"), Now: clock.Now}
	if _, err := WriteBackup(t.Context(), options.Path, o.Backup); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Hour)
	settle(t, l, second, pipeline.Onboarded, "c2")
	acceptOne(t, l, testRow(3, "i2"), pipeline.Open)
	if err := os.Mkdir(filepath.Dir(o.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		writeFile(t, o.Path+suffix, readFile(t, options.Path+suffix))
	}
	return o
}

func mustRestore(t *testing.T, o RestoreOptions) Replacement {
	t.Helper()
	r, err := RestoreBackup(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// contentsOf returns the stages of the first three rows of a ledger, "" for rows that it does not have.
func contentsOf(t *testing.T, path string) (stages [3]pipeline.Stage) {
	t.Helper()
	l, err := Open(t.Context(), testOptions(path))
	if err != nil {
		t.Fatal(err)
	}
	for i := range stages {
		row := testRow(i+1, "i1")
		record, err := l.get(t.Context(), row.Account.String(), row.ExternalID)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			t.Fatal(err)
		}
		stages[i] = record.Stage
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return stages
}

func (o RestoreOptions) files(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(o.Path))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

var (
	beforeBackup = [3]pipeline.Stage{pipeline.Onboarded, pipeline.Planned}
	afterBackup  = [3]pipeline.Stage{pipeline.Onboarded, pipeline.Onboarded, pipeline.Planned}
)

// TestRestoreRefusesANewerLedger: rows, times and what to do are in the error, and the ledger keeps its content.
func TestRestoreRefusesANewerLedger(t *testing.T) {
	o := backedUp(t)
	_, err := RestoreBackup(t.Context(), o)
	var newer *NewerError
	if !errors.As(err, &newer) || newer.Missing != 1 || newer.Changed != 1 || newer.Ledger.Rows != 3 ||
		newer.Backup.Rows != 2 || newer.Ledger.LastChange.Sub(newer.Backup.LastChange) != time.Hour {
		t.Fatalf("got %v, want a NewerError: 3 rows and 2, an hour apart, 1 row missing, 1 changed", err)
	}
	for _, want := range []string{"3 rows", "2 rows", "not in the backup: 1", "T22:00:00Z", "T23:00:00Z", "--force"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
	if got := contentsOf(t, o.Path); got != afterBackup {
		t.Errorf("rows: got %v, want %v", got, afterBackup)
	}
}

// TestRestoreAfterTheClockWasSetBack: a row that has changed since the backup has an earlier time.
func TestRestoreAfterTheClockWasSetBack(t *testing.T) {
	clock := newClock()
	options := testOptions(filepath.Join(t.TempDir(), "data", "ledger.db"))
	options.Now = clock.Now
	l := reopen(t, options)
	row := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	o := RestoreOptions{Path: options.Path, Backup: emptyFile(t, "backup.db"), Now: clock.Now}
	if _, err := WriteBackup(t.Context(), o.Path, o.Backup); err != nil {
		t.Fatal(err)
	}
	clock.advance(-time.Hour)
	settle(t, l, row, pipeline.Onboarded, "c1")
	closed(t, l)
	var newer *NewerError
	if _, err := RestoreBackup(t.Context(), o); !errors.As(err, &newer) || newer.Changed != 1 {
		t.Errorf("got %v, want a NewerError with 1 row changed", err)
	}
}

// TestRestoreKeepsTheReplacedLedger: with what was only in its log, which is not applied to the restored ledger.
func TestRestoreKeepsTheReplacedLedger(t *testing.T) {
	o := backedUp(t)
	o.Force = true
	writeFile(t, o.Path+".restoring", []byte("of a killed process"))
	before := readFile(t, o.Backup)
	r := mustRestore(t, o)
	if r.Rows != 2 || r.Replaced == nil || r.Replaced.Rows != 3 || r.Missing != 1 || r.Changed != 1 {
		t.Errorf("got %+v, want 2 rows in place of 3, 1 missing, 1 changed", r)
	}
	want := []string{"ledger.db", "ledger.db.lock", filepath.Base(r.Kept)}
	if got := o.files(t); len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("files: got %q, want %q", got, want)
	}
	if info, err := os.Stat(o.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v; want 0600", info.Mode(), err)
	}
	if got := contentsOf(t, o.Path); got != beforeBackup {
		t.Errorf("restored rows: got %v, want %v", got, beforeBackup)
	}
	if got := contentsOf(t, r.Kept); got != afterBackup {
		t.Errorf("replaced rows: got %v, want %v", got, afterBackup)
	}
	if !bytes.Equal(readFile(t, o.Backup), before) {
		t.Error("got the backup changed, want it as it was")
	}
	removeFile(t, r.Kept) // the test's clock stands still
	o.Force = false
	if r := mustRestore(t, o); r.Missing != 0 || r.Changed != 0 { // the ledger is not newer now
		t.Errorf("again: got %d rows missing and %d changed, want none", r.Missing, r.Changed)
	}
}

// TestRestoreWithoutALedger: the log of a ledger that was removed is not applied, and is kept.
func TestRestoreWithoutALedger(t *testing.T) {
	o := backedUp(t)
	removeFile(t, o.Path)
	if r := mustRestore(t, o); r.Kept != "" || r.Replaced != nil {
		t.Errorf("got %+v, want nothing replaced", r)
	}
	if got := contentsOf(t, o.Path); got != beforeBackup {
		t.Errorf("rows: got %v, want %v", got, beforeBackup)
	}
	if got := o.files(t); len(got) != 3 || !strings.HasSuffix(got[2], "-wal") {
		t.Errorf("files: got %q, want the ledger, its lock and the log that was there", got)
	}
}

// TestPutInPlaceFails: an error before the backup has the ledger's name leaves the ledger and its log as they were.
func TestPutInPlaceFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	writeFile(t, path, []byte("ledger"))
	writeFile(t, path+"-wal", []byte("log"))
	kept, err := putInPlace(path, path+".restoring", true, noClock(), os.Link) // which does not exist
	if kept != "" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %q, %v; want nothing kept, fs.ErrNotExist", kept, err)
	}
	if got := (RestoreOptions{Path: path}).files(t); !slices.Equal(got, []string{"ledger.db", "ledger.db-wal"}) {
		t.Errorf("got the files %q, want the ledger and its log", got)
	}
	if got := string(readFile(t, path)) + ", " + string(readFile(t, path+"-wal")); got != "ledger, log" {
		t.Errorf("got %q, want them unchanged", got)
	}
}

// leaveJournal leaves a ledger as a process does that is killed while it writes without a log: with a rollback journal.
func leaveJournal(t *testing.T, path string) {
	t.Helper()
	ctx := t.Context()
	if err := writeLogBack(ctx, path); err != nil {
		t.Fatal(err)
	}
	db := openDB(path, "rw", "synchronous = OFF")
	db.SetMaxOpenConns(1)
	defer db.Close()
	err := inTransaction(ctx, db, func() error {
		if _, err := db.ExecContext(ctx, `UPDATE rows SET reason = 'half done'`); err != nil {
			return err
		}
		writeFile(t, path+".journal", readFile(t, path+"-journal"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".journal", path+"-journal"); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreWhereAJournalWasLeft: it is undone in its own ledger, and not applied to the restored ledger.
func TestRestoreWhereAJournalWasLeft(t *testing.T) {
	o := backedUp(t)
	leaveJournal(t, o.Path)
	if _, err := OpenReadOnly(t.Context(), o.Path); !errors.Is(err, errHalfDone) {
		t.Errorf("reading: got %v, want %v", err, errHalfDone)
	}
	if _, err := RestoreBackup(t.Context(), o); !errors.As(err, new(*NewerError)) {
		t.Errorf("got %v, want a NewerError", err)
	}
	if got := contentsOf(t, o.Path); got != afterBackup {
		t.Errorf("rows: got %v, want %v", got, afterBackup)
	}
	leaveJournal(t, o.Path)
	journal := readFile(t, o.Path+"-journal")
	removeFile(t, o.Path)
	r := mustRestore(t, o)
	if got := contentsOf(t, o.Path); got != beforeBackup {
		t.Errorf("restored rows: got %v, want %v", got, beforeBackup)
	}
	files := o.files(t)
	if len(files) != 3 || !strings.HasSuffix(files[2], "-journal") ||
		!bytes.Equal(readFile(t, filepath.Join(filepath.Dir(o.Path), files[2])), journal) {
		t.Errorf("files: got %q and %+v, want the ledger, its lock and the journal that was there", files, r)
	}
}

// TestRestoreAfterAKill: the second name that a killed process has given to the ledger is removed, and only that.
func TestRestoreAfterAKill(t *testing.T) {
	o := backedUp(t)
	if err := os.Link(o.Path, o.Path+replaced+"1"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, o.Path+replaced+"0", []byte("an earlier ledger"))
	o.Force = true
	r := mustRestore(t, o)
	want := []string{"ledger.db", "ledger.db.lock", "ledger.db.replaced-0", filepath.Base(r.Kept)}
	if got := o.files(t); !slices.Equal(got, want) {
		t.Errorf("files: got %q, want %q", got, want)
	}
	if got := contentsOf(t, r.Kept); got != afterBackup {
		t.Errorf("replaced rows: got %v, want %v", got, afterBackup)
	}
}

// TestRestoreWithoutHardLinks: on a file system that has none, such as vfat, the replaced ledger is copied.
func TestRestoreWithoutHardLinks(t *testing.T) {
	o := backedUp(t)
	o.Force = true
	writeFile(t, o.Path+".replacing", []byte("of a killed process"))
	o.link = func(old, name string) error {
		return &os.LinkError{Op: "link", Old: old, New: name, Err: syscall.EPERM}
	}
	r := mustRestore(t, o)
	want := []string{"ledger.db", "ledger.db.lock", filepath.Base(r.Kept)}
	if got := o.files(t); !slices.Equal(got, want) {
		t.Errorf("files: got %q, want %q", got, want)
	}
	if got := contentsOf(t, o.Path); got != beforeBackup {
		t.Errorf("restored rows: got %v, want %v", got, beforeBackup)
	}
	if got := contentsOf(t, r.Kept); got != afterBackup {
		t.Errorf("replaced rows: got %v, want %v", got, afterBackup)
	}
}

// TestCloseAfterARestore: that a file cannot be closed does not hide that the backup is in place.
func TestCloseAfterARestore(t *testing.T) {
	newer := &NewerError{}
	for _, tt := range []struct {
		inPlace      bool
		err, closing error
		placed       bool
	}{
		{inPlace: true},
		{inPlace: true, closing: fs.ErrClosed, placed: true},
		{inPlace: true, err: &PlacedError{Err: fs.ErrInvalid}, closing: fs.ErrClosed, placed: true},
		{err: newer},
		{err: newer, closing: fs.ErrClosed},
	} {
		got := withClosing("ledger.db", tt.inPlace, tt.err, tt.closing)
		both := (tt.err == nil || errors.Is(got, tt.err)) && (tt.closing == nil || errors.Is(got, tt.closing))
		if errors.As(got, new(*PlacedError)) != tt.placed || !both {
			t.Errorf("in place %t, %v, %v: got %v, want a PlacedError: %t, and both", tt.inPlace, tt.err, tt.closing, got,
				tt.placed)
		}
	}
}

func TestRestoreOverADamagedLedger(t *testing.T) {
	o := backedUp(t)
	log := []byte("no log either")
	writeFile(t, o.Path, bytes.Repeat([]byte("damaged "), 1024))
	writeFile(t, o.Path+"-wal", log)
	if _, err := RestoreBackup(t.Context(), o); !errors.As(err, new(*IncomparableError)) {
		t.Fatalf("got %v, want an IncomparableError", err)
	}
	o.Force = true
	r := mustRestore(t, o)
	if got := contentsOf(t, o.Path); got != beforeBackup {
		t.Errorf("rows: got %v, want %v", got, beforeBackup)
	}
	if got := readFile(t, r.Kept+"-wal"); !bytes.Equal(got, log) {
		t.Errorf("log of the damaged ledger: got %d bytes, want %d unchanged", len(got), len(log))
	}
	if got := string(readFile(t, r.Kept)[:8]); got != "damaged " {
		t.Errorf("replaced ledger: got %q, want the damaged file", got)
	}
}

// TestRestoreOfAnotherEnvironment: the ledger of another API is replaced only with Force.
func TestRestoreOfAnotherEnvironment(t *testing.T) {
	o := backedUp(t)
	other := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	other.Environment.APIHost = "other.example"
	reopen(t, other)
	o.Path = other.Path + ".copy"
	writeFile(t, o.Path, nil)
	if _, err := WriteBackup(t.Context(), other.Path, o.Path); err != nil {
		t.Fatal(err)
	}
	_, err := RestoreBackup(t.Context(), o)
	if !errors.As(err, new(*IncomparableError)) || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("got %v, want an IncomparableError with other.example", err)
	}
}

func TestRestoreRefusesALedgerInUse(t *testing.T) {
	o := backedUp(t)
	o.Force = true
	l := reopen(t, testOptions(o.Path))
	if _, err := RestoreBackup(t.Context(), o); !errors.As(err, new(*LockedError)) {
		t.Errorf("held by a consumer: got %v, want a LockedError", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	reader, err := OpenReadOnly(t.Context(), o.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreBackup(t.Context(), o); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("open for reading: got %v, want an error that another program keeps it busy", err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if got := contentsOf(t, o.Path); got != afterBackup {
		t.Errorf("rows: got %v, want %v", got, afterBackup)
	}
}

func TestRestoreRefusesABackup(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  string
	}{
		"missing": {func(t *testing.T, path string) { removeFile(t, path) }, "no such file"},
		"empty":   {func(t *testing.T, path string) { writeFile(t, path, nil) }, "is empty"},
		"directory": {func(t *testing.T, path string) {
			removeFile(t, path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is not a regular file"},
		"no ledger": {withSQL(`PRAGMA user_version = 0`), "has no ledger in it"},
		"CSV": {func(t *testing.T, path string) {
			writeFile(t, path, []byte("address,externalId\n"))
		}, "damaged or not"},
		"cut off": {func(t *testing.T, path string) { writeFile(t, path, readFile(t, path)[:8192]) }, "damaged or not"},
		"other":   {withSQL(`PRAGMA application_id = 7`), "database of another program"},
		"newer":   {withSQL(`PRAGMA user_version = 99`), "backup.db has schema 99, this program supports"},
		"bad index": {withSQL(`DROP INDEX rows_pair; CREATE INDEX rows_pair ON rows (line); PRAGMA writable_schema = ON;
			UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX rows_pair ON rows (external_id, chain_id)'
			WHERE name = 'rows_pair'`), "damaged or not"},
	} {
		t.Run(name, func(t *testing.T) {
			o := backedUp(t)
			o.Force = true
			test.spoil(t, o.Backup)
			_, err := RestoreBackup(t.Context(), o)
			if !errors.As(err, new(*BackupError)) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want a BackupError with %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), o.Path) {
				t.Errorf("got %v, want nothing said of the ledger", err)
			}
			if got := contentsOf(t, o.Path); got != afterBackup {
				t.Errorf("rows: got %v, want %v", got, afterBackup)
			}
			if got := o.files(t); len(got) != 2 {
				t.Errorf("files: got %q, want the ledger and its lock", got)
			}
			o.Path = filepath.Join(t.TempDir(), "data", "ledger.db")
			if _, err := RestoreBackup(t.Context(), o); !errors.As(err, new(*BackupError)) {
				t.Errorf("without a ledger: got %v, want a BackupError", err)
			}
			if _, err := os.Stat(filepath.Dir(o.Path)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("directory of the ledger: got %v, want none made", err)
			}
		})
	}
	o := backedUp(t)
	o.Backup = o.Path
	if _, err := RestoreBackup(t.Context(), o); !errors.As(err, new(*BackupError)) {
		t.Errorf("the ledger itself: got %v, want a BackupError", err)
	}
}

func withSQL(script string) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		db := openDB(path, "rw")
		if _, err := db.ExecContext(context.WithoutCancel(t.Context()), script); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func removeFile(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
