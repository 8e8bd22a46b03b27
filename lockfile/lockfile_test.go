//go:build unix

package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestAcquire(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, _, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, pid, err := Acquire(path); !errors.Is(err, ErrHeld) || pid != os.Getpid() {
		t.Errorf("second Acquire: got process %d, %v; want process %d and ErrHeld", pid, err, os.Getpid())
	}
	if err := l.Check(); err != nil {
		t.Errorf("Check: got %v, want nil", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	l, _, err = Acquire(path)
	if err != nil {
		t.Fatalf("Acquire after Release: got %v, want the lock", err)
	}
	defer l.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	var gone *GoneError
	if err := l.Check(); !errors.As(err, &gone) || gone.Replaced {
		t.Errorf("Check after removal: got %v, want a GoneError without Replaced", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Check(); !errors.As(err, &gone) || !gone.Replaced {
		t.Errorf("Check after replacement: got %v, want a GoneError with Replaced", err)
	}
}

// TestHeld: whether a file is held can be seen without taking it, whatever an earlier holder has left in it.
func TestHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	check := func(when string, wantHeld bool, wantNote string) {
		t.Helper()
		if held, note, err := Held(path); held != wantHeld || note != wantNote || err != nil {
			t.Errorf("%s: got %v, %q, %v; want %v, %q, nil", when, held, note, err, wantHeld, wantNote)
		}
	}
	check("missing", false, "")
	l, _, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	check("acquired", true, "")
	for _, note := range []string{"a longer note", "short"} {
		if err := l.Note(note); err != nil {
			t.Fatal(err)
		}
		check("noted", true, note)
	}
	if _, pid, err := Acquire(path); !errors.Is(err, ErrHeld) || pid != os.Getpid() {
		t.Errorf("Acquire of a noted file: got process %d, %v; want process %d and ErrHeld", pid, err, os.Getpid())
	}
	if err := l.Close(); err != nil { // as of a killed process: the content stays
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" { // elsewhere this process is taken for the holder
		check("killed", false, "")
	}
	if l, _, err = Acquire(path); err != nil {
		t.Fatal(err)
	}
	check("acquired again", true, "")
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	check("released", false, "")
}

// TestPlantedLockFile: a file that another user put in the lock file's place keeps its content and its mode.
func TestPlantedLockFile(t *testing.T) {
	for name, plant := range map[string]func(victim, path string) error{
		"is a symbolic link":    os.Symlink,
		"has 2 hard links":      os.Link,
		"is not a regular file": func(_, path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		dir := t.TempDir()
		victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "lock")
		if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o640), plant(victim, path)); err != nil {
			t.Fatal(err)
		}
		_, _, err := Acquire(path)
		if !errors.As(err, new(*UnsafeError)) || !strings.Contains(err.Error(), path+" "+name) {
			t.Errorf("got %v, want an UnsafeError with %q", err, name)
		}
		info, statErr := os.Stat(victim)
		text, err := os.ReadFile(victim)
		if err != nil || statErr != nil || string(text) != "precious" || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: got target %q with mode %v, %v, %v; want \"precious\" with mode 0640", name, text, info.Mode(),
				statErr, err)
		}
	}
}

