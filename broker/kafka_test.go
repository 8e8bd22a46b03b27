//go:build kafka

package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/internal/kafkatest"
	"github.com/purser-onboard/purser/pipeline"
)

// TestApacheKafka runs the package's tests that inject no faults, and some more, against Apache Kafka.
func TestApacheKafka(t *testing.T) {
	t.Run("4", func(t *testing.T) {
		k := kafkatest.Start(t, kafkatest.V4, 1)
		onKafka(t, k, packageTests())
		t.Run("missing topic", func(t *testing.T) { testMissingTopic(t, k) })
		t.Run("create topics", func(t *testing.T) { testCreateTopics(t, k) })
		t.Run("compacted topic", func(t *testing.T) { testCompacted(t, k) })
		t.Run("aborted transactions", func(t *testing.T) { testAborted(t, k) })
		t.Run("logins", func(t *testing.T) { testLogins(t, k) })
		t.Run("TLS", func(t *testing.T) { testTLS(t, k) })
		t.Run("permissions", func(t *testing.T) { testPermissions(t, k) })
		t.Run("restart", func(t *testing.T) { testRestart(t, k) })
	})
	t.Run("3.9", func(t *testing.T) {
		k := kafkatest.Start(t, kafkatest.V39, 1)
		tests := packageTests()
		onKafka(t, k, map[string]func(*testing.T){
			"order and content": tests["order and content"], "drain": tests["drain"], "rebalance": tests["rebalance"],
			"markers": tests["markers"], "lag": tests["lag"],
		})
		t.Run("create topics", func(t *testing.T) { testCreateTopics(t, k) })
		t.Run("logins", func(t *testing.T) { testLogins(t, k) })
		t.Run("restart", func(t *testing.T) { testRestart(t, k) })
	})
}

func packageTests() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"order and content": TestPublishKeepsOrderAndContent,
		"nulls":             TestPublishNulls,
		"partitioning":      TestPublishAgreesWithOtherProducers,
		"too large":         TestPublishSplitsAndNamesTooLarge,
		"drain":             TestDrain,
		"settled prefix":    TestOnlySettledPrefixIsCommitted,
		"defer":             TestDefer,
		"outstanding":       TestOutstandingIsBounded,
		"handler error":     TestHandlerErrorIsReturned,
		"retention":         TestLostToRetention,
		"lag":               TestLag,
		"peek":              TestPeek,
		"scan":              TestScan,
		"scan of markers":   TestScanPassesOverMarkers,
		"recreated topic":   TestScanOfRecreatedTopic,
		"rebalance":         TestRebalance,
		"recreated in use":  TestRecreatedTopic,
		"bounded release":   TestReleaseIsBounded,
		"markers":           TestMarkersAreNotMessages,
		"changelog":         TestChangelog,
	}
}

func onKafka(t *testing.T, k *kafkatest.Cluster, tests map[string]func(*testing.T)) {
	elsewhere = func(t testing.TB, partitions int) *broker.Cluster { return fresh(t, k, partitions) }
	defer func() { elsewhere = nil }()
	for name, test := range tests {
		t.Run(name, test)
	}
}

