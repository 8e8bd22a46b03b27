package broker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

func TestDrain(t *testing.T) {
	c := durable(t)
	publish(t, c, rows(0, 5000))
	var late sync.Once
	s := &sink{take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		late.Do(func() { publish(t, c, rows(5000, 40)) })
		for i := range batch { // in any order
			ack(batch[len(batch)-1-i])
		}
		return nil
	}}
	var assigned []int
	q := consumer(t, c, func(o *broker.ConsumerOptions) {
		o.Drain = true
		o.Membership = watching{assigned: func(partitions []int, of int) {
			assigned = append(slices.Clone(partitions), of)
		}}
	})
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	slices.Sort(assigned)
	if !slices.Equal(assigned, []int{0, 1, 2, 3, 4}) {
		t.Errorf("got the assignment %v, want partitions 0 to 3 of 4", assigned)
	}
	got := s.all()
	if seen := counts(got); len(seen) != 5000 || len(got) != 5000 {
		t.Errorf("got %d messages of %d rows, want the 5000 that were there at the start", len(got), len(seen))
	}
	next := make([]int64, 4)
	for _, m := range got {
		if m.Offset != next[m.Partition] {
			t.Fatalf("partition %d: got offset %d, want %d", m.Partition, m.Offset, next[m.Partition])
		}
		next[m.Partition]++
	}
	if at := committed(t, c); !slices.Equal(at, next) {
		t.Errorf("got committed offsets %v, want %v", at, next)
	}
	if rest := counts(drained(t, c)); len(rest) != 40 {
		t.Errorf("second drain: got %d rows, want the 40 late rows", len(rest))
	}
	if rest := drained(t, c); len(rest) != 0 {
		t.Errorf("third drain: got %d rows, want none", len(rest))
	}
}

func TestOnlySettledPrefixIsCommitted(t *testing.T) {
	c := quiet(t, 1)
	publish(t, c, rows(0, 100))
	ctx, stop := context.WithCancel(within(t))
	var n int
	s := &sink{take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		for _, m := range batch {
			if m.Offset != 30 && m.Offset != 60 {
				ack(m)
				ack(m) // the second call changes nothing
			}
		}
		if n += len(batch); n == 100 {
			stop()
		}
		return nil
	}}
	if err := consumer(t, c, nil).Run(ctx, s); err != nil {
		t.Fatalf("Run after a stop: got %v, want nil", err)
	}
	if at := committed(t, c); at[0] != 30 {
		t.Errorf("got committed offset %d, want 30", at[0])
	}
	again := drained(t, c)
	if len(again) != 70 || again[0].Offset != 30 {
		t.Errorf("next drain: got %d messages from offset %d, want 70 from 30", len(again), again[0].Offset)
	}
}

// A drain does not wait for deferred messages, and the next drain gets them again.
func TestDefer(t *testing.T) {
	c := quiet(t, 1)
	publish(t, c, rows(0, 100))
	q := consumer(t, c, func(o *broker.ConsumerOptions) {
		o.Drain = true
		o.MaxOutstanding = 5 // deferred messages take no room
	})
	s := &sink{take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		for _, m := range batch {
			if m.Offset >= 80 {
				go q.Defer(m)
			} else {
				go ack(m)
			}
		}
		return nil
	}}
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	q.Defer(pipeline.Message{}) // after the end: no effect
	if n := len(s.all()); n != 100 {
		t.Errorf("got %d messages, want 100", n)
	}
	if at := committed(t, c); at[0] != 80 {
		t.Errorf("got committed offset %d, want 80", at[0])
	}
}

func TestOutstandingIsBounded(t *testing.T) {
	c := quiet(t, 2)
	publish(t, c, rows(0, 1000))
	var open [2]atomic.Int64
	var most atomic.Int64
	s := &sink{take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
		n := open[batch[0].Partition].Add(int64(len(batch)))
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		go func() {
			for _, m := range batch {
				open[m.Partition].Add(-1)
				ack(m)
			}
		}()
		return nil
	}}
	q := consumer(t, c, func(o *broker.ConsumerOptions) {
		o.Drain = true
		o.MaxOutstanding, o.MaxBatch = 10, 7
	})
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	if n := len(s.all()); n != 1000 {
		t.Errorf("got %d messages, want 1000", n)
	}
	if most.Load() > 10 {
		t.Errorf("got %d messages outstanding at once, want at most 10", most.Load())
	}
}

