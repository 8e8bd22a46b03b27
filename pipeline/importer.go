package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// ImportStats counts what an import did.
type ImportStats struct {
	Read      int64 // records read, good and bad
	Published int64 // rows acknowledged by every in-sync replica
	Rejected  int64 // records written to the rejects file
}

// Importer publishes the good rows of exports and writes the bad ones to a rejects file, in constant memory.
type Importer struct {
	Publisher Publisher // nil: only check (dry run)
	Topic     string
	Rejects   *RejectsWriter
	BatchSize int               // rows per Publish call; 0: 32,768
	OnBatch   func(ImportStats) // called after each published batch, from one goroutine; may be nil
	// OnReject is called for every rejected record; may be nil.
	OnReject func(*Reject)

	read, published, rejected atomic.Int64
}

// PublishError says how far an import had come when the broker failed it. Importing the file again is safe: the ledger
// finds the rows that were published already.
type PublishError struct {
	File      string
	Published int64 // rows of this run that are known to be in the queue
	FirstLine int   // line of the first row that may be missing
	Err       error
}

func (e *PublishError) Error() string {
	return fmt.Sprintf("%s:%d: rows from here on may be missing in the queue (%d are in it): %v; "+
		"importing the file again is safe",
		e.File, e.FirstLine, e.Published, e.Err)
}

func (e *PublishError) Unwrap() error { return e.Err }

// Stats returns the counts so far; it may be called at any time.
func (im *Importer) Stats() ImportStats {
	return ImportStats{Read: im.read.Load(), Published: im.published.Load(), Rejected: im.rejected.Load()}
}

// Import publishes one export and returns when all its rows are acknowledged. It may be called for one export after
// another. The error is a *PublishError, one of the export's reader or the rejects writer, or ctx's.
func (im *Importer) Import(ctx context.Context, export *Export) error {
	batches := make(chan []Message, 2)
	lines := make(chan int, cap(batches)) // first line of each batch, for the error
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		defer close(lines)
		return im.scan(ctx, export, batches, lines)
	})
	group.Go(func() error {
		for batch := range batches {
			line := <-lines
			if im.Publisher != nil {
				if err := im.Publisher.Publish(ctx, im.Topic, batch); err != nil {
					return &PublishError{File: export.name, Published: im.published.Load(), FirstLine: line, Err: err}
				}
				im.published.Add(int64(len(batch)))
			}
			if im.OnBatch != nil {
				im.OnBatch(im.Stats())
			}
		}
		return nil
	})
	err := group.Wait()
	return errors.Join(err, im.Rejects.Flush())
}
