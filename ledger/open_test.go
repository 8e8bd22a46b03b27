package ledger

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/uuid"
	"github.com/mattn/go-sqlite3"

	"github.com/purser-onboard/purser/pipeline"
)

func TestOpenWantsItsOptions(t *testing.T) {
	good := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	for name, spoil := range map[string]func(*Options){
		"path":   func(o *Options) { o.Path = "" },
		"host":   func(o *Options) { o.Environment.APIHost = "" },
		"key id": func(o *Options) { o.Environment.APIKeyID = "" },
		"clock":  func(o *Options) { o.Now = nil },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			spoil(&o)
			if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want an error with %q", err, name)
			}
		})
	}
}

func TestConnectionsAreDurable(t *testing.T) {
	l, _ := openTest(t)
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000",
		"application_id": strconv.Itoa(applicationID), "user_version": "13",
	} {
		var got string
		if err := l.conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("PRAGMA %s: got %q, %v; want %q", pragma, got, err, want)
		}
	}
	if _, err := l.readers.ExecContext(t.Context(), `DELETE FROM rows`); err == nil {
		t.Error("DELETE on a reading connection: got no error, want one")
	}
}

func TestOneProcessPerLedger(t *testing.T) {
	l, o := openTest(t)
	_, err := Open(t.Context(), o)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() || locked.Path != l.Path() {
		t.Fatalf("second Open: got %v, want a LockedError of process %d", err, os.Getpid())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	reopen(t, o)
}

func TestLockedByAnUnknownProcess(t *testing.T) {
	_, o := openTest(t)
	if err := os.WriteFile(o.Path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), o)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != 0 || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("got %v, want a LockedError without a process id", err)
	}
}

