package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/sethvargo/go-retry"

	"github.com/purser-onboard/purser/pipeline"
)

// noProgress is after how many answers in a row without a single batch it is said that something is wrong.
const noProgress = 5

// reader delivers one assigned partition during one generation.
type reader struct {
	consumer  *Consumer
	partition int
	take      func(ctx context.Context, batch []pipeline.Message) error
	offsets   *offsetTracker
	committed int64 // what the group has committed; belongs to the session's committer

	next     int64 // the next offset to deliver
	target   int64 // in a drain: where it ends
	withheld int   // answers in a row without a batch although there is more
	maxBytes int64
	lost     <-chan time.Time // fires LostAfter after the first of failures in a row; nil when the last fetch succeeded
	arena    []byte
}

// read delivers until ctx ends (nil), the drain's target is reached and all is settled or abandoned (nil), the handler
// fails, the broker is lost, or it hands out nothing where a drain has to go on.
func (r *reader) read(ctx context.Context) error {
	c := r.consumer
	defer c.cluster.troubles.dropped(r.operation())
	r.maxBytes = c.o.MaxBytes
	wait := pause()
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
			wait = pause()
			c.cluster.troubles.passed(r.operation())
			if err := r.deliver(ctx, res); err != nil {
				return err
			}
			if r.withheld == 0 {
				r.lost = nil
				continue
			}
			if err := r.endure(res.HighWatermark); err != nil {
				return err
			}
			sleep(ctx, c.o.MaxWait) // the broker need not have held the request back
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := r.mend(ctx, err); err != nil {
			return err
		}
		d, _ := wait.Next()
		sleep(ctx, d)
	}
	return nil
}

func (r *reader) fetch(ctx context.Context) (*kafka.FetchResponse, error) {
	c := r.consumer
	res, err := c.cluster.client.Fetch(ctx, &kafka.FetchRequest{
		Topic:     c.o.Topic,
		Partition: r.partition,
		Offset:    r.next,
		MinBytes:  1,
		MaxBytes:  r.maxBytes,
		MaxWait:   c.o.MaxWait,
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, err
	}
	return res, nil
}

// mend decides about a failed fetch: nil means try again. A topic that is not known may be another one when it is known
// again, and r.next means nothing there.
func (r *reader) mend(ctx context.Context, err error) error {
	c := r.consumer
	if errors.Is(err, kafka.OffsetOutOfRange) {
		return r.relocate(ctx)
	}
	if unknownTopic(err) {
		return fmt.Errorf("%w: reading partition %d: %w", errInDoubt, r.partition, err)
	}
	if err = c.cluster.why(err); !retriable(err) && (!isUnknown(err) || errors.As(err, new(*StorageError))) {
		err = denied(err, fmt.Sprintf("read topic %q", c.o.Topic),
			fmt.Sprintf("Read on topic %q", c.o.Topic))
		return fmt.Errorf("reading %s/%d: %w", c.o.Topic, r.partition, err)
	}
	if r.lost == nil {
		r.lost = time.After(c.o.LostAfter)
	}
	select {
	case <-r.lost:
		return r.brokerLost(err)
	default:
	}
	c.cluster.troubles.failed(r.operation(), err)
	return nil
}

func (r *reader) operation() string {
	return fmt.Sprintf("read %s/%d", r.consumer.o.Topic, r.partition)
}

// relocate finds the place to go on from when the broker no longer has the one we want.
func (r *reader) relocate(ctx context.Context) error {
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
	case r.next > now.end: // if the group's own offset is beyond it, too, the next session says so
		return fmt.Errorf("%w: partition %d ends at %d, and offset %d was next", errInDoubt, r.partition, now.end, r.next)
	case r.next < now.first:
		c.lose(r.partition, r.next, now.first)
		r.advance(now.first)
	}
	return nil
}

func (r *reader) brokerLost(err error) error {
	c := r.consumer
	return fmt.Errorf("%w (%s) while reading %s/%d: %w", ErrBrokerLost, c.cluster.Brokers(), c.o.Topic, r.partition, err)
}

