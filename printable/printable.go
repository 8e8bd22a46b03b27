// Package printable escapes text from outside before it is shown: Kafka headers and messages, responses of the partner
// and of custodians, CSV cells, file names, and errors that quote them. Such text may hold escape sequences that
// rewrite a terminal, line breaks that forge a line of a log, and characters that reverse or hide the text around them.
// It also writes numbers, with the nouns that they count.
package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ellipsis ends a text that was cut.
const ellipsis = "…"

// Is reports whether text is valid UTF-8 of graphic characters as Unicode defines them: letters, marks, numbers,
// punctuation, symbols and spaces. Control characters, line and paragraph separators and format characters (Cf: the
// bidirectional controls, the zero-width space and joiners) are not graphic.
//
// Marks and letters without a visible form (variation selectors, U+034F, the Hangul fillers) are graphic. An externalId
// may have them, and the CSV of `consumer failures` has to keep them: it is imported again.
func Is(text string) bool {
	for i := 0; i < len(text); {
		if c := text[i]; ' ' <= c && c <= '~' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 || !unicode.IsGraphic(r) {
			return false
		}
		i += size
	}
	return true
}

// Line returns text as a line of at most limit bytes; limit must be at least 3, the length of "…". Characters that Is
// does not allow are escaped in Go's notation (\x1b, \n, \u202e, \xff). A longer text is cut between two characters or
// escapes and ends in "…". Line is idempotent.
func Line(text string, limit int) string {
	if len(text) <= limit && Is(text) {
		return text
	}
	var b strings.Builder
	fits := 0 // the longest prefix of the result that leaves room for the ellipsis, in bytes
	for len(text) > 0 {
		shown, size := next(text)
		if b.Len()+len(shown) > limit {
			return b.String()[:fits] + ellipsis
		}
		b.WriteString(shown)
		if b.Len()+len(ellipsis) <= limit {
			fits = b.Len()
		}
		text = text[size:]
	}
	return b.String()
}

// Quote returns the first limit bytes of text between double quotes, escaped as Line does, with a backslash before each
// quote and backslash. If the text is longer, "…" follows the closing quote. Escapes (\xff) make the result up to four
// times as long.
func Quote(text string, limit int) string {
	begin, end := cut(text, limit)
	return strconv.QuoteToGraphic(begin) + end
}

// QuoteToASCII is Quote with every character beyond ASCII escaped, so that look-alikes of ASCII letters stand out.
func QuoteToASCII(text string, limit int) string {
	begin, end := cut(text, limit)
	return strconv.QuoteToASCII(begin) + end
}

// cut returns at most limit bytes from the beginning of a text, and the ellipsis if that is not all of it.
func cut(text string, limit int) (begin, end string) {
	if len(text) <= limit {
		return text, ""
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit], ellipsis
}

// Append appends text to dst, escaped as Line does but uncut and with line feeds and tabs unchanged. An incomplete
// character at the end of text is not appended but returned as rest.
func Append(dst, text []byte) (_, rest []byte) {
	for len(text) > 0 && utf8.FullRune(text) {
		if c := text[0]; c == '\n' || c == '\t' || ' ' <= c && c <= '~' {
			dst, text = append(dst, c), text[1:]
			continue
		}
		shown, size := next(string(text[:min(len(text), utf8.UTFMax)]))
		dst, text = append(dst, shown...), text[size:]
	}
	return dst, text
}

// next returns the first character of a text as it is shown, and its length in the text.
func next(text string) (shown string, size int) {
	_, size = utf8.DecodeRuneInString(text)
	if Is(text[:size]) {
		return text[:size], size
	}
	quoted := strconv.QuoteToGraphic(text[:size])
	return quoted[1 : len(quoted)-1], size
}
