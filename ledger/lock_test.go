//go:build unix

package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/pipeline"
)

// TestOneProcessWhateverThePath: neither a symbolic link nor a hard link admits a second process.
func TestOneProcessWhateverThePath(t *testing.T) {
	l, o := openTest(t)
	elsewhere := t.TempDir()
	link, dirLink := filepath.Join(elsewhere, "link.db"), filepath.Join(elsewhere, "data")
	second := filepath.Join(elsewhere, "second.db")
	if err := errors.Join(os.Symlink(o.Path, link), os.Symlink(filepath.Dir(o.Path), dirLink)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, filepath.Join(dirLink, "ledger.db")} {
		other := o
		other.Path = path
		_, err := Open(t.Context(), other)
		var locked *LockedError
		if !errors.As(err, &locked) || locked.PID != os.Getpid() || locked.Path != l.Path() {
			t.Errorf("%s: got %v, want a LockedError of process %d on %s", path, err, os.Getpid(), l.Path())
		}
	}
	if err := os.Link(o.Path, second); err != nil {
		t.Fatal(err)
	}
	other := o
	other.Path = second
	wantUnsafe(t, other, "has 2 hard links")
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}

	// Without another process, a symbolic link is followed, and the other files are created next to its target.
	closed(t, l)
	other.Path = link
	l = reopen(t, other)
	acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	if names, err := filepath.Glob(filepath.Join(elsewhere, "link.db*")); err != nil || len(names) != 1 {
		t.Errorf("got files %v, %v; want only the link", names, err)
	}
}

func wantUnsafe(t *testing.T, o Options, want string) {
	t.Helper()
	l, err := Open(t.Context(), o)
	if err == nil {
		closed(t, l)
	}
	if !errors.As(err, new(*lockfile.UnsafeError)) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want an UnsafeError with %q", err, want)
	}
}

func TestDirectoryOfOthersIsUnsafe(t *testing.T) {
	for _, mode := range []fs.FileMode{0o770, 0o702, 0o777 | fs.ModeSticky} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		wantUnsafe(t, testOptions(filepath.Join(dir, "ledger.db")), "chmod go-w "+dir)
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("mode %v: got entries %v, %v; want none", mode, entries, err)
		}
		below := testOptions(filepath.Join(dir, "data", "ledger.db"))
		if mode == 0o702 { // all users could replace a directory below it
			wantUnsafe(t, below, "chmod o-w "+dir)
			continue
		}
		closed(t, reopen(t, below))
	}
}

// TestLinkToAMissingDirectory: the error says so, for the directory itself and for one below it.
func TestLinkToAMissingDirectory(t *testing.T) {
	link := filepath.Join(t.TempDir(), "data")
	if err := os.Symlink("/mnt/purser-of-this-test", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(link, "ledger.db"), filepath.Join(link, "bank", "ledger.db")} {
		_, err := Open(t.Context(), testOptions(path))
		var unsafe *lockfile.UnsafeError
		if !errors.As(err, &unsafe) || unsafe.Path != link {
			t.Errorf("%s: got %v, want a lockfile.UnsafeError for %s", path, err, link)
		}
	}
}

// TestLedgerThatIsGone: a ledger that was removed or replaced while open accepts no changes, and Close returns an
// error.
func TestLedgerThatIsGone(t *testing.T) {
	for name, replaced := range map[string]bool{"removed": false, "replaced": true} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(filepath.Join(t.TempDir(), "data", "ledger.db"))
			l, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
			if err := os.Rename(o.Path, o.Path+".away"); err != nil {
				t.Fatal(err)
			}
			if replaced {
				if err := os.WriteFile(o.Path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, acceptErr := l.Accept(t.Context(), []pipeline.Row{testRow(2, "i1")})
			for call, err := range map[string]error{"Accept": acceptErr, "Close": l.Close()} {
				var gone *goneError
				if !errors.As(err, &gone) || gone.Replaced != replaced || gone.Path != o.Path {
					t.Errorf("%s: got %v, want a goneError with Replaced %v", call, err, replaced)
				}
			}
		})
	}
}
