//go:build !linux

package secretfile

func private(string) bool { return false }
