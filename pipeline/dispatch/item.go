package dispatch

import (
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// item is a task with its scheduling state. The Dispatcher's lock guards all fields except Task; Task belongs to the
// worker while running is true.
type item struct {
	*onboard.Task

	running  bool
	trace    RowTrace   // nil: the row is not traced
	messages []delivery // which settle with the row
	ready    time.Time  // not before then; zero: now
	asked    time.Time  // when this process first found the row waiting for the custodian; zero: it is not
	trial    bool       // one of the few rows that are begun before any has come through
	turn     int64      // its place among the rows of its partition, in rounds of one row per partition
	seq      int64      // order of arrival in its queue
	index    int        // in the queue's heap, -1 when not in it
}

// begun reports whether the row was started: started rows run before new rows.
func (t *item) begun() bool { return t.Stage != pipeline.Planned || t.trial }
