package printable

import (
	"fmt"
	"strconv"
)

// Plural returns the form of a word that follows the number n: one if n is 1, otherwise more.
func Plural[N int | int64 | uint64](n N, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// Count returns a number and what it counts: 0 rows, 1 row.
func Count[N int | int64 | uint64](n N, one, more string) string {
	return fmt.Sprint(n, " ", Plural(n, one, more))
}

// Thousands returns a number with its thousands separated, as 1,240.
func Thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
