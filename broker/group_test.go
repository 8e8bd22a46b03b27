package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// A second member joins while rows are in flight: they finish, are committed, and nothing is taken twice.
func TestRebalance(t *testing.T) {
	var c *broker.Cluster
	if elsewhere != nil {
		c = elsewhere(t, 4)
	} else {
		var fake *kfake.Cluster
		fake, c = cluster(t, 1, 4)
		commits := watchCommits(t, fake)
		defer commits.monotone(t)
	}
	publish(t, c, rows(0, 400))
	sizes, err := c.Lag(within(t), topic, group)
	if err != nil {
		t.Fatal(err)
	}

	full := make(chan struct{})
	var mu sync.Mutex
	var inFlight []func()
	first := &sink{}
	first.take = func(ctx context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		mu.Lock()
		for _, m := range batch {
			inFlight = append(inFlight, func() { ack(m) })
		}
		if len(inFlight) == 40 {
			close(full)
		}
		mu.Unlock()
		return nil
	}
	var once sync.Once
	handedOver := make(chan struct{})
	first.release = func(context.Context, int) { // what is in flight finishes
		mu.Lock()
		defer mu.Unlock()
		for _, ack := range inFlight {
			ack()
		}
		inFlight = nil
		once.Do(func() { close(handedOver) })
	}
	ctx, stop := context.WithCancel(within(t))
	firstDone := make(chan error, 1)
	go func() {
		firstDone <- consumer(t, c, func(o *broker.ConsumerOptions) { o.MaxOutstanding = 10 }).Run(ctx, first)
	}()
	recv(t, "the first member to be full", full)

	var shares, share []int
	want := 0
	second := &sink{}
	q := consumer(t, c, func(o *broker.ConsumerOptions) {
		o.Membership = watching{assigned: func(partitions []int, _ int) {
			share = partitions
			shares = append(shares, len(partitions))
			for _, p := range partitions { // all but the ten that the first member finished
				want += int(sizes[p].End) - 10
			}
		}}
	})
	took := make(chan struct{})
	second.take = func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		for _, m := range batch {
			ack(m)
		}
		if len(second.all()) == want {
			close(took)
		}
		return nil
	}
	secondCtx, stopSecond := context.WithCancel(within(t))
	secondDone := make(chan error, 1)
	go func() { secondDone <- q.Run(secondCtx, second) }()
	recv(t, "the hand-over", handedOver)
	recv(t, "the second member to take its share", took)
	stopSecond()
	if err := recv(t, "the second member's end", secondDone); err != nil {
		t.Error(err)
	}
	stop()
	if err := recv(t, "the first member's end", firstDone); err != nil {
		t.Error(err)
	}
	if !slices.Equal(shares, []int{2}) {
		t.Errorf("the second member had %v partitions, want 2", shares)
	}
	all := counts(slices.Concat(first.all(), second.all(), drained(t, c)))
	if len(all) != 400 {
		t.Errorf("%d rows were taken, want 400", len(all))
	}
	for _, m := range slices.Concat(first.all(), second.all()) {
		if slices.Contains(share, m.Partition) && all[number(m)] != 1 {
			t.Errorf("row %d of a partition that moved was taken %d times", number(m), all[number(m)])
		}
	}
}

// commitLog sees every offset commit that reaches the broker.
type commitLog struct {
	mu sync.Mutex
	at map[int32][]int64
}

func watchCommits(t *testing.T, fake *kfake.Cluster) *commitLog {
	log := &commitLog{at: make(map[int32][]int64)}
	h := fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.OffsetCommit}, Observe: true, Count: -1,
		When: func(req kmsg.Request) bool {
			log.mu.Lock()
			defer log.mu.Unlock()
			for _, topic := range req.(*kmsg.OffsetCommitRequest).Topics {
				for _, p := range topic.Partitions {
					log.at[p.Partition] = append(log.at[p.Partition], p.Offset)
				}
			}
			return true
		},
	})
	t.Cleanup(h.Remove)
	return log
}

func (l *commitLog) monotone(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.at) == 0 {
		t.Error("no commit was seen")
	}
	for p, at := range l.at {
		if !slices.IsSorted(at) {
			t.Errorf("commits of partition %d went back: %v", p, at)
		}
	}
}

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
		"unknown topic": func(t *testing.T, fake *kfake.Cluster) { // as when a broker has not heard of it yet
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
				t.Errorf("%d rows came, want 1000", len(seen))
			}
		})
	}
}

// When the coordinator is away at the wrong moment, the member that we were does not hold up the one that we become.
func TestLostCoordinator(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 10))
	var away atomic.Int64 // how many more requests the coordinator does not hear
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
		t.Errorf("committed %d, want 10", at[0])
	}
}

