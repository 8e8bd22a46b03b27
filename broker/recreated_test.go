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

// deleteTopic has another client delete the topic.
func deleteTopic(t testing.TB, c *broker.Cluster) {
	t.Helper()
	gone := kmsg.NewDeleteTopicsRequestTopic()
	gone.Topic = new(topic)
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

// recreateTopic has another client delete and create the topic, and waits until a broker knows it. Where
// auto.create.topics.enable is on, a consumer's request may create it first, with another number of partitions: then it is
// deleted again.
func recreateTopic(t testing.TB, c *broker.Cluster, partitions int) {
	t.Helper()
	made := kmsg.NewCreateTopicsRequestTopic()
	made.Topic, made.NumPartitions, made.ReplicationFactor = topic, int32(partitions), 1
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = append(req.Topics, made)
	theirs := stranger(t, c)
	eventually(t, "the topic to be recreated", func() bool {
		deleteTopic(t, c)
		res, err := req.RequestWith(within(t), theirs)
		return err == nil && res.Topics[0].ErrorCode == 0
	})
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = new(topic)
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Topics = append(metadata.Topics, asked)
	eventually(t, "the recreated topic's partitions", func() bool {
		res, err := metadata.RequestWith(within(t), theirs)
		return err == nil && len(res.Topics[0].Partitions) == partitions
	})
}

// another returns a second Cluster of the same brokers, like that of another process.
func another(t testing.TB, c *broker.Cluster) *broker.Cluster {
	t.Helper()
	own, err := broker.Connect(t.Context(), broker.Options{Brokers: strings.Split(c.Brokers(), ",")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	return own
}

// members runs several consumers of one group. The function that it returns stops them, if now is true, and returns the
// result of each.
func members(
	t *testing.T, c *broker.Cluster, n int, s *sink, change func(*broker.ConsumerOptions),
) (all []*broker.Consumer, end func(now bool) []error) {
	t.Helper()
	ctx, stop := context.WithCancel(within(t))
	done := make(chan error, n)
	for range n {
		one := consumer(t, c, change)
		all = append(all, one)
		go func() { done <- one.Run(ctx, s) }()
	}
	return all, func(now bool) []error {
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

// awaitShared waits until each of the consumers has some of the topic's partitions, and all of them together have all.
func awaitShared(t *testing.T, all []*broker.Consumer, partitions int) {
	t.Helper()
	eventually(t, "the members to share the partitions", func() bool {
		shared := 0
		for _, one := range all {
			own := len(one.Positions())
			if own == 0 {
				return false
			}
			shared += own
		}
		return shared == partitions
	})
}

// The topic is recreated while consumers run, with more rows in each partition than before: no row is skipped.
func TestRecreatedTopic(t *testing.T) {
	for _, tt := range []struct{ members, before, after int }{{1, 6, 6}, {3, 6, 6}, {3, 6, 4}, {3, 4, 6}} {
		n := tt.members
		t.Run(fmt.Sprint(n, " members, ", tt.before, " partitions, then ", tt.after), func(t *testing.T) {
			c := quiet(t, tt.before)
			publish(t, c, rows(0, 300))
			s := new(sink)
			all, end := members(t, c, n, s, nil)
			awaitShared(t, all, tt.before) // a member that starts later takes the new topic for a truncated one
			committed := func(c *broker.Cluster) bool {
				lags, err := c.Lag(within(t), topic, group)
				for _, l := range lags {
					if l.Lag() > 0 || l.End == 0 {
						return false
					}
				}
				return err == nil
			}
			eventually(t, "the old rows", func() bool { return committed(c) })
			recreateTopic(t, c, tt.after)
			importer := another(t, c) // without metadata of the old topic
			defer func() {
				if t.Failed() {
					lags, err := importer.Lag(t.Context(), topic, group)
					t.Logf("the group's offsets: %+v, error %v", lags, err)
					for i, one := range all {
						t.Logf("member %d: %+v", i, one.Positions())
					}
				}
			}()
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
			eventually(t, "the new offsets", func() bool { return committed(importer) })
			for _, err := range end(true) {
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A consumer without room sends no fetch requests. If the topic is recreated in that time, the messages that are then
// acknowledged are those of the old topic, and their offsets must not be committed to the new topic.
func TestNoCommitToAnotherTopic(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 100))
	full, recreated := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var old []func()
	release := false // acknowledge new rows when they are delivered
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
			case number(m) == 1000: // the first new row
				release = true
				once.Do(func() { close(recreated) })
				ack(m)
			}
		}
		return nil
	}
	_, end := members(t, c, 1, s, func(o *broker.ConsumerOptions) { o.MaxOutstanding = 10 })
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
	recv(t, "the first of the new rows", recreated)
	if n := commits.Load(); n > 0 {
		t.Errorf("got %d commits of the old topic's offsets to the new topic, want none", n)
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
			t.Fatalf("row %d of the new topic: got it 0 times, want at least once", row)
		}
	}
}

// A broker deletes the group's offsets of a deleted topic some time after the topic has been recreated, and so also those
// that were committed since. The consumer has nothing new to commit, and begins again all the same.
func TestOffsetsDeletedLate(t *testing.T) {
	fake, c := cluster(t, 1, 2)
	publish(t, c, rows(0, 100))
	s := new(sink)
	_, end := members(t, c, 1, s, nil)
	eventually(t, "the offsets", func() bool {
		offsets := committed(t, c)
		return offsets[0] > 0 && offsets[1] > 0 && offsets[0]+offsets[1] == 100
	})
	fake.ControlKey(kmsg.OffsetFetch.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if len(s.all()) >= 200 {
			return nil, nil, false
		}
		fake.KeepControl()
		return noOffsets(req.(*kmsg.OffsetFetchRequest)), nil, true
	})
	eventually(t, "each row to be delivered twice", func() bool {
		seen := counts(s.all())
		for row := range 100 {
			if seen[row] < 2 {
				return false
			}
		}
		return true
	})
	for _, err := range end(true) {
		if err != nil {
			t.Error(err)
		}
	}
}

// noOffsets answers that the group has committed nothing.
func noOffsets(req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	res := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	for _, asked := range req.Topics {
		topic := kmsg.NewOffsetFetchResponseTopic()
		topic.Topic = asked.Topic
		for _, id := range asked.Partitions {
			p := kmsg.NewOffsetFetchResponseTopicPartition()
			p.Partition, p.Offset = id, -1
			topic.Partitions = append(topic.Partitions, p)
		}
		res.Topics = append(res.Topics, topic)
	}
	return res
}

// A topic that is deleted for good ends every consumer with an error that names it. Until then they join the group only a
// few times.
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
			_, end := members(t, c, n, s, nil)
			eventually(t, "the rows", func() bool { return len(counts(s.all())) == 100 })
			before := joins.Load()
			deleteTopic(t, c)
			for _, err := range end(false) {
				var missing *broker.MissingTopicError
				if !errors.As(err, &missing) || missing.Topic != topic {
					t.Errorf("got %v, want a MissingTopicError of topic %s", err, topic)
				}
			}
			if after := joins.Load() - before; after > 20 {
				t.Errorf("got %d requests to join the group, want at most 20", after)
			}
		})
	}
}

// A topic that is deleted before the first generation ends Run, too.
func TestTopicDeletedWhileJoining(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	joining := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	_, end := members(t, c, 1, new(sink), nil)
	if err := joining.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	deleteTopic(t, c)
	joining.Remove()
	for _, err := range end(false) {
		if !errors.As(err, new(*broker.MissingTopicError)) {
			t.Errorf("got %v, want a MissingTopicError", err)
		}
	}
}
