package csvimport

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// ImportStats counts the rows of an import and their physical lines.
type ImportStats struct {
	Lines          int64 // lines read; counted as bytes come in, not as rows are made of them
	Header         int64 // lines of headers
	Blank          int64 // blank lines
	Read           int64 // rows read, good and bad
	Published      int64 // rows acknowledged by every in-sync replica; in a dry run, good rows
	PublishedLines int64
	Invalid        int64 // rows written to the rejects file
	InvalidLines   int64
	Trimmed        int64 // rows around whose fields white space was removed
}

// Sub returns the counts since an earlier point.
func (s ImportStats) Sub(earlier ImportStats) ImportStats {
	return ImportStats{
		Lines: s.Lines - earlier.Lines, Header: s.Header - earlier.Header, Blank: s.Blank - earlier.Blank,
		Read:      s.Read - earlier.Read,
		Published: s.Published - earlier.Published, PublishedLines: s.PublishedLines - earlier.PublishedLines,
		Invalid: s.Invalid - earlier.Invalid, InvalidLines: s.InvalidLines - earlier.InvalidLines,
		Trimmed: s.Trimmed - earlier.Trimmed,
	}
}

// Missing is the number of lines read that are not accounted for as header, blank, published or invalid.
func (s ImportStats) Missing() int64 {
	return s.Lines - s.Header - s.Blank - s.PublishedLines - s.InvalidLines
}

// Importer publishes the valid rows of exports and writes the invalid rows to a rejects file, in constant memory.
type Importer struct {
	Publisher pipeline.Publisher // nil: only check (dry run)
	Topic     string
	Rejects   *RejectsWriter
	BatchSize int // rows per Publish call; 0: 32,768
	// OnReject is called for every invalid row; may be nil.
	OnReject func(*Reject)
	// MaxInvalid ends an import with more invalid rows early; nil: no limit.
	MaxInvalid *InvalidLimit

	lines, header, blank, read, published, publishedLines, invalid, invalidLines, trimmed atomic.Int64
}

// PublishError reports how far an import had come when the broker failed. Importing the file again is safe: the ledger
// recognises rows that were already published.
type PublishError struct {
	File      string
	Published int64 // rows of this run that are known to be in the queue
	FirstLine int   // line of the first row that may be missing
	Err       error
}

func (e *PublishError) Error() string {
	return fmt.Sprintf("%s:%d: rows from here on may be missing from the queue (at least %d are in it): %v; "+
		"importing the file again is safe",
		e.File, e.FirstLine, e.Published, e.Err)
}

func (e *PublishError) Unwrap() error { return e.Err }

// AccountingError reports that an export's line or row counts do not add up after an import without another error.
type AccountingError struct {
	File  string
	Stats ImportStats // of this file
}

func (e *AccountingError) Error() string {
	s := e.Stats
	return fmt.Sprintf("%s: line and row counts do not add up (of %d lines read, %d are of headers, %d blank, "+
		"%d of %d published rows, %d of %d invalid rows; %d rows read): this is a bug; do not rely on this import; "+
		"keep the file and report it",
		e.File, s.Lines, s.Header, s.Blank, s.PublishedLines, s.Published, s.InvalidLines, s.Invalid, s.Read)
}

// InvalidLimit limits the invalid rows of all that an Importer has read.
type InvalidLimit struct {
	Rows    int64   // -1: any number
	Percent float64 // of the rows read, from percentFrom rows on; -1: any share
}

// percentFrom is the number of rows read from which a percentage is meaningful.
const percentFrom = 1000

// exceeded returns an *InvalidLimitError if the counts are beyond the limit. At the end of an export, any number of
// rows is enough for a percentage.
func (l *InvalidLimit) exceeded(file string, s ImportStats, ended bool) error {
	switch {
	case l == nil || s.Invalid == 0:
		return nil
	case l.Rows >= 0 && s.Invalid > l.Rows:
	case l.Percent >= 0 && (ended || s.Read >= percentFrom) && float64(s.Invalid)*100 > l.Percent*float64(s.Read):
	default:
		return nil
	}
	return &InvalidLimitError{File: file, Stats: s}
}

// InvalidLimitError reports an import that ended early because too many rows are invalid. Some of the valid rows may be
// published.
type InvalidLimitError struct {
	File  string
	Stats ImportStats
}

func (e *InvalidLimitError) Error() string {
	return fmt.Sprintf("%s: %d of the first %s invalid, which is more than --max-invalid allows: stopped reading; "+
		"importing the corrected file is safe", e.File, e.Stats.Invalid, printable.Count(e.Stats.Read, "row is", "rows are"))
}

// Stats returns the counts so far; it may be called at any time. The lines of an export are added when it ends.
func (im *Importer) Stats() ImportStats {
	return ImportStats{
		Lines: im.lines.Load(), Header: im.header.Load(), Blank: im.blank.Load(), Read: im.read.Load(),
		Published: im.published.Load(), PublishedLines: im.publishedLines.Load(),
		Invalid: im.invalid.Load(), InvalidLines: im.invalidLines.Load(), Trimmed: im.trimmed.Load(),
	}
}

// Import publishes one export and returns when all its rows are acknowledged and every line that was read is accounted
// for. It may be called for one export after another. The error is a *PublishError, an *AccountingError, an
// *InvalidLimitError, one of the export's reader or the rejects writer, or ctx's.
func (im *Importer) Import(ctx context.Context, export *Reader) error {
	before := im.Stats()
	_, header, blank := export.source.counts()
	im.header.Add(header)
	im.blank.Add(blank)
	batches := make(chan batch, 2)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		return im.scan(ctx, export, batches)
	})
	group.Go(func() error {
		for b := range batches {
			if im.Publisher != nil {
				if err := im.Publisher.Publish(ctx, im.Topic, b.messages); err != nil {
					return &PublishError{File: export.name, Published: im.published.Load(), FirstLine: b.first, Err: err}
				}
			}
			im.published.Add(int64(len(b.messages)))
			im.publishedLines.Add(b.lines)
		}
		return nil
	})
	err := group.Wait()
	lines, _, _ := export.source.counts()
	im.lines.Add(lines)
	im.trimmed.Add(export.trimmed.Load())
	err = errors.Join(err, im.Rejects.Flush())
	if s := im.Stats().Sub(before); err == nil && (s.Missing() != 0 || s.Read != s.Published+s.Invalid) {
		return &AccountingError{File: export.name, Stats: s}
	}
	if err == nil {
		err = im.MaxInvalid.exceeded(export.name, im.Stats(), true)
	}
	return err
}
