// Package queue opens the broker that the settings name: the embedded one under the data directory, or a cluster.
package queue

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline"
)

// Queue is an open broker.
type Queue struct {
	cluster *broker.Cluster
	close   func() error
	log     *slog.Logger
}

// Open opens the broker; Close it. Its errors carry the exit code.
func Open(ctx context.Context, q config.Queue, log *slog.Logger) (*Queue, error) {
	if !q.Embedded() {
		cluster, err := broker.Connect(ctx, broker.Options{Brokers: q.Brokers, Logger: log})
		if err != nil {
			return nil, console.Coded(console.ExitUnfinished, err)
		}
		return &Queue{cluster: cluster, close: cluster.Close, log: log}, nil
	}
	embedded, err := broker.OpenEmbedded(ctx, broker.EmbeddedOptions{
		Dir:    filepath.Join(q.DataDir, "broker"),
		Topics: map[string]int{q.Topic: broker.DefaultPartitions, q.DeadLetterTopic: 1},
		Logger: log,
	})
	if err != nil {
		return nil, console.Coded(console.ExitUnfinished, err)
	}
	return &Queue{cluster: embedded.Cluster, close: embedded.Close, log: log}, nil
}

// Close closes the broker; twice is fine.
func (q *Queue) Close() error { return q.close() }

// CheckTopics makes sure that the topics are there.
func (q *Queue) CheckTopics(ctx context.Context, topics ...string) error {
	_, err := q.cluster.Check(ctx, topics...)
	var missing *broker.MissingTopicError
	if errors.As(err, &missing) {
		return console.Coded(console.ExitUsage, err)
	}
	return err
}

// Publisher returns a producer.
func (q *Queue) Publisher() pipeline.Publisher {
	return broker.NewProducer(q.cluster, broker.ProducerOptions{Logger: q.log})
}

// Consumer returns the consumer of the work topic.
func (q *Queue) Consumer(c *config.Consumer, drain bool) (*broker.Consumer, error) {
	return broker.NewConsumer(q.cluster, broker.ConsumerOptions{
		Topic: c.Topic, Group: c.Group, Drain: drain, MaxOutstanding: c.MaxOutstanding, Logger: q.log,
	})
}

// Peek returns the first messages that the group would take, without taking them.
func (q *Queue) Peek(ctx context.Context, topic, group string, n int) ([]pipeline.Message, error) {
	return q.cluster.Peek(ctx, topic, group, n)
}

// Lag returns how far the group stands behind in each partition of the topic.
func (q *Queue) Lag(ctx context.Context, topic, group string) ([]broker.PartitionLag, error) {
	return q.cluster.Lag(ctx, topic, group)
}
