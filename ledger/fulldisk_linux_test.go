package ledger

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFullTemporaryDirectory: if there is no room for SQLite's temporary files, the error says where they are.
func TestFullTemporaryDirectory(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("a small file system cannot be mounted here: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("SQLITE_TMPDIR", small)
	got := runChild(t, "temp", filepath.Join(t.TempDir(), "ledger.db"))
	if want := "the disk is full: that of temporary files ($SQLITE_TMPDIR, "; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}
