package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

func TestPublishKeepsOrderAndContent(t *testing.T) {
	c := durable(t)
	// Recent enough for a broker's default retention, which goes by this time and not by when the messages came.
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	sent := rows(0, 20_000)
	for i := range sent {
		sent[i].Key = fmt.Appendf(nil, "key-%d", i%50)
		sent[i].Time = at
	}
	sent[7].Headers = []pipeline.Header{{Key: "reason", Value: []byte("no-key")}, {Key: "empty", Value: []byte{}}}
	p := broker.NewProducer(c, broker.ProducerOptions{BatchMessages: 700})
	if err := p.Publish(within(t), topic, sent); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(within(t), topic, nil); err != nil {
		t.Errorf("publishing no messages: got %v, want nil", err)
	}
	got := drained(t, c)
	if len(got) != len(sent) {
		t.Fatalf("got %d messages, want %d", len(got), len(sent))
	}
	last, home := map[string]int{}, map[string]int{}
	for _, m := range got {
		i, key := number(m), string(m.Key)
		if !bytes.Equal(m.Key, sent[i].Key) || !m.Time.Equal(at) || m.Topic != topic {
			t.Fatalf("row %d: got %+v, want key %s, time %v, topic %s", i, m, sent[i].Key, at, topic)
		}
		if before, ok := last[key]; ok && (i < before || m.Partition != home[key]) {
			t.Fatalf("key %s: got row %d in partition %d after row %d, want ascending rows in partition %d", key, i,
				m.Partition, before, home[key])
		}
		last[key], home[key] = i, m.Partition
		if i == 7 && (len(m.Headers) != 2 || m.Headers[0].Key != "reason" || string(m.Headers[0].Value) != "no-key") {
			t.Errorf("got headers %+v, want %+v", m.Headers, sent[7].Headers)
		}
	}
}

func TestPublishNulls(t *testing.T) {
	c := durable(t)
	publish(t, c, []pipeline.Message{{}, {Key: []byte{}, Value: []byte{}}, {}, {}, {}})
	var nulls, empties int
	for _, m := range drained(t, c) {
		switch {
		case m.Key == nil && m.Value == nil:
			nulls++
		case m.Key != nil && m.Value != nil && len(m.Key)+len(m.Value) == 0:
			empties++
		}
	}
	if nulls != 4 || empties != 1 {
		t.Errorf("got %d messages of nulls and %d of empty bytes, want 4 and 1", nulls, empties)
	}
}

// Another producer, with the Java client's default partitioning, writes the same keys to the same partitions.
func TestPublishAgreesWithOtherProducers(t *testing.T) {
	c := quiet(t, 7)
	theirs := stranger(t, c, kgo.DefaultProduceTopic(topic))
	ours := rows(0, 200)
	for _, m := range ours {
		if err := theirs.ProduceSync(within(t), &kgo.Record{Key: m.Key, Value: m.Value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, c, ours)
	home := map[int]int{}
	for _, m := range drained(t, c) {
		if p, ok := home[number(m)]; ok && p != m.Partition {
			t.Fatalf("key %s: got partitions %d and %d, want the same", m.Key, p, m.Partition)
		}
		home[number(m)] = m.Partition
	}
	if len(home) != 200 {
		t.Fatalf("got %d keys, want 200", len(home))
	}
}

// A produce request that timed out may have been applied: each message is there twice.
func TestPublishTimedOutMayDouble(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	fault := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.RequestTimedOut, Count: 1})
	publish(t, c, rows(0, 50))
	if fault.Hits() != 1 {
		t.Fatalf("got %d hits of the fault, want 1", fault.Hits())
	}
	for row, times := range counts(drained(t, c)) {
		if times != 2 {
			t.Errorf("row %d: got it %d times, want 2", row, times)
		}
	}
}

func TestPublishRetries(t *testing.T) {
	for name, inject := range map[string]func(t *testing.T, fake *kfake.Cluster){
		"not leader": func(t *testing.T, fake *kfake.Cluster) {
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: 2})
		},
		"leader not available": func(t *testing.T, fake *kfake.Cluster) {
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.LeaderNotAvailable, Count: 2})
		},
		"moved leader": func(t *testing.T, fake *kfake.Cluster) {
			for p := range int32(2) {
				if err := fake.MoveTopicPartition(topic, p, 1-fake.LeaderFor(topic, p)); err != nil {
					t.Fatal(err)
				}
			}
		},
		"dropped connection": func(t *testing.T, fake *kfake.Cluster) {
			fake.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
				return nil, errors.New("drop"), true
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake, c := cluster(t, 2, 2)
			publish(t, c, rows(0, 10)) // so that leaders are known
			inject(t, fake)
			publish(t, c, rows(10, 100))
			seen := counts(drained(t, c))
			if len(seen) != 110 {
				t.Errorf("got %d rows, want 110", len(seen))
			}
		})
	}
}

