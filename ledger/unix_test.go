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

// Customer data is the owner's alone, whatever the umask, and whoever made the file.
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
	t.Run("made wider", func(t *testing.T) {
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
			t.Errorf("%s: %v", d, err)
		} else if d == dir && info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", d, info.Mode())
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
			t.Errorf("%s has mode %v, %v", entry.Name(), info.Mode(), err)
		}
	}
	if want := "ledger.db ledger.db-shm ledger.db-wal ledger.db.lock"; strings.Join(names, " ") != want {
		t.Errorf("files %q, want %s", names, want)
	}
}

// fill accepts batches until the ledger has no more room and returns how many rows it took.
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
	return 0, errors.New("a full disk was never noticed")
}

// checkFull verifies what a full disk left: all rows that were accepted, none of the batch that was not, and a row of
// before that can be updated once there is room.
func checkFull(ctx context.Context, l *Ledger, taken int, before pipeline.Record) error {
	count := 0
	if err := l.Each(ctx, func(pipeline.Record) error { count++; return nil }); err != nil {
		return err
	}
	if count != taken+1 {
		return fmt.Errorf("%d rows are there, %d were accepted", count, taken+1)
	}
	before.Stage = pipeline.Creating
	if _, err := l.Update(ctx, before); err != nil {
		return err
	}
	_, err := l.Accept(ctx, []pipeline.Row{testRow(taken+1, "i1")})
	return err
}

// Room that runs out within a transaction: SQLite may not add a page.
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
		t.Fatalf("after %d rows: %v, want errDiskFull", taken, err)
	}
	if !strings.Contains(err.Error(), l.Path()) {
		t.Errorf("%q does not name the file", err)
	}
	if _, err := fill(t.Context(), l, 1+taken); !errors.Is(err, errDiskFull) {
		t.Errorf("still full: %v", err)
	}
	limit(1_000_000)
	if err := checkFull(t.Context(), l, taken, before); err != nil {
		t.Error(err)
	}
}

// Room that runs out while the log is written: the file may not grow.
func TestDiskFullWhileCommitting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	taken, err := strconv.Atoi(strings.TrimSpace(runChild(t, "limit", path)))
	if err != nil || taken == 0 {
		t.Fatalf("%d rows, %v", taken, err)
	}
	count := 0
	l := reopen(t, testOptions(path))
	if err := l.Each(t.Context(), func(pipeline.Record) error { count++; return nil }); err != nil || count != taken+2 {
		t.Errorf("%d rows, %v; want %d", count, err, taken+2)
	}
}

func limitChild(ctx context.Context, arguments []string) error {
	signal.Ignore(syscall.SIGXFSZ) // write then answers EFBIG, as a full disk answers ENOSPC
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
		return fmt.Errorf("after %d rows: %w, want errDiskFull", taken, err)
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

// A file and a directory that cannot be written. Root may write everything, so the child gives root up first.
func TestReadOnlyPlaces(t *testing.T) {
	//nolint:usetesting // the directories above t.TempDir cannot be entered by the child, which is nobody
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
			if err := os.Chown(name, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, path := range map[string]string{
		"file":                 file,
		"directory":            filepath.Join(empty, "ledger.db"),
		"directory to be made": filepath.Join(empty, "data", "ledger.db"),
	} {
		t.Run(name, func(t *testing.T) {
			if out := runChild(t, "readonly", path); !strings.Contains(out, path) {
				t.Errorf("%q does not name the path", out)
			}
		})
	}
}

const nobody = 65534

// readOnlyChild wants errReadOnly, which it prints.
func readOnlyChild(ctx context.Context, arguments []string) error {
	if os.Getuid() == 0 {
		if err := errors.Join(syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
			return err
		}
	}
	l, err := Open(ctx, testOptions(arguments[0]))
	if err == nil {
		return errors.Join(errors.New("the ledger was opened"), l.Close())
	}
	if !errors.Is(err, errReadOnly) {
		return fmt.Errorf("%w, want errReadOnly", err)
	}
	fmt.Println(err)
	return nil
}

// The lock is between processes, and its error names the other one.
func TestLockedByAnotherProcess(t *testing.T) {
	_, o := openTest(t)
	want := fmt.Sprintf("%d", os.Getpid())
	if out := strings.TrimSpace(runChild(t, "pid", o.Path)); out != want {
		t.Errorf("the other process sees %s, want %s", out, want)
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
