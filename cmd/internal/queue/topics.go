package queue

import (
	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
)

// createdPartitions is the default of --create-partitions with a cluster: enough for a dozen consumers. More partitions
// cannot be added later without moving rows to other partitions.
const createdPartitions = 12

// topics describes the topics that --create-topics creates.
type topics struct {
	partitions, replication int
	deadLetters, results    string
}

func newTopics(q config.Queue) *topics {
	t := &topics{partitions: createdPartitions, replication: q.CreateReplication, deadLetters: q.DeadLetterTopic,
		results: q.ResultsTopic}
	if q.CreatePartitions > 0 {
		t.partitions = q.CreatePartitions
	}
	return t
}

// describe returns the settings of the named topics. Nothing is deleted by age, because a row that is deleted before it
// is settled has to be imported again. With three replicas or more, a write is acknowledged only when two have it:
// otherwise a single replica could acknowledge a row and be lost.
func (t *topics) describe(names []string) []broker.Topic {
	var all []broker.Topic
	for _, name := range names {
		topic := t.topic(name, t.partitions)
		switch name {
		case t.deadLetters:
			topic.Partitions = 1
		case t.results: // the latest result of each account
			topic.Config["cleanup.policy"] = "compact"
		}
		all = append(all, topic)
	}
	return all
}

// ledger returns the settings of the ledger topic, which keeps the latest record of each row. partitions is the number
// of partitions of the work topic.
func (t *topics) ledger(name string, partitions int) broker.Topic {
	topic := t.topic(name, partitions)
	topic.Config["cleanup.policy"] = "compact"
	return topic
}

func (t *topics) topic(name string, partitions int) broker.Topic {
	topic := broker.Topic{
		Name: name, Partitions: partitions, Replication: t.replication,
		Config: map[string]string{"retention.ms": "-1"},
	}
	if t.replication >= 3 {
		topic.Config["min.insync.replicas"] = "2"
	}
	return topic
}
