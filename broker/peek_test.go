package broker_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// TestPeek: Peek returns the messages that the group would read next, up to n, and commits nothing.
func TestPeek(t *testing.T) {
	b := open(t, t.TempDir())
	producer := broker.NewProducer(b.Cluster, broker.ProducerOptions{})
	var messages []pipeline.Message
	for i := range 30 {
		messages = append(messages, pipeline.Message{
			Key: fmt.Appendf(nil, "key %d", i), Value: fmt.Appendf(nil, "value %d", i),
		})
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
			t.Errorf("Peek of %d messages: got %d, want %d", n, len(found), min(n, 30))
		}
		for _, m := range found {
			if len(m.Key) == 0 || len(m.Value) == 0 {
				t.Errorf("got %+v, want a key and a value", m)
			}
		}
	}
	lag, err := b.Lag(t.Context(), topic, "purser")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lag {
		if l.Committed != -1 {
			t.Errorf("got %+v, want no committed offset", l)
		}
	}
}

// scanAll runs a Scan and returns its messages.
func scanAll(t *testing.T, c *broker.Cluster) (found []pipeline.Message, ends map[int]int64, err error) {
	t.Helper()
	ends, err = c.Scan(within(t), topic, group, func(m pipeline.Message) error {
		found = append(found, m)
		return nil
	})
	return found, ends, err
}

// TestScan: Scan returns every message once, up to the ends at its start, and no committed message.
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
		t.Fatalf("got %d messages of %d rows, %v; want the 3000 at the start", len(seen), len(counts(seen)), err)
	}
	if err := c.CommitScan(within(t), topic, group, ends); err != nil {
		t.Fatal(err)
	}
	if rest, _, err := scanAll(t, c); err != nil || len(rest) != 100 {
		t.Errorf("after CommitScan: got %d messages, %v; want the 100 late messages", len(rest), err)
	}
	stop := errors.New("enough")
	if _, err := c.Scan(within(t), topic, group, func(pipeline.Message) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want yield's error", err)
	}
}

// TestScanPassesOverMarkers: transaction markers have offsets, also at the end of a partition.
func TestScanPassesOverMarkers(t *testing.T) {
	c := quiet(t, 1)
	for range 3 {
		transact(t, c, 2, true)
	}
	if found, ends, err := scanAll(t, c); err != nil || len(found) != 6 || ends[0] != 9 {
		t.Errorf("got %d messages up to %v, %v; want 6 up to 9", len(found), ends, err)
	}
}

// TestScanRetriesEmptyFetches: an empty fetch does not prove that there are no messages, and none may be skipped.
func TestScanRetriesEmptyFetches(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 60))
	publish(t, c, rows(60, 40))
	for _, end := range []int64{100, -1} {
		emptyFetches(fake, 0, end, 2)
		if found, _, err := scanAll(t, c); err != nil || len(found) != 100 {
			t.Errorf("end %d: got %d messages, %v; want 100", end, len(found), err)
		}
	}
}

// TestScanOfRecreatedTopic: an offset of the deleted topic would hide messages of the new topic.
func TestScanOfRecreatedTopic(t *testing.T) {
	c := quiet(t, 1)
	publish(t, c, rows(0, 10))
	commitAt(t, c, 50)
	_, _, err := scanAll(t, c)
	var ahead *broker.AheadError
	if !errors.As(err, &ahead) || ahead.Committed != 50 || ahead.End != 10 {
		t.Errorf("got %v, want an AheadError with committed offset 50 and end 10", err)
	}
}
