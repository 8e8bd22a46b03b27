package broker_test

import (
	"errors"
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

// handedOver runs a Scan and returns what it handed over.
func handedOver(t *testing.T, c *broker.Cluster) (found []pipeline.Message, ends map[int]int64, err error) {
	t.Helper()
	ends, err = c.Scan(within(t), topic, group, func(m pipeline.Message) error {
		found = append(found, m)
		return nil
	})
	return found, ends, err
}

// TestScan: every message comes once, in order, up to the ends; what is committed does not come again.
func TestScan(t *testing.T) {
	c := quiet(t, 2)
	publish(t, c, rows(0, 3000)) // more than are held at once
	late := false
	var seen []pipeline.Message
	ends, err := c.Scan(within(t), topic, group, func(m pipeline.Message) error {
		if !late {
			late = true
			publish(t, c, rows(3000, 100))
		}
		seen = append(seen, m)
		return nil
	})
	if err != nil || len(seen) != 3000 || len(counts(seen)) != 3000 {
		t.Fatalf("%d messages with %d rows came, want the 3000 that were there: %v", len(seen), len(counts(seen)), err)
	}
	if err := c.CommitScan(within(t), topic, group, ends); err != nil {
		t.Fatal(err)
	}
	if rest, _, err := handedOver(t, c); err != nil || len(rest) != 100 {
		t.Errorf("%d messages came then, want the 100 late ones: %v", len(rest), err)
	}
	stop := errors.New("enough")
	if _, err := c.Scan(within(t), topic, group, func(pipeline.Message) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// TestScanPassesOverMarkers: they take offsets, at the end of a partition, too.
func TestScanPassesOverMarkers(t *testing.T) {
	c := quiet(t, 1)
	for range 3 {
		transact(t, c, 2, true)
	}
	if found, ends, err := handedOver(t, c); err != nil || len(found) != 6 || ends[0] != 9 {
		t.Errorf("%d messages up to %v, want 6 up to 9: %v", len(found), ends, err)
	}
}

// TestScanPassesOverNothing: an empty answer is no proof that nothing is there, and what is not handed over must not be
// committed.
func TestScanPassesOverNothing(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 60))
	publish(t, c, rows(60, 40))
	withhold(fake, 0, 100, 2)
	if found, _, err := handedOver(t, c); err != nil || len(found) != 100 {
		t.Errorf("%d messages came, want 100: %v", len(found), err)
	}
}

// TestScanOfRecreatedTopic: an offset from another life of the topic would hide what is in it now.
func TestScanOfRecreatedTopic(t *testing.T) {
	c := quiet(t, 1)
	publish(t, c, rows(0, 10))
	commitAt(t, c, 50)
	_, _, err := handedOver(t, c)
	var ahead *broker.AheadError
	if !errors.As(err, &ahead) || ahead.Committed != 50 || ahead.End != 10 {
		t.Errorf("got %v", err)
	}
}
