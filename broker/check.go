package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/sethvargo/go-retry"
)

// Check is the preflight: it connects to the brokers afresh, authenticates, and looks the topics up. It returns the
// number of partitions of each topic. A broker that cannot be reached is passed over while another answers; when none
// does, the error joins a *UnreachableError for each. A topic that is not there is a *MissingTopicError. No topic is
// created, whatever the broker's auto.create.topics.enable says.
func (c *Cluster) Check(ctx context.Context, topics ...string) (map[string]int, error) {
	partitions, broker, err := c.inventory(ctx)
	if err != nil {
		return nil, err
	}
	found := make(map[string]int, len(topics))
	for _, topic := range topics {
		n := partitions[topic]
		if n == 0 {
			return nil, &MissingTopicError{Topic: topic, Broker: broker}
		}
		found[topic] = n
	}
	return found, nil
}

// inventory returns the number of partitions of every topic we may see, and the broker that said so.
func (c *Cluster) inventory(ctx context.Context) (partitions map[string]int, from string, err error) {
	var failures []error
	for _, broker := range c.brokers {
		partitions, err := c.look(ctx, broker)
		if err != nil {
			if ctx.Err() != nil {
				return nil, "", ctx.Err()
			}
			failures = append(failures, &UnreachableError{Broker: broker, Err: err})
			continue
		}
		for _, err := range failures {
			c.log.Warn("a broker cannot be reached; another one answers", "error", err)
		}
		return partitions, broker, nil
	}
	return nil, "", errors.Join(failures...)
}

// look asks one broker for all topics. It uses a Dialer because the Transport hides the reason of a failed login behind
// "unexpected EOF", and asks for all topics because asking for one by name may create it.
func (c *Cluster) look(ctx context.Context, broker string) (map[string]int, error) {
	conn, err := c.dialer.DialContext(ctx, "tcp", broker)
	if err != nil {
		return nil, err
	}
	// The library's connections know no ctx: closing one ends its request.
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	list, err := conn.ReadPartitions()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	found := make(map[string]int)
	for _, p := range list {
		found[p.Topic]++
	}
	return found, nil
}

// partitions returns the number of partitions of a topic from the shared metadata, at most metadataTTL old. It waits a
// little for a topic that may have been created just now, and for patience while the broker cannot be reached.
func (c *Cluster) partitions(ctx context.Context, topic string, patience time.Duration) (int, error) {
	var n, absent int
	err := retry.Do(ctx, backoff(patience), func(ctx context.Context) error {
		res, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			if retriable(err) {
				return retry.RetryableError(err)
			}
			return err
		}
		n = 0
		for _, t := range res.Topics {
			if t.Name == topic {
				n = len(t.Partitions)
			}
		}
		if n > 0 {
			return nil
		}
		missing := &MissingTopicError{Topic: topic, Broker: c.Brokers()}
		if absent++; absent == 5 { // 750 ms and more have passed, longer than metadataTTL
			return missing
		}
		return retry.RetryableError(missing)
	})
	return n, err
}

// span is what a partition holds: [first, end).
type span struct{ first, end int64 }

// spans asks for the first offset and the end of partitions, trying again while the broker is between leaders, at most
// for patience.
func (c *Cluster) spans(
	ctx context.Context, topic string, partitions []int, patience time.Duration,
) (map[int]span, error) {
	if len(partitions) == 0 {
		return nil, nil
	}
	ask := make([]kafka.OffsetRequest, 0, 2*len(partitions))
	for _, p := range partitions {
		ask = append(ask, kafka.FirstOffsetOf(p), kafka.LastOffsetOf(p))
	}
	var found map[int]span
	err := retry.Do(ctx, backoff(patience), func(ctx context.Context) error {
		res, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{topic: ask},
		})
		if err != nil {
			if retriable(err) {
				return retry.RetryableError(err)
			}
			return err
		}
		found = make(map[int]span, len(partitions))
		for _, p := range res.Topics[topic] {
			// The library answers -1 and "unknown" where one of its requests failed, whatever the cause: ask again.
			if p.Error != nil && !retriable(p.Error) && !errors.Is(p.Error, kafka.Unknown) {
				return fmt.Errorf("offsets of %s/%d: %w", topic, p.Partition, p.Error)
			}
			if p.Error != nil || p.FirstOffset < 0 || p.LastOffset < 0 {
				return retry.RetryableError(fmt.Errorf("offsets of %s/%d are not known now: %w",
					topic, p.Partition, errors.Join(p.Error)))
			}
			found[p.Partition] = span{first: p.FirstOffset, end: p.LastOffset}
		}
		if len(found) != len(partitions) {
			return retry.RetryableError(fmt.Errorf("offsets of %s: the broker left partitions out", topic))
		}
		return nil
	})
	return found, err
}

// PartitionLag says how far a group has come in one partition.
type PartitionLag struct {
	Partition int
	Committed int64 // the next offset the group will take; -1 when it has committed none
	First     int64 // the earliest offset still there
	End       int64 // the high watermark
}

// Lag is the number of offsets between the group and the end of the partition. Markers and compacted messages count, so
// it is an upper bound of the messages to come.
func (l PartitionLag) Lag() int64 {
	from := max(l.Committed, l.First)
	return max(l.End-from, 0)
}

// Lag tells how far a group has come in a topic, for each partition in order. It joins no group and disturbs none.
func (c *Cluster) Lag(ctx context.Context, topic, group string) ([]PartitionLag, error) {
	n, err := c.partitions(ctx, topic, requestTimeout)
	if err != nil {
		return nil, err
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	spans, err := c.spans(ctx, topic, all, requestTimeout)
	if err != nil {
		return nil, err
	}
	committed := make(map[int]int64, n)
	err = retry.Do(ctx, backoff(requestTimeout), func(ctx context.Context) error {
		res, err := c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
			GroupID: group,
			Topics:  map[string][]int{topic: all},
		})
		if err == nil {
			err = res.Error
		}
		if err == nil {
			for _, p := range res.Topics[topic] {
				err = errors.Join(err, p.Error)
				committed[p.Partition] = p.CommittedOffset
			}
		}
		switch {
		case errors.Is(err, kafka.GroupIdNotFound): // some brokers say so of a group that never committed
			clear(committed)
			return nil
		case retriable(err):
			return retry.RetryableError(err)
		}
		return err
	})
	if err != nil {
		err = denied(err, fmt.Sprintf("see the offsets of group %q", group), fmt.Sprintf("Read on group %q", group))
		return nil, fmt.Errorf("committed offsets of group %q: %w", group, err)
	}
	lags := make([]PartitionLag, 0, n)
	for _, p := range all {
		at, ok := committed[p]
		if !ok {
			at = -1
		}
		lags = append(lags, PartitionLag{Partition: p, Committed: at, First: spans[p].first, End: spans[p].end})
	}
	return lags, nil
}

// backoff grows from 50 ms to 2 s and gives up after patience; the last error is returned then.
func backoff(patience time.Duration) retry.Backoff {
	b := retry.NewExponential(50 * time.Millisecond)
	b = retry.WithCappedDuration(2*time.Second, b)
	b = retry.WithJitterPercent(20, b)
	return retry.WithMaxDuration(patience, b)
}
