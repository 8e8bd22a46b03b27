package broker_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
)

func TestCreateTopics(t *testing.T) {
	fake, c := cluster(t, 1, 3)
	made, err := c.CreateTopics(within(t), broker.Topic{Name: topic, Partitions: 9}, broker.Topic{Name: "new", Partitions: 2})
	if err != nil || !slices.Equal(made, []string{"new"}) {
		t.Errorf("made %v, %v", made, err)
	}
	if found, err := c.Check(within(t), topic, "new"); err != nil || found[topic] != 3 || found["new"] != 2 {
		t.Errorf("%v, %v", found, err)
	}
	if made, err := c.CreateTopics(within(t), broker.Topic{Name: "new", Partitions: 2}); err != nil || len(made) != 0 {
		t.Errorf("the second time: %v, %v", made, err)
	}
	refuse := func(cause *kerr.Error) error {
		t.Helper()
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: cause, Count: 1})
		made, err := c.CreateTopics(within(t), broker.Topic{Name: "other", Partitions: 2, Replication: 3})
		if len(made) != 0 {
			t.Errorf("made %v", made)
		}
		return err
	}
	var denied *broker.DeniedError
	if err := refuse(kerr.TopicAuthorizationFailed); !errors.As(err, &denied) || denied.Needs != `Create on topic "other"` {
		t.Errorf("without permission: %v", err)
	}
	var refused *broker.TopicError
	if err := refuse(kerr.InvalidReplicationFactor); !errors.As(err, &refused) || refused.Topic != "other" || refused.Replication != 3 {
		t.Errorf("too few brokers: %v", err)
	}
}
