package broker_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// emptyFetches has the broker return empty responses, with a high watermark of end, to fetches of partition 0 from an
// offset on, so many times; -1: always. With an end of -1 the responses have no topic, like those to a client above its
// quota. It counts them.
func emptyFetches(fake *kfake.Cluster, from, end int64, times int64) *atomic.Int64 {
	n := new(atomic.Int64)
	fake.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		if req.Topics[0].Partitions[0].FetchOffset < from || times >= 0 && n.Load() >= times {
			return nil, nil, false
		}
		n.Add(1)
		res := req.ResponseKind().(*kmsg.FetchResponse)
		if end < 0 {
			return res, nil, true
		}
		partition := kmsg.NewFetchResponseTopicPartition()
		partition.HighWatermark, partition.RecordBatches = end, []byte{}
		part := kmsg.NewFetchResponseTopic()
		part.Topic, part.Partitions = topic, append(part.Partitions, partition)
		res.Topics = append(res.Topics, part)
		return res, nil, true
	})
	return n
}

// A broker that cannot read its storage in time returns an empty response below the high watermark. No row is skipped.
func TestEmptyFetch(t *testing.T) {
	t.Run("for a while", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 60))
		publish(t, c, rows(60, 40))
		emptyFetches(fake, 60, 100, 8)
		q := consumer(t, c, func(o *broker.ConsumerOptions) { o.Drain, o.MaxBytes, o.MaxWait = true, 1, time.Millisecond })
		s := new(sink)
		if err := run(t, q, s); err != nil {
			t.Fatal(err)
		}
		if seen := counts(s.all()); len(seen) != 100 {
			t.Errorf("got %d rows, want 100", len(seen))
		}
	})
	t.Run("above the quota", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 60))
		publish(t, c, rows(60, 40))
		var most atomic.Int32
		fake.ControlKey(kmsg.Fetch.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
			fake.KeepControl()
			most.Store(max(most.Load(), req.(*kmsg.FetchRequest).MaxBytes))
			return nil, nil, false
		})
		emptyFetches(fake, 60, -1, 8)
		assigned := 0
		q := consumer(t, c, func(o *broker.ConsumerOptions) {
			o.Drain, o.MaxBytes, o.MaxWait = true, 1, time.Millisecond
			o.Membership = watching{assigned: func([]int, int) { assigned++ }}
		})
		s := new(sink)
		if err := run(t, q, s); err != nil {
			t.Fatal(err)
		}
		if seen := counts(s.all()); len(seen) != 100 || assigned != 1 {
			t.Errorf("got %d rows and %d assignments, want 100 and 1", len(seen), assigned)
		}
		if got := most.Load(); got != 1 { // more would only be throttled for longer
			t.Errorf("got a request for %d bytes, want 1 in each", got)
		}
	})
	t.Run("for good", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 60))
		publish(t, c, rows(60, 40))
		emptyFetches(fake, 60, 100, -1)
		q := consumer(t, c, func(o *broker.ConsumerOptions) {
			o.Drain, o.MaxBytes, o.MaxWait, o.LostAfter = true, 1, time.Millisecond, 50*time.Millisecond
		})
		var empty *broker.EmptyFetchError
		if err := run(t, q, new(sink)); !errors.As(err, &empty) || empty.Offset != 60 || empty.End != 100 {
			t.Errorf("got %v, want an EmptyFetchError of offsets 60 to 100", err)
		}
		if at := committed(t, c); !slices.Equal(at, []int64{60}) {
			t.Errorf("got committed offsets %v, want 60", at)
		}
	})
	t.Run("truncated", func(t *testing.T) { // as after an unclean election: the end is lower than before
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 60))
		publish(t, c, rows(60, 40))
		emptyFetches(fake, 60, 60, -1)
		q := consumer(t, c, func(o *broker.ConsumerOptions) {
			o.Drain, o.MaxBytes, o.MaxWait, o.LostAfter = true, 1, time.Millisecond, 50*time.Millisecond
		})
		var empty *broker.EmptyFetchError
		if err := run(t, q, new(sink)); !errors.As(err, &empty) || empty.Offset != 60 || empty.End != 100 {
			t.Errorf("got %v, want an EmptyFetchError of offsets 60 to 100", err)
		}
	})
	t.Run("without a drain", func(t *testing.T) { // a run retries until messages arrive
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 10))
		asked := emptyFetches(fake, 0, 10, 50)
		ctx, stop := context.WithCancel(within(t))
		var once sync.Once
		s := &sink{take: func(context.Context, []pipeline.Message, func(pipeline.Message)) error {
			once.Do(stop)
			return nil
		}}
		q := consumer(t, c, func(o *broker.ConsumerOptions) { o.MaxWait, o.LostAfter = time.Millisecond, time.Second })
		if err := q.Run(ctx, s); err != nil {
			t.Fatal(err)
		}
		if n := len(s.all()); n != 10 || asked.Load() != 50 {
			t.Errorf("got %d messages after %d empty fetches, want 10 after 50", n, asked.Load())
		}
	})
}
