package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/purser-onboard/purser/printable"
)

// Stdout is a command's standard output; see Output.
type Stdout struct {
	w io.Writer

	mu     sync.Mutex
	rest   []byte // the beginning of a character
	closed bool
	err    error // of the first write that failed
}

// Output returns a writer to w, a command's standard output. It makes the output printable, except line feeds and tabs.
// After the reader has closed the pipe, it drops the output: this does not change how the command ends. Any other
// failure does; see Result. A character may be written in parts. If w is a Stdout, it is returned unchanged.
func Output(w io.Writer) *Stdout {
	if o, ok := w.(*Stdout); ok {
		return o
	}
	return &Stdout{w: w}
}

// OutputError reports an output of a command that cannot be written.
type OutputError struct {
	What string // "standard output"; empty: Err says it
	Err  error
}

func (e *OutputError) Error() string {
	if e.What == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s cannot be written: %v", e.What, e.Err)
}

func (e *OutputError) Unwrap() error { return e.Err }

// Result returns the final error of a command that ended with err: if its output could not be written, exit code 1,
// unless err has a worse code (see Worse). It may be called again with its result.
func (o *Stdout) Result(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var said *OutputError
	if o.err == nil || errors.As(err, &said) && errors.Is(err, o.err) {
		return err
	}
	failed := Coded(ExitUnfinished, &OutputError{What: "standard output", Err: o.err})
	if Code(err) == ExitWell || errors.Is(err, o.err) {
		return failed
	}
	return Worse(err, failed)
}

// Closed reports whether the reader has closed the pipe: further output is dropped.
func (o *Stdout) Closed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

// Clear clears the screen of a terminal. On anything else it does nothing, and returns false.
func (o *Stdout) Clear() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	f, isFile := o.w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	_, err := io.WriteString(f, "\x1b[H\x1b[J") // to the upper left corner, and from there to the end
	return err == nil
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
