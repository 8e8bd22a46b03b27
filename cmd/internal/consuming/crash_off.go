//go:build !crashpoints

package consuming

// crashHook is nothing here: only a binary built for the crash suite (tag crashpoints) can be told to kill itself.
func crashHook(func(string) string) func(string) { return nil }
