package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/sethvargo/go-retry"
)

// Topic describes a topic for CreateTopics.
type Topic struct {
	Name        string
	Partitions  int               // at least 1
	Replication int               // replicas of each partition; 0: the broker's default.replication.factor
	Config      map[string]string // the topic's own settings, "retention.ms": "-1"; nil: the broker's
}

// CreateTopics creates the topics that do not exist and returns their names. An existing topic is not changed, even if
// its partitions differ. It is not an error if another process creates the same topic at the same time. It blocks until
// the broker knows the new topics. Its errors are *TopicError, *DeniedError, ctx's, or those of Check.
func (c *Cluster) CreateTopics(ctx context.Context, topics ...Topic) (created []string, err error) {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	var there map[string]int
	err = c.untilAnswered(ctx, func(ctx context.Context) error {
		there, _, err = c.listTopics(ctx, names...)
		return err
	})
	if err != nil {
		return nil, err
	}
	var missing []kafka.TopicConfig
	for _, t := range topics {
		if there[t.Name] == 0 {
			missing = append(missing, t.config())
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	var res *kafka.CreateTopicsResponse
	err = retry.Do(ctx, backoff(c.patience()), func(ctx context.Context) (err error) {
		res, err = c.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: missing})
		return again(err)
	})
	if err != nil {
		return nil, fmt.Errorf("creating topics: %w", err)
	}
	for _, t := range missing {
		switch err := res.Errors[t.Topic]; {
		case err == nil:
			created = append(created, t.Topic)
		case errors.Is(err, kafka.TopicAlreadyExists):
		default:
			err = denied(err, fmt.Sprintf("create topic %q", t.Topic), fmt.Sprintf("Create on topic %q", t.Topic))
			if !errors.As(err, new(*DeniedError)) {
				err = &TopicError{
					Topic: t.Topic, Partitions: t.NumPartitions, Replication: max(t.ReplicationFactor, 0), Err: err,
				}
			}
			return created, err
		}
	}
	return created, retry.Do(ctx, backoff(requestTimeout), func(ctx context.Context) error {
		there, broker, err := c.listTopics(ctx, names...)
		if err != nil {
			return err
		}
		for _, t := range missing {
			if there[t.Topic] == 0 {
				return retry.RetryableError(&MissingTopicError{Topic: t.Topic, Broker: broker})
			}
		}
		return nil
	})
}

// TopicConfig returns the effective settings of a topic: the topic's own, or the broker's defaults. Its errors are
// *DeniedError, ctx's, or the broker's.
func (c *Cluster) TopicConfig(ctx context.Context, topic string, names ...string) (map[string]string, error) {
	var res *kafka.DescribeConfigsResponse
	err := retry.Do(ctx, backoff(c.patience()), func(ctx context.Context) (err error) {
		res, err = c.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{{
				ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: names,
			}},
		})
		if err == nil && len(res.Resources) == 1 {
			err = res.Resources[0].Error
		}
		return again(err)
	})
	switch {
	case err != nil:
		err = denied(err, fmt.Sprintf("describe the settings of topic %q", topic),
			fmt.Sprintf("DescribeConfigs on topic %q", topic))
		return nil, fmt.Errorf("settings of topic %q: %w", topic, err)
	case len(res.Resources) != 1:
		return nil, fmt.Errorf("settings of topic %q: got a response for %d topics, want 1", topic, len(res.Resources))
	}
	settings := make(map[string]string, len(names))
	for _, e := range res.Resources[0].ConfigEntries {
		settings[e.ConfigName] = e.ConfigValue
	}
	return settings, nil
}

// patience returns how long requests about topics are retried: Options.Wait, or requestTimeout if it is 0.
func (c *Cluster) patience() time.Duration { return cmp.Or(c.wait, requestTimeout) }

// again marks an error for a retry, if another attempt may succeed: the library may know no broker for a moment.
func again(err error) error {
	if retriable(err) {
		return retry.RetryableError(err)
	}
	return err
}

func (t Topic) config() kafka.TopicConfig {
	config := kafka.TopicConfig{Topic: t.Name, NumPartitions: t.Partitions, ReplicationFactor: t.Replication}
	if t.Replication == 0 {
		config.ReplicationFactor = -1 // KIP-464: brokers from 2.4 on use their default
	}
	for _, name := range slices.Sorted(maps.Keys(t.Config)) {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: t.Config[name]})
	}
	return config
}
