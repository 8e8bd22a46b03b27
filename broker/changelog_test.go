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

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
)

const ledgers = "onboarding.ledger"

var _ ledger.Changelog = (*broker.Changelog)(nil)

// entries are messages of an account for the partition that the changelog has it in.
func entries(l *broker.Changelog, from, n int) []pipeline.Message {
	all := rows(from, n)
	for i := range all {
		all[i].Partition = l.Partition(string(all[i].Key))
	}
	return all
}

// held runs a consumer that is assigned all partitions, and calls with.
func held(t *testing.T, c *broker.Cluster, with func(ctx context.Context, l *broker.Changelog)) {
	t.Helper()
	ctx, stop := context.WithCancel(within(t))
	ready := make(chan struct{})
	var once sync.Once
	q := consumer(t, c, func(o *broker.ConsumerOptions) {
		o.Membership = watching{assigned: func([]int, int) { once.Do(func() { close(ready) }) }}
	})
	l := q.Changelog(ledgers, 4)
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx, new(sink)) }()
	recv(t, "the partitions", ready)
	with(ctx, l)
	stop()
	if err := recv(t, "the end", done); err != nil {
		t.Error(err)
	}
	if err := l.Append(within(t), entries(l, 0, 1)); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("Append after the end: got %v, want ErrFenced", err)
	}
}

// Messages that are appended while the partitions are assigned get the offsets that Append sets, and any reader can
// read them.
func TestChangelog(t *testing.T) {
	c := quiet(t, 4)
	_, err := c.CreateTopics(within(t), broker.Topic{Name: ledgers, Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	var written []pipeline.Message
	held(t, c, func(ctx context.Context, l *broker.Changelog) {
		for i := range 3 {
			batch := entries(l, 100*i, 100)
			if err := l.Append(ctx, batch); err != nil {
				t.Fatal(err)
			}
			written = append(written, batch...)
		}
		if l.Topic() != ledgers {
			t.Errorf("got topic %q, want %q", l.Topic(), ledgers)
		}
	})
	reader := consumer(t, c, nil).Changelog(ledgers, 4)
	for p := range 4 {
		want := slices.DeleteFunc(slices.Clone(written), func(m pipeline.Message) bool { return m.Partition != p })
		for _, from := range []int{0, 7, len(want)} {
			var got []pipeline.Message
			at := int64(from)
			err := reader.Replay(within(t), p, int64(from), func(batch []pipeline.Message, next int64) error {
				got = append(got, batch...)
				if next < at {
					t.Errorf("got next offset %d after %d, want it to grow", next, at)
				}
				at = next
				return nil
			})
			if err != nil || at != int64(len(want)) || len(got) != len(want)-from {
				t.Fatalf("partition %d from %d: got %d messages, next %d, %v; want %d messages, next %d", p, from, len(got), at, err,
					len(want)-from, len(want))
			}
			for i, m := range got {
				if w := want[from+i]; m.Offset != w.Offset || string(m.Key) != string(w.Key) || string(m.Value) != string(w.Value) {
					t.Fatalf("partition %d: got %+v, want %+v", p, m, w)
				}
			}
		}
		if err := reader.Replay(within(t), p, int64(len(want))+1, nil); !errors.Is(err, pipeline.ErrChangelogRecreated) {
			t.Errorf("Replay beyond the end: got %v, want ErrChangelogRecreated", err)
		}
	}
	if err := reader.Append(within(t), entries(reader, 0, 1)); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("Append without a partition: got %v, want ErrFenced", err)
	}
}

// Append and Replay retry. A request that failed after it was applied leaves its message in the log twice.
func TestChangelogRetries(t *testing.T) {
	fake, c := cluster(t, 1, 4)
	if _, err := c.CreateTopics(within(t), broker.Topic{Name: ledgers, Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	held(t, c, func(ctx context.Context, l *broker.Changelog) {
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: ledgers, Err: kerr.RequestTimedOut, Count: 1})
		batch := entries(l, 0, 1)
		if err := l.Append(ctx, batch); err != nil || batch[0].Offset != 1 {
			t.Errorf("Append: got %v and offset %d, want offset 1, for the message was written twice", err, batch[0].Offset)
		}
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: ledgers, Err: kerr.NotLeaderForPartition, Count: 2})
		n := 0
		err := l.Replay(ctx, batch[0].Partition, 0, func(batch []pipeline.Message, _ int64) error {
			n += len(batch)
			return nil
		})
		if err != nil || n != 2 {
			t.Errorf("Replay: got %d messages, %v; want 2", n, err)
		}
		stop := fmt.Errorf("enough")
		err = l.Replay(ctx, batch[0].Partition, 0, func([]pipeline.Message, int64) error { return stop })
		if !errors.Is(err, stop) {
			t.Errorf("Replay: got %v, want yield's error", err)
		}
	})
}

// A ledger topic that was deleted, or recreated with fewer partitions, is named, and is not taken for a broker that is
// away.
func TestChangelogOfAMissingTopic(t *testing.T) {
	c := quiet(t, 4)
	ready := make(chan struct{})
	var once sync.Once
	q := consumer(t, c, func(o *broker.ConsumerOptions) {
		o.LostAfter = 200 * time.Millisecond
		o.Membership = watching{assigned: func([]int, int) { once.Do(func() { close(ready) }) }}
	})
	ctx, stop := context.WithCancel(within(t))
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx, new(sink)) }()
	recv(t, "the partitions", ready)
	l := q.Changelog("deleted", 4)
	err := l.Append(ctx, entries(l, 0, 1))
	var missing *broker.MissingTopicError
	if !errors.As(err, &missing) || missing.Topic != "deleted" || errors.Is(err, broker.ErrBrokerLost) {
		t.Errorf("got %v, want a MissingTopicError of topic deleted", err)
	}
	if _, err := c.CreateTopics(within(t), broker.Topic{Name: "shrunk", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	l = q.Changelog("shrunk", 4)
	err = l.Append(ctx, entries(l, 0, 8))
	if !errors.As(err, &missing) || missing.Partitions != 1 || !strings.Contains(err.Error(), "recreated") {
		t.Errorf("got %v, want a MissingTopicError that says that topic shrunk was recreated with 1 partition", err)
	}
	stop()
	if err := recv(t, "the end", done); err != nil {
		t.Error(err)
	}
}

// Nothing is written to a partition that this consumer no longer has.
func TestChangelogIsFenced(t *testing.T) {
	fake, c := cluster(t, 1, 4)
	if _, err := c.CreateTopics(within(t), broker.Topic{Name: ledgers, Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	held(t, c, func(ctx context.Context, l *broker.Changelog) {
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, Count: -1})
		eventually(t, "the partitions to be revoked", func() bool {
			return l.Epoch(0) == 0
		})
		if err := l.Append(ctx, entries(l, 0, 8)); !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("Append: got %v, want ErrFenced", err)
		}
		lags, err := c.Lag(ctx, ledgers, group)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range lags {
			if p.End != 0 {
				t.Errorf("partition %d: got end %d, want 0: nothing may be written", p.Partition, p.End)
			}
		}
	})
}
