package consumecmd

import (
	"context"
	"log/slog"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/dispatch"
	"github.com/purser-onboard/purser/pipeline/results"
)

// events publishes the results during the run. It stands before the dispatcher: what was settled of a partition is
// published before the partition is given away, for it may be another consumer's business afterwards.
type events struct {
	pipeline.Handler
	relay   *results.Relay  // nil: no results are published
	publish context.Context // ends a moment after a soft stop or a halt: what is left waits for the next run
	release func()          // of publish
	stop    func()
	ended   chan struct{}
}

// publishGrace is how long events are still published after a soft stop or a halt. They are in the ledger's outbox: a
// broker that is away does not hold up the end of the run.
const publishGrace = time.Second

// publishEvents begins to publish, if there is a topic for it; end must follow. taking ends with a soft stop or a halt.
// source is that of the events.
func publishEvents(
	taking, ctx context.Context, c *config.Consumer, from results.Origin, q *queue.Queue, book *ledger.Ledger,
	d *dispatch.Dispatcher, log *slog.Logger,
) *events {
	e := &events{Handler: d, stop: func() {}, ended: make(chan struct{})}
	publish, cancel := context.WithCancel(ctx)
	var grace *time.Timer
	armed := make(chan struct{})
	unwatch := context.AfterFunc(taking, func() {
		grace = time.AfterFunc(publishGrace, cancel)
		close(armed)
	})
	e.publish = publish
	e.release = func() {
		if !unwatch() {
			<-armed
			grace.Stop()
		}
		cancel()
	}
	if c.ResultsTopic == "" {
		close(e.ended)
		return e
	}
	e.relay = results.NewRelay(book, q.Publisher(), c.ResultsTopic, from)
	e.relay.OnTrouble = func(err error) {
		log.Error("cannot publish results; they stay in the ledger", "error", err)
	}
	var running context.Context
	running, e.stop = context.WithCancel(publish)
	go func() {
		defer close(e.ended)
		e.relay.Run(running)
	}()
	return e
}

// wake has it look again: a row was settled, or a partition has come with rows whose events are not published yet.
func (e *events) wake() {
	if e.relay != nil {
		e.relay.Wake()
	}
}

// Release implements pipeline.Handler.
func (e *events) Release(ctx context.Context, partition int) {
	e.Handler.Release(ctx, partition)
	if e.relay == nil {
		return
	}
	ctx, cancel := e.within(ctx)
	defer cancel()
	if err := e.relay.Flush(ctx); err != nil && ctx.Err() == nil {
		e.relay.OnTrouble(err)
	}
}

// within bounds ctx by the end of publishing.
func (e *events) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.publish, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// end publishes the remaining events that are ours to publish.
func (e *events) end(ctx context.Context) error {
	e.stop()
	<-e.ended
	defer e.release()
	if e.relay == nil {
		return nil
	}
	ctx, cancel := e.within(ctx)
	defer cancel()
	err := e.relay.Flush(ctx)
	if e.publish.Err() != nil {
		return nil // the next run publishes what is left
	}
	return err
}
