package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// A partition in which no message is acknowledged is reported repeatedly, with its first offset, until it makes progress.
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
	if want := (broker.Stall{Offset: 1, Outstanding: 4, For: first.For}); first != want || first.For < 20*time.Millisecond {
		t.Errorf("first report: got %+v, want %+v for at least 20ms", first, want)
	}
	if second.For < 40*time.Millisecond || second.For <= first.For {
		t.Errorf("second report: got %+v after %+v, want at least 40ms and longer", second, first)
	}
	ackRest()
	if err := recv(t, "the end", done); err != nil {
		t.Fatal(err)
	}
}
