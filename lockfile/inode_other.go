//go:build !linux

package lockfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockInode does nothing: open file description locks exist on Linux only.
func lockInode(*os.File) error { return nil }

// inodeLocked reports whether there is a process with the id.
func inodeLocked(_ *os.File, pid int) bool {
	if pid <= 0 {
		return false
	}
	err := unix.Kill(pid, 0)
	return err == nil || errors.Is(err, unix.EPERM)
}
