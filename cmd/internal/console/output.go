package console

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"github.com/purser-onboard/purser/printable"
)

// Output returns a writer to w, a command's standard output, that makes printable what is written, except line feeds
// and tabs, and drops what is written after the reader has closed the pipe: a reader who has seen enough does not
// decide how the command ends. A character may be written in parts.
func Output(w io.Writer) io.Writer { return &output{w: w} }

type output struct {
	w io.Writer

	mu     sync.Mutex
	rest   []byte // the beginning of a character
	closed bool
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
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
		return 0, err
	}
	return len(p), nil
}
