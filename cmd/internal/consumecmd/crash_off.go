//go:build !crashpoints

package consumecmd

// crashHook is nothing here: only a binary built for the crash suite (tag crashpoints) can be told to kill itself.
func crashHook(func(string) string) func(string) { return nil }
