package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/sethvargo/go-retry"

	"github.com/purser-onboard/purser/pipeline"
)

// Peek returns up to n of the messages that the group would take next, from the first partitions that have any, without
// joining the group or committing anything. What an answer of the broker does not hold is not asked for again: it is a
// sample, not a census.
func (c *Cluster) Peek(ctx context.Context, topic, group string, n int) ([]pipeline.Message, error) {
	partitions, err := c.Lag(ctx, topic, group)
	if err != nil {
		return nil, err
	}
	var found []pipeline.Message
	for _, p := range partitions {
		if len(found) >= n {
			break
		}
		if p.Lag() == 0 {
			continue
		}
		from := max(p.Committed, p.First)
		more, _, err := c.peekPartition(ctx, topic, p.Partition, from, n-len(found), peekBytes)
		if err != nil {
			return nil, fmt.Errorf("reading %s/%d: %w", topic, p.Partition, c.explain(err))
		}
		found = append(found, more...)
	}
	return found, nil
}

// Scan hands over every message of the topic that the group has not committed yet, partition by partition, up to the
// ends as they are when it begins. It joins no group and commits nothing; the map it returns is what CommitScan wants.
// An error of yield stops it and is returned. A group that has committed more than there is, is an *AheadError; what
// the broker does not hand out although it says that it is there, a *WithheldError.
func (c *Cluster) Scan(
	ctx context.Context, topic, group string, yield func(pipeline.Message) error,
) (ends map[int]int64, err error) {
	partitions, err := c.Lag(ctx, topic, group)
	if err != nil {
		return nil, err
	}
	ends = make(map[int]int64, len(partitions))
	for _, p := range partitions {
		if p.Committed > p.End {
			return nil, &AheadError{Topic: topic, Group: group, Partition: p.Partition, Committed: p.Committed, End: p.End}
		}
		if p.Committed >= 0 && p.Committed < p.First {
			c.log.Warn("messages were deleted by the topic's retention before they were looked at",
				"topic", topic, "partition", p.Partition, "from", p.Committed, "to", p.First-1)
		}
		var stop error // yield's own
		err := c.scan(ctx, topic, p.Partition, max(p.Committed, p.First), p.End, requestTimeout,
			func(batch []pipeline.Message, _ int64) error {
				for _, m := range batch {
					if stop = yield(m); stop != nil {
						return stop
					}
				}
				return nil
			})
		var withheld *WithheldError
		switch {
		case stop != nil:
			return nil, stop
		case errors.As(err, &withheld):
			withheld.Group = group
			return nil, withheld
		case err != nil:
			return nil, fmt.Errorf("reading %s/%d: %w", topic, p.Partition, c.explain(err))
		}
		ends[p.Partition] = p.End
	}
	return ends, nil
}

// scan hands over what a partition holds from an offset up to an end that the broker has named, in order: what came in
// one answer, and the offset behind it. Answers without a message of ours are handed over, too. It tries again while
// the broker cannot answer, or hands out nothing, for at most patience; what it withholds until then is a
// *WithheldError.
func (c *Cluster) scan(
	ctx context.Context, topic string, partition int, from, end int64, patience time.Duration,
	yield func(batch []pipeline.Message, next int64) error,
) error {
	size := int64(peekBytes)
	operation := fmt.Sprintf("read %s/%d", topic, partition)
	defer c.troubles.dropped(operation)
	for next := from; next < end; {
		var messages []pipeline.Message
		err := retry.Do(ctx, backoff(patience), func(ctx context.Context) error {
			found, came, err := c.peekPartition(ctx, topic, partition, next, math.MaxInt, size)
			switch {
			case err != nil:
				return c.again(operation, err)
			case !came: // see reader.progress: it proves nothing
				return retry.RetryableError(&WithheldError{Topic: topic, Partition: partition, Offset: next, End: end})
			}
			c.troubles.passed(operation)
			messages = found
			return nil
		})
		if err != nil {
			return err
		}
		if n := len(messages); n > 0 {
			next, size = messages[n-1].Offset+1, peekBytes
		} else { // a marker, or the end of a batch of which compaction has left the beginning: let the next one fit in, too
			next, size = next+1, min(2*size, 64<<20)
		}
		for n := len(messages); n > 0 && messages[n-1].Offset >= end; n-- { // came later
			messages, next = messages[:n-1], end
		}
		if err := yield(messages, next); err != nil {
			return err
		}
	}
	return nil
}

// peekBytes is about the greatest size of an answer.
const peekBytes = 1 << 20

// peekWait is how long the broker may hold back a request that finds nothing; the library's ten seconds are as long as
// we wait for the answer.
const peekWait = 500 * time.Millisecond

// CommitScan commits for a group that nobody is a member of how far a Scan came.
func (c *Cluster) CommitScan(ctx context.Context, topic, group string, ends map[int]int64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	commits := make([]kafka.OffsetCommit, 0, len(ends))
	for partition, end := range ends {
		commits = append(commits, kafka.OffsetCommit{Partition: partition, Offset: end})
	}
	res, err := c.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: commits},
	})
	if err != nil {
		return fmt.Errorf("commit for group %s: %w", group, c.explain(err))
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return fmt.Errorf("commit %s/%d for group %s: %w", topic, p.Partition, group, p.Error)
		}
	}
	return nil
}

// peekPartition returns up to n messages of one answer of the broker, from an offset on. came says that the answer held
// anything at all, be it only what is no message.
func (c *Cluster) peekPartition(
	ctx context.Context, topic string, partition int, from int64, n int, size int64,
) (found []pipeline.Message, came bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: topic, Partition: partition, Offset: from, MinBytes: 1, MaxBytes: size, MaxWait: peekWait,
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, false, err
	}
	batches := []protocol.RecordReader{res.Records}
	if stream, ok := res.Records.(*protocol.RecordStream); ok {
		batches = stream.Records
		came = len(batches) > 0
	}
	for _, batch := range batches {
		if _, control := batch.(*protocol.ControlBatch); control {
			continue
		}
		for len(found) < n {
			record, err := batch.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, false, err
			}
			if record.Offset >= from { // the broker sends whole batches
				m := pipeline.Message{Topic: topic, Partition: partition, Offset: record.Offset, Time: record.Time}
				if m.Key, err = protocol.ReadAll(record.Key); err == nil {
					m.Value, err = protocol.ReadAll(record.Value)
				}
				if err != nil {
					return nil, false, err
				}
				for _, h := range record.Headers {
					m.Headers = append(m.Headers, pipeline.Header{Key: h.Key, Value: bytes.Clone(h.Value)})
				}
				found = append(found, m)
			}
			release(record)
		}
	}
	return found, came, nil
}