// A drain is done when it is settled and committed.
func TestDrainCommits(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 10))
	var once sync.Once
	s := &sink{take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		once.Do(func() {
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: topic, Err: kerr.CoordinatorNotAvailable, Count: 1})
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
		t.Errorf("committed %d after %d deliveries, want 10 after the 10 came twice", at[0], len(s.all()))
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
		t.Errorf("got %v", err)
	}
	if released.Load() < 2 {
		t.Errorf("%d partitions were released, want 2", released.Load())
	}
}

// Who is told to stop while the group is still waiting for another member does not wait with it.
func TestStopWhileJoining(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 1))
	taken, finish := make(chan struct{}), make(chan struct{})
	firstDone := make(chan error, 1)
	ctx, stopFirst := context.WithCancel(within(t))
	go func() {
		firstDone <- consumer(t, c, func(o *broker.ConsumerOptions) {
			o.SessionTimeout, o.RebalanceTimeout = time.Minute, time.Minute
		}).Run(ctx, &sink{
			take: func(context.Context, []pipeline.Message, func(pipeline.Message)) error {
				close(taken)
				return nil
			},
			release: func(context.Context, int) { <-finish },
		})
	}()
	recv(t, "the first member", taken)
	joining := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Observe: true, Count: -1})
	second, stopSecond := context.WithCancel(within(t))
	secondDone := make(chan error, 1)
	go func() {
		q := consumer(t, c, func(o *broker.ConsumerOptions) { o.RebalanceTimeout = time.Minute })
		secondDone <- q.Run(second, new(sink))
	}()
	if err := joining.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	stopSecond()
	if err := recv(t, "the second member's end", secondDone); err != nil {
		t.Error(err)
	}
	close(finish)
	stopFirst()
	if err := recv(t, "the first member's end", firstDone); err != nil {
		t.Error(err)
	}
}

// A handler without room blocks in Take. It returns when the assignment ends, which is no failure, nor is it when the
// run ends.
func TestStopWhileTaking(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 10))
	ctx, stop := context.WithCancel(within(t))
	calls := 0
	s := &sink{take: func(ctx context.Context, batch []pipeline.Message, _ func(pipeline.Message)) error {
		calls++
		switch calls {
		case 1:
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.RebalanceInProgress, Count: 1})
			<-ctx.Done()
			return fmt.Errorf("no room: %w", context.Cause(ctx))
		default:
			stop()
			<-ctx.Done()
			return ctx.Err()
		}
	}}
	if err := consumer(t, c, nil).Run(ctx, s); err != nil {
		t.Errorf("got %v", err)
	}
	if calls != 2 || len(s.all()) != 20 {
		t.Errorf("%d calls with %d messages, want the 10 twice", calls, len(s.all()))
	}
	if at := committed(t, c); at[0] != -1 {
		t.Errorf("committed %d although nothing was settled", at[0])
	}
}

// A handler that does not finish in time is not waited for any longer than the group waits for us.
func TestReleaseIsBounded(t *testing.T) {
	c := quiet(t, 1)
	publish(t, c, rows(0, 10))
	ctx, stop := context.WithCancel(within(t))
	s := &sink{
		take: func(context.Context, []pipeline.Message, func(pipeline.Message)) error {
			stop()
			return nil
		},
		release: func(ctx context.Context, _ int) { <-ctx.Done() },
	}
	err := consumer(t, c, func(o *broker.ConsumerOptions) { o.RebalanceTimeout = 100 * time.Millisecond }).Run(ctx, s)
	if err != nil {
		t.Errorf("got %v", err)
	}
}

// What was started has ended when everything is closed.
func TestNothingIsLeftRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	e := open(t, t.TempDir())
	publish(t, e.Cluster, rows(0, 1000))
	drained(t, e.Cluster)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "goroutines to end", func() bool {
		runtime.Gosched()
		return runtime.NumGoroutine() <= before
	})
}

// With more members than partitions somebody gets none: a drain is done at once for that one, a run waits.
func TestNothingAssigned(t *testing.T) {
	_, c := cluster(t, 1, 1)
	assigned := make(chan int, 8)
	ctx, stop := context.WithCancel(within(t))
	done := make(chan error, 2)
	for range 2 {
		go func() {
			done <- consumer(t, c, func(o *broker.ConsumerOptions) {
				o.Membership = watching{assigned: func(p []int, _ int) { assigned <- len(p) }}
			}).Run(ctx, new(sink))
		}()
	}
	for sum := -1; sum != 0; { // until the idle one has been told
		sum = recv(t, "an assignment", assigned)
	}
	if err := run(t, consumer(t, c, drain), new(sink)); err != nil {
		t.Error(err)
	}
	stop()
	for range 2 {
		if err := recv(t, "the end", done); err != nil {
			t.Error(err)
		}
	}
}

