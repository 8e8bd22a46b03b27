package console

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// Screen is standard error, shared by the log, the progress line and what a command says apart from its log: what is
// logged goes above the line.
type Screen struct {
	mu   sync.Mutex
	w    io.Writer
	line string // the progress line as it stands; empty: none

	json  atomic.Pointer[slog.Logger] // nil: text
	names *strings.Replacer           // of the commands in hints; nil: their own
	under string                      // the program whose subcommands they are; empty: none
}

// NewScreen writes to w. A Screen is returned as it is.
func NewScreen(w io.Writer) *Screen {
	if s, ok := w.(*Screen); ok {
		return s
	}
	return &Screen{w: w}
}

// Under makes hints name the commands as subcommands of a program: `consumer check` becomes `purser check`. It is to be
// called before anything is written.
func (s *Screen) Under(program string) {
	s.under = program
	s.names = strings.NewReplacer(
		"`consumer ", "`"+program+" ", "`importer ", "`"+program+" import ", "`sandbox ", "`"+program+" sandbox ",
	)
}

// Program returns what was given to Under.
func (s *Screen) Program() string { return s.under }

// Hints returns a text of ours with its commands named as Under has it. What is written to the screen is named so
// without it.
func (s *Screen) Hints(text string) string {
	if s.names == nil {
		return text
	}
	return s.names.Replace(text)
}

// Format sets the form of what Say writes, and of the progress: text, or json as with --log-format.
func (s *Screen) Format(form string) {
	if form == "json" {
		s.json.Store(NewLogger(s, form, "info"))
	} else {
		s.json.Store(nil)
	}
}

// Say writes a text apart from the log, whatever its level: as a line, or as a record of a JSON log.
func (s *Screen) Say(text string) {
	if log := s.json.Load(); log != nil {
		log.Info(text)
		return
	}
	fmt.Fprintln(s, text)
}

// Lines returns a writer that says what is written to it, line by line, as Say does.
func (s *Screen) Lines() *Stdout { return Output(&lines{screen: s}) }

type lines struct {
	screen *Screen
	rest   string // the beginning of a line
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.rest += string(p)
	for {
		line, rest, whole := strings.Cut(l.rest, "\n")
		if !whole {
			return len(p), nil
		}
		l.screen.Say(line)
		l.rest = rest
	}
}

// complain writes what a command says under its name: as a line, or as a record of a JSON log with these
// attributes, which record writes.
func (s *Screen) complain(record func(*slog.Logger, string, ...any), command, text string, attrs ...any) {
	if log := s.json.Load(); log != nil {
		record(log.With("command", command), text, attrs...)
		return
	}
	fmt.Fprintf(s, "%s: %s\n", command, text)
}

// Write implements io.Writer for whole lines.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != "" {
		fmt.Fprintf(s.w, "\r%s\r", strings.Repeat(" ", len(s.line)))
	}
	_, err := s.w.Write([]byte(s.Hints(string(p)))) // one write
	if s.line != "" {
		fmt.Fprint(s.w, s.line)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// show replaces the progress line; an empty one clears it.
func (s *Screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	blank := strings.Repeat(" ", max(0, len(s.line)-len(line)))
	fmt.Fprintf(s.w, "\r%s%s", line, blank)
	if line == "" {
		fmt.Fprint(s.w, "\r")
	}
	s.line = line
}

// width is the terminal's, 0 if it is none.
func (s *Screen) width() int {
	f, isFile := s.w.(*os.File)
	if !isFile {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Progress shows how far a run has come: on a terminal as one line that is rewritten, elsewhere, if asked for, as a
// line now and then.
type Progress struct {
	screen *Screen
	line   func() string
	every  time.Duration
	live   bool // rewrite the line
	stop   chan struct{}
	done   sync.WaitGroup
	once   sync.Once
}

// StartProgress begins to show what line returns. Mode is auto, plain or none; auto is a line that is rewritten on a
// terminal, and none elsewhere or with a JSON log. Stop it.
func StartProgress(s *Screen, mode string, line func() string) *Progress {
	p := &Progress{screen: s, line: line, stop: make(chan struct{})}
	switch {
	case mode == "plain":
		p.every = 10 * time.Second
	case mode == "auto" && s.width() > 0 && s.json.Load() == nil:
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
				p.screen.show("")
			}
			return
		case <-ticker.C:
			text := p.line()
			if !p.live {
				p.screen.Say(text)
				continue
			}
			if width := p.screen.width(); width > 0 && len(text) >= width {
				text = text[:width-1] // a line that wraps cannot be rewritten
			}
			p.screen.show(text)
		}
	}
}

// Stop ends the display and clears the line. It may be called more than once.
func (p *Progress) Stop() {
	p.once.Do(func() { close(p.stop) })
	p.done.Wait()
}
