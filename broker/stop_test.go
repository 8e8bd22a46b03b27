package broker_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// Run ends at once when its ctx ends while the group waits for another member.
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

// A handler without room blocks in Take, and returns an error when the assignment or the run ends. Run does not fail then.
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
		t.Errorf("Run: got %v, want nil", err)
	}
	if calls != 2 || len(s.all()) != 20 {
		t.Errorf("got %d calls with %d messages, want 2 with 20", calls, len(s.all()))
	}
	if at := committed(t, c); at[0] != -1 {
		t.Errorf("got committed offset %d, want none", at[0])
	}
}

// Run waits for a handler no longer than the group waits for this member.
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
		t.Errorf("Run: got %v, want nil", err)
	}
}

// All goroutines have ended after Close.
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
