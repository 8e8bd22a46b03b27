package importcmd

import (
	"os"
	"runtime/debug"
)

// heapLimit is how much memory an import may use before its garbage is collected as often as usual.
const heapLimit = 200 << 20

// collectLess lets the heap grow until restore is called: an import makes much garbage and keeps little. It is for a
// process that does nothing else. GOGC and GOMEMLIMIT of the environment stay in force.
func collectLess() (restore func()) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	percent, limit := debug.SetGCPercent(400), debug.SetMemoryLimit(heapLimit)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}
