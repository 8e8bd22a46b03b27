//go:build full

package cmd

// full is whether the crash, fleet and stop suites run at full length, as make test-full has it.
const full = true
