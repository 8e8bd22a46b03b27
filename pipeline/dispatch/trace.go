package dispatch

import (
	"context"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// Tracer follows rows through a run. Its methods are called by many goroutines at once, also under the Dispatcher's
// lock: they must not block.
type Tracer interface {
	// Begin is called when a row is taken, with its message.
	Begin(m pipeline.Message, r pipeline.Record) RowTrace
	// DeadLetter is called for a message that has become a dead letter.
	DeadLetter(m pipeline.Message, cause error)
}

// RowTrace follows a row from when it is taken until it is settled or given up.
type RowTrace interface {
	// Join is called for a further message of the row.
	Join(m pipeline.Message)
	// Action is called before the task's next action, which gets the returned context. end is called after the action,
	// when Task.Record has its result.
	Action(ctx context.Context, t *onboard.Task) (_ context.Context, end func(onboard.Disposition, error))
	// End is called once, after everything else. A row whose stage is not terminal is given up: its messages are delivered
	// again.
	End(r pipeline.Record)
}

// step is Worker.Step, followed by the row's trace.
func (d *Dispatcher) step(ctx context.Context, t *item) (onboard.Disposition, error) {
	if t.trace == nil {
		return d.Worker.Step(ctx, t.Task)
	}
	ctx, end := t.trace.Action(ctx, t.Task)
	next, err := d.Worker.Step(ctx, t.Task)
	end(next, err)
	return next, err
}
