package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

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
		more, err := c.peekPartition(ctx, topic, p.Partition, from, n-len(found))
		if err != nil {
			return nil, fmt.Errorf("reading %s/%d: %w", topic, p.Partition, c.explain(err))
		}
		found = append(found, more...)
	}
	return found, nil
}

// Scan hands over every message of the topic that the group has not committed yet, partition by partition, up to the
// ends as they are when it begins. It joins no group and commits nothing; the map it returns is what CommitScan wants.
// An error of yield stops it and is returned.
func (c *Cluster) Scan(
	ctx context.Context, topic, group string, yield func(pipeline.Message) error,
) (ends map[int]int64, err error) {
	partitions, err := c.Lag(ctx, topic, group)
	if err != nil {
		return nil, err
	}
	ends = make(map[int]int64, len(partitions))
	for _, p := range partitions {
		ends[p.Partition] = p.End
		for next := max(p.Committed, p.First); next < p.End; {
			messages, err := c.peekPartition(ctx, topic, p.Partition, next, scanBatch)
			if err != nil {
				return nil, fmt.Errorf("reading %s/%d: %w", topic, p.Partition, c.explain(err))
			}
			if len(messages) == 0 { // markers, or what compaction has left
				next++
				continue
			}
			for _, m := range messages {
				if m.Offset >= p.End {
					break
				}
				if err := yield(m); err != nil {
					return nil, err
				}
			}
			next = messages[len(messages)-1].Offset + 1
		}
	}
	return ends, nil
}

// scanBatch is how many messages Scan holds at once.
const scanBatch = 1000

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

func (c *Cluster) peekPartition(
	ctx context.Context, topic string, partition int, from int64, n int,
) ([]pipeline.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: topic, Partition: partition, Offset: from, MinBytes: 1, MaxBytes: 1 << 20,
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, err
	}
	batches := []protocol.RecordReader{res.Records}
	if stream, ok := res.Records.(*protocol.RecordStream); ok {
		batches = stream.Records
	}
	var found []pipeline.Message
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
				return nil, err
			}
			if record.Offset >= from { // the broker sends whole batches
				m := pipeline.Message{Topic: topic, Partition: partition, Offset: record.Offset, Time: record.Time}
				if m.Key, err = protocol.ReadAll(record.Key); err == nil {
					m.Value, err = protocol.ReadAll(record.Value)
				}
				if err != nil {
					return nil, err
				}
				for _, h := range record.Headers {
					m.Headers = append(m.Headers, pipeline.Header{Key: h.Key, Value: bytes.Clone(h.Value)})
				}
				found = append(found, m)
			}
			release(record)
		}
	}
	return found, nil
}