func TestHandlerErrorIsReturned(t *testing.T) {
	c := quiet(t, 2)
	publish(t, c, rows(0, 400))
	halt := errors.New("the signer is locked")
	var released atomic.Int64
	s := &sink{
		take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
			if batch[0].Partition == 1 && batch[0].Offset >= 40 {
				return halt
			}
			for _, m := range batch {
				ack(m)
			}
			return nil
		},
		release: func(ctx context.Context, _ int) {
			if _, ok := ctx.Deadline(); !ok || ctx.Err() != nil {
				t.Errorf("Release: got a context with error %v, deadline %v; want one with a deadline to come", ctx.Err(), ok)
			}
			released.Add(1)
		},
	}
	err := run(t, consumer(t, c, func(o *broker.ConsumerOptions) { o.MaxBatch = 20 }), s)
	if !errors.Is(err, halt) || err.Error() != halt.Error() {
		t.Errorf("Run: got %v, want the handler's error, not wrapped", err)
	}
	if released.Load() != 2 {
		t.Errorf("got %d released partitions, want 2", released.Load())
	}
	if at := committed(t, c); at[1] != 40 {
		t.Errorf("partition 1: got committed offset %d, want 40", at[1])
	}
}

func TestStartFailures(t *testing.T) {
	t.Run("missing topic", func(t *testing.T) {
		c := quiet(t, 1)
		err := run(t, consumer(t, c, func(o *broker.ConsumerOptions) { o.Topic = "nowhere" }), new(sink))
		var missing *broker.MissingTopicError
		if !errors.As(err, &missing) || missing.Topic != "nowhere" {
			t.Errorf("got %v, want a MissingTopicError of topic nowhere", err)
		}
	})
	t.Run("committed beyond the end", func(t *testing.T) {
		c := quiet(t, 1)
		publish(t, c, rows(0, 5))
		commitAt(t, c, 1000)
		err := run(t, consumer(t, c, drain), new(sink))
		var ahead *broker.AheadError
		if !errors.As(err, &ahead) || ahead.Committed != 1000 || ahead.End != 5 {
			t.Errorf("got %v, want an AheadError with committed offset 1000 and end 5", err)
		}
		if at := committed(t, c); at[0] != 1000 {
			t.Errorf("got committed offset %d, want 1000 as before", at[0])
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		addr := fake.ListenAddrs()[0]
		fake.Close()
		err := run(t, consumer(t, c, nil), new(sink))
		var down *broker.UnreachableError
		if !errors.As(err, &down) || down.Broker != addr {
			t.Errorf("got %v, want an UnreachableError of %s", err, addr)
		}
	})
	t.Run("not authorized for the group", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed, Count: -1})
		err := run(t, consumer(t, c, nil), new(sink))
		if !errors.Is(err, kafka.GroupAuthorizationFailed) {
			t.Errorf("got %v, want %v", err, kafka.GroupAuthorizationFailed)
		}
	})
}

// commitAt commits an offset of partition 0 from outside of the group.
func commitAt(t *testing.T, c *broker.Cluster, offset int64) {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(strings.Split(c.Brokers(), ",")...), Timeout: patience}
	transport := new(kafka.Transport)
	client.Transport = transport
	defer transport.CloseIdleConnections()
	res, err := client.OffsetCommit(within(t), &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: 0, Offset: offset}}},
	})
	if err == nil {
		err = res.Topics[topic][0].Error
	}
	if err != nil {
		t.Fatal(err)
	}
}

