package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/purser-onboard/purser/pipeline"
)

// Changelog is the compacted topic in which a fleet stores its ledgers, one record for each row. A consumer writes to a
// partition only while its lease covers the partition. It implements ledger.Changelog.
type Changelog struct {
	cluster    *Cluster
	lease      *lease
	topic      string
	partitions int
	producer   *Producer
}

// Changelog returns the changelog of the partitions that this consumer is assigned. The topic must have as many
// partitions as the work topic, so that a record and the message of its row move together.
func (c *Consumer) Changelog(topic string, partitions int) *Changelog {
	return &Changelog{
		cluster: c.cluster, lease: c.lease, topic: topic, partitions: partitions,
		producer: NewProducer(c.cluster, ProducerOptions{Timeout: c.o.LostAfter, Logger: c.o.Logger}),
	}
}

// Changelog returns a changelog for reading only: Append returns pipeline.ErrFenced.
func (c *Cluster) Changelog(topic string, partitions int) *Changelog {
	return &Changelog{
		cluster: c, lease: newLease(&ConsumerOptions{}), topic: topic, partitions: partitions,
		producer: NewProducer(c, ProducerOptions{Timeout: requestTimeout, Logger: c.log}),
	}
}

// Topic returns the name of the topic.
func (l *Changelog) Topic() string { return l.topic }

// Partition returns the partition of an account's messages.
func (l *Changelog) Partition(account string) int { return partitionOf([]byte(account), l.partitions) }

// Epoch returns the number of the partition's assignment to this consumer, which grows with each assignment; 0 if the
// partition is not assigned to it.
func (l *Changelog) Epoch(partition int) int64 { return l.lease.epochOf(partition) }

// Append writes each message to the partition that it names, in order, with acks=all, concurrently for several
// partitions, and sets the messages' offsets. It blocks while the lease has expired and might still be renewed, and
// returns pipeline.ErrFenced when this consumer no longer has a partition. Other errors are those of Publish; after
// them, any part of the messages may have been written, some of them twice.
func (l *Changelog) Append(ctx context.Context, messages []pipeline.Message) error {
	order := make([]int32, len(messages))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return messages[a].Partition - messages[b].Partition })
	group, working := errgroup.WithContext(ctx)
	for len(order) > 0 {
		partition, n := messages[order[0]].Partition, 1
		for n < len(order) && messages[order[n]].Partition == partition {
			n++
		}
		share := order[:n]
		order = order[n:]
		group.Go(func() error {
			t := target{
				Producer: l.producer, topic: l.topic, partition: partition, all: messages,
				allowed: func(ctx context.Context) error { return l.lease.wait(ctx, partition) },
				written: func(base int64, share []int32) {
					for i, at := range share {
						messages[at].Offset = base + int64(i)
					}
				},
			}
			return t.send(working, share)
		})
	}
	err := group.Wait()
	if errors.Is(err, pipeline.ErrFenced) {
		return err
	}
	return l.producer.publishError(ctx, l.topic, err)
}

// Replay calls yield with the partition's messages from an offset up to its current end, in order, in batches, each
// with the offset that follows the batch. Its errors are pipeline.ErrChangelogRecreated when the partition ends before
// from, ErrBrokerLost, *EmptyFetchError, *DeniedError, *MissingTopicError, ctx's, those of yield, or the broker's.
func (l *Changelog) Replay(
	ctx context.Context, partition int, from int64, yield func(batch []pipeline.Message, next int64) error,
) error {
	patience := l.producer.o.Timeout
	spans, err := l.cluster.spans(ctx, l.topic, []int{partition}, patience)
	if err != nil {
		return l.replayError(ctx, partition, err)
	}
	now := spans[partition]
	if from > now.end {
		return pipeline.ErrChangelogRecreated
	}
	var stop error // yield's own
	err = l.cluster.scan(ctx, l.topic, partition, max(from, now.first), now.end, patience,
		func(batch []pipeline.Message, next int64) error {
			stop = yield(batch, next)
			return stop
		})
	if stop != nil {
		return stop
	}
	return l.replayError(ctx, partition, err)
}

// replayError adds what failed to an error of Replay.
func (l *Changelog) replayError(ctx context.Context, partition int, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	err = l.cluster.explain(err)
	if retriable(err) && !answered(err) && !errors.As(err, new(*EmptyFetchError)) {
		return fmt.Errorf("%w (%s) while reading %s/%d: %w", ErrBrokerLost, l.cluster.Brokers(), l.topic, partition, err)
	}
	err = denied(err, fmt.Sprintf("read topic %q", l.topic), fmt.Sprintf("Read on topic %q", l.topic))
	return fmt.Errorf("reading %s/%d: %w", l.topic, partition, err)
}
