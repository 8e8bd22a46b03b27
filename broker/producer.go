package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/sethvargo/go-retry"
	"golang.org/x/sync/errgroup"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// ProducerOptions configures a Producer. A zero value of a field means the default.
type ProducerOptions struct {
	// BatchMessages is the maximum number of messages in one request; default 8000.
	BatchMessages int
	// BatchBytes is the approximate maximum size of one request; default 1,000,000, just below the brokers' default limit
	// of 1,048,588. When a topic accepts less, batches are split until they fit.
	BatchBytes int
	// Timeout is how long one Publish retries while no broker can be reached or a partition has no leader; default 2m.
	Timeout time.Duration
	// Shorten returns a shorter form of a message that is larger than its topic accepts; false: there is none. Its key,
	// value and headers together should have at most the given number of bytes: half the size, then a quarter, and so on.
	// The shorter message goes to the partition of the original. nil: *TooLargeError at once.
	Shorten func(m pipeline.Message, most int) (shorter pipeline.Message, ok bool)
	Logger  *slog.Logger // nil: silent
}

// Producer implements pipeline.Publisher. It is safe for concurrent use. Order is kept within one Publish and between
// consecutive calls.
type Producer struct {
	cluster *Cluster
	o       ProducerOptions
	turn    atomic.Uint32 // distributes messages without a key
}

var _ pipeline.Publisher = (*Producer)(nil)

// NewProducer returns a producer. It need not be closed.
func NewProducer(c *Cluster, o ProducerOptions) *Producer {
	if o.BatchMessages <= 0 {
		o.BatchMessages = 8000
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 1_000_000
	}
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Producer{cluster: c, o: o}
}

// Publish writes the messages with acks=all, concurrently for several partitions, and blocks until all are
// acknowledged. Partition and Offset of the messages are ignored; a zero Time becomes the time of writing. The messages
// must not be changed before it returns.
//
// Retriable failures are retried, in order, for at most ProducerOptions.Timeout, and then become ErrBrokerLost if no
// broker answered. Other errors are *MissingTopicError, *TooLargeError, *DeniedError, *StorageError (embedded broker),
// a kafka.Error, or ctx's. After an error any part of the messages may have been written, some of them twice.
func (p *Producer) Publish(ctx context.Context, topic string, messages []pipeline.Message) error {
	if len(messages) == 0 {
		return nil
	}
	n, err := p.cluster.partitions(ctx, topic, p.o.Timeout)
	if err != nil {
		return p.publishError(ctx, topic, err)
	}
	plan := p.plan(messages, n)
	group, working := errgroup.WithContext(ctx)
	for partition := range n {
		share := plan.share(partition)
		if len(share) == 0 {
			continue
		}
		group.Go(func() error {
			t := target{Producer: p, topic: topic, partition: partition, all: messages}
			return t.send(working, share)
		})
	}
	return p.publishError(ctx, topic, group.Wait())
}

// publishError adds what failed to an error of Publish.
func (p *Producer) publishError(ctx context.Context, topic string, err error) error {
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return err
	}
	err = p.cluster.causeOf(err)
	if unknownTopic(err) {
		left, _ := p.cluster.partitions(ctx, topic, requestTimeout) // after an error: 0
		err = &MissingTopicError{Topic: topic, Broker: p.cluster.Brokers(), Partitions: left}
	}
	if errors.Is(err, kafka.InvalidRecord) {
		err = fmt.Errorf("%w; with cleanup.policy=compact a topic accepts no message without a key: topics of rows and of "+
			"dead letters need cleanup.policy=delete", err)
	}
	if errors.Is(err, kafka.InvalidTimestamp) {
		err = fmt.Errorf("%w; set the clock of this machine by NTP, or see message.timestamp.after.max.ms and "+
			"message.timestamp.before.max.ms of the topic", err)
	}
	if retriable(err) && !answered(err) {
		return fmt.Errorf("%w (%s) while publishing to %q: %w", ErrBrokerLost, p.cluster.Brokers(), topic, err)
	}
	err = denied(err, fmt.Sprintf("write to topic %q", topic), fmt.Sprintf("Write on topic %q", topic))
	return fmt.Errorf("publishing to %q: %w", topic, err)
}

// plan sorts messages by partition, keeping their order: order[starts[i]:starts[i+1]] are the indexes for partition i.
// A plan is not reused: the library may still read from it for a request that we no longer wait for.
type plan struct {
	of     []int32
	order  []int32
	starts []int32
}

func (p *Producer) plan(messages []pipeline.Message, partitions int) *plan {
	pl := &plan{
		of:     make([]int32, len(messages)),
		order:  make([]int32, len(messages)),
		starts: make([]int32, partitions+1),
	}
	for i := range messages {
		var to int
		if key := messages[i].Key; key != nil {
			to = partitionOf(key, partitions)
		} else {
			to = int(p.turn.Add(1) % uint32(partitions))
		}
		pl.of[i] = int32(to)
		pl.starts[to+1]++
	}
	for i := range partitions {
		pl.starts[i+1] += pl.starts[i]
	}
	// Filling each partition from its end moves ends[i] from the end of partition i to its start.
	ends := pl.starts[1:]
	for i := len(messages) - 1; i >= 0; i-- {
		to := pl.of[i]
		ends[to]--
		pl.order[ends[to]] = int32(i)
	}
	copy(pl.starts, ends)
	pl.starts[partitions] = int32(len(messages))
	return pl
}

