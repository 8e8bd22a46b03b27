package csvimport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/purser-onboard/purser/pipeline"
)

// A chunk ends at chunkRecords records or at chunkBytes bytes of input, whichever comes first: long records must not
// take more memory than short ones.
const (
	chunkRecords = 1024
	chunkBytes   = 256 << 10
)

// chunk is a part of an export between the file and the batches.
type chunk struct {
	records []record
	raw     []byte // what the records' raw are pieces of
	blank   int64  // blank lines before, between and behind them
	err     error  // of the export, behind the last record; io.EOF at its end

	checked  chan struct{}      // closed when the rest is there
	messages []pipeline.Message // of the records without a reject, in order
}

// chunks pools chunks, because allocating and zeroing their slices is a large part of an import's work. The strings of
// records and the bytes of messages are not pooled.
type chunks struct{ pool sync.Pool }

// take returns an empty chunk.
func (p *chunks) take() *chunk {
	c, used := p.pool.Get().(*chunk)
	if !used {
		c = &chunk{
			records: make([]record, 0, chunkRecords), raw: make([]byte, 0, chunkBytes/4),
			messages: make([]pipeline.Message, 0, chunkRecords),
		}
	}
	c.checked = make(chan struct{})
	return c
}

// giveBack returns a chunk to the pool.
func (p *chunks) giveBack(c *chunk) {
	clear(c.records)
	clear(c.messages)
	*c = chunk{records: c.records[:0], raw: c.raw[:0], messages: c.messages[:0]}
	p.pool.Put(c)
}

// scan checks the records and passes the valid rows on in batches. One goroutine reads the export. One goroutine per
// processor checks records, which is most of the work. collect combines the results in the order of the export.
func (im *Importer) scan(ctx context.Context, export *Reader, batches chan<- batch) error {
	checkers := runtime.GOMAXPROCS(0)
	ordered, unchecked := make(chan *chunk, 2*checkers), make(chan *chunk, 2*checkers)
	pool := new(chunks)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(ordered)
		defer close(unchecked)
		for {
			c := pool.take()
			export.fill(c)
			last := c.err != nil // a chunk that was handed over is no longer ours
			for _, to := range []chan<- *chunk{ordered, unchecked} {
				select {
				case to <- c:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if last {
				return nil // collect returns the error
			}
		}
	})
	for range checkers {
		group.Go(func() error {
			for c := range unchecked {
				c.check(export)
			}
			return nil
		})
	}
	group.Go(func() error { return im.collect(ctx, export.name, ordered, pool, batches) })
	return group.Wait()
}

// fill reads the next records into an empty chunk.
func (e *Reader) fill(c *chunk) {
	_, _, blank := e.source.counts()
	defer func() {
		_, _, after := e.source.counts()
		c.blank = after - blank
	}()
	for len(c.records) < chunkRecords && len(c.raw) < chunkBytes {
		rec, err := e.source.read()
		if errors.Is(err, io.EOF) {
			c.err = err
			return
		}
		if err != nil {
			c.err = fmt.Errorf("read %s after line %d: %w", e.name, e.source.line(), err)
			return
		}
		at := len(c.raw)
		c.raw = append(c.raw, rec.raw...)
		rec.raw = c.raw[at:len(c.raw):len(c.raw)]
		c.records = append(c.records, rec)
	}
}

// check checks the records and creates the messages of the valid rows.
func (c *chunk) check(e *Reader) {
	defer close(c.checked)
	var arena []byte // one allocation holds the bytes of many messages
	var eip55 pipeline.EIP55
	var encoder pipeline.MessageEncoder
	var addresses [4]string
	var forms [len(addresses)]pipeline.AddressText
	for i := range c.records {
		if i%len(addresses) == 0 {
			next := c.records[i:min(i+len(addresses), len(c.records))]
			for n := range next {
				if next[n].reject == nil {
					e.trimFields(&next[n])
				}
				addresses[n] = next[n].address
			}
			forms = eip55.Four(&addresses)
		}
		rec := &c.records[i]
		if rec.reject != nil {
			continue
		}
		row, address, reject := e.check(rec, &forms[i%len(forms)])
		if reject != nil {
			rec.reject = reject
			continue
		}
		if cap(arena)-len(arena) < 1024 {
			arena = make([]byte, 0, 256<<10)
		}
		key := len(arena)
		arena = row.Account.AppendTo(arena, address)
		value := len(arena)
		arena = encoder.Append(arena, arena[key:value], row)
		c.messages = append(c.messages, pipeline.Message{
			Key:   arena[key:value:value],
			Value: arena[value:len(arena):len(arena)],
		})
	}
}

// batch is the input of one Publish call.
type batch struct {
	messages []pipeline.Message
	first    int   // line of the first row, for the error
	lines    int64 // that the rows take up
}

// collect counts, writes the rejects and passes the messages on in batches.
func (im *Importer) collect(
	ctx context.Context, name string, ordered <-chan *chunk, pool *chunks, batches chan<- batch,
) error {
	size := im.BatchSize
	if size <= 0 {
		size = 32_768
	}
	var next batch
	send := func() error {
		if len(next.messages) == 0 {
			return nil
		}
		select {
		case batches <- next:
		case <-ctx.Done():
			return ctx.Err()
		}
		next = batch{}
		return nil
	}
	for c := range ordered {
		select {
		case <-c.checked:
		case <-ctx.Done():
			return ctx.Err()
		}
		im.blank.Add(c.blank)
		good := c.messages
		for _, rec := range c.records {
			im.read.Add(1)
			if rec.reject != nil {
				im.invalid.Add(1)
				im.invalidLines.Add(int64(rec.lines))
				if im.OnReject != nil {
					im.OnReject(rec.reject)
				}
				if err := im.Rejects.write(rec.reject); err != nil {
					return err
				}
				if err := im.MaxInvalid.exceeded(name, im.Stats(), false); err != nil {
					return err
				}
				continue
			}
			if len(next.messages) == 0 {
				next = batch{messages: make([]pipeline.Message, 0, size), first: rec.line}
			}
			next.messages, good = append(next.messages, good[0]), good[1:]
			next.lines += int64(rec.lines)
			if len(next.messages) == size {
				if err := send(); err != nil {
					return err
				}
			}
		}
		if c.err != nil && !errors.Is(c.err, io.EOF) {
			return c.err
		}
		pool.giveBack(c)
	}
	if ctx.Err() != nil { // the reader may have closed ordered because ctx ended
		return ctx.Err()
	}
	return send()
}
