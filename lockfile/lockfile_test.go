//go:build unix

package lockfile

import (
	"errors"
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
