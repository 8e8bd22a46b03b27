package consuming

import (
	"context"
	"log/slog"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
)

// events publishes the results beside the run. It stands before the runner: what was settled of a partition is
// published before the partition is given away, for it may be another consumer's business afterwards.
type events struct {
	pipeline.Handler
	announcer *pipeline.Announcer // nil: no results are published
	stop      func()
	ended     chan struct{}
}

// announce begins to publish, if there is a topic for it; end must follow.
func announce(
	ctx context.Context, c *config.Consumer, q *queue.Queue, book *ledger.Ledger, runner *pipeline.Runner,
	log *slog.Logger,
) *events {
	e := &events{Handler: runner, stop: func() {}, ended: make(chan struct{})}
	if c.ResultsTopic == "" {
		close(e.ended)
		return e
	}
	e.announcer = pipeline.NewAnnouncer(book, q.Publisher(), c.ResultsTopic)
	e.announcer.OnTrouble = func(err error) {
		log.Error("results are not published for now; they wait in the ledger", "error", err)
	}
	runner.OnSettled = func(pipeline.Record) { e.announcer.Wake() }
	var running context.Context
	running, e.stop = context.WithCancel(ctx)
	go func() {
		defer close(e.ended)
		e.announcer.Run(running)
	}()
	return e
}

// wake has it look again: a partition has come, perhaps with rows that nobody has announced.
func (e *events) wake() {
	if e.announcer != nil {
		e.announcer.Wake()
	}
}

// Release implements pipeline.Handler.
func (e *events) Release(ctx context.Context, partition int) {
	e.Handler.Release(ctx, partition)
	if e.announcer == nil {
		return
	}
	if err := e.announcer.Flush(ctx); err != nil && ctx.Err() == nil {
		e.announcer.OnTrouble(err)
	}
}

// end publishes what is left and is ours to publish.
func (e *events) end(ctx context.Context) error {
	e.stop()
	<-e.ended
	if e.announcer == nil {
		return nil
	}
	return e.announcer.Flush(ctx)
}
