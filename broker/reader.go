package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/purser-onboard/purser/pipeline"
)

// warnAfterEmpty is after how many empty fetches in a row a warning is logged.
const warnAfterEmpty = 5

// reader delivers one assigned partition during one generation.
type reader struct {
	consumer  *Consumer
	partition int
	handle    func(ctx context.Context, batch []pipeline.Message) error
	offsets   *offsetTracker
	committed int64 // the group's committed offset; only assignment.commit uses it

	end      atomic.Int64 // the high watermark as of the latest fetch
	next     int64        // the next offset to deliver
	target   int64        // in a drain: the offset at which it ends
	empty    int          // empty fetches in a row below the high watermark
	maxBytes int64
	lost     <-chan time.Time // fires LostAfter after the first of several failures in a row; nil after a success
	arena    []byte
}

// read delivers messages until ctx ends (nil), the drain's target is reached and no message is outstanding (nil), the
// handler fails, the broker is lost, or fetches below a drain's target stay empty.
func (r *reader) read(ctx context.Context) error {
	c := r.consumer
	defer c.cluster.outages.forget(r.operation())
	r.maxBytes = c.o.MaxBytes
	delays := retryDelays()
	for ctx.Err() == nil {
		if c.o.Drain && r.next >= r.target {
			r.offsets.idle(ctx)
			return nil
		}
		if r.offsets.room(ctx) == 0 {
			return nil
		}
		res, err := r.fetch(ctx)
		if err == nil {
			delays = retryDelays()
			c.cluster.outages.succeeded(r.operation())
			if err := r.deliver(ctx, res); err != nil {
				return err
			}
			if r.empty == 0 {
				r.lost = nil
				continue
			}
			if err := r.emptyFetch(); err != nil {
				return err
			}
			sleep(ctx, c.o.MaxWait) // the broker may have answered at once
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := r.fetchFailed(ctx, err); err != nil {
			return err
		}
		sleepNext(ctx, delays)
	}
	return nil
}

func (r *reader) fetch(ctx context.Context) (*kafka.FetchResponse, error) {
	c := r.consumer
	res, err := c.cluster.fetch(ctx, &kafka.FetchRequest{
		Topic:     c.o.Topic,
		Partition: r.partition,
		Offset:    r.next,
		MinBytes:  1,
		MaxBytes:  r.maxBytes,
		MaxWait:   c.o.MaxWait,
	})
	if err != nil {
		return nil, err
	}
	if !throttled(res) {
		r.end.Store(res.HighWatermark)
	}
	return res, nil
}

// fetchFailed decides about a failed fetch: nil means retry. An unknown topic may be a recreated one when it is known
// again, in which r.next means nothing.
func (r *reader) fetchFailed(ctx context.Context, err error) error {
	c := r.consumer
	if errors.Is(err, kafka.OffsetOutOfRange) {
		return r.resetPosition(ctx)
	}
	if unknownTopic(err) {
		return fmt.Errorf("%w: reading partition %d: %w", errMaybeRecreated, r.partition, err)
	}
	if err = c.cluster.causeOf(err); !retriable(err) && (!isUnknown(err) || errors.As(err, new(*StorageError))) {
		err = denied(err, fmt.Sprintf("read topic %q", c.o.Topic),
			fmt.Sprintf("Read on topic %q", c.o.Topic))
		return fmt.Errorf("reading %s/%d: %w", c.o.Topic, r.partition, err)
	}
	if r.failedForLong() {
		return r.brokerLost(err)
	}
	c.cluster.outages.failed(r.operation(), err)
	return nil
}

func (r *reader) operation() string {
	return fmt.Sprintf("read %s/%d", r.consumer.o.Topic, r.partition)
}

// resetPosition finds the offset to continue from when the broker does not have r.next.
func (r *reader) resetPosition(ctx context.Context) error {
	c := r.consumer
	spans, err := c.cluster.spans(ctx, c.o.Topic, []int{r.partition}, c.o.LostAfter)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return r.brokerLost(err)
	}
	now := spans[r.partition]
	switch {
	case r.next > now.end: // if the group's own offset is beyond the end, too, the next assignment reports it
		return fmt.Errorf("%w: partition %d ends at offset %d, but offset %d was next",
			errMaybeRecreated, r.partition, now.end, r.next)
	case r.next < now.first:
		c.recordLost(r.partition, r.next, now.first)
		r.skipTo(now.first)
	}
	return nil
}

func (r *reader) brokerLost(err error) error {
	c := r.consumer
	return fmt.Errorf("%w (%s) while reading %s/%d: %w", ErrBrokerLost, c.cluster.Brokers(), c.o.Topic, r.partition, err)
}

// deliver passes the messages of one response to the handler, in batches for which there is room.
func (r *reader) deliver(ctx context.Context, res *kafka.FetchResponse) error {
	before := r.next
	result := fetchResult{reader: r}
	batches := 0
	switch set := res.Records.(type) {
	case *protocol.RecordStream:
		result.batches = set.Records
		batches = len(set.Records)
	default:
		result.batches = []protocol.RecordReader{set}
	}
	for {
		room := r.offsets.room(ctx)
		if room == 0 {
			return nil
		}
		batch, more, err := result.batch(min(room, r.consumer.o.MaxBatch))
		if err != nil {
			return fmt.Errorf("reading %s/%d at offset %d: %w", r.consumer.o.Topic, r.partition, r.next, err)
		}
		if len(batch) > 0 {
			if err := r.handle(ctx, batch); err != nil {
				if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
					return nil
				}
				return err
			}
		}
		if !more {
			break
		}
	}
	r.progress(before, batches, throttled(res))
	return nil
}