func TestEnvironmentIsBound(t *testing.T) {
	l, o := openTest(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, other := range []Environment{
		{APIHost: "api.example.org", APIKeyID: "key-1"}, {APIHost: "api.example.com", APIKeyID: "key-2"},
	} {
		changed := o
		changed.Environment = other
		_, err := Open(t.Context(), changed)
		var wrong *EnvironmentError
		if !errors.As(err, &wrong) || wrong.Ledger != testEnvironment || wrong.Given != other {
			t.Fatalf("got %v, want an EnvironmentError", err)
		}
		for _, fact := range []string{testEnvironment.APIHost, testEnvironment.APIKeyID, other.APIHost, other.APIKeyID} {
			if !strings.Contains(err.Error(), fact) {
				t.Errorf("got %q, want an error with %s", err, fact)
			}
		}
	}
	l = reopen(t, o)
	if got, err := l.Environment(t.Context()); err != nil || got != testEnvironment {
		t.Errorf("Environment: got %v, %v; want %v", got, err, testEnvironment)
	}
}

func TestCloseTwiceAndAfter(t *testing.T) {
	l, o := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(o.Path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("log after Close: got %v, want fs.ErrNotExist", err)
	}
	r.Stage = pipeline.Failed
	_, updateErr := l.Update(t.Context(), r)
	_, acceptErr := l.Accept(t.Context(), []pipeline.Row{testRow(2, "i1")})
	_, getErr := l.get(t.Context(), r.Account.String(), r.ExternalID)
	_, countErr := l.Counts(t.Context())
	statusErr := l.SetPartnerStatuses(t.Context(), map[int64]string{1: "active"})
	for _, err := range []error{updateErr, acceptErr, getErr, countErr, statusErr} {
		if !errors.Is(err, errClosed) {
			t.Errorf("after Close: got %v, want errClosed", err)
		}
	}
}

// TestOlderSchemaIsMigrated: a ledger of schema 1 opens, keeps its rows and gets the later tables.
func TestOlderSchemaIsMigrated(t *testing.T) {
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	script, err := os.ReadFile(filepath.Join("testdata", "schema1.sql"))
	if err != nil {
		t.Fatal(err)
	}
	makeDatabase(t, o.Path, string(script))

	_, err = OpenReadOnly(t.Context(), o.Path)
	var schema *schemaError
	if !errors.As(err, &schema) || schema.Have != 1 || !strings.Contains(err.Error(), "the next run migrates it") {
		t.Errorf("OpenReadOnly: got %v, want a schemaError with what to do", err)
	}
	if e, s, err := Identify(t.Context(), o.Path); err != nil || e != testEnvironment || s != (Schema{1, 13}) {
		t.Errorf("Identify: got %v, %v, %v; want the environment of schema 1, and the newest schema", e, s, err)
	}

	var log bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	l := reopen(t, o)
	if !strings.Contains(log.String(), "from_schema=1 to_schema=13") {
		t.Errorf("log: got %q, want the migration", &log)
	}
	r := get(t, l, testRow(1, ""))
	if r.Stage != pipeline.Creating || r.CreateKey != createKey(0, r.CreateKey.FirstSent) || r.CreateKey.IsZero() {
		t.Errorf("row of schema 1: got %+v, want stage creating and its key", r)
	}
	if begun, err := l.DirectoryAsOf(t.Context()); err != nil || !begun.IsZero() {
		t.Errorf("DirectoryAsOf: got %v, %v; want the zero time", begun, err)
	}
	// A constraint that a later migration has rewritten is in force on this connection.
	execSQL(t, l, `UPDATE rows SET claims = 0`)
	if _, err := l.conn.ExecContext(t.Context(), `UPDATE rows SET claims = 2`); err == nil {
		t.Error("claims = 2: got no error, want one")
	}
	if bindings, err := l.Bindings(t.Context()); err != nil || len(bindings) != 1 ||
		bindings[0].Environment != testEnvironment || bindings[0].Since.IsZero() {
		t.Errorf("Bindings: got %v, %v; want only the environment of schema 1", bindings, err)
	}
	var programs string
	err = l.conn.QueryRowContext(t.Context(), `SELECT group_concat(program, ', ') FROM migrations`).Scan(&programs)
	if err != nil || programs != "purser 0.0.9"+strings.Repeat(", purser 0.1.0", 12) {
		t.Errorf("got migrations by %q, %v; want purser 0.0.9 and 12 times purser 0.1.0", programs, err)
	}
}

// TestMigrationIsAtomic: a migration that fails does not change the schema.
func TestMigrationIsAtomic(t *testing.T) {
	l, o := openTest(t)
	acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	steps, err := readMigrations(embedded)
	if err != nil {
		t.Fatal(err)
	}
	broken := append(steps[:len(steps):len(steps)], migration{
		version: len(steps) + 1, name: "0003_broken.sql",
		script: "ALTER TABLE rows ADD COLUMN colour TEXT; INSERT INTO nowhere VALUES (1);",
	})
	if _, err := open(t.Context(), o, broken); err == nil || !strings.Contains(err.Error(), "0003_broken.sql") {
		t.Fatalf("got %v, want an error that names the migration", err)
	}
	l = reopen(t, o)
	if _, err := l.readers.ExecContext(t.Context(), `SELECT colour FROM rows`); err == nil {
		t.Error("column of the failed migration: got no error, want one")
	}
}

func TestMigrationsAreNumbered(t *testing.T) {
	file := &fstest.MapFile{Data: []byte("SELECT 1;")}
	for name, files := range map[string]fstest.MapFS{
		"gap":       {"migrations/0001_a.sql": file, "migrations/0003_b.sql": file},
		"twice":     {"migrations/0001_a.sql": file, "migrations/0001_b.sql": file},
		"no number": {"migrations/a.sql": file},
		"short":     {"migrations/1_a.sql": file},
	} {
		if _, err := readMigrations(files); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

func TestNewerSchemaIsAnError(t *testing.T) {
	l, o := openTest(t)
	execSQL(t, l, `INSERT INTO migrations VALUES (14, 'purser 4.2.0', 1)`)
	execSQL(t, l, `PRAGMA user_version = 14`)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, openErr := Open(t.Context(), o)
	_, readErr := OpenReadOnly(t.Context(), o.Path)
	for _, err := range []error{openErr, readErr} {
		var schema *schemaError
		if !errors.As(err, &schema) || schema.Have != 14 || schema.Known != 13 || schema.Program != "purser 4.2.0" {
			t.Fatalf("got %v, want a schemaError with schema 14 and purser 4.2.0", err)
		}
		if !strings.Contains(err.Error(), "purser 4.2.0 or newer") {
			t.Errorf("got %q, want an error with purser 4.2.0 or newer", err)
		}
	}
}

// TestForeignFilesAreLeftAlone: other databases keep their content and mode.
func TestForeignFilesAreLeftAlone(t *testing.T) {
	for name, script := range map[string]string{
		"another application": `CREATE TABLE t (x); PRAGMA application_id = 7;`,
		"no application":      `CREATE TABLE t (x);`,
		"a version":           `PRAGMA user_version = 3;`,
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(filepath.Join(t.TempDir(), "other.db"))
			makeDatabase(t, o.Path, script)
			if err := os.Chmod(o.Path, 0o644); err != nil {
				t.Fatal(err)
			}
			before := readFile(t, o.Path)
			if IsLedger(before) {
				t.Error("got the file taken for a ledger, which a backup may replace; want it not")
			}
			_, openErr := Open(t.Context(), o)
			_, readErr := OpenReadOnly(t.Context(), o.Path)
			for _, err := range []error{openErr, readErr} {
				var foreign *foreignError
				if !errors.As(err, &foreign) || !strings.Contains(err.Error(), o.Path) {
					t.Errorf("got %v, want a foreignError", err)
				}
			}
			info, err := os.Stat(o.Path)
			if err != nil || info.Mode().Perm() != 0o644 || !bytes.Equal(before, readFile(t, o.Path)) {
				t.Errorf("got mode %v, %v; want mode 0644 and the content unchanged", info.Mode(), err)
			}
		})
	}
}

func TestDamageIsFound(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"not a database": func([]byte) []byte { return []byte("address,externalId\n0x00,1\n") },
		"first page":     func(file []byte) []byte { clear(file[100:4096]); return file },
		"middle":         func(file []byte) []byte { clear(file[len(file)/3 : 2*len(file)/3]); return file },
		"cut off":        func(file []byte) []byte { return file[:len(file)/2] },
	} {
		t.Run(name, func(t *testing.T) {
			l, o := openTest(t)
			var rows []pipeline.Row
			for n := range 200 {
				rows = append(rows, testRow(n, "i1"))
			}
			accept(t, l, rows...)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(o.Path, damage(readFile(t, o.Path)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), o)
			var corrupt *corruptError
			if !errors.As(err, &corrupt) || corrupt.Path != l.Path() {
				t.Fatalf("got %v, want a corruptError", err)
			}
			if !strings.Contains(err.Error(), "move the file") || !strings.Contains(err.Error(), "run again") {
				t.Errorf("got %q, want an error with what to do", err)
			}
			// Following the advice works.
			if err := os.Rename(o.Path, o.Path+".damaged"); err != nil {
				t.Fatal(err)
			}
			acceptOne(t, reopen(t, o), testRow(1, "i1"), pipeline.Open)
		})
	}
}

