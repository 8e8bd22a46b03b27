package csvimport

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/purser-onboard/purser/printable"
)

// RejectsWriter writes a rejects file: CSV with the columns file, line, field, reason and record. It is made to be
// opened in a spreadsheet: no cell, and no part of one that a spreadsheet might split off at another separator, begins
// a formula.
type RejectsWriter struct {
	csv *csv.Writer
	n   int64
}

// NewRejectsWriter writes to w; the header is written with the first reject.
func NewRejectsWriter(w io.Writer) *RejectsWriter {
	return &RejectsWriter{csv: csv.NewWriter(w)}
}

// write adds a reject. It buffers; Flush reports late errors.
func (w *RejectsWriter) write(r *Reject) error {
	if w.n == 0 {
		if err := w.csv.Write([]string{"file", "line", "field", "reason", "record"}); err != nil {
			return fmt.Errorf("write rejects: %w", err)
		}
	}
	w.n++
	err := w.csv.Write([]string{
		Defuse(r.File), strconv.Itoa(r.Line), r.Field, Defuse(r.Reason), Defuse(r.Raw),
	})
	if err != nil {
		return fmt.Errorf("write rejects: %w", err)
	}
	return nil
}

// Count is the number of rejects written.
func (w *RejectsWriter) Count() int64 { return w.n }

// Flush writes what is buffered.
func (w *RejectsWriter) Flush() error {
	w.csv.Flush()
	if err := w.csv.Error(); err != nil {
		return fmt.Errorf("write rejects: %w", err)
	}
	return nil
}

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
		case r != '\n' && !printable.Is(s[i:i+size]):
			b.WriteString(printable.Line(s[i:i+size], maxEscape))
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
