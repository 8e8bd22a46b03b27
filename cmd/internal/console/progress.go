package console

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Progress shows how far a run has come: on a terminal as one line that is rewritten, elsewhere, if asked for, as a
// line now and then.
type Progress struct {
	w     io.Writer
	line  func() string
	every time.Duration
	live  bool // rewrite the line
	stop  chan struct{}
	done  sync.WaitGroup
	once  sync.Once
	width int
}

// StartProgress begins to show what line returns. Mode is auto, plain or none; auto is a line that is rewritten if w is
// a terminal and none otherwise. Stop it before writing anything else to w.
func StartProgress(w io.Writer, mode string, line func() string) *Progress {
	p := &Progress{w: w, line: line, stop: make(chan struct{})}
	f, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(f.Fd()))
	switch {
	case mode == "plain":
		p.every = 10 * time.Second
	case mode == "auto" && terminal:
		p.every, p.live = 200*time.Millisecond, true
	default:
		return p
	}
	p.done.Go(p.show)
	return p
}

func (p *Progress) show() {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			if p.live {
				fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
			}
			return
		case <-ticker.C:
			text := p.line()
			if p.live {
				fmt.Fprintf(p.w, "\r%s%s", text, strings.Repeat(" ", max(0, p.width-len(text))))
				p.width = max(p.width, len(text))
			} else {
				fmt.Fprintln(p.w, text)
			}
		}
	}
}

// Stop ends the display and clears the line. It may be called more than once.
func (p *Progress) Stop() {
	p.once.Do(func() { close(p.stop) })
	p.done.Wait()
}
