package broker_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
)

func TestCreateTopics(t *testing.T) {
	fake, c := cluster(t, 1, 3)
	created, err := c.CreateTopics(within(t),
		broker.Topic{Name: topic, Partitions: 9}, broker.Topic{Name: "new", Partitions: 2})
	if err != nil || !slices.Equal(created, []string{"new"}) {
		t.Errorf("got %v, %v; want the topic new", created, err)
	}
	if found, err := c.Check(within(t), topic, "new"); err != nil || found[topic] != 3 || found["new"] != 2 {
		t.Errorf("Check: got %v, %v; want 3 partitions as before, and 2", found, err)
	}
	created, err = c.CreateTopics(within(t), broker.Topic{Name: "new", Partitions: 2})
	if err != nil || len(created) != 0 {
		t.Errorf("the second time: got %v, %v; want no topic", created, err)
	}
	fail := func(cause *kerr.Error) error {
		t.Helper()
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: cause, Count: 1})
		created, err := c.CreateTopics(within(t), broker.Topic{Name: "other", Partitions: 2, Replication: 3})
		if len(created) != 0 {
			t.Errorf("got %v, want no topic", created)
		}
		return err
	}
	var denied *broker.DeniedError
	err = fail(kerr.TopicAuthorizationFailed)
	if !errors.As(err, &denied) || denied.Needs != `Create on topic "other"` {
		t.Errorf("without permission: got %v, want a DeniedError that needs Create on topic other", err)
	}
	var failed *broker.TopicError
	err = fail(kerr.InvalidReplicationFactor)
	if !errors.As(err, &failed) || failed.Topic != "other" || failed.Replication != 3 {
		t.Errorf("too few brokers: got %v, want a TopicError of topic other with 3 replicas", err)
	}
}

// Requests about topics are retried for Options.Wait, as other requests are.
func TestTopicsAreRetriedForWait(t *testing.T) {
	fake, _ := cluster(t, 1, 1)
	c, err := broker.Connect(t.Context(), broker.Options{Brokers: fake.ListenAddrs(), Wait: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := c.TopicConfig(ctx, topic, "cleanup.policy"); !errors.Is(err, kafka.GroupCoordinatorNotAvailable) {
		t.Errorf("got %v, want %v", err, kafka.GroupCoordinatorNotAvailable)
	}
}
