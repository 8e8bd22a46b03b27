package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// ErrInterrupted is the cause of a context that ended with a signal.
var ErrInterrupted = errors.New("interrupted")

// Stopping is a command's message at the first signal.
type Stopping struct {
	Command string
	Waits   string // for what, after that: "waiting for the requests in flight"
	// Once: the command has nothing that a hard stop could cancel, so the second signal ends the process.
	Once bool
}

// Signals returns two contexts. The first ends with the first SIGINT, SIGTERM or SIGHUP, the soft stop: take nothing
// new and finish requests in flight; a message on w says what the command waits for. The second ends with the second
// SIGINT or SIGTERM, the hard stop: cancel requests in flight, too. Another SIGHUP is not a hard stop, because a
// closing terminal may send several; under nohup, SIGHUP stays ignored. stop restores the default handling of the
// signals.
//
// SIGPIPE is ignored, so that a closed pipe is an error of the write that met it; see Output.
func Signals(parent context.Context, w io.Writer, s Stopping) (soft, hard context.Context, stop func()) {
	hard, cancelHard := context.WithCancelCause(parent)
	soft, cancelSoft := context.WithCancelCause(hard)
	// A file-size limit (ulimit -f) shall be an error of the write that met it, too.
	signal.Ignore(syscall.SIGXFSZ, syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	done := make(chan struct{})
	finished := make(chan struct{})
	// next waits for a signal, and is false when the command has ended.
	next := func() (got os.Signal, more bool) {
		select {
		case got = <-signals:
			return got, true
		case <-done:
			return nil, false
		}
	}
	go func() {
		defer close(finished)
		first, more := next()
		if !more {
			return
		}
		second := "cuts that short"
		if s.Once {
			second = "ends the process"
			signal.Reset(os.Interrupt, syscall.SIGTERM)
		}
		NewScreen(w).complain((*slog.Logger).Warn, s.Command,
			fmt.Sprintf("stopping (%v): %s; a second signal %s", first, s.Waits, second))
		cancelSoft(fmt.Errorf("%w by %v", ErrInterrupted, first))
		for {
			got, more := next()
			if !more {
				return
			}
			if got != syscall.SIGHUP {
				cancelHard(fmt.Errorf("%w by %v", ErrInterrupted, got))
				return
			}
		}
	}()
	return soft, hard, func() {
		signal.Stop(signals)
		close(done)
		<-finished
		cancelSoft(nil)
		cancelHard(nil)
	}
}
