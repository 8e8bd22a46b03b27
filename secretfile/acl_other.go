//go:build !linux

package secretfile

import "io/fs"

func private(string) bool { return false }

func mounted(string, fs.FileInfo) bool { return false }
