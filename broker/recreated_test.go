package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// deleteTopic has a stranger delete the topic.
func deleteTopic(t testing.TB, c *broker.Cluster) {
	t.Helper()
	gone := kmsg.NewDeleteTopicsRequestTopic()
	gone.Topic = kmsg.StringPtr(topic)
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Topics, req.TopicNames = append(req.Topics, gone), []string{topic}
	res, err := req.RequestWith(within(t), stranger(t, c))
	if err == nil {
		err = kerr.ErrorForCode(res.Topics[0].ErrorCode)
	}
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Fatal(err)
	}
}

// recreateTopic has a stranger delete the topic and make it anew. Where the broker makes topics for those who ask for
// them by name, consumers that look for theirs may be faster: then it is deleted again.
func recreateTopic(t testing.TB, c *broker.Cluster, partitions int) {
	t.Helper()
	made := kmsg.NewCreateTopicsRequestTopic()
	made.Topic, made.NumPartitions, made.ReplicationFactor = topic, int32(partitions), 1
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = append(req.Topics, made)
	theirs := stranger(t, c)
	eventually(t, "the topic to be made anew", func() bool {
		deleteTopic(t, c)
		res, err := req.RequestWith(within(t), theirs)
		return err == nil && res.Topics[0].ErrorCode == 0
	})
}

// another is a connection of its own to the same brokers, as another process has.
func another(t testing.TB, c *broker.Cluster) *broker.Cluster {
	t.Helper()
	own, err := broker.Connect(t.Context(), broker.Options{Brokers: strings.Split(c.Brokers(), ",")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	return own
}

// members runs consumers of one group side by side. The function returned stops them and returns what each ended with.
func members(t *testing.T, c *broker.Cluster, n int, s *sink, change func(*broker.ConsumerOptions)) func(bool) []error {
	t.Helper()
	ctx, stop := context.WithCancel(within(t))
	done := make(chan error, n)
	for range n {
		go func() { done <- consumer(t, c, change).Run(ctx, s) }()
	}
	return func(now bool) []error {
		t.Helper()
		if now {
			stop()
		}
		var errs []error
		for range n {
			errs = append(errs, recv(t, "the members' end", done))
		}
		stop()
		return errs
	}
}

// The topic is made anew under running consumers, with more rows in each partition than the old one had: none of them
// is passed over.
func TestTopicMadeAnew(t *testing.T) {
	for _, tt := range []struct{ members, before, after int }{{1, 6, 6}, {3, 6, 6}, {3, 6, 4}, {3, 4, 6}} {
		n := tt.members
		t.Run(fmt.Sprint(n, " members, ", tt.before, " partitions, then ", tt.after), func(t *testing.T) {
			c := quiet(t, tt.before)
			publish(t, c, rows(0, 300))
			s := new(sink)
			end := members(t, c, n, s, nil)
			settled := func(c *broker.Cluster) bool {
				lags, err := c.Lag(within(t), topic, group)
				for _, l := range lags {
					if l.Lag() > 0 || l.End == 0 {
						return false
					}
				}
				return err == nil
			}
			eventually(t, "the old rows", func() bool { return settled(c) })
			recreateTopic(t, c, tt.after)
			importer := another(t, c) // it knows nothing of the old topic
			publish(t, importer, rows(1000, 900))
			eventually(t, "the new rows", func() bool {
				seen := counts(s.all())
				for row := 1000; row < 1900; row++ {
					if seen[row] == 0 {
						return false
					}
				}
				return true
			})
			eventually(t, "the new offsets", func() bool { return settled(importer) })
			for _, err := range end(true) {
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// While a consumer has no room it asks for nothing. If the topic is made anew in that time, what it then settles is of
// the old one, and must not be committed to the new one.
func TestNoCommitToAnotherTopic(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 100))
	full, anew := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var old []func()
	release := false // settle new rows as they come
	var once sync.Once
	s := new(sink)
	s.take = func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range batch {
			switch {
			case number(m) < 5, number(m) >= 1000 && release:
				ack(m)
			case number(m) < 1000:
				if old = append(old, func() { ack(m) }); len(old) == 10 {
					close(full)
				}
			case number(m) == 1000: // the first of the new ones
				release = true
				once.Do(func() { close(anew) })
				ack(m)
			}
		}
		return nil
	}
	end := members(t, c, 1, s, func(o *broker.ConsumerOptions) { o.MaxOutstanding = 10 })
	recv(t, "the consumer to be full", full)
	eventually(t, "the first commit", func() bool { return committed(t, c)[0] == 5 })

	recreateTopic(t, c, 1)
	publish(t, another(t, c), rows(1000, 200))
	commits := new(atomic.Int64)
	h := fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.OffsetCommit}, Observe: true, Count: -1,
		When: func(kmsg.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			if !release {
				commits.Add(1)
			}
			return true
		},
	})
	defer h.Remove()
	mu.Lock()
	for _, ack := range old {
		ack()
	}
	mu.Unlock()
	recv(t, "the first of the new rows", anew)
	if n := commits.Load(); n > 0 {
		t.Errorf("%d commits of the old topic's offsets reached the new one", n)
	}
	eventually(t, "the new rows", func() bool { return committed(t, c)[0] == 200 })
	for _, err := range end(true) {
		if err != nil {
			t.Error(err)
		}
	}
	seen := counts(s.all())
	for row := 1000; row < 1200; row++ {
		if seen[row] == 0 {
			t.Fatalf("row %d did not come", row)
		}
	}
}

// A topic that is deleted for good ends every consumer with an error that names it, and they do not storm the
// coordinator until then.
func TestTopicDeleted(t *testing.T) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint(n, " members"), func(t *testing.T) {
			t.Parallel()
			fake, c := cluster(t, 1, 4)
			publish(t, c, rows(0, 100))
			var joins atomic.Int64
			fake.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.JoinGroup}, Observe: true, Count: -1,
				When: func(kmsg.Request) bool { joins.Add(1); return true },
			})
			s := new(sink)
			end := members(t, c, n, s, nil)
			eventually(t, "the rows", func() bool { return len(counts(s.all())) == 100 })
			before := joins.Load()
			deleteTopic(t, c)
			for _, err := range end(false) {
				var missing *broker.MissingTopicError
				if !errors.As(err, &missing) || missing.Topic != topic {
					t.Errorf("got %v", err)
				}
			}
			if after := joins.Load() - before; after > 20 {
				t.Errorf("the group was joined %d times", after)
			}
		})
	}
}

// A topic that cannot be looked up from the beginning of a generation on ends Run, too.
func TestTopicDeletedWhileJoining(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	joining := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	end := members(t, c, 1, new(sink), nil)
	if err := joining.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	deleteTopic(t, c)
	joining.Remove()
	for _, err := range end(false) {
		if !errors.As(err, new(*broker.MissingTopicError)) {
			t.Errorf("got %v", err)
		}
	}
}