func (pl *plan) share(partition int) []int32 {
	return pl.order[pl.starts[partition]:pl.starts[partition+1]]
}

// target writes to one partition.
type target struct {
	*Producer
	topic     string
	partition int
	all       []pipeline.Message

	allowed func(context.Context) error     // called before each attempt; an error ends send; nil: always allowed
	written func(base int64, share []int32) // called with the first offset of each batch; may be nil
}

// send writes the messages at the given indexes in as few batches as the limits allow, all of about the same size: a
// broker that syncs each batch takes as long for a small batch as for a large one.
func (t target) send(ctx context.Context, share []int32) error {
	total := 0
	for _, i := range share {
		total += encodedSize(&t.all[i])
	}
	batches := max(ceilDiv(len(share), t.o.BatchMessages), ceilDiv(total, t.o.BatchBytes))
	each := ceilDiv(len(share), batches)
	for len(share) > 0 {
		n, size := 0, 0
		for n < min(each, len(share)) {
			size += encodedSize(&t.all[share[n]])
			if n > 0 && size > t.o.BatchBytes {
				break
			}
			n++
		}
		if err := t.batch(ctx, share[:n]); err != nil {
			return err
		}
		share = share[n:]
	}
	return nil
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// batch writes a batch, and splits it in two as often as it is too large for the topic.
func (t target) batch(ctx context.Context, share []int32) error {
	err := t.attempt(ctx, share)
	if !tooLarge(err) {
		return err
	}
	if len(share) == 1 {
		return t.shortened(ctx, &t.all[share[0]], err)
	}
	half := len(share) / 2
	if err := t.batch(ctx, share[:half]); err != nil {
		return err
	}
	return t.batch(ctx, share[half:])
}

// shortened writes a message that is too large in the longest form that the topic accepts.
func (t target) shortened(ctx context.Context, m *pipeline.Message, err error) error {
	size := payloadSize(m)
	for most := size / 2; t.o.Shorten != nil && most > 0; most /= 2 {
		shorter, ok := t.o.Shorten(*m, most)
		if !ok {
			continue
		}
		alone := t
		alone.all = []pipeline.Message{shorter}
		if err = alone.attempt(ctx, []int32{0}); !tooLarge(err) {
			return err
		}
	}
	return &TooLargeError{Topic: t.topic, Key: printable.Line(string(m.Key), 80), Size: size, Err: err}
}

func tooLarge(err error) bool {
	return errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge)
}

func (t target) attempt(ctx context.Context, share []int32) error {
	operation := fmt.Sprintf("publish to %s/%d", t.topic, t.partition)
	defer t.cluster.outages.forget(operation)
	return retry.Do(ctx, backoff(t.o.Timeout), func(ctx context.Context) error {
		if t.allowed != nil {
			if err := t.allowed(ctx); err != nil {
				return err
			}
		}
		res, err := t.cluster.client.Produce(ctx, &kafka.ProduceRequest{
			Topic:        t.topic,
			Partition:    t.partition,
			RequiredAcks: kafka.RequireAll,
			Records:      &records{all: t.all, share: share},
		})
		if err == nil {
			err = res.Error
		}
		if err == nil {
			t.cluster.outages.succeeded(operation)
			if t.written != nil {
				t.written(res.BaseOffset, share)
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return t.cluster.retryable(operation, err)
	})
}

// encodedSize returns an upper bound of a message's size in a record batch (format v2): its varints take at most 24
// bytes.
func encodedSize(m *pipeline.Message) int {
	return 24 + payloadSize(m)
}

func payloadSize(m *pipeline.Message) int {
	n := len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += len(m.Headers[i].Key) + len(m.Headers[i].Value) + 10
	}
	return n
}

// records implements kafka.RecordReader over messages. It reuses one Record.
type records struct {
	all        []pipeline.Message
	share      []int32
	record     kafka.Record
	key, value payload
	headers    []kafka.Header
}

// ReadRecord implements kafka.RecordReader.
func (r *records) ReadRecord() (*kafka.Record, error) {
	if len(r.share) == 0 {
		return nil, io.EOF
	}
	m := &r.all[r.share[0]]
	r.share = r.share[1:]
	r.headers = r.headers[:0]
	for _, h := range m.Headers {
		r.headers = append(r.headers, kafka.Header{Key: h.Key, Value: h.Value})
	}
	r.record = kafka.Record{
		Time:    m.Time,
		Key:     r.key.of(m.Key),
		Value:   r.value.of(m.Value),
		Headers: r.headers,
	}
	return &r.record, nil
}

// payload implements kafka.Bytes over a slice.
type payload struct{ bytes.Reader }

// of returns nil for nil, which is Kafka's null.
func (p *payload) of(b []byte) kafka.Bytes {
	if b == nil {
		return nil
	}
	p.Reset(b)
	return p
}

// Close implements kafka.Bytes.
func (p *payload) Close() error { return nil }
