package broker_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

func TestFaultsAreSurvived(t *testing.T) {
	for name, inject := range map[string]func(t *testing.T, fake *kfake.Cluster){
		"not leader": func(t *testing.T, fake *kfake.Cluster) {
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: 3})
		},
		"moved leaders": func(t *testing.T, fake *kfake.Cluster) {
			for p := range int32(4) {
				if err := fake.MoveTopicPartition(topic, p, 1-fake.LeaderFor(topic, p)); err != nil {
					t.Error(err)
				}
			}
		},
		"dropped fetch": func(t *testing.T, fake *kfake.Cluster) {
			fake.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
				return nil, errors.New("drop"), true
			})
		},
		"unknown topic": func(t *testing.T, fake *kfake.Cluster) { // as of a new topic
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.UnknownTopicOrPartition, Count: 1})
		},
		"unknown topic at a commit": func(t *testing.T, fake *kfake.Cluster) {
			fake.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: topic, Err: kerr.UnknownTopicOrPartition, Count: 1,
			})
		},
		"failed heartbeat": func(t *testing.T, fake *kfake.Cluster) {
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, Count: 1})
		},
		"failed commit": func(t *testing.T, fake *kfake.Cluster) {
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: topic, Err: kerr.NotCoordinator, Count: 2})
		},
		"moved coordinator": func(t *testing.T, fake *kfake.Cluster) { fake.RehashCoordinators() },
	} {
		t.Run(name, func(t *testing.T) {
			fake, c := cluster(t, 2, 4)
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.CoordinatorNotAvailable, Count: 1})
			for i := range 10 {
				publish(t, c, rows(100*i, 100))
			}
			var once sync.Once
			s := &sink{take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
				once.Do(func() { inject(t, fake) })
				for _, m := range batch {
					ack(m)
				}
				return nil
			}}
			q := consumer(t, c, func(o *broker.ConsumerOptions) { o.Drain, o.MaxBytes, o.MaxBatch = true, 2000, 20 })
			if err := run(t, q, s); err != nil {
				t.Fatal(err)
			}
			if seen := counts(s.all()); len(seen) != 1000 {
				t.Errorf("got %d rows, want 1000", len(seen))
			}
		})
	}
}

// When the coordinator does not hear that a member leaves, the next member of this consumer does not wait for it.
func TestLostCoordinator(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 10))
	var away atomic.Int64 // how many more requests the coordinator drops
	for _, key := range []kmsg.Key{kmsg.FindCoordinator, kmsg.LeaveGroup, kmsg.Heartbeat} {
		fake.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			fake.KeepControl()
			if away.Load() <= 0 {
				return nil, nil, false
			}
			away.Add(-1)
			return nil, errors.New("drop"), true
		})
	}
	var once sync.Once
	s := &sink{take: func(ctx context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		var lost bool
		once.Do(func() {
			away.Store(math.MaxInt64)
			lost = true
		})
		if lost {
			<-ctx.Done()
			away.Store(2) // one of them is the library's LeaveGroup
			return context.Cause(ctx)
		}
		for _, m := range batch {
			ack(m)
		}
		return nil
	}}
	q := consumer(t, c, func(o *broker.ConsumerOptions) {
		o.Drain, o.SessionTimeout, o.RebalanceTimeout = true, time.Minute, time.Minute
	})
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	if at := committed(t, c); at[0] != 10 {
		t.Errorf("got committed offset %d, want 10", at[0])
	}
}

// A drain ends only after its offsets are committed.
func TestDrainCommits(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 10))
	var once sync.Once
	s := &sink{take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		once.Do(func() {
			fake.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: topic, Err: kerr.CoordinatorNotAvailable, Count: 1,
			})
		})
		for _, m := range batch {
			ack(m)
		}
		return nil
	}}
	q := consumer(t, c, func(o *broker.ConsumerOptions) { o.Drain, o.CommitInterval = true, time.Minute })
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	if at := committed(t, c); at[0] != 10 || len(s.all()) != 20 {
		t.Errorf("got committed offset %d after %d deliveries, want 10 after 20", at[0], len(s.all()))
	}
}

func TestBrokerLost(t *testing.T) {
	fake, c := cluster(t, 1, 2)
	publish(t, c, rows(0, 10))
	var once sync.Once
	var released atomic.Int64
	s := &sink{
		take: func(context.Context, []pipeline.Message, func(pipeline.Message)) error {
			once.Do(func() { go fake.Close() })
			return nil
		},
		release: func(context.Context, int) { released.Add(1) },
	}
	err := run(t, consumer(t, c, func(o *broker.ConsumerOptions) { o.LostAfter = 300 * time.Millisecond }), s)
	if !errors.Is(err, broker.ErrBrokerLost) || !strings.Contains(err.Error(), c.Brokers()) {
		t.Errorf("got %v, want ErrBrokerLost that names %s", err, c.Brokers())
	}
	if released.Load() < 2 {
		t.Errorf("got %d released partitions, want at least 2", released.Load())
	}
}
