package lockfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockInode takes an open file description lock (fcntl(2)) on the file's last byte, far from the bytes that SQLite
// locks. It returns nil on a file system without such locks: there only the lock file keeps two processes apart.
func lockInode(file *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 1<<63 - 2, Len: 1}
	for {
		err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return ErrHeld
		default:
			return nil
		}
	}
}

// inodeLocked reports whether another open file has the lock of lockInode.
func inodeLocked(file *os.File, _ int) bool {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 1<<63 - 2, Len: 1}
	for {
		err := unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, &lock)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && lock.Type != unix.F_UNLCK
		}
	}
}
