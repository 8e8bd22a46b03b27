//go:build !full

package cmd

// full is whether the crash, fleet and stop suites run at full length. Without it each takes seconds.
const full = false