// deliver hands the messages of one answer to the handler, in batches that fit into the window.
func (r *reader) deliver(ctx context.Context, res *kafka.FetchResponse) error {
	before := r.next
	stream := answer{reader: r}
	evidence := 0
	switch set := res.Records.(type) {
	case *protocol.RecordStream:
		stream.batches = set.Records
		evidence = len(set.Records)
	default:
		stream.batches = []protocol.RecordReader{set}
	}
	for {
		room := r.offsets.room(ctx)
		if room == 0 {
			return nil
		}
		batch, more, err := stream.batch(min(room, r.consumer.o.MaxBatch))
		if err != nil {
			return fmt.Errorf("reading %s/%d at offset %d: %w", r.consumer.o.Topic, r.partition, r.next, err)
		}
		if len(batch) > 0 {
			if err := r.take(ctx, batch); err != nil {
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
	r.progress(before, res.HighWatermark, evidence)
	return nil
}

// progress sees to it that an answer without messages for us neither holds us for ever nor loses one. An answer begins
// with the batch that has the offset that was asked for or, if there is none, with the first one after it. So a batch
// that came and held nothing for us is proof that the offset is empty, as some are where compaction has been. An answer
// without a batch proves nothing: a broker gives it, too, when it cannot get at its own storage in time (KIP-405), and
// was it only that the batch did not fit, the next request has more room.
func (r *reader) progress(before, highWatermark int64, evidence int) {
	c := r.consumer
	end := highWatermark
	if c.o.Drain {
		end = max(end, r.target) // the broker has said so before, however little it has now
	}
	switch {
	case r.next > before || r.next >= end:
		r.withheld, r.maxBytes = 0, c.o.MaxBytes
	case evidence > 0:
		r.withheld = 0
		r.advance(r.next + 1)
	default:
		r.withheld++
		r.maxBytes = min(2*r.maxBytes, 64<<20)
	}
}

// endure decides about an answer that withholds what there is: nil means ask again. Passing over the offset could lose
// a row. A run has time: if there is nothing, the next message to come will say so by its offset. A drain has none,
// and fails when LostAfter has passed.
func (r *reader) endure(highWatermark int64) error {
	c := r.consumer
	err := &WithheldError{
		Topic: c.o.Topic, Group: c.o.Group, Partition: r.partition, Offset: r.next, End: max(highWatermark, r.target),
	}
	if r.withheld == noProgress {
		c.o.Logger.Warn("the broker hands out nothing although there is more; asking again", "error", err)
	}
	if !c.o.Drain {
		r.lost = nil
		return nil
	}
	if r.lost == nil {
		r.lost = time.After(c.o.LostAfter)
	}
	select {
	case <-r.lost:
		return err
	default:
		return nil
	}
}

// advance moves on to an offset with nothing to deliver below it.
func (r *reader) advance(next int64) {
	if next > r.next {
		r.next = next
		r.offsets.skipTo(next)
	}
}

// answer walks the batches of a fetch answer.
type answer struct {
	reader  *reader
	batches []protocol.RecordReader
}

// batch returns up to n messages, each already in the window. more says that there may be others.
func (s *answer) batch(n int) (batch []pipeline.Message, more bool, err error) {
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
		case record.Offset < r.next: // the broker sends whole batches; the beginning of the first was delivered before
			release(record)
			continue
		case r.consumer.o.Drain && record.Offset >= r.target: // came after the drain began
			release(record)
			r.advance(r.target)
			s.batches = nil
			return batch, false, nil
		case control:
			release(record)
			r.advance(record.Offset + 1)
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

// message copies a record out of the library's buffers and gives those back.
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

// copy reads b into a piece of the arena, a block that many messages share.
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

// pause grows from 50 ms to 2 s and never gives up.
func pause() retry.Backoff {
	b := retry.NewExponential(50 * time.Millisecond)
	b = retry.WithCappedDuration(2*time.Second, b)
	return retry.WithJitterPercent(20, b)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
