package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/sethvargo/go-retry"
)

// Check is the preflight: it connects to the brokers afresh, authenticates, and looks the topics up. It returns the
// number of partitions of each topic. A broker that cannot be reached is passed over while another answers; when none
// does, it tries again as Connect does, and the error names a *UnreachableError for each. A topic that is not there is
// a *MissingTopicError. No topic is created, whatever the broker's auto.create.topics.enable says.
func (c *Cluster) Check(ctx context.Context, topics ...string) (found map[string]int, err error) {
	err = c.patiently(ctx, func(ctx context.Context) error {
		found, err = c.checkOnce(ctx, topics...)
		return err
	})
	return found, err
}

func (c *Cluster) checkOnce(ctx context.Context, topics ...string) (map[string]int, error) {
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

// patiently tries again while no broker answers, for Options.Wait.
func (c *Cluster) patiently(ctx context.Context, f func(context.Context) error) error {
	const operation = "connect"
	defer c.troubles.dropped(operation)
	away := func(err error) bool {
		return ctx.Err() == nil && c.wait > 0 && errors.As(err, new(*UnreachableError)) && retriable(err)
	}
	err := retry.Do(ctx, backoff(c.wait), func(ctx context.Context) error {
		err := f(ctx)
		switch {
		case err == nil:
			c.troubles.passed(operation)
		case away(err):
			c.troubles.failed(operation, err)
			return retry.RetryableError(err)
		}
		return err
	})
	if away(err) {
		return fmt.Errorf("no Kafka broker answered within %v: %w", c.wait, err)
	}
	return err
}

// meet makes sure that one of the brokers can be used, and that all that answer belong to one cluster: the library asks
// any of them.
func (c *Cluster) meet(ctx context.Context) error {
	return c.patiently(ctx, func(ctx context.Context) error {
		found := make([]*overview, len(c.brokers))
		failures := make([]error, len(c.brokers))
		var all sync.WaitGroup
		for i, broker := range c.brokers {
			all.Go(func() { found[i], failures[i] = c.look(ctx, broker) })
		}
		all.Wait()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		first := slices.IndexFunc(found, func(o *overview) bool { return o != nil })
		if first < 0 {
			return c.unreachable(failures)
		}
		for i, o := range found {
			switch {
			case o == nil:
				c.log.Warn("a broker cannot be used; another one answers",
					"error", &UnreachableError{Broker: c.brokers[i], Err: failures[i]})
			case o.cluster != found[first].cluster:
				return &RefusedError{Cause: CauseClusters, Detail: fmt.Sprintf("%s to %q, %s to %q",
					c.brokers[first], found[first].cluster, c.brokers[i], o.cluster)}
			}
		}
		return nil
	})
}

// unreachable puts the failures of all brokers into one error, of one line. That no name exists is the set-up's, as
// Java's client has it; when one does, it may be a matter of time for the others.
func (c *Cluster) unreachable(failures []error) error {
	nowhere := !slices.ContainsFunc(failures, func(err error) bool { return !unknownHost(err) })
	known := slices.ContainsFunc(failures, SetUp)
	var all error
	for i, err := range failures {
		switch {
		case nowhere:
			err = &RefusedError{Cause: CauseUnknownHost, Err: err}
		case hangsUp(err) && !known:
			err = &RefusedError{Cause: CauseHungUp, Err: err}
		}
		err = &UnreachableError{Broker: c.brokers[i], Err: err}
		if all != nil {
			err = fmt.Errorf("%w; %w", all, err)
		}
		all = err
	}
	return all
}

// inventory returns the number of partitions of every topic we may see, and the broker that said so.
func (c *Cluster) inventory(ctx context.Context) (partitions map[string]int, from string, err error) {
	failures := make([]error, 0, len(c.brokers))
	for _, broker := range c.brokers {
		found, err := c.look(ctx, broker)
		if err == nil {
			return found.partitions, broker, nil
		}
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		failures = append(failures, err)
	}
	return nil, "", c.unreachable(failures)
}

// partitions returns the number of partitions of a topic from the shared metadata, at most metadataTTL old. It waits a
// little for a topic that may have been created just now, and for patience while the broker cannot be reached.
func (c *Cluster) partitions(ctx context.Context, topic string, patience time.Duration) (int, error) {
	operation := "look up topic " + topic
	defer c.troubles.dropped(operation)
	var n, absent int
	err := retry.Do(ctx, backoff(patience), func(ctx context.Context) error {
		res, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return c.again(operation, err)
		}
		n = 0 // the answer may be the kept one, so it does not say that the broker answers
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
	operation := "look up offsets of " + topic
	defer c.troubles.dropped(operation)
	var found map[int]span
	err := retry.Do(ctx, backoff(patience), func(ctx context.Context) error {
		res, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{topic: ask},
		})
		if err != nil {
			return c.again(operation, err)
		}
		found = make(map[int]span, len(partitions))
		for _, p := range res.Topics[topic] {
			// The library answers -1 and "unknown" where one of its requests failed, whatever the cause: ask again, unless the
			// cause is known to stay.
			err := p.Error
			if err == nil && (p.FirstOffset < 0 || p.LastOffset < 0) || isUnknown(err) {
				err = kafka.LeaderNotAvailable
			}
			if err != nil {
				return c.again(operation, fmt.Errorf("offsets of %s/%d: %w", topic, p.Partition, err))
			}
			found[p.Partition] = span{first: p.FirstOffset, end: p.LastOffset}
		}
		if len(found) != len(partitions) {
			return retry.RetryableError(fmt.Errorf("offsets of %s: the broker left partitions out", topic))
		}
		c.troubles.passed(operation)
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

// again decides about a failed attempt of an operation, for retry.Do, and sees to it that its trouble is told once.
func (c *Cluster) again(operation string, err error) error {
	if err = c.why(err); !retriable(err) {
		return err
	}
	c.troubles.failed(operation, err)
	return retry.RetryableError(err)
}

// backoff grows from 50 ms to 2 s and gives up after patience; the last error is returned then.
func backoff(patience time.Duration) retry.Backoff {
	b := retry.NewExponential(50 * time.Millisecond)
	b = retry.WithCappedDuration(2*time.Second, b)
	b = retry.WithJitterPercent(20, b)
	return retry.WithMaxDuration(patience, b)
}
