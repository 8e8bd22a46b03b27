// Package queue opens the broker that the settings name: the embedded one under the data directory, or a cluster.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/pipeline"
)

// Queue is an open broker. The errors of Cluster's own methods carry no exit code.
type Queue struct {
	*broker.Cluster
	topics *topics  // the topics to create; nil: none
	keeps  []string // the topics that must keep every message
	close  func() error
	log    *slog.Logger
	wait   time.Duration // see config.Queue.BrokerWait
}

// Open opens the broker for use with the topics, which need not exist. The caller must Close it. With a cluster it
// blocks for up to q.BrokerWait while no broker answers. If a run has opened the embedded broker, it is used through
// that process. Its errors carry the exit code.
func Open(ctx context.Context, q config.Queue, log *slog.Logger, topics ...string) (*Queue, error) {
	return open(ctx, q, broker.EmbeddedOptions{Join: true}, log, topics)
}

// Serve is Open for a run: other processes may use its embedded broker.
func Serve(ctx context.Context, q config.Queue, log *slog.Logger, topics ...string) (*Queue, error) {
	return open(ctx, q, broker.EmbeddedOptions{Serve: true}, log, topics)
}

func open(
	ctx context.Context, q config.Queue, o broker.EmbeddedOptions, log *slog.Logger, topics []string,
) (*Queue, error) {
	if !q.Embedded() {
		return connect(ctx, q, log, topics)
	}
	if err := lockfile.CheckDir(q.DataDir); err != nil {
		return nil, err
	}
	partitions := broker.DefaultPartitions
	if q.CreatePartitions > 0 {
		partitions = q.CreatePartitions
	}
	o.Dir, o.Wait, o.Logger = filepath.Join(q.DataDir, "broker"), q.BrokerWait, log
	o.Topics = map[string]int{q.Topic: partitions, q.DeadLetterTopic: 1}
	if q.ResultsTopic != "" {
		o.Topics[q.ResultsTopic] = partitions
	}
	o.Discard = []string{q.Topic} // the ledger has what became of the rows that were read
	embedded, err := broker.OpenEmbedded(ctx, o)
	if err != nil {
		return nil, Coded(err)
	}
	return &Queue{Cluster: embedded.Cluster, close: embedded.Close, log: log, wait: q.BrokerWait}, nil
}

func connect(ctx context.Context, q config.Queue, log *slog.Logger, topics []string) (*Queue, error) {
	o := broker.Options{Brokers: q.Brokers, Topics: topics, ClientID: q.Kafka.ClientID, Wait: q.BrokerWait, Logger: log}
	var err error
	if o.TLS, err = q.TLSConfig(); err != nil {
		return nil, err
	}
	if o.SASL, err = login(q); err != nil {
		return nil, err
	}
	if m := q.Kafka.Mechanism(); o.TLS == nil && (m == broker.Plain || m == broker.OAuthBearer) {
		log.Warn("without --kafka-tls the password or token is sent in clear text", "mechanism", m)
	}
	cluster, err := broker.Connect(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, Coded(err)
	}
	opened := &Queue{Cluster: cluster, close: cluster.Close, log: log, wait: q.BrokerWait,
		keeps: []string{q.Topic, q.DeadLetterTopic}}
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

// Close closes the broker. It may be called more than once.
func (q *Queue) Close() error { return q.close() }

// CheckTopics returns an error when a topic does not exist; with --create-topics it creates missing topics first. It
// warns of a compacted topic of rows or dead letters.
func (q *Queue) CheckTopics(ctx context.Context, names ...string) error {
	if q.topics != nil {
		if err := q.create(ctx, q.topics.describe(names)...); err != nil {
			return err
		}
	}
	if _, err := q.check(ctx, names...); err != nil {
		return err
	}
	for _, name := range names {
		if slices.Contains(q.keeps, name) {
			q.warnOfCompaction(ctx, name)
		}
	}
	return nil
}

// warnOfCompaction warns if a topic of rows or dead letters is compacted: of two rows of one account, or dead letters
// with one key, the first would disappear without a word. Without the permission DescribeConfigs it is silent.
func (q *Queue) warnOfCompaction(ctx context.Context, topic string) {
	settings, err := q.TopicConfig(ctx, topic, "cleanup.policy")
	switch policy := settings["cleanup.policy"]; {
	case err != nil:
		q.log.Debug("cannot verify the cleanup.policy of a topic", "error", err)
	case strings.Contains(policy, "compact"):
		q.log.Warn("messages may be lost before they are read, because the topic is compacted: of two rows of one "+
			"account the first would be lost; set cleanup.policy=delete", "topic", topic, "cleanup.policy", policy)
	}
}

func (q *Queue) create(ctx context.Context, topics ...broker.Topic) error {
	created, err := q.CreateTopics(ctx, topics...)
	for _, name := range created {
		q.log.Info("created a topic", "topic", name)
	}
	return Coded(err)
}

// check returns the number of partitions of each topic, and an error when one does not exist.
func (q *Queue) check(ctx context.Context, names ...string) (map[string]int, error) {
	counts, err := q.Check(ctx, names...)
	if errors.As(err, new(*broker.MissingTopicError)) && q.topics == nil {
		err = fmt.Errorf("%w; --create-topics creates it", err)
	}
	return counts, Coded(err)
}

// Publisher returns a producer for rows and results.
func (q *Queue) Publisher() pipeline.Publisher {
	return broker.NewProducer(q.Cluster, broker.ProducerOptions{Timeout: q.patience(), Logger: q.log})
}

// DeadLetters returns a producer of dead letters, which are truncated when they are larger than the topic accepts.
func (q *Queue) DeadLetters() pipeline.Publisher {
	return broker.NewProducer(q.Cluster, broker.ProducerOptions{
		Timeout: q.patience(), Shorten: pipeline.TruncateDeadLetter, Logger: q.log,
	})
}

// patience returns how long a request of a run is retried: --broker-wait, but at least 5 s, because leaders move and
// brokers close connections in normal operation.
func (q *Queue) patience() time.Duration { return max(q.wait, 5*time.Second) }

// Consumer returns the consumer of the work topic.
func (q *Queue) Consumer(c *config.Consumer, drain bool, m broker.Membership) (*broker.Consumer, error) {
	return broker.NewConsumer(q.Cluster, broker.ConsumerOptions{
		Topic: c.Topic, Group: c.Group, Drain: drain, MaxOutstanding: c.MaxOutstanding,
		Membership: m, StalledAfter: c.StalledAfter, LostAfter: q.patience(),
		SessionTimeout: c.SessionTimeout, HeartbeatInterval: c.HeartbeatInterval,
		Logger: q.log,
	})
}
