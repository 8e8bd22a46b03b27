// Package printable makes text from outside fit to be shown: headers and records of a topic, what the partner and the
// custodians answer, cells, file names, and errors that quote any of them. Such text may hold escape sequences that
// rewrite a terminal, line breaks that forge a line of a log, and characters that reverse or hide the text around them.
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
// Marks and letters that are drawn as nothing (variation selectors, U+034F, the Hangul fillers) are graphic. An
// externalId may have them, and the CSV of `consumer failures` has to keep them: it is imported again.
func Is(text string) bool { return clean(text) == len(text) }

// Line returns text as one line of at most most bytes; most is 3, the length of "…", or more. What Is does not allow is
// escaped in Go's notation (\x1b, \n, \u202e, \xff), and a longer text is cut between two characters or escapes and
// ends in "…". Applied again, it changes nothing.
func Line(text string, most int) string {
	if len(text) <= most && Is(text) {
		return text
	}
	var b strings.Builder
	fits := 0 // the length to which there is room for the ellipsis
	for len(text) > 0 {
		shown, size := next(text)
		if b.Len()+len(shown) > most {
			return b.String()[:fits] + ellipsis
		}
		b.WriteString(shown)
		if b.Len()+len(ellipsis) <= most {
			fits = b.Len()
		}
		text = text[size:]
	}
	return b.String()
}

// Quote returns text between double quotes, escaped as Line does, with a backslash before each quote and backslash. It
// shows the first most bytes of the text, which can be four times as many when all are escaped (\xff); "…" behind the
// closing quote says that the text is longer.
func Quote(text string, most int) string {
	begin, end := cut(text, most)
	return strconv.QuoteToGraphic(begin) + end
}

// QuoteToASCII is Quote with every character beyond ASCII escaped, so that none is taken for an ASCII look-alike.
func QuoteToASCII(text string, most int) string {
	begin, end := cut(text, most)
	return strconv.QuoteToASCII(begin) + end
}

// cut returns the beginning of a text, of at most so many bytes, and the ellipsis if that is not all of it.
func cut(text string, most int) (begin, end string) {
	if len(text) <= most {
		return text, ""
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most], ellipsis
}

// Append appends to dst what Line makes of text, uncut and with line feeds and tabs as they are, and returns the
// incomplete character that text may end in.
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

// clean is the length of the part of text before the first character that is escaped.
func clean(text string) int {
	for i := 0; i < len(text); {
		if c := text[i]; ' ' <= c && c <= '~' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 || !unicode.IsGraphic(r) {
			return i
		}
		i += size
	}
	return len(text)
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