func connect(t testing.TB, o broker.Options) *broker.Cluster {
	t.Helper()
	c, err := broker.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// fresh recreates the topic and deletes the group's offsets.
func fresh(t testing.TB, k *kafkatest.Cluster, partitions int) *broker.Cluster {
	t.Helper()
	c := connect(t, broker.Options{Brokers: k.Addrs()})
	client := k.Admin(t)
	if _, err := client.DeleteTopics(within(t), &kafka.DeleteTopicsRequest{Topics: []string{topic, "small"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old topic to go", func() bool {
		_, err := c.Check(within(t), topic)
		return errors.As(err, new(*broker.MissingTopicError))
	})
	eventually(t, "the group's coordinator", func() bool {
		res, err := client.DeleteGroups(within(t), &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
		if err != nil {
			return false
		}
		err = res.Errors[group]
		return err == nil || errors.Is(err, kafka.GroupIdNotFound)
	})
	if _, err := c.CreateTopics(within(t), broker.Topic{Name: topic, Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	return c
}

func testMissingTopic(t *testing.T, k *kafkatest.Cluster) {
	c := fresh(t, k, 1)
	var missing *broker.MissingTopicError
	err := run(t, consumer(t, c, func(o *broker.ConsumerOptions) { o.Topic = "nowhere" }), new(sink))
	if !errors.As(err, &missing) {
		t.Errorf("Run: got %v, want a MissingTopicError", err)
	}
	err = broker.NewProducer(c, broker.ProducerOptions{}).Publish(within(t), "nowhere", rows(0, 1))
	if !errors.As(err, &missing) {
		t.Errorf("Publish: got %v, want a MissingTopicError", err)
	}
	if _, err := c.Lag(within(t), "nowhere", group); !errors.As(err, &missing) {
		t.Errorf("Lag: got %v, want a MissingTopicError", err)
	}
	// The broker creates a topic that a client asks for by name.
	if _, err := c.Check(within(t), "nowhere"); !errors.As(err, &missing) {
		t.Errorf("Check: got %v, want a MissingTopicError: none of the requests may create the topic", err)
	}
}

func testCreateTopics(t *testing.T, k *kafkatest.Cluster) {
	c := fresh(t, k, 2)
	created, err := c.CreateTopics(within(t),
		broker.Topic{Name: topic, Partitions: 7},
		broker.Topic{Name: "created", Partitions: 5, Replication: 1, Config: map[string]string{"retention.ms": "-1"}})
	if err != nil || !slices.Equal(created, []string{"created"}) {
		t.Errorf("got %v, %v; want the topic created", created, err)
	}
	found, err := c.Check(within(t), topic, "created")
	if err != nil || found[topic] != 2 || found["created"] != 5 {
		t.Errorf("Check: got %v, %v; want 2 partitions as before, and 5", found, err)
	}
	res, err := k.Admin(t).DescribeConfigs(within(t), &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: "created", ConfigNames: []string{"retention.ms"},
		}},
	})
	if err != nil || res.Resources[0].ConfigEntries[0].ConfigValue != "-1" {
		t.Errorf("got %+v, %v; want retention.ms=-1", res, err)
	}
	_, err = c.CreateTopics(within(t), broker.Topic{Name: "copies", Partitions: 1, Replication: 3})
	var failed *broker.TopicError
	if !errors.As(err, &failed) || failed.Topic != "copies" || !strings.Contains(err.Error(), "replication factor 3") {
		t.Errorf("more replicas than brokers: got %v, want a TopicError with replication factor 3", err)
	}
}

// testCompacted reads a topic whose older messages, and whose last offsets, compaction has removed.
func testCompacted(t *testing.T, k *kafkatest.Cluster) {
	c := fresh(t, k, 1)
	const compacted = "compacted"
	_, err := c.CreateTopics(within(t), broker.Topic{Name: compacted, Partitions: 1, Config: map[string]string{
		"cleanup.policy": "compact", "segment.ms": "50", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	p := broker.NewProducer(c, broker.ProducerOptions{BatchMessages: 10})
	sent := 0
	write := func() {
		batch := rows(sent, 10)
		for i := range batch {
			batch[i].Key = fmt.Appendf(nil, "key-%d", i)
		}
		if sent >= 100 { // tombstones of a key without messages
			batch = []pipeline.Message{{Key: []byte("gone")}}
		}
		if err := p.Publish(within(t), compacted, batch); err != nil {
			t.Fatal(err)
		}
		sent += len(batch)
	}
	for range 10 {
		write()
	}
	read := func() (keys map[string]int, count int) {
		s := new(sink)
		q := consumer(t, c, func(o *broker.ConsumerOptions) {
			o.Topic, o.Group, o.Drain, o.MaxBytes = compacted, fmt.Sprint("look-", sent), true, 1
		})
		if err := run(t, q, s); err != nil {
			t.Fatal(err)
		}
		keys = map[string]int{}
		for _, m := range s.all() {
			if m.Value != nil {
				keys[string(m.Key)] = number(m)
			}
		}
		return keys, len(s.all())
	}
	eventually(t, "compaction", func() bool {
		write() // a new message closes the segment before it, which can then be compacted
		keys, count := read()
		if len(keys) != 10 {
			t.Fatalf("got %d keys, want 10", len(keys))
		}
		for key, n := range keys {
			if n < 90 {
				t.Fatalf("%s: got row %d, want its latest, at least 90", key, n)
			}
		}
		return count < 30
	})
}

// testAborted reads past aborted transactions. With isolation level read_uncommitted their messages are delivered (KIP-98),
// and their rows are validated like others.
func testAborted(t *testing.T, k *kafkatest.Cluster) {
	c := fresh(t, k, 1)
	transact(t, c, 5, false)
	transact(t, c, 5, true)
	s := new(sink)
	if err := run(t, consumer(t, c, drain), s); err != nil {
		t.Fatal(err)
	}
	if n := len(s.all()); n != 10 {
		t.Errorf("got %d messages, want 10", n)
	}
	if at := committed(t, c); at[0] != 12 {
		t.Errorf("got committed offset %d, want 12: ten messages and two markers", at[0])
	}
}

// testRestart kills the broker while a consumer reads and a producer writes, and starts it again: all rows come.
func testRestart(t *testing.T, k *kafkatest.Cluster) {
	for _, tt := range []struct {
		name string
		stop func(int)
	}{{"killed", k.Kill}, {"stopped", k.Stop}} {
		if tt.name == "stopped" && k.Version != kafkatest.V4 {
			continue // it takes seconds and tests nothing new
		}
		t.Run(tt.name, func(t *testing.T) {
			c := fresh(t, k, 4)
			survive(t, c, 0, func() {
				tt.stop(1)
				k.Restart(t, 1)
			})
		})
	}
}

// survive writes a thousand rows, from a number on, and drains them. happens runs while they are in flight and a thousand
// more are being written. After a second drain, every row has been delivered.
func survive(t *testing.T, c *broker.Cluster, from int, happens func()) {
	t.Helper()
	publish(t, c, rows(from, 1000))
	// Less than the session timeout: the group does not wait for a stale member.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	var once sync.Once
	begun, over := make(chan struct{}), make(chan struct{})
	s := &sink{take: func(ctx context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		once.Do(func() { close(begun) })
		select { // no message is acknowledged before happens returns
		case <-over:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for _, m := range batch {
			ack(m)
		}
		return nil
	}}
	done := make(chan error, 1)
	go func() {
		done <- consumer(t, c, func(o *broker.ConsumerOptions) {
			o.Drain, o.MaxBytes, o.MaxBatch = true, 4000, 50
			o.SessionTimeout, o.RebalanceTimeout = time.Minute, time.Minute
		}).Run(ctx, s)
	}()
	recv(t, "the first rows", begun)
	wrote := make(chan error, 1)
	go func() {
		wrote <- broker.NewProducer(c, broker.ProducerOptions{BatchMessages: 50}).Publish(ctx, topic, rows(from+1000, 1000))
	}()
	began := time.Now()
	happens()
	t.Logf("it took %v", time.Since(began).Round(time.Millisecond))
	close(over)
	if err := <-wrote; err != nil {
		t.Fatalf("Publish: got %v, want nil", err)
	}
	t.Logf("written %v after it began", time.Since(began).Round(time.Millisecond))
	if err := <-done; err != nil || ctx.Err() != nil {
		t.Fatalf("Run: got %v and %v, want nil within 50s", err, ctx.Err())
	}
	t.Logf("read %v after it began", time.Since(began).Round(time.Millisecond))
	seen := counts(append(s.all(), drained(t, c)...))
	missing, again := 0, 0
	for row := from; row < from+2000; row++ {
		switch n := seen[row]; n {
		case 0:
			missing++
		default:
			again += n - 1
		}
	}
	if missing > 0 {
		t.Errorf("got %d of 2000 rows, want all", 2000-missing)
	}
	t.Logf("%d deliveries were repeated", again)
}

// TestApacheKafkaLeaders takes leaders away from a cluster of three.
func TestApacheKafkaLeaders(t *testing.T) {
	k := kafkatest.Start(t, kafkatest.V4, 3)
	c := connect(t, broker.Options{Brokers: k.Addrs()})
	_, err := c.CreateTopics(within(t), broker.Topic{
		Name: topic, Partitions: 6, Replication: 3, Config: map[string]string{"min.insync.replicas": "2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	rowsThere := 0
	for _, tt := range []struct {
		name string
		stop func(int)
	}{{"killed", k.Kill}, {"stopped", k.Stop}} {
		t.Run(tt.name, func(t *testing.T) {
			leader := 0
			eventually(t, "a leader", func() bool {
				leader = k.Leader(t, topic, 0)
				return leader > 0
			})
			survive(t, c, rowsThere, func() {
				tt.stop(leader)
				eventually(t, "another leader", func() bool {
					now := k.Leader(t, topic, 0)
					return now != leader && now > 0
				})
			})
			rowsThere += 2000
			k.Restart(t, leader)
			eventually(t, "all copies", func() bool {
				for _, p := range k.Partitions(t, topic) {
					if len(p.Isr) < 3 {
						return false
					}
				}
				return true
			})
		})
	}
	t.Run("too few copies", func(t *testing.T) {
		k.Kill(2)
		k.Kill(3)
		p := broker.NewProducer(c, broker.ProducerOptions{Timeout: 3 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := p.Publish(ctx, topic, rows(0, 10))
		if err == nil {
			t.Error("got nil, want an error: two of three brokers must have the messages")
		}
		t.Logf("without its majority: %v", err)
	})
}
