package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

func emptyFile(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBackupOfARunningLedger: the copy has what was in the log only, is one file, and opens as a ledger.
func TestBackupOfARunningLedger(t *testing.T) {
	l, o := openTest(t)
	first := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	acceptOne(t, l, testRow(2, "i1"), pipeline.Open)
	settle(t, l, first, pipeline.Onboarded, "c1")

	target := emptyFile(t, "copy.db")
	b, err := WriteBackup(t.Context(), o.Path, target)
	if err != nil {
		t.Fatal(err)
	}
	if size := int64(len(readFile(t, target))); b.Rows != 2 || b.Bytes != size || !b.Environment.Matches(o.Environment) {
		t.Errorf("got %+v, want 2 rows, %d bytes and %+v", b, size, o.Environment)
	}
	if files, err := os.ReadDir(filepath.Dir(target)); err != nil || len(files) != 1 {
		t.Errorf("files of the copy: got %v, %v; want 1", files, err)
	}
	if head := readFile(t, target); !IsLedger(head[:72]) || IsLedger(head[:71]) {
		t.Error("got the copy not known as a ledger by its first 72 bytes, want it known")
	}
	acceptOne(t, l, testRow(3, "i1"), pipeline.Open) // the ledger goes on

	o.Path = target
	copied := reopen(t, o)
	if got := get(t, copied, testRow(1, "i1")); got.Stage != pipeline.Onboarded {
		t.Errorf("row 1 in the copy: got %s, want %s", got.Stage, pipeline.Onboarded)
	}
	if n, err := copied.Unsettled(t.Context()); err != nil || n != 1 {
		t.Errorf("unsettled rows in the copy: got %d, %v; want 1", n, err)
	}
}

func TestBackupRefuses(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "ledger.db")
	if _, err := WriteBackup(t.Context(), missing, emptyFile(t, "copy.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing ledger: got %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := WriteBackup(t.Context(), emptyFile(t, "ledger.db"), emptyFile(t, "copy.db")); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty ledger: got %v, want %v", err, ErrEmpty)
	}
	foreign := filepath.Join(t.TempDir(), "other.db")
	makeDatabase(t, foreign, `CREATE TABLE t (x); PRAGMA application_id = 7;`)
	if _, err := WriteBackup(t.Context(), foreign, emptyFile(t, "copy.db")); !errors.As(err, new(*foreignError)) {
		t.Errorf("another application: got %v, want a foreignError", err)
	}
	l, o := openTest(t)
	acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	execSQL(t, l, `PRAGMA user_version = 99`)
	_, err := WriteBackup(t.Context(), o.Path, emptyFile(t, "copy.db"))
	if !errors.As(err, new(*schemaError)) || !strings.Contains(err.Error(), "99") {
		t.Errorf("newer schema: got %v, want a schemaError with 99", err)
	}
}

// TestOwnFile: also by another path, and before the file is there.
func TestOwnFile(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "data", "ledger.db"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.Symlink("data", link)); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, nil)
	writeFile(t, path+".lock", nil)
	if err := os.Link(path, filepath.Join(dir, "copy.db")); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{
		path: true, path + "-wal": true, path + "-journal": true, path + ".lock": true, path + restoring: true,
		link + "/ledger.db": true, link + "/ledger.db-shm": true, filepath.Join(dir, "copy.db"): true,
		path + replaced + "1": false, dir + "/ledger.db": false, dir + "/data": false, dir + "/none/ledger.db": false,
	} {
		for _, ledger := range []string{path, filepath.Join(link, "ledger.db")} {
			if got := OwnFile(ledger, file); got != want {
				t.Errorf("%s of %s: got %t, want %t", file, ledger, got, want)
			}
		}
	}
	if OwnFile(filepath.Join(dir, "none", "ledger.db"), path) {
		t.Error("of a ledger without a directory: got true, want false")
	}
}
