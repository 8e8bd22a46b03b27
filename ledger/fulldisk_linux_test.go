package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a file system with these options, until the test ends.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, options); err != nil {
		t.Skip("a small file system cannot be mounted here: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	return small
}

// TestFullTemporaryDirectory: if there is no room for SQLite's temporary files, the error says where they are.
func TestFullTemporaryDirectory(t *testing.T) {
	small := smallDisk(t, "size=64k")
	t.Setenv("SQLITE_TMPDIR", small)
	got := runChild(t, "temp", filepath.Join(t.TempDir(), "ledger.db"))
	if want := "the disk is full: that of temporary files ($SQLITE_TMPDIR, "; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}

// TestNoInodes: a file system that can have no more files is not called a missing file.
func TestNoInodes(t *testing.T) {
	small := smallDisk(t, "size=1m,mode=0700")
	// With each inode the ledger has one file more: the lock, the database, its log.
	for inodes := 2; inodes < 10; inodes++ {
		if err := syscall.Mount("tmpfs", small, "tmpfs", syscall.MS_REMOUNT, fmt.Sprint("nr_inodes=", inodes)); err != nil {
			t.Fatal(err)
		}
		l, err := Open(t.Context(), testOptions(filepath.Join(small, "ledger.db")))
		if err == nil {
			if inodes == 2 {
				t.Error("got an open ledger without an inode for it")
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		if !errors.Is(err, errDiskFull) || !strings.Contains(err.Error(), "run again") {
			t.Errorf("%d inodes: got %v, want errDiskFull and what to do", inodes, err)
		}
	}
	t.Error("got no open ledger with 9 inodes, want one")
}
