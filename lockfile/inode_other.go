//go:build !linux

package lockfile

import "os"

// lockInode does nothing: open file description locks exist on Linux only.
func lockInode(*os.File) error { return nil }
