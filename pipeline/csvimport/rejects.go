package csvimport

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

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
		printable.Defuse(r.File), strconv.Itoa(r.Line), r.Field, printable.Defuse(r.Reason), printable.Defuse(r.Raw),
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
