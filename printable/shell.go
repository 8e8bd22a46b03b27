package printable

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// ShellWord returns a word as a shell reads it. A character that Is does not allow is written as its bytes between $'
// and ', which bash, zsh and ksh take whatever the locale is.
func ShellWord(word string) string {
	switch {
	case plainWord.MatchString(word):
		return word
	case Is(word):
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	var b strings.Builder
	for len(word) > 0 {
		_, size := utf8.DecodeRuneInString(word)
		switch s := word[:size]; {
		case s == `\` || s == "'":
			b.WriteString(`\` + s)
		case Is(s):
			b.WriteString(s)
		default:
			b.WriteString(`\x` + strings.ReplaceAll(fmt.Sprintf("% x", s), " ", `\x`))
		}
		word = word[size:]
	}
	return "$'" + b.String() + "'"
}

// plainWord is a word that a shell takes as it is.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:,@%+=-]+$`)
