package pipeline

import "time"

// Monotonic measures waits. It must not jump when the wall clock is set.
func Monotonic() time.Time {
	return time.Now() //nolint:forbidigo // only its monotonic reading is used, to which the clock of rows does not matter
}
