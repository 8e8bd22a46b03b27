package broker_test

import (
	"fmt"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// TestPeek: what the group would take next is shown, up to the number asked for, and nothing moves.
func TestPeek(t *testing.T) {
	b := open(t, t.TempDir())
	producer := broker.NewProducer(b.Cluster, broker.ProducerOptions{})
	var messages []pipeline.Message
	for i := range 30 {
		messages = append(messages, pipeline.Message{Key: fmt.Appendf(nil, "key %d", i), Value: fmt.Appendf(nil, "value %d", i)})
	}
	if err := producer.Publish(t.Context(), topic, messages); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 12, 30, 100} {
		found, err := b.Peek(t.Context(), topic, "purser", n)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != min(n, 30) {
			t.Errorf("%d of %d messages", len(found), n)
		}
		for _, m := range found {
			if len(m.Key) == 0 || len(m.Value) == 0 {
				t.Errorf("%+v", m)
			}
		}
	}
	lag, err := b.Lag(t.Context(), topic, "purser")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lag {
		if l.Committed != -1 {
			t.Errorf("looking has committed: %+v", l)
		}
	}
}
