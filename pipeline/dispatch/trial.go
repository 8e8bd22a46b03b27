package dispatch

import (
	"time"
)

// trialTime is how long at most SetupLimit new rows run, until one has come through. A signer that only throttles
// prolongs it.
const trialTime = 30 * time.Second

// finished notes that a row has come through. The lock is held.
func (d *Dispatcher) finished() {
	if !d.Worker.Through() {
		d.Worker.NoteThrough()
		d.forPartner.wake.Broadcast()
	}
}

// beginTrial counts a row that runs before any has come through. The lock is held.
func (d *Dispatcher) beginTrial(t *item) {
	t.trial = true
	d.trials++
	if d.trialEnd != nil {
		return
	}
	d.trialEnd = time.AfterFunc(trialTime, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.trialOver = true
		d.forPartner.wake.Broadcast()
	})
}

// endTrial lets another row run in the place of this one. The lock is held.
func (d *Dispatcher) endTrial(t *item) {
	if t.trial {
		t.trial = false
		d.trials--
		d.forPartner.wake.Signal()
	}
}
