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

	"github.com/purser-onboard/purser/pipeline"
)

// Check is the preflight: it opens a new connection to a broker, authenticates, and looks up the topics. It returns the
// number of partitions of each topic. A broker that cannot be reached is skipped while another answers; when none does,
// Check retries as Connect does, and its error contains a *UnreachableError for each. A missing topic is a
// *MissingTopicError. No topic is created, even if the broker's auto.create.topics.enable is on.
func (c *Cluster) Check(ctx context.Context, topics ...string) (found map[string]int, err error) {
	err = c.untilAnswered(ctx, func(ctx context.Context) error {
		found, err = c.checkOnce(ctx, topics...)
		return err
	})
	return found, err
}

func (c *Cluster) checkOnce(ctx context.Context, topics ...string) (map[string]int, error) {
	partitions, broker, err := c.listTopics(ctx, topics...)
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

// untilAnswered retries f while no broker answers, for Options.Wait.
func (c *Cluster) untilAnswered(ctx context.Context, f func(context.Context) error) error {
	const operation = "connect"
	defer c.outages.forget(operation)
	retriableHere := func(err error) bool {
		return ctx.Err() == nil && c.wait > 0 && errors.As(err, new(*UnreachableError)) && retriable(err)
	}
	err := retry.Do(ctx, backoff(c.wait), func(ctx context.Context) error {
		err := f(ctx)
		switch {
		case err == nil:
			c.outages.succeeded(operation)
		case retriableHere(err):
			c.outages.failed(operation, err)
			return retry.RetryableError(err)
		}
		return err
	})
	if retriableHere(err) {
		return fmt.Errorf("no Kafka broker answered within %v: %w", c.wait, err)
	}
	return err
}

// checkBrokers makes sure that one of the brokers can be used, and that all brokers that answer belong to one cluster:
// the library sends requests to any of them. It puts the brokers that answer first, and leaves out those that a wrong
// set-up rules out: the library would ask them all the same, and reads another protocol's text as the size of arrays.
func (c *Cluster) checkBrokers(ctx context.Context) error {
	return c.untilAnswered(ctx, func(ctx context.Context) error {
		found := make([]*brokerInfo, len(c.brokers))
		failures := make([]error, len(c.brokers))
		took := make([]time.Duration, len(c.brokers))
		var all sync.WaitGroup
		for i, broker := range c.brokers {
			all.Go(func() {
				began := pipeline.Monotonic()
				found[i], failures[i] = c.probe(ctx, broker)
				took[i] = pipeline.Monotonic().Sub(began)
			})
		}
		all.Wait()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		first := slices.IndexFunc(found, func(o *brokerInfo) bool { return o != nil })
		if first < 0 {
			return c.unreachable(failures)
		}
		var answered, silent []string
		for i, o := range found {
			switch {
			case o == nil:
				c.log.Warn("a broker cannot be used; another broker answers",
					"error", &UnreachableError{Broker: c.brokers[i], Err: failures[i]})
				if !SetUp(failures[i]) {
					silent = append(silent, c.brokers[i])
				}
			case o.cluster != found[first].cluster:
				return &SetUpError{Cause: CauseClusters, Detail: fmt.Sprintf("%s to %q, %s to %q",
					c.brokers[first], found[first].cluster, c.brokers[i], o.cluster)}
			default:
				answered = append(answered, c.brokers[i])
				// The library also takes it for the deadline of its own requests for metadata.
				c.transport.MetadataTTL = max(c.transport.MetadataTTL, min(2*took[i], 4*metadataTTL))
			}
		}
		c.brokers = append(answered, silent...)
		c.client.Addr = kafka.TCP(c.brokers...)
		return nil
	})
}

// unreachable joins the failures of all brokers in one error, on one line. If no host name exists, the set-up is wrong,
// as for Java clients. If some exist, the others may be created later.
func (c *Cluster) unreachable(failures []error) error {
	noHost := !slices.ContainsFunc(failures, func(err error) bool { return !unknownHost(err) })
	explained := slices.ContainsFunc(failures, SetUp)
	var all error
	for i, err := range failures {
		switch {
		case noHost:
			err = &SetUpError{Cause: CauseUnknownHost, Err: err}
		case closedByPeer(err) && !explained:
			err = &SetUpError{Cause: CauseClosed, Err: err}
		}
		err = &UnreachableError{Broker: c.brokers[i], Err: err}
		if all != nil {
			err = fmt.Errorf("%w; %w", all, err)
		}
		all = err
	}
	return all
}

// listTopics returns the number of partitions of the topics, and the broker that answered. A topic that does not exist,
// or that we may not describe, has none.
func (c *Cluster) listTopics(
	ctx context.Context, topics ...string,
) (partitions map[string]int, from string, err error) {
	failures := make([]error, 0, len(c.brokers))
	for _, broker := range c.brokers {
		found, err := c.probe(ctx, broker, topics...)
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

// partitions returns the number of partitions of a topic from the shared metadata, at most metadataTTL old. It retries
// for about 750 ms while the topic is missing, because it may be new, and for patience while no broker answers.
func (c *Cluster) partitions(ctx context.Context, topic string, patience time.Duration) (int, error) {
	operation := "look up topic " + topic
	defer c.outages.forget(operation)
	var n, absent int
	err := retry.Do(ctx, backoff(patience), func(ctx context.Context) error {
		res, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return c.retryable(operation, err)
		}
		n = 0 // the response may come from the cache, so it does not end an outage
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

// span is the range of a partition's offsets: [first, end).
type span struct{ first, end int64 }

// spans looks up the first offset and the end of partitions. It retries for patience, for example while a partition has
// no leader.
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
	defer c.outages.forget(operation)
	var found map[int]span
	err := retry.Do(ctx, backoff(patience), func(ctx context.Context) error {
		res, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{topic: ask},
		})
		if err != nil {
			return c.retryable(operation, err)
		}
		found = make(map[int]span, len(partitions))
		for _, p := range res.Topics[topic] {
			// The library returns -1 and "unknown" where one of its requests failed, whatever the cause. Retry, unless we know a
			// cause that retrying does not change.
			err := p.Error
			if err == nil && (p.FirstOffset < 0 || p.LastOffset < 0) || isUnknown(err) {
				err = kafka.LeaderNotAvailable
			}
			if err != nil {
				return c.retryable(operation, fmt.Errorf("offsets of %s/%d: %w", topic, p.Partition, err))
			}
			found[p.Partition] = span{first: p.FirstOffset, end: p.LastOffset}
		}
		if len(found) != len(partitions) {
			return retry.RetryableError(fmt.Errorf("offsets of %s: the response lacks partitions", topic))
		}
		c.outages.succeeded(operation)
		return nil
	})
	return found, err
}

// PartitionLag is the position of a group in one partition.
type PartitionLag struct {
	Partition int
	Committed int64 // the next offset that the group will read; -1 when it has committed none
	First     int64 // the log start offset
	End       int64 // the high watermark
}

// Lag returns the number of offsets between the group's position and the end of the partition. It includes transaction
// markers and messages that compaction has removed, so it is an upper bound of the number of messages.
func (l PartitionLag) Lag() int64 {
	from := max(l.Committed, l.First)
	return max(l.End-from, 0)
}

// Lag returns the position of a group in each partition of a topic, in order. It does not join the group.
func (c *Cluster) Lag(ctx context.Context, topic, group string) ([]PartitionLag, error) {
	n, err := c.partitions(ctx, topic, requestTimeout)
	if err != nil {
		return nil, err
	}
	all := partitionIDs(n)
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
		case errors.Is(err, kafka.GroupIdNotFound): // some brokers return it for a group that never committed
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
	spans, err := c.spans(ctx, topic, all, requestTimeout) // afterwards: what is committed meanwhile is not beyond the end
	if err != nil {
		return nil, err
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

// retryable decides about a failed attempt of an operation, for retry.Do, and counts it in the outage log.
func (c *Cluster) retryable(operation string, err error) error {
	if err = c.causeOf(err); !retriable(err) {
		return err
	}
	c.outages.failed(operation, err)
	return retry.RetryableError(err)
}