func TestClaim(t *testing.T) {
	dir := t.TempDir()
	path, link, name := filepath.Join(dir, "data"), filepath.Join(dir, "link"), filepath.Join(dir, "name")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	l, err := Claim(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(link); !errors.As(err, new(*UnsafeError)) {
		t.Errorf("a symbolic link: got %v, want an UnsafeError", err)
	}
	// A bind mount of the file gives the same inode a second path; the test renames the file instead.
	if err := os.Rename(path, name); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(name); runtime.GOOS == "linux" && !errors.Is(err, ErrHeld) {
		t.Errorf("the inode under another path: got %v, want ErrHeld", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = Claim(name); err != nil {
		t.Fatalf("Claim after Close: got %v, want the lock", err)
	}
	defer l.Close()
	if err := os.Link(name, path); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(path); !errors.As(err, new(*UnsafeError)) || !strings.Contains(err.Error(), "has 2 hard links") {
		t.Errorf("a hard link: got %v, want an UnsafeError", err)
	}
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	target, link, dangling := filepath.Join(dir, "real"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	if err := errors.Join(os.Mkdir(target, 0o700), os.Symlink(target, link), os.Symlink("nowhere", dangling)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{link: target, filepath.Join(link, "new"): filepath.Join(target, "new")} {
		if got, err := Resolve(path); err != nil || got != want {
			t.Errorf("Resolve(%s) = %s, %v; want %s", path, got, err, want)
		}
	}
	if _, err := Resolve(dangling); !errors.As(err, new(*UnsafeError)) {
		t.Errorf("a link to nothing: got %v, want an UnsafeError", err)
	}
}

func TestCheckData(t *testing.T) {
	const us, other = 1000, 1001
	for _, tt := range []struct {
		mode      fs.FileMode
		owner, us int
		want      string // empty: used
	}{
		{0o700, us, us, ""},
		{0o755, us, us, ""},
		{0o700, 0, us, ""}, // unusable, but not unsafe
		{0o755 | fs.ModeSetgid, 0, us, ""},
		{0o700, 0, 0, ""},
		{0o700, other, us, "is owned by another user (uid 1001): run as that user, or run chown 1000 /d"},
		{0o700, other, 0, "is owned by another user (uid 1001): run as that user, or run chown 0 /d"},
		{0o770, us, us, "(mode 0770): run chmod go-w /d, or choose a directory below it"},
		{0o777 | fs.ModeSticky, 0, us, "(mode 0777): run chmod go-w /d, or choose a directory below it"},
		{0o702, us, us, "(mode 0702): run chmod go-w /d"},
	} {
		err := checkData("/d", tt.mode, tt.owner, tt.us)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, new(*UnsafeError)) ||
			!strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%v of %d for %d: got %v, want %q", tt.mode, tt.owner, tt.us, err, tt.want)
		}
	}
}

func TestCheckParent(t *testing.T) {
	for mode, want := range map[fs.FileMode]bool{
		0o755: true, 0o775: true, 0o777 | fs.ModeSticky: true, 0o775 | fs.ModeSetgid: true, 0o777: false, 0o702: false,
	} {
		if err := checkParent("/d", mode); (err == nil) != want {
			t.Errorf("%v: got %v, want it used: %v", mode, err, want)
		}
	}
}

// TestCheckDirLooksAtParents: those of the path, and those of where its links lead; also of what is not there yet.
func TestCheckDirLooksAtParents(t *testing.T) {
	top := t.TempDir()
	open, data, link := filepath.Join(top, "open"), filepath.Join(top, "open/a/data"), filepath.Join(top, "link")
	if err := errors.Join(os.MkdirAll(data, 0o700), os.Symlink(data, link)); err != nil {
		t.Fatal(err)
	}
	paths := []string{data, link, filepath.Join(link, "new"), filepath.Join(data, "not/there")}
	for mode, want := range map[fs.FileMode]string{
		0o770: "", 0o777 | fs.ModeSticky: "", 0o777: "directory " + open + " may be written to by all users (mode 0777)",
	} {
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			err := CheckDir(path)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s with a parent of mode %v: got %v, want %q", path, mode, err, want)
			}
		}
	}
	if os.Geteuid() != 0 {
		return // only root can give a directory away; TestCheckData has the table
	}
	if err := errors.Join(os.Chmod(open, 0o700), os.Chown(data, 1001, 1001)); err != nil {
		t.Fatal(err)
	}
	if err := CheckDir(data); err == nil || !strings.Contains(err.Error(), "is owned by another user (uid 1001)") {
		t.Errorf("another user's directory: got %v, want it refused", err)
	}
}
