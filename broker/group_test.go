package broker_test

import (
	"context"
	"io"
	"net"
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

// A second member joins while messages are in flight: they are acknowledged and committed, and none is delivered twice.
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
	tookShare := sync.OnceFunc(func() { close(took) }) // both readers may see the last message
	second.take = func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		for _, m := range batch {
			ack(m)
		}
		if len(second.all()) == want {
			tookShare()
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
		t.Errorf("second member: got assignments of %v partitions, want one of 2", shares)
	}
	all := counts(slices.Concat(first.all(), second.all(), drained(t, c)))
	if len(all) != 400 {
		t.Errorf("got %d rows, want 400", len(all))
	}
	for _, m := range slices.Concat(first.all(), second.all()) {
		if slices.Contains(share, m.Partition) && all[number(m)] != 1 {
			t.Errorf("row %d of a partition that moved: got it %d times, want once", number(m), all[number(m)])
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
		t.Error("got no commits, want some")
	}
	for p, at := range l.at {
		if !slices.IsSorted(at) {
			t.Errorf("partition %d: got the commits %v, want ascending offsets", p, at)
		}
	}
}

// With more members than partitions a member gets none: its drain ends at once, its run waits.
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
	for sum := -1; sum != 0; { // until the idle member has its assignment
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

// When the group has removed this member, the lease is revoked before the partitions are released, and the next
// generation begins with a new lease. (This also tests that heartbeatError finds the code where the library puts it.)
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
		// Our heartbeat comes first: the library's own would end the generation, too.
		o.SessionTimeout, o.HeartbeatInterval = 100*time.Millisecond, 90*time.Millisecond
		o.Membership = watching{lease: func(until time.Time) {
			switch {
			case until.IsZero():
				note("revoked")
			case until.After(time.Now()):
				note("leased")
			}
		}}
	})
	if err := q.Run(within(t), s); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"leased", "taken", "revoked", "released", "revoked",
		"leased", "taken", "released", "leased", "revoked",
	}
	mu.Lock()
	defer mu.Unlock()
	leased := func(event string) bool { return event == "leased" }
	if !slices.Equal(slices.DeleteFunc(slices.Clone(events), leased), slices.DeleteFunc(slices.Clone(want), leased)) {
		t.Errorf("got %q, want %q apart from leased", events, want)
	}
}

// The group's leader asks the coordinator which partitions there are. All partitions are assigned even if the coordinator
// does not know a new topic yet.
func TestCoordinatorThatLagsBehind(t *testing.T) {
	fake, c := cluster(t, 1, 4)
	publish(t, c, rows(0, 100))
	fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Metadata}, Topic: topic, Err: kerr.UnknownTopicOrPartition, Count: 1,
		When: func(req kmsg.Request) bool { return req.GetVersion() == 1 }, // only the group's leader asks by this version
	})
	if seen := counts(drained(t, c)); len(seen) != 100 {
		t.Errorf("got %d rows, want 100", len(seen))
	}
}

// A partition that is new after a drain has begun is drained up to its end when it is assigned: the broker that was asked
// at the beginning may have had old metadata.
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
		t.Errorf("got %d rows, want 120", len(seen))
	}
}

// The first broker of the list answers at the start only; from then on it accepts connections and closes them, as a load
// balancer does whose broker is down. The group is joined through the second broker.
func TestJoinThroughAnotherBroker(t *testing.T) {
	fake, _ := cluster(t, 1, 1)
	var down atomic.Bool
	balancer := listener(t, func(from net.Conn) {
		to, err := net.Dial("tcp", fake.ListenAddrs()[0])
		if err != nil {
			return
		}
		defer to.Close()
		if down.Load() {
			return
		}
		go func() {
			_, _ = io.Copy(to, from)
			to.Close()
		}()
		_, _ = io.Copy(from, to)
	})
	c, err := broker.Connect(t.Context(), broker.Options{
		Brokers: []string{balancer, fake.ListenAddrs()[0]},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	publish(t, c, rows(0, 10))
	down.Store(true)
	if n := len(drained(t, c)); n != 10 {
		t.Errorf("got %d messages, want 10", n)
	}
}

// Another program that has the group is named as the cause: its protocol differs, or its subscription cannot be read.
func TestGroupOfAnotherProgram(t *testing.T) {
	t.Parallel()
	named := func(t *testing.T, err error) {
		t.Helper()
		if err == nil || !broker.SetUp(err) || !strings.Contains(err.Error(), string(broker.CauseGroup)) {
			t.Errorf("got %v, want an error of the set-up: %s", err, broker.CauseGroup)
		}
	}
	t.Run("before", func(t *testing.T) {
		c := quiet(t, 4)
		joined := make(chan struct{}, 1)
		stranger(t, c, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.Balancers(kgo.CooperativeStickyBalancer()),
			kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { joined <- struct{}{} }))
		recv(t, "their partitions", joined)
		named(t, run(t, consumer(t, c, drain), new(sink)))
	})
	t.Run("after", func(t *testing.T) {
		fake, c := cluster(t, 1, 4)
		fake.ControlKey(kmsg.JoinGroup.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
			fake.KeepControl()
			res := req.ResponseKind().(*kmsg.JoinGroupResponse)
			res.Generation, res.Protocol, res.LeaderID, res.MemberID = 1, kmsg.StringPtr("range"), "ours", "ours"
			theirs := kmsg.NewJoinGroupResponseMember()
			theirs.MemberID, theirs.ProtocolMetadata = "theirs", []byte{0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1}
			res.Members = append(res.Members, theirs)
			return res, nil, true
		})
		q := consumer(t, c, func(o *broker.ConsumerOptions) { o.LostAfter = time.Second })
		named(t, q.Run(t.Context(), new(sink)))
	})
}
