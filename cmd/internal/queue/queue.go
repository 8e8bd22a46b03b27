// Package queue opens the broker that the settings name: the embedded one under the data directory, or a cluster.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/pipeline"
)

// Queue is an open broker.
type Queue struct {
	cluster *broker.Cluster
	topics  *topics // what to create; nil: nothing
	close   func() error
	log     *slog.Logger
	wait    time.Duration // see config.Queue.BrokerWait
}

// Open opens the broker; Close it. Its errors carry the exit code.
func Open(ctx context.Context, q config.Queue, log *slog.Logger) (*Queue, error) {
	if !q.Embedded() {
		return connect(ctx, q, log)
	}
	if err := lockfile.CheckDir(q.DataDir); err != nil {
		return nil, err
	}
	partitions := broker.DefaultPartitions
	if q.CreatePartitions > 0 {
		partitions = q.CreatePartitions
	}
	topics := map[string]int{q.Topic: partitions, q.DeadLetterTopic: 1}
	if q.ResultsTopic != "" {
		topics[q.ResultsTopic] = partitions
	}
	embedded, err := broker.OpenEmbedded(ctx, broker.EmbeddedOptions{
		Dir:    filepath.Join(q.DataDir, "broker"),
		Topics: topics,
		Logger: log,
	})
	if err != nil {
		return nil, Coded(err)
	}
	return &Queue{cluster: embedded.Cluster, close: embedded.Close, log: log, wait: q.BrokerWait}, nil
}

func connect(ctx context.Context, q config.Queue, log *slog.Logger) (*Queue, error) {
	o := broker.Options{Brokers: q.Brokers, ClientID: q.Kafka.ClientID, Wait: q.BrokerWait, Logger: log}
	var err error
	if o.TLS, err = q.TLSConfig(); err != nil {
		return nil, err
	}
	if o.SASL, err = login(q); err != nil {
		return nil, err
	}
	if m := q.Kafka.Mechanism(); o.TLS == nil && (m == broker.Plain || m == broker.OAuthBearer) {
		log.Warn("without --kafka-tls, who listens on the way to the brokers learns the password or token",
			"mechanism", m)
	}
	cluster, err := broker.Connect(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, Coded(err)
	}
	opened := &Queue{cluster: cluster, close: cluster.Close, log: log, wait: q.BrokerWait}
	if q.CreateTopics {
		opened.topics = newTopics(q)
	}
	return opened, nil
}

func login(q config.Queue) (sasl broker.Mechanism, err error) {
	k := q.Kafka
	l := broker.Login{Mechanism: k.Mechanism(), Username: k.Username, TokenFile: k.TokenFile,
		InsecurePermissions: q.InsecurePermissions}
	if l.Mechanism == "" {
		return nil, nil
	}
	if l.Password, err = q.Password(os.Getenv); err != nil {
		return nil, err
	}
	sasl, err = l.SASL()
	var token *broker.TokenError
	switch {
	case errors.As(err, &token):
		return nil, &config.Error{Setting: "--kafka-token-file", Problem: "the file " + token.Err.Error()}
	case err != nil:
		return nil, &config.Error{Setting: "--kafka-sasl", Value: k.SASL, Problem: err.Error()}
	}
	return sasl, nil
}

// Close closes the broker; twice is fine.
func (q *Queue) Close() error { return q.close() }

// CheckTopics makes sure that the topics are there; with --create-topics it makes those that are not.
func (q *Queue) CheckTopics(ctx context.Context, names ...string) error {
	if q.topics != nil {
		if err := q.create(ctx, q.topics.describe(names)...); err != nil {
			return err
		}
	}
	_, err := q.check(ctx, names...)
	return err
}

func (q *Queue) create(ctx context.Context, topics ...broker.Topic) error {
	created, err := q.cluster.CreateTopics(ctx, topics...)
	for _, name := range created {
		q.log.Info("created a topic", "topic", name)
	}
	return Coded(err)
}

// check counts the partitions of topics that must be there.
func (q *Queue) check(ctx context.Context, names ...string) (map[string]int, error) {
	counts, err := q.cluster.Check(ctx, names...)
	var missing *broker.MissingTopicError
	if errors.As(err, &missing) {
		if q.topics == nil {
			err = fmt.Errorf("%w; --create-topics makes it", err)
		}
	}
	return counts, Coded(err)
}

// Publisher returns a producer.
func (q *Queue) Publisher() pipeline.Publisher {
	return broker.NewProducer(q.cluster, broker.ProducerOptions{Timeout: q.patience(), Logger: q.log})
}

// DeadLetters returns a producer of dead letters, which are truncated where the topic takes no message of their size.
func (q *Queue) DeadLetters() pipeline.Publisher {
	return broker.NewProducer(q.cluster, broker.ProducerOptions{
		Timeout: q.patience(), Shorten: pipeline.TruncateDeadLetter, Logger: q.log,
	})
}

// patience is how long a request of a run is tried again. A leader that moves and a connection that the broker closes
// are ordinary, so a few seconds are always given to them.
func (q *Queue) patience() time.Duration { return max(q.wait, 5*time.Second) }

// Consumer returns the consumer of the work topic.
func (q *Queue) Consumer(c *config.Consumer, drain bool, m broker.Membership) (*broker.Consumer, error) {
	return broker.NewConsumer(q.cluster, broker.ConsumerOptions{
		Topic: c.Topic, Group: c.Group, Drain: drain, MaxOutstanding: c.MaxOutstanding,
		Membership: m, StalledAfter: c.StalledAfter, LostAfter: q.patience(),
		SessionTimeout: c.SessionTimeout, HeartbeatInterval: c.HeartbeatInterval,
		Logger: q.log,
	})
}

// Peek returns the first messages that the group would take, without taking them.
func (q *Queue) Peek(ctx context.Context, topic, group string, n int) ([]pipeline.Message, error) {
	return q.cluster.Peek(ctx, topic, group, n)
}

// Scan hands over what a group has not committed of a topic; see broker.Cluster.Scan.
func (q *Queue) Scan(
	ctx context.Context, topic, group string, yield func(pipeline.Message) error,
) (map[int]int64, error) {
	return q.cluster.Scan(ctx, topic, group, yield)
}

// CommitScan commits how far a Scan came.
func (q *Queue) CommitScan(ctx context.Context, topic, group string, ends map[int]int64) error {
	return q.cluster.CommitScan(ctx, topic, group, ends)
}

// Lag returns how far the group stands behind in each partition of the topic.
func (q *Queue) Lag(ctx context.Context, topic, group string) ([]broker.PartitionLag, error) {
	return q.cluster.Lag(ctx, topic, group)
}