func TestPublishSplitsAndNamesTooLarge(t *testing.T) {
	c := quiet(t, 1)
	_, err := c.CreateTopics(within(t), broker.Topic{
		Name: "small", Partitions: 1, Replication: 1, Config: map[string]string{"max.message.bytes": "2000"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := broker.NewProducer(c, broker.ProducerOptions{})
	if err := p.Publish(within(t), "small", rows(0, 500)); err != nil {
		t.Fatalf("messages that fit one by one: got %v, want nil", err)
	}
	lags, err := c.Lag(within(t), "small", group)
	if err != nil || lags[0].End != 500 {
		t.Fatalf("got %+v, %v; want end 500", lags, err)
	}
	large := rows(0, 3)
	large[1] = pipeline.Message{Key: []byte("the-big-one"), Value: make([]byte, 3000)}
	err = p.Publish(within(t), "small", large)
	var tooLarge *broker.TooLargeError
	if !errors.As(err, &tooLarge) || tooLarge.Key != "the-big-one" || tooLarge.Size != 3011 {
		t.Errorf("got %v, want a TooLargeError of key the-big-one, 3011 bytes", err)
	}
}

// A message that is too large is written in the longest form that fits, to the partition of its key, and the other
// messages once.
func TestPublishShortens(t *testing.T) {
	c := quiet(t, 1)
	_, err := c.CreateTopics(within(t), broker.Topic{
		Name: "small", Partitions: 4, Replication: 1, Config: map[string]string{"max.message.bytes": "2000"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := broker.NewProducer(c, broker.ProducerOptions{Shorten: pipeline.TruncateDeadLetter})
	key := []byte("the-big-one")
	sent := rows(0, 20)
	sent[7] = pipeline.Message{Key: key, Value: bytes.Repeat([]byte("v"), 3000)}
	sent[11] = pipeline.Message{
		Key: bytes.Repeat([]byte("k"), 1<<20), Headers: []pipeline.Header{{Key: "h", Value: make([]byte, 1<<20)}},
	}
	if err := p.Publish(within(t), "small", sent); err != nil {
		t.Fatal(err)
	}
	got := map[string][]pipeline.Message{}
	_, err = c.Scan(within(t), "small", "none", func(m pipeline.Message) error {
		got[string(m.Key)] = append(got[string(m.Key)], m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 20 {
		t.Errorf("got %d keys, want 20", len(got))
	}
	for k, messages := range got {
		if len(messages) != 1 {
			t.Errorf("key %.40s: got %d messages, want 1", k, len(messages))
		}
	}
	short := got[string(key)][0]
	changelog := c.Changelog("small", 4)
	if n := len(short.Value); n < 1400 || short.Partition != changelog.Partition(string(key)) {
		t.Errorf("got %d bytes in partition %d, want at least 1400 in %d", n, short.Partition,
			changelog.Partition(string(key)))
	}
	never := broker.NewProducer(c, broker.ProducerOptions{
		Shorten: func(m pipeline.Message, _ int) (pipeline.Message, bool) { return m, true },
	})
	var tooLarge *broker.TooLargeError
	if err := never.Publish(within(t), "small", sent[7:8]); !errors.As(err, &tooLarge) || tooLarge.Size != 3011 {
		t.Errorf("got %v, want a TooLargeError of 3011 bytes, the size of the original", err)
	}
}

func TestPublishFailures(t *testing.T) {
	t.Run("missing topic", func(t *testing.T) {
		c := quiet(t, 1)
		err := broker.NewProducer(c, broker.ProducerOptions{}).Publish(within(t), "nowhere", rows(0, 1))
		var missing *broker.MissingTopicError
		if !errors.As(err, &missing) || missing.Topic != "nowhere" {
			t.Errorf("got %v, want a MissingTopicError of topic nowhere", err)
		}
	})
	t.Run("not authorized", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: 1})
		err := broker.NewProducer(c, broker.ProducerOptions{}).Publish(within(t), topic, rows(0, 1))
		if err == nil || !strings.Contains(err.Error(), "Topic Authorization Failed") {
			t.Errorf("got %v, want Topic Authorization Failed", err)
		}
	})
	t.Run("without a key to a compacted topic", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.InvalidRecord, Count: 1})
		err := broker.NewProducer(c, broker.ProducerOptions{}).Publish(within(t), topic, rows(0, 1))
		if !broker.SetUp(err) || !strings.Contains(err.Error(), "cleanup.policy") {
			t.Errorf("got %v, want an error of the set-up that names cleanup.policy", err)
		}
	})
	t.Run("by a wrong clock", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.InvalidTimestamp, Count: 1})
		err := broker.NewProducer(c, broker.ProducerOptions{}).Publish(within(t), topic, rows(0, 1))
		if !broker.SetUp(err) || !strings.Contains(err.Error(), "clock") {
			t.Errorf("got %v, want an error of the set-up that names the clock", err)
		}
	})
	t.Run("broker lost", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 1))
		fake.Close()
		p := broker.NewProducer(c, broker.ProducerOptions{Timeout: 200 * time.Millisecond})
		err := p.Publish(within(t), topic, rows(0, 1))
		if !errors.Is(err, broker.ErrBrokerLost) || !strings.Contains(err.Error(), c.Brokers()) {
			t.Errorf("got %v, want ErrBrokerLost that names %s", err, c.Brokers())
		}
	})
	t.Run("ctx", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 1))
		hit := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotEnoughReplicas, Count: -1})
		ctx, cancel := context.WithCancel(within(t))
		go func() {
			defer cancel()
			if err := hit.Wait(ctx, 1); err != nil {
				t.Error(err)
			}
		}()
		err := broker.NewProducer(c, broker.ProducerOptions{}).Publish(ctx, topic, rows(0, 1))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}
