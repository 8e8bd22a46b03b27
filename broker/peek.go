package broker

import (
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
				found = append(found, m)
			}
			release(record)
		}
	}
	return found, nil
}
