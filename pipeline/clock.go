package pipeline

import "time"

// Monotonic is the time by which waits are measured. It must not follow a wall clock that is set.
func Monotonic() time.Time {
	return time.Now() //nolint:forbidigo // only its monotonic reading is used, to which the clock of rows does not matter
}
