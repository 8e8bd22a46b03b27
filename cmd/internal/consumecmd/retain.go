package consumecmd

import (
	"context"
	"log/slog"

	"github.com/purser-onboard/purser/ledger"
)

// dropping clears, during a run, challenge and signature of the rows that earlier runs have settled.
type dropping struct {
	again chan struct{} // holds a token while rows may be left; closed when no more will come
	ended chan struct{} // closed when err is final
	err   error
}

// dropSigned starts to drop; end must follow, once. When ctx ends, the next run continues.
func dropSigned(ctx context.Context, book *ledger.Ledger, log *slog.Logger) *dropping {
	d := &dropping{again: make(chan struct{}, 1), ended: make(chan struct{})}
	d.again <- struct{}{}
	go func() {
		defer close(d.ended)
		for range d.again {
			n, err := book.DropSigned(ctx)
			if n > 0 {
				log.Info("dropped challenge and signature of rows that were settled earlier", "rows", n)
			}
			if err != nil {
				if ctx.Err() == nil {
					d.err = err
				}
				return
			}
		}
	}()
	return d
}

// wake has it look again: with a ledger topic, a partition has come with its rows. Not after end.
func (d *dropping) wake() {
	select {
	case d.again <- struct{}{}:
	default: // it is about to look
	}
}

// end waits until nothing is left that this run can drop.
func (d *dropping) end() error {
	close(d.again)
	<-d.ended
	return d.err
}
