package onboard

import (
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// Task is a row in progress: its record, its next action, and state that is kept between actions but not in the ledger.
// After a restart a row continues without that state.
type Task struct {
	pipeline.Record
	Action Action

	// previousClass is the class with which the row ended before this import restarted it; empty: it did not.
	previousClass string

	entered  time.Time // when it came to its stage, or to this process, monotonic; only with Options.OnStage
	fetched  time.Time // when the present challenge was asked for with GET, so a stale one is the partner's doing
	recorded bool      // the send of this action is recorded already
	sent     time.Time // when this process last sent the creation, by the monotonic clock
	polls    int       // how often the custodian was asked what became of the request
	failing  failing   // the latest questions to the custodian, if they failed
	heard    int       // answers in a row under the present key that settled nothing, without a silence between them
	delays   int       // how often in a row the action could not be done for reasons that are not the row's
	resends  bool      // the request of this action was sent before

	spared      int // attempts of the present operation with which its waits do not grow
	failedInRow int // the latest ones if they were readings (of the list, the customer, its challenge), which are spared

	unanswered    time.Time // since when no attempt of the row has met a usable answer, monotonic; zero: the last one did
	signerTrouble time.Time // when the signer first failed for the row
}

// Begin returns the task of a row that was accepted as open.
func (w *Worker) Begin(a pipeline.Acceptance) *Task {
	t := &Task{Record: a.Record, previousClass: a.Previous}
	if w.OnStage != nil {
		t.entered = pipeline.Monotonic()
	}
	w.Resume(t)
	return t
}

// Resume sets the action that the task's record requires.
func (w *Worker) Resume(t *Task) { t.Action = w.dueAction(t) }

// AtCustodian reports whether the row waits for a custodian that has its request.
func (t *Task) AtCustodian() bool { return t.polls > 0 && t.Stage == pipeline.Signing }

// FailedPolls returns the number of consecutive failed polls and the error of the last; 0 and nil if the last poll did
// not fail.
func (t *Task) FailedPolls() (n int, last error) { return t.failing.polls, t.failing.err }
