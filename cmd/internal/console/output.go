package console

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/purser-onboard/purser/printable"
)

// Stdout is a command's standard output; Output makes it.
type Stdout struct {
	w io.Writer

	mu     sync.Mutex
	rest   []byte // the beginning of a character
	closed bool
	err    error // of the first write that failed
}

// Output returns a writer to w, a command's standard output, that makes printable what is written, except line feeds
// and tabs, and drops what is written after the reader has closed the pipe: a reader who has seen enough does not
// decide how the command ends. Any other failure does; see Result. A character may be written in parts. A Stdout is
// returned as it is.
func Output(w io.Writer) *Stdout {
	if o, ok := w.(*Stdout); ok {
		return o
	}
	return &Stdout{w: w}
}

// Result is the error with which a command ends that has ended with err: a command that has succeeded but could not
// write its output has not.
func (o *Stdout) Result(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil && (Code(err) == ExitWell || errors.Is(err, o.err)) {
		return Coded(ExitUnfinished, fmt.Errorf("standard output cannot be written: %w", o.err))
	}
	return err
}

// Write implements io.Writer.
func (o *Stdout) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return len(p), nil
	}
	text, rest := printable.Append(nil, append(o.rest, p...))
	o.rest = rest
	_, err := o.w.Write(text)
	switch {
	case errors.Is(err, syscall.EPIPE):
		o.closed = true
	case err != nil:
		if o.err == nil {
			o.err = err
		}
		return 0, err
	}
	return len(p), nil
}