// progress decides what a response without new messages means. A response begins with the batch that holds the
// requested offset or, if there is none, with the first batch after it. So a batch without new messages proves that the
// offset is empty, as after compaction, and it is skipped. A response without a batch proves nothing: a broker also
// sends it when it cannot read its storage in time (KIP-405), or when the batch is larger than MaxBytes; the next
// request allows more, unless the client was above its quota.
func (r *reader) progress(before int64, batches int, throttled bool) {
	c := r.consumer
	end := r.end.Load()
	if c.o.Drain {
		end = max(end, r.target) // the high watermark when the drain began
	}
	switch {
	case r.next > before || r.next >= end:
		r.empty, r.maxBytes = 0, c.o.MaxBytes
	case batches > 0:
		r.empty = 0
		r.skipTo(r.next + 1)
	default:
		r.empty++
		if !throttled {
			r.maxBytes = min(2*r.maxBytes, 64<<20)
		}
	}
}

// emptyFetch decides about an empty fetch below the high watermark: nil means retry. Skipping the offset could lose a
// row. A run retries until a later message proves by its offset that nothing is there. A drain fails after LostAfter.
func (r *reader) emptyFetch() error {
	c := r.consumer
	err := &EmptyFetchError{
		Topic: c.o.Topic, Group: c.o.Group, Partition: r.partition, Offset: r.next, End: max(r.end.Load(), r.target),
	}
	if r.empty == warnAfterEmpty {
		c.o.Logger.Warn("empty fetch below the high watermark; retrying", "error", err)
	}
	if !c.o.Drain {
		r.lost = nil
		return nil
	}
	if r.failedForLong() {
		return err
	}
	return nil
}

// failedForLong reports, after a failure, whether LostAfter has passed since the first of those in a row.
func (r *reader) failedForLong() bool {
	if r.lost == nil {
		r.lost = time.After(r.consumer.o.LostAfter)
	}
	return fired(r.lost)
}

// skipTo moves the position to an offset when there is nothing to deliver before it.
func (r *reader) skipTo(next int64) {
	if next > r.next {
		r.next = next
		r.offsets.skipTo(next)
	}
}

// fetchResult walks the batches of a fetch response.
type fetchResult struct {
	reader  *reader
	batches []protocol.RecordReader
}

// batch returns up to n messages, each already added to r.offsets. more says that there may be others.
func (s *fetchResult) batch(n int) (batch []pipeline.Message, more bool, err error) {
	r := s.reader
	for len(s.batches) > 0 {
		current := s.batches[0]
		record, err := current.ReadRecord()
		if errors.Is(err, io.EOF) {
			s.batches = s.batches[1:]
			continue
		}
		if err != nil {
			return batch, false, err
		}
		_, control := current.(*protocol.ControlBatch)
		switch {
		case record.Offset < r.next: // the broker sends whole batches; this message was delivered before
			release(record)
			continue
		case r.consumer.o.Drain && record.Offset >= r.target: // published after the drain began
			release(record)
			r.skipTo(r.target)
			s.batches = nil
			return batch, false, nil
		case control:
			release(record)
			r.skipTo(record.Offset + 1)
			continue
		}
		m, err := r.message(record)
		if err != nil {
			return batch, false, err
		}
		if batch == nil {
			batch = make([]pipeline.Message, 0, n)
		}
		batch = append(batch, m)
		r.offsets.add(m.Offset)
		r.next = m.Offset + 1
		if len(batch) == n {
			return batch, true, nil
		}
	}
	return batch, false, nil
}

// message copies a record out of the library's buffers and releases them.
func (r *reader) message(record *kafka.Record) (pipeline.Message, error) {
	defer release(record)
	m := pipeline.Message{
		Topic:     r.consumer.o.Topic,
		Partition: r.partition,
		Offset:    record.Offset,
		Time:      record.Time,
	}
	var err error
	if m.Key, err = r.copy(record.Key); err != nil {
		return m, err
	}
	if m.Value, err = r.copy(record.Value); err != nil {
		return m, err
	}
	if len(record.Headers) > 0 {
		m.Headers = make([]pipeline.Header, len(record.Headers))
		for i, h := range record.Headers {
			m.Headers[i] = pipeline.Header{Key: h.Key, Value: h.Value}
		}
	}
	return m, nil
}

// copy reads b into a part of the arena, a block of memory that many messages share.
func (r *reader) copy(b kafka.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	const block = 64 << 10
	n := b.Len()
	if n == 0 {
		return []byte{}, nil
	}
	if n > len(r.arena) {
		r.arena = make([]byte, max(n, block))
	}
	piece := r.arena[:n:n]
	r.arena = r.arena[n:]
	_, err := io.ReadFull(b, piece)
	return piece, err
}

func release(record *kafka.Record) {
	if record.Key != nil {
		record.Key.Close()
	}
	if record.Value != nil {
		record.Value.Close()
	}
}
