//go:build unix

package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

// TestFilesAreTheOwnersAlone: only the owner may read the files, whatever the umask, even if they existed with more
// rights.
func TestFilesAreTheOwnersAlone(t *testing.T) {
	for _, mask := range []int{0, 0o277} {
		t.Run(fmt.Sprintf("umask %03o", mask), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			before := syscall.Umask(mask)
			defer syscall.Umask(before)
			l := reopen(t, testOptions(filepath.Join(dir, "ledger.db")))
			acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
			wantModes(t, dir)
		})
	}
	t.Run("existing files", func(t *testing.T) {
		l, o := openTest(t)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{o.Path, o.Path + ".lock"} {
			if err := os.Chmod(name, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		acceptOne(t, reopen(t, o), testRow(1, "i1"), pipeline.Open)
		wantModes(t, filepath.Dir(o.Path))
	})
}

func wantModes(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if info, err := os.Stat(d); err != nil || !strings.HasPrefix(d, os.TempDir()) {
			t.Errorf("%s: got %v, want a directory below %s", d, err, os.TempDir())
		} else if d == dir && info.Mode().Perm() != 0o700 {
			t.Errorf("%s: got mode %v, want 0700", d, info.Mode())
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, %v; want 0600", entry.Name(), info.Mode(), err)
		}
	}
	if want := "ledger.db ledger.db-shm ledger.db-wal ledger.db.lock"; strings.Join(names, " ") != want {
		t.Errorf("got files %q, want %s", names, want)
	}
}

// fill accepts batches until an error and returns how many rows were accepted.
func fill(ctx context.Context, l *Ledger, from int) (taken int, err error) {
	for n := from; n < from+1_000_000; n += 100 {
		var rows []pipeline.Row
		for i := range 100 {
			rows = append(rows, testRow(n+i, "i1"))
		}
		if _, err := l.Accept(ctx, rows); err != nil {
			return n - from, err
		}
	}
	return 0, errors.New("got a million rows accepted, want an error of the full disk")
}

// checkFull checks a ledger after a full disk: it has all accepted rows and none of the failed batch, and a row can be
// updated once there is room.
func checkFull(ctx context.Context, l *Ledger, taken int, before pipeline.Record) error {
	count := 0
	if err := l.Each(ctx, func(pipeline.Record, []pipeline.Customer) error { count++; return nil }); err != nil {
		return err
	}
	if count != taken+1 {
		return fmt.Errorf("got %d rows, want the accepted %d", count, taken+1)
	}
	before.Stage = pipeline.Creating
	if _, err := l.Update(ctx, before); err != nil {
		return err
	}
	_, err := l.Accept(ctx, []pipeline.Row{testRow(taken+1, "i1")})
	return err
}