// When the group does not know us any more, everybody hears that nothing is ours before partitions are released, and
// the next generation begins with a new lease. (It also sees to it that the code is found where the library puts it.)
func TestGivenAway(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 10))
	var mu sync.Mutex
	var events []string
	note := func(event string) {
		mu.Lock()
		defer mu.Unlock()
		if len(events) == 0 || events[len(events)-1] != event {
			events = append(events, event)
		}
	}
	var once sync.Once
	s := &sink{
		take: func(ctx context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
			note("taken")
			gone := false
			once.Do(func() {
				fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, Count: 2})
				gone = true
			})
			if gone {
				<-ctx.Done()
				return ctx.Err()
			}
			for _, m := range batch {
				ack(m)
			}
			return nil
		},
		release: func(context.Context, int) { note("released") },
	}
	q := consumer(t, c, func(o *broker.ConsumerOptions) {
		o.Drain = true
		// Ours comes first: the library's own would end the generation, too.
		o.SessionTimeout, o.HeartbeatInterval = 100*time.Millisecond, 90*time.Millisecond
		o.Membership = watching{lease: func(until time.Time) {
			switch {
			case until.IsZero():
				note("nothing is ours")
			case until.After(time.Now()):
				note("ours")
			}
		}}
	})
	if err := q.Run(within(t), s); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ours", "taken", "nothing is ours", "released", "nothing is ours",
		"ours", "taken", "released", "ours", "nothing is ours",
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(slices.DeleteFunc(slices.Clone(events), func(e string) bool { return e == "ours" }),
		slices.DeleteFunc(want, func(e string) bool { return e == "ours" })) {
		t.Errorf("%q", events)
	}
}

// The group's leader asks the coordinator which partitions there are. One that has not heard of the topic yet must not
// have the group agree on reading nothing.
func TestCoordinatorThatLagsBehind(t *testing.T) {
	fake, c := cluster(t, 1, 4)
	publish(t, c, rows(0, 100))
	fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Metadata}, Topic: topic, Err: kerr.UnknownTopicOrPartition, Count: 1,
		When: func(req kmsg.Request) bool { return len(req.(*kmsg.MetadataRequest).Topics) > 0 },
	})
	if seen := counts(drained(t, c)); len(seen) != 100 {
		t.Errorf("%d rows came, want 100", len(seen))
	}
}

// A partition that shows up after a drain has begun is drained as far as it goes when it is assigned: the broker that
// was asked in the beginning may have known less than the others.
func TestDrainOfNewPartition(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 100))
	joining := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	s := new(sink)
	done := make(chan error, 1)
	go func() { done <- consumer(t, c, drain).Run(within(t), s) }()
	if err := joining.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	theirs := stranger(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	more := kmsg.NewCreatePartitionsRequestTopic()
	more.Topic, more.Count = topic, 2
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Topics = append(req.Topics, more)
	if _, err := req.RequestWith(within(t), theirs); err != nil {
		t.Fatal(err)
	}
	for _, m := range rows(100, 20) {
		record := &kgo.Record{Topic: topic, Partition: 1, Key: m.Key, Value: m.Value}
		if err := theirs.ProduceSync(within(t), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	joining.Remove()
	if err := recv(t, "the drain", done); err != nil {
		t.Fatal(err)
	}
	if seen := counts(s.all()); len(seen) != 120 {
		t.Errorf("%d rows came, want 120", len(seen))
	}
}

// A partition of which nothing is settled is reported, with what is first in it, again and again, until it goes on.
func TestStallIsReported(t *testing.T) {
	_, c := cluster(t, 1, 1)
	publish(t, c, rows(0, 5))
	stalls := make(chan broker.Stall, 100)
	held := make(chan func(), 1)
	s := &sink{take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		ack(batch[0])
		held <- func() {
			for _, m := range batch[1:] {
				ack(m)
			}
		}
		return nil
	}}
	q := consumer(t, c, func(o *broker.ConsumerOptions) {
		o.Drain, o.StalledAfter, o.MaxOutstanding = true, 20*time.Millisecond, 5
		o.Membership = watching{stalled: func(s broker.Stall) { stalls <- s }}
	})
	done := make(chan error, 1)
	go func() { done <- q.Run(within(t), s) }()
	ackRest := recv(t, "the rows", held)
	first, second := recv(t, "a report", stalls), recv(t, "another one", stalls)
	if first.Partition != 0 || first.Offset != 1 || first.Outstanding != 4 || first.Full || first.For < 20*time.Millisecond {
		t.Errorf("%+v", first)
	}
	if second.For < 40*time.Millisecond || second.For <= first.For {
		t.Errorf("%+v after %+v", second, first)
	}
	ackRest()
	if err := recv(t, "the end", done); err != nil {
		t.Fatal(err)
	}
}
