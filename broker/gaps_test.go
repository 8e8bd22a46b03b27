package broker_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/purser-onboard/purser/broker"
)

// transact writes rows to partition 0 in a transaction of another producer, and waits for its marker. A broker answers
// that the transaction has ended before the marker is there.
func transact(t *testing.T, c *broker.Cluster, n int, commit bool) {
	t.Helper()
	end := func() int64 {
		lags, err := c.Lag(within(t), topic, group)
		if err != nil {
			t.Fatal(err)
		}
		return lags[0].End
	}
	marked := end() + int64(n) + 1
	theirs := stranger(t, c, kgo.DefaultProduceTopic(topic), kgo.TransactionalID("other"))
	if err := theirs.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, m := range rows(0, n) {
		if err := theirs.ProduceSync(within(t), &kgo.Record{Key: m.Key, Value: m.Value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := theirs.EndTransaction(within(t), kgo.TransactionEndTry(commit)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the marker", func() bool { return end() == marked })
}

// Transaction markers have offsets, but are not messages.
func TestMarkersAreNotMessages(t *testing.T) {
	c := quiet(t, 1)
	for range 5 {
		transact(t, c, 3, true)
	}
	s := new(sink)
	q := consumer(t, c, func(o *broker.ConsumerOptions) { o.Drain, o.MaxBytes = true, 1 })
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	if n := len(s.all()); n != 15 {
		t.Errorf("got %d messages, want 15", n)
	}
	if at := committed(t, c); at[0] != 20 {
		t.Errorf("got committed offset %d, want 20: fifteen messages and five markers", at[0])
	}
}

// A compacted topic has offsets without messages, also at its end.
func TestCompactedTopic(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	const compacted = "compacted"
	err := fake.CreateTopic(compacted, 1, map[string]string{"cleanup.policy": "compact", "segment.bytes": "100"})
	if err != nil {
		t.Fatal(err)
	}
	p := broker.NewProducer(c, broker.ProducerOptions{BatchMessages: 10})
	for i := range 10 {
		batch := rows(10*i, 10)
		for j := range batch {
			batch[j].Key = fmt.Appendf(nil, "key-%d", j%(i+1))
		}
		if err := p.Publish(within(t), compacted, batch); err != nil {
			t.Fatal(err)
		}
	}
	fake.Compact()
	s := new(sink)
	q := consumer(t, c, func(o *broker.ConsumerOptions) { o.Topic, o.Drain, o.MaxBytes = compacted, true, 1 })
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	latest := map[string]int{}
	for _, m := range s.all() {
		latest[string(m.Key)] = number(m)
	}
	if len(latest) != 10 || len(s.all()) == 100 {
		t.Errorf("got %d messages with %d keys, want fewer than 100 with 10 keys", len(s.all()), len(latest))
	}
	lags, err := c.Lag(within(t), compacted, group)
	if err != nil || lags[0].Lag() != 0 {
		t.Errorf("got %+v, %v; want no lag", lags, err)
	}
}