// TestDamageInALargeLedger: a ledger that is checked while it is in use is used no more once damage is found, and the
// next Open checks the whole of it.
func TestDamageInALargeLedger(t *testing.T) {
	l, o := openTest(t)
	var rows []pipeline.Row
	for n := range 2000 {
		rows = append(rows, testRow(n, "i1"))
	}
	accept(t, l, rows...)
	closed(t, l)
	o.CheckFirst = 1
	l = reopen(t, o)
	if <-l.checking.done; l.checking.found() != nil {
		t.Fatalf("an undamaged ledger: got %v, want no damage", l.checking.found())
	}
	acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	closed(t, l)

	file := readFile(t, o.Path)
	clear(file[len(file)/2 : len(file)/2+4096])
	if err := os.WriteFile(o.Path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	<-l.checking.done
	_, acceptErr := l.Accept(t.Context(), rows[:1])
	for name, err := range map[string]error{
		"Accept": acceptErr, "BeginRun": l.BeginRun(t.Context(), Run{ID: uuid.New()}), "Close": l.Close(),
	} {
		if !errors.As(err, new(*corruptError)) {
			t.Errorf("%s after damage was found: got %v, want a corruptError", name, err)
		}
	}
	if _, err := Open(t.Context(), o); !errors.As(err, new(*corruptError)) {
		t.Errorf("Open again: got %v, want a corruptError", err)
	}
}

func TestInterruptedCreation(t *testing.T) {
	for name, script := range map[string]string{"empty file": "", "log only": "PRAGMA journal_mode = WAL;"} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
			if err := os.WriteFile(o.Path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if script != "" {
				makeDatabase(t, o.Path, script)
			}
			if _, err := OpenReadOnly(t.Context(), o.Path); !errors.Is(err, ErrEmpty) {
				t.Errorf("OpenReadOnly: got %v, want ErrEmpty", err)
			}
			acceptOne(t, reopen(t, o), testRow(1, "i1"), pipeline.Open)
		})
	}
}

func TestUnusablePaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"under a file": filepath.Join(file, "ledger.db"),
		"a directory":  dir,
	} {
		_, err := Open(t.Context(), testOptions(path))
		if err == nil || !strings.Contains(err.Error(), path) && !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want an error with the path", name, err)
		}
		if _, err := OpenReadOnly(t.Context(), path); err == nil {
			t.Errorf("%s: OpenReadOnly: got no error, want one", name)
		}
	}
	if _, err := OpenReadOnly(t.Context(), filepath.Join(dir, "missing.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v, want fs.ErrNotExist", err)
	}
	odd := filepath.Join(dir, "50% of ?#a & ledger.db")
	acceptOne(t, reopen(t, testOptions(odd)), testRow(1, "i1"), pipeline.Open)
	if _, err := os.Stat(odd); err != nil {
		t.Errorf("got %v, want a file of that name", err)
	}
}

func TestReaderSeesASnapshot(t *testing.T) {
	l, o := openTest(t)
	first := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	reader, err := OpenReadOnly(t.Context(), o.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	acceptOne(t, l, testRow(2, "i1"), pipeline.Open)
	settle(t, l, first, pipeline.Onboarded, "c1")

	counts, err := reader.Counts(t.Context())
	if err != nil || len(counts) != 1 || counts[0].Stage != pipeline.Planned || counts[0].Rows != 1 {
		t.Errorf("Counts: got %+v, %v; want one planned row", counts, err)
	}
	now, err := OpenReadOnly(t.Context(), o.Path)
	if err != nil {
		t.Fatal(err)
	}
	if counts, err := now.Counts(t.Context()); err != nil || len(counts) != 2 {
		t.Errorf("later reader: got %+v, %v; want two stages", counts, err)
	}
	for range 2 {
		if err := now.Close(); err != nil {
			t.Errorf("Close: got %v, want nil", err)
		}
	}
	if _, err := now.Counts(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("after Close: got %v, want errClosed", err)
	}
	// A Reader also works without a consumer.
	reader.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	late, err := OpenReadOnly(t.Context(), o.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, err := late.get(t.Context(), account(2).String(), testRow(2, "").ExternalID); err != nil {
		t.Errorf("got %v, want the row", err)
	}
}

// makeDatabase creates a database with a script.
func makeDatabase(t testing.TB, path, script string) {
	t.Helper()
	db := openDB(path, "rwc")
	if _, err := db.ExecContext(context.WithoutCancel(t.Context()), script); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestKeepPositions: Open deletes the positions in other ledger topics, unless the caller asks for them to be kept.
func TestKeepPositions(t *testing.T) {
	l, o := openTest(t)
	execSQL(t, l, `INSERT INTO changelog (topic, partition, next, before, met) VALUES ('ledger', 0, 7, 0, 0)`)
	for _, tt := range []struct {
		keep bool
		want int
	}{{true, 1}, {false, 0}} {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		o.KeepPositions = tt.keep
		l = reopen(t, o)
		var got int
		err := l.conn.QueryRowContext(t.Context(), `SELECT count(*) FROM changelog`).Scan(&got)
		if err != nil || got != tt.want {
			t.Errorf("KeepPositions %t: got %d positions, %v; want %d", tt.keep, got, err, tt.want)
		}
	}
}

// TestErrorsSayWhatToDo: the error of a disk does, also where SQLite calls an unreadable one a damaged database.
func TestErrorsSayWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"I/O error":     {sqlite3.Error{Code: sqlite3.ErrIoErr, SystemErrno: syscall.EIO}, "check the disk and the kernel's log"},
		"full":          {sqlite3.Error{Code: sqlite3.ErrIoErr, SystemErrno: syscall.ENOSPC}, "free space, then run again"},
		"full, no code": {&os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}, "free space, then run again"},
		"unreadable":    {sqlite3.Error{Code: sqlite3.ErrCorrupt}, "check the path and the disk"},
	} {
		if got := translate(path, tt.err); !errors.Is(got, tt.err) || !strings.Contains(got.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q in it", name, got, tt.want)
		}
	}
}
