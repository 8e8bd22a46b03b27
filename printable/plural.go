package printable

// Plural returns the form of a word that follows the number n: one if n is 1, otherwise more.
func Plural[N int | int64 | uint64](n N, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}
