//go:build !crashpoints

package consumecmd

// crashHook returns nil: only a binary built with the tag crashpoints, for the crash suite, kills itself on request.
func crashHook(func(string) string) func(string) { return nil }