// TestDiskFullWithinATransaction: the disk is full when SQLite adds a page.
func TestDiskFullWithinATransaction(t *testing.T) {
	l, _ := openTest(t)
	before := acceptOne(t, l, testRow(0, "i1"), pipeline.Open)
	limit := func(pages int) {
		if _, err := l.conn.ExecContext(t.Context(), fmt.Sprintf(`PRAGMA max_page_count = %d`, pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(120)
	taken, err := fill(t.Context(), l, 1)
	if !errors.Is(err, errDiskFull) || taken == 0 {
		t.Fatalf("after %d rows: got %v, want errDiskFull", taken, err)
	}
	if !strings.Contains(err.Error(), l.Path()) {
		t.Errorf("got %q, want an error with %s", err, l.Path())
	}
	if _, err := fill(t.Context(), l, 1+taken); !errors.Is(err, errDiskFull) {
		t.Errorf("still full: got %v, want errDiskFull", err)
	}
	limit(1_000_000)
	if err := checkFull(t.Context(), l, taken, before); err != nil {
		t.Errorf("after the full disk: got %v, want nil", err)
	}
}

// TestDiskFullWhileCommitting: the disk is full when SQLite writes the log.
func TestDiskFullWhileCommitting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	taken, err := strconv.Atoi(strings.TrimSpace(runChild(t, "limit", path)))
	if err != nil || taken == 0 {
		t.Fatalf("got %d rows, %v; want some rows", taken, err)
	}
	count := 0
	l := reopen(t, testOptions(path))
	if err := l.Each(t.Context(), func(pipeline.Record, []pipeline.Customer) error { count++; return nil }); err != nil || count != taken+2 {
		t.Errorf("got %d rows, %v; want %d", count, err, taken+2)
	}
}

func limitChild(ctx context.Context, arguments []string) error {
	signal.Ignore(syscall.SIGXFSZ) // write then fails with EFBIG, as with ENOSPC on a full disk
	l, err := Open(ctx, testOptions(arguments[0]))
	if err != nil {
		return err
	}
	answers, err := l.Accept(ctx, []pipeline.Row{testRow(0, "i1")})
	if err != nil {
		return err
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	small := old
	small.Cur = 700_001 // within a page
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		return err
	}
	taken, err := fill(ctx, l, 1)
	if !errors.Is(err, errDiskFull) {
		return fmt.Errorf("after %d rows: got %w, want errDiskFull", taken, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	if err := checkFull(ctx, l, taken, answers[0].Record); err != nil {
		return err
	}
	fmt.Println(taken)
	return l.Close()
}

// TestReadOnlyPlaces: a file and a directory that cannot be written. Root may write everywhere, so the child runs as
// an unprivileged user.
func TestReadOnlyPlaces(t *testing.T) {
	//nolint:usetesting // the directories above t.TempDir cannot be entered by the child, which is not root
	dir, err := os.MkdirTemp("", "ledger")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "file", "ledger.db")
	l := reopen(t, testOptions(file))
	acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o555); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{
		dir: 0o755, filepath.Dir(file): 0o700, file: 0o400, file + ".lock": 0o600, empty: 0o555,
	} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 && strings.HasPrefix(name, filepath.Dir(file)) {
			if err := os.Chown(name, unprivileged, unprivileged); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, path := range map[string]string{
		"file":              file,
		"directory":         filepath.Join(empty, "ledger.db"),
		"missing directory": filepath.Join(empty, "data", "ledger.db"),
	} {
		t.Run(name, func(t *testing.T) {
			if out := runChild(t, "readonly", path); !strings.Contains(out, path) {
				t.Errorf("got %q, want an error with %s", out, path)
			}
		})
	}
}

const unprivileged = 65534

// readOnlyChild requires errReadOnly and prints it.
func readOnlyChild(ctx context.Context, arguments []string) error {
	if os.Getuid() == 0 {
		if err := errors.Join(syscall.Setgid(unprivileged), syscall.Setuid(unprivileged)); err != nil {
			return err
		}
	}
	l, err := Open(ctx, testOptions(arguments[0]))
	if err == nil {
		return errors.Join(errors.New("got an open ledger, want errReadOnly"), l.Close())
	}
	if !errors.Is(err, errReadOnly) || !SetUp(err) {
		return fmt.Errorf("got %w, want errReadOnly, which is for the set-up", err)
	}
	fmt.Println(err)
	return nil
}

// TestLockedByAnotherProcess: the lock works between processes, and its error has the id of the other process.
func TestLockedByAnotherProcess(t *testing.T) {
	_, o := openTest(t)
	want := fmt.Sprintf("%d", os.Getpid())
	if out := strings.TrimSpace(runChild(t, "pid", o.Path)); out != want {
		t.Errorf("got process id %s, want %s", out, want)
	}
}

func pidChild(ctx context.Context, arguments []string) error {
	_, err := Open(ctx, testOptions(arguments[0]))
	var locked *LockedError
	if !errors.As(err, &locked) {
		return fmt.Errorf("got %w, want a LockedError", err)
	}
	fmt.Println(locked.PID)
	return nil
}

// temporaryChild prints the error of a ledger that needs more temporary files than there is room for.
func temporaryChild(ctx context.Context, arguments []string) error {
	l, err := Open(ctx, testOptions(arguments[0]))
	if err != nil {
		return err
	}
	defer l.Close()
	_, err = l.conn.ExecContext(ctx, `CREATE TEMP TABLE large AS WITH RECURSIVE n(i) AS
		(SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 20000) SELECT randomblob(1000) FROM n`)
	fmt.Println(translate(l.path, err))
	return nil
}
