package console

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/purser-onboard/purser/printable"
)

// Screen is standard error, shared by the log, the progress line and the command's other messages. Log lines appear
// above the progress line.
type Screen struct {
	mu   sync.Mutex
	w    io.Writer
	line string // the progress line as it stands; empty: none

	json  atomic.Pointer[slog.Logger] // nil: text
	names *strings.Replacer           // of the commands in hints; nil: their own
	under string                      // the program whose subcommands they are; empty: none
	find  string                      // arguments by which they find settings and ledger; empty: they need none
}

// NewScreen returns a Screen that writes to w. If w is a Screen, it is returned unchanged.
func NewScreen(w io.Writer) *Screen {
	if s, ok := w.(*Screen); ok {
		return s
	}
	return &Screen{w: w}
}

// Under makes hints name the commands as subcommands of a program: `consumer check` becomes `purser check`. Call it
// before anything is written.
func (s *Screen) Under(program string) {
	s.under = program
	s.names = strings.NewReplacer(
		"`consumer ", "`"+program+" ", "`importer ", "`"+program+" import ", "`sandbox ", "`"+program+" sandbox ",
	)
}

// Program returns the argument of Under.
func (s *Screen) Program() string { return s.under }

// Find adds flags with their values to the consumer's commands in hints, so that a hint uses the settings and the
// ledger of this command and works as printed. Call it before anything is written.
func (s *Screen) Find(flags [][2]string) {
	var words []string
	for _, f := range flags {
		words = append(words, f[0], printable.ShellWord(f[1]))
	}
	s.find = strings.Join(words, " ")
}

// Hints returns one of Purser's texts with its commands changed by Under and Find. Text that is written to the screen
// is changed automatically. A second call changes nothing.
func (s *Screen) Hints(text string) string {
	if s.names != nil {
		text = s.names.Replace(text)
	}
	if s.find == "" {
		return text
	}
	return commandInText.ReplaceAllStringFunc(text, func(command string) string {
		if strings.Contains(command, s.find) || otherCommand.MatchString(command) {
			return command
		}
		return strings.TrimSuffix(command, "`") + " " + s.find + "`"
	})
}

var (
	commandInText = regexp.MustCompile("`(consumer|purser) [^`]+`")
	// otherCommand are calls that take other arguments, or have theirs.
	otherCommand = regexp.MustCompile(" --(help|config|data-dir)\\b|^`purser (import|night|sandbox|init|help)\\b")
)

// Format sets the format of Say and of the progress: text, or json as with --log-format.
func (s *Screen) Format(form string) {
	if form == "json" {
		s.json.Store(NewLogger(s, form, "info"))
	} else {
		s.json.Store(nil)
	}
}

// Say writes a message outside the log, whatever the log level: as a line, or as a record of a JSON log.
func (s *Screen) Say(text string) {
	if log := s.json.Load(); log != nil {
		log.Info(text)
		return
	}
	fmt.Fprintln(s, text)
}

// Lines returns a writer that passes each line to Say.
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
	s.erase()
	_, err := s.w.Write([]byte(s.Hints(string(p)))) // one write
	if s.line != "" {
		fmt.Fprint(s.w, s.line)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// show replaces the progress line by fields, as many as fit; without fields it clears the line.
func (s *Screen) show(fields []Field) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	width := s.width()
	if width > 0 {
		width = max(1, width-1) // in the last column some terminals wrap
	}
	s.line = fit(fields, width)
	fmt.Fprint(s.w, s.line)
}

// erase clears the progress line. On a terminal that was made narrower since it was written, the line has been wrapped:
// the rows above the cursor are then cleared as well.
func (s *Screen) erase() {
	if s.line == "" {
		return
	}
	if width := s.width(); width > 0 {
		if above := (utf8.RuneCountInString(s.line) - 1) / width; above > 0 {
			fmt.Fprintf(s.w, "\x1b[%dA", above)
		}
	}
	fmt.Fprint(s.w, "\r\x1b[J") // to the end of the screen
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

// Field is a part of a progress line; its characters are one column wide. If the line is too narrow for all fields,
// those of the highest Rank are left out first.
type Field struct {
	Text string // empty: left out
	Rank int
}

// fit joins the fields that fit into a width; 0 or less is no bound. A field that does not fit alone is cut.
func fit(fields []Field, width int) string {
	fields = slices.DeleteFunc(slices.Clone(fields), func(f Field) bool { return f.Text == "" })
	for {
		texts := make([]string, len(fields))
		for i, f := range fields {
			texts[i] = f.Text
		}
		line := strings.Join(texts, " · ")
		if width <= 0 || utf8.RuneCountInString(line) <= width {
			return line
		}
		if len(fields) == 1 {
			return string([]rune(line)[:width])
		}
		last := slices.MaxFunc(fields, func(a, b Field) int { return cmp.Compare(a.Rank, b.Rank) })
		at := slices.Index(fields, last)
		fields = slices.Delete(fields, at, at+1)
	}
}

// Left formats a duration as 12 s, 4 min or 2 h 10 min.
func Left(d time.Duration) string {
	switch {
	case d < 100*time.Second:
		return fmt.Sprintf("%d s", max(1, int(d.Round(time.Second).Seconds())))
	case d < 100*time.Minute:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
	}
	d = d.Round(10 * time.Minute)
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

// Progress shows the progress of a run: on a terminal as one line updated in place, elsewhere, if enabled, as a line a
// minute.
type Progress struct {
	screen *Screen
	line   func(at time.Time) []Field
	every  time.Duration
	live   bool // rewrite the line
	stop   chan struct{}
	done   sync.WaitGroup
	once   sync.Once
}

// StartProgress begins to show the fields that line returns; at is the time. Mode is auto, plain or none. Auto is a
// line that is rewritten on a terminal, plain on a terminal that cannot (TERM=dumb), and none elsewhere or with a JSON
// log. Stop it.
func StartProgress(s *Screen, mode string, line func(at time.Time) []Field) *Progress {
	p := &Progress{screen: s, line: line, stop: make(chan struct{})}
	auto := mode == "auto" && s.width() > 0 && s.json.Load() == nil
	switch {
	case mode == "plain", auto && os.Getenv("TERM") == "dumb":
		p.every = time.Minute
	case auto:
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
				p.screen.show(nil)
			}
			return
		case at := <-ticker.C:
			if p.live {
				p.screen.show(p.line(at))
			} else {
				p.screen.Say(fit(p.line(at), 0))
			}
		}
	}
}

// Stop ends the display and clears the line. It may be called more than once.
func (p *Progress) Stop() {
	p.once.Do(func() { close(p.stop) })
	p.done.Wait()
}
