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

// withhold has the broker answer fetches of partition 0 from an offset on with nothing, and with an end that lies
// beyond, so many times; -1 is for ever. It counts them.
func withhold(fake *kfake.Cluster, from, end int64, times int64) *atomic.Int64 {
	n := new(atomic.Int64)
	fake.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		if req.Topics[0].Partitions[0].FetchOffset < from || times >= 0 && n.Load() >= times {
			return nil, nil, false
		}
		n.Add(1)
		partition := kmsg.NewFetchResponseTopicPartition()
		partition.HighWatermark, partition.RecordBatches = end, []byte{}
		part := kmsg.NewFetchResponseTopic()
		part.Topic, part.Partitions = topic, append(part.Partitions, partition)
		res := req.ResponseKind().(*kmsg.FetchResponse)
		res.Topics = append(res.Topics, part)
		return res, nil, true
	})
	return n
}

// A broker that cannot get at its storage in time answers with nothing, as if nothing were there. No row is passed
// over.
func TestWithheld(t *testing.T) {
	t.Run("for a while", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 60))
		publish(t, c, rows(60, 40))
		withhold(fake, 60, 100, 8)
		q := consumer(t, c, func(o *broker.ConsumerOptions) { o.Drain, o.MaxBytes, o.MaxWait = true, 1, time.Millisecond })
		s := new(sink)
		if err := run(t, q, s); err != nil {
			t.Fatal(err)
		}
		if seen := counts(s.all()); len(seen) != 100 {
			t.Errorf("%d rows came, want 100", len(seen))
		}
	})
	t.Run("for good", func(t *testing.T) {
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 60))
		publish(t, c, rows(60, 40))
		withhold(fake, 60, 100, -1)
		q := consumer(t, c, func(o *broker.ConsumerOptions) {
			o.Drain, o.MaxBytes, o.MaxWait, o.LostAfter = true, 1, time.Millisecond, 50*time.Millisecond
		})
		var empty *broker.EmptyFetchError
		if err := run(t, q, new(sink)); !errors.As(err, &empty) || empty.Offset != 60 || empty.End != 100 {
			t.Errorf("got %v", err)
		}
		if at := committed(t, c); !slices.Equal(at, []int64{60}) {
			t.Errorf("committed %v, want the 60 that came", at)
		}
	})
	t.Run("and cut", func(t *testing.T) { // what an unclean election leaves: the end is before where it was
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 60))
		publish(t, c, rows(60, 40))
		withhold(fake, 60, 60, -1)
		q := consumer(t, c, func(o *broker.ConsumerOptions) {
			o.Drain, o.MaxBytes, o.MaxWait, o.LostAfter = true, 1, time.Millisecond, 50*time.Millisecond
		})
		var empty *broker.EmptyFetchError
		if err := run(t, q, new(sink)); !errors.As(err, &empty) || empty.Offset != 60 || empty.End != 100 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("from a run", func(t *testing.T) { // which has time, and asks until something comes
		fake, c := cluster(t, 1, 1)
		publish(t, c, rows(0, 10))
		asked := withhold(fake, 0, 10, 50)
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
			t.Errorf("%d messages came after %d empty answers, want 10 after 50", n, asked.Load())
		}
	})
}
