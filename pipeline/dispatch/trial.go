package dispatch

import (
	"time"
)

// trialTime is how long at most SetupLimit new rows run, until one has come through.
const trialTime = 30 * time.Second

// finished notes that a row has come through. The lock is held.
func (r *Dispatcher) finished() {
	if !r.Worker.Through() {
		r.Worker.NoteThrough()
		r.forPartner.wake.Broadcast()
	}
}

// beginTrial counts a row that runs before any has come through. The lock is held.
func (r *Dispatcher) beginTrial(t *item) {
	t.trial = true
	r.trials++
	if r.trialEnd != nil {
		return
	}
	r.trialEnd = time.AfterFunc(trialTime, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.trialOver = true
		r.forPartner.wake.Broadcast()
	})
}

// endTrial lets another row run in the place of this one. The lock is held.
func (r *Dispatcher) endTrial(t *item) {
	if t.trial {
		t.trial = false
		r.trials--
		r.forPartner.wake.Signal()
	}
}
