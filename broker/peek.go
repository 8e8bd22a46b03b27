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

// Peek returns up to n of the messages that the group would read next, from the first partitions that have any, without
// joining the group or committing offsets. It sends one fetch request per partition, so it may return fewer messages
// than there are.
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
		more, _, err := c.fetchMessages(ctx, topic, p.Partition, from, n-len(found), fetchBytes)
		if err != nil {
			return nil, fmt.Errorf("reading %s/%d: %w", topic, p.Partition, c.explain(err))
		}
		found = append(found, more...)
	}
	return found, nil
}

// Scan calls yield with every message of the topic that the group has not committed yet, partition by partition, up to
// the ends when Scan begins. It does not join the group and commits nothing; the map it returns is for CommitScan. It
// returns the first error of yield. A committed offset beyond the end of its partition is an *AheadError; fetches that
// stay empty below the end are an *EmptyFetchError.
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
			c.log.Warn("messages were deleted by the topic's retention before they were read",
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
		var empty *EmptyFetchError
		switch {
		case stop != nil:
			return nil, stop
		case errors.As(err, &empty):
			empty.Group = group
			return nil, empty
		case err != nil:
			return nil, fmt.Errorf("reading %s/%d: %w", topic, p.Partition, c.explain(err))
		}
		ends[p.Partition] = p.End
	}
	return ends, nil
}

// scan calls yield with a partition's messages from an offset up to end, in order: the messages of one response, which
// may be none, and the offset that follows them. It retries for up to patience while requests fail or fetches stay
// empty; the latter are then an *EmptyFetchError.
func (c *Cluster) scan(
	ctx context.Context, topic string, partition int, from, end int64, patience time.Duration,
	yield func(batch []pipeline.Message, next int64) error,
) error {
	size := int64(fetchBytes)
	operation := fmt.Sprintf("read %s/%d", topic, partition)
	defer c.outages.forget(operation)
	for next := from; next < end; {
		var messages []pipeline.Message
		err := retry.Do(ctx, backoff(patience), func(ctx context.Context) error {
			found, came, err := c.fetchMessages(ctx, topic, partition, next, math.MaxInt, size)
			switch {
			case err != nil:
				return c.retryable(operation, err)
			case !came: // proves nothing; see reader.progress
				return retry.RetryableError(&EmptyFetchError{Topic: topic, Partition: partition, Offset: next, End: end})
			}
			c.outages.succeeded(operation)
			messages = found
			return nil
		})
		if err != nil {
			return err
		}
		if n := len(messages); n > 0 {
			next, size = messages[n-1].Offset+1, fetchBytes
		} else { // a marker, or a batch whose last messages compaction has removed: make room for the next batch, too
			next, size = next+1, min(2*size, 64<<20)
		}
		for n := len(messages); n > 0 && messages[n-1].Offset >= end; n-- { // published later
			messages, next = messages[:n-1], end
		}
		if err := yield(messages, next); err != nil {
			return err
		}
	}
	return nil
}

// fetchBytes is about the greatest size of a response.
const fetchBytes = 1 << 20

// fetchWait is how long the broker may hold back an empty response. The library's default of ten seconds is as long as
// requestTimeout.
const fetchWait = 500 * time.Millisecond

// CommitScan commits the ends that Scan returned. The group must have no members.
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

// fetchMessages returns up to n messages of one response, from an offset on. came says whether the response held a
// batch, even one without messages.
func (c *Cluster) fetchMessages(
	ctx context.Context, topic string, partition int, from int64, n int, size int64,
) (found []pipeline.Message, came bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.fetch(ctx, &kafka.FetchRequest{
		Topic: topic, Partition: partition, Offset: from, MinBytes: 1, MaxBytes: size, MaxWait: fetchWait,
	})
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

// fetch sends a fetch request. A broker answers a client above its quota with no topic at all, which the library takes
// for a missing topic: fetch returns an empty response with a high watermark of -1.
func (c *Cluster) fetch(ctx context.Context, req *kafka.FetchRequest) (*kafka.FetchResponse, error) {
	res, err := c.client.Fetch(ctx, req)
	switch {
	case errors.Is(err, protocol.ErrNoTopic) && !errors.As(err, new(*protocol.TopicError)):
		return &kafka.FetchResponse{HighWatermark: -1, Records: new(protocol.RecordStream)}, nil
	case err != nil:
		return nil, err
	}
	return res, res.Error
}

// throttled reports whether fetch has made up a response, because the client was above its quota.
func throttled(res *kafka.FetchResponse) bool { return res.HighWatermark < 0 }
