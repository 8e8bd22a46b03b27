package printable

import (
	"strings"
	"unicode/utf8"
)

// maxEscape is the length of the longest escape, \U0010ffff.
const maxEscape = 10

// Defuse makes text safe to open in a spreadsheet: an apostrophe goes before every =, +, - or @ that stands at the
// beginning or behind a separator or quote, and all but line feeds is made printable. Text that needs none of it is
// returned as it is.
func Defuse(s string) string {
	var b strings.Builder
	starts := true
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r != '\n' && !Is(s[i:i+size]):
			b.WriteString(Line(s[i:i+size], maxEscape))
			starts = true
		case starts && strings.ContainsRune("=+-@＝＋－＠", r):
			b.WriteByte('\'')
			b.WriteRune(r)
			starts = false
		default:
			b.WriteString(s[i : i+size])
			starts = strings.ContainsRune(",;|\n\"'", r) || starts && r == ' '
		}
		i += size
	}
	return b.String()
}