// deleteBefore deletes the messages before an offset of partition 0, as retention does.
func deleteBefore(t *testing.T, c *broker.Cluster, offset int64) {
	t.Helper()
	partition := kmsg.NewDeleteRecordsRequestTopicPartition()
	partition.Offset = offset
	part := kmsg.NewDeleteRecordsRequestTopic()
	part.Topic, part.Partitions = topic, append(part.Partitions, partition)
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Topics = append(req.Topics, part)
	res, err := req.RequestWith(within(t), stranger(t, c))
	if err == nil {
		err = kerr.ErrorForCode(res.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestLostToRetention(t *testing.T) {
	t.Run("before the run", func(t *testing.T) {
		c := quiet(t, 1)
		publish(t, c, rows(0, 100))
		commitAt(t, c, 10)
		deleteBefore(t, c, 40)
		s := new(sink)
		err := run(t, consumer(t, c, drain), s)
		var lost *broker.LostError
		if !errors.As(err, &lost) || !slices.Equal(lost.Ranges, []broker.LostRange{{Partition: 0, From: 10, To: 40}}) {
			t.Errorf("got %v, want a LostError of offsets 10 to 39", err)
		}
		if n := len(s.all()); n != 60 {
			t.Errorf("got %d messages, want the 60 that are left", n)
		}
		if err := run(t, consumer(t, c, drain), s); err != nil {
			t.Errorf("second run: got %v, want nil: a LostError is returned once", err)
		}
	})
	t.Run("during the run", func(t *testing.T) {
		c := quiet(t, 1)
		for i := range 10 { // ten batches, so that one response does not hold all
			publish(t, c, rows(10*i, 10))
		}
		var once sync.Once
		s := &sink{take: func(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
			once.Do(func() { deleteBefore(t, c, 70) })
			for _, m := range batch {
				ack(m)
			}
			return nil
		}}
		err := run(t, consumer(t, c, func(o *broker.ConsumerOptions) { o.Drain, o.MaxBytes = true, 1 }), s)
		var lost *broker.LostError
		if !errors.As(err, &lost) || !slices.Equal(lost.Ranges, []broker.LostRange{{Partition: 0, From: 10, To: 70}}) {
			t.Errorf("got %v, want a LostError of offsets 10 to 69", err)
		}
		if n := len(s.all()); n != 40 {
			t.Errorf("got %d messages, want 40", n)
		}
	})
	t.Run("while the group forms", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 100))
		joining := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.CoordinatorNotAvailable, Count: -1})
		s := new(sink)
		done := make(chan error, 1)
		go func() { done <- consumer(t, c, drain).Run(within(t), s) }()
		if err := joining.Wait(within(t), 1); err != nil {
			t.Fatal(err)
		}
		deleteBefore(t, c, 40)
		joining.Remove()
		err := recv(t, "the drain", done)
		var lost *broker.LostError
		if !errors.As(err, &lost) || !slices.Equal(lost.Ranges, []broker.LostRange{{Partition: 0, From: 0, To: 40}}) {
			t.Errorf("got %v, want a LostError of offsets 0 to 39", err)
		}
		if n := len(s.all()); n != 60 {
			t.Errorf("got %d messages, want the 60 that are left", n)
		}
	})
	t.Run("nothing was committed", func(t *testing.T) { // a group's first run begins where the topic begins
		c := quiet(t, 1)
		publish(t, c, rows(0, 100))
		deleteBefore(t, c, 40)
		if got := drained(t, c); len(got) != 60 {
			t.Errorf("got %d messages, want 60", len(got))
		}
	})
}

func TestLag(t *testing.T) {
	c := quiet(t, 2)
	publish(t, c, rows(0, 100))
	before, err := c.Lag(within(t), topic, group)
	if err != nil {
		t.Fatal(err)
	}
	if before[0].Committed != -1 || before[0].Lag()+before[1].Lag() != 100 {
		t.Errorf("before the drain: got %+v, want no committed offset and a lag of 100", before)
	}
	drained(t, c)
	after, err := c.Lag(within(t), topic, group)
	if err != nil {
		t.Fatal(err)
	}
	if after[0].Lag() != 0 || after[1].Lag() != 0 || after[1].Partition != 1 {
		t.Errorf("after the drain: got %+v, want no lag", after)
	}
	if _, err := c.Lag(within(t), "nowhere", group); !errors.As(err, new(*broker.MissingTopicError)) {
		t.Errorf("missing topic: got %v, want a MissingTopicError", err)
	}
	if got := (broker.PartitionLag{Committed: 2, First: 10, End: 15}).Lag(); got != 5 {
		t.Errorf("got a lag of %d, want 5: deleted messages do not count", got)
	}
}
