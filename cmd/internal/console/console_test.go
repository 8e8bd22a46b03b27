package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/lockfile"
)

// TestScreen: log lines stand above the progress line, which is drawn again below them.
func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := NewScreen(&out)
	s.show([]Field{{Text: "12 rows"}})
	fmt.Fprintln(s, "a log line")
	s.show([]Field{{Text: "3 rows"}})
	s.show(nil)
	fmt.Fprintln(s, "the end")
	const erase = "\r\x1b[J"
	want := "12 rows" + erase + "a log line\n12 rows" + erase + "3 rows" + erase + "the end\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{config.ErrPrinted, 0},
		{errors.New("x"), 1},
		{fmt.Errorf("x: %w", &config.Error{Setting: "--x"}), 2},
		{fmt.Errorf("x: %w", &config.UsageError{Err: errors.New("x")}), 2},
		{Coded(3, errors.New("x")), 3},
		{fmt.Errorf("x: %w", Coded(1, &config.Error{})), 1},
		{Coded(3, nil), 0},
		{Coded(2, fmt.Errorf("open x: %w", syscall.EMFILE)), 1}, // not the settings' fault
		{errors.New("ledger: unable to open database file: too many open files"), 1},
	} {
		if got := Code(tt.err); got != tt.want {
			t.Errorf("Code(%v): got %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestOutOfFilesNamesTheLimit(t *testing.T) {
	var out bytes.Buffer
	got := Exit(&out, "importer", fmt.Errorf("open x: %w", syscall.EMFILE))
	want := regexp.MustCompile(`^importer: open x: too many open files; the limit is \d+: raise it with ulimit -n.*\n$`)
	if got != ExitUnfinished || !want.MatchString(out.String()) {
		t.Errorf("got %d and %q, want %d and %v", got, out.String(), ExitUnfinished, want)
	}
}

// stringer is text behind a method, as url.URL and netip.Addr are.
type stringer []byte

func (s stringer) String() string { return string(s) }

// TestLastGates: text that forges a line or changes the terminal is escaped on standard output and error.
func TestLastGates(t *testing.T) {
	const hostile = "Åsa 🛂\x1b[2J\n\u202e\u2028\x7f\xff"
	const want = `Åsa 🛂\x1b[2J\n\u202e\u2028\x7f\xff`
	var out bytes.Buffer
	logger := NewLogger(&out, "json", "info")
	type word string
	logger.Info(hostile, "text", hostile, "error", errors.New("no file "+hostile), "list", []string{hostile}, "rows", 7,
		"word", word(hostile), "stringer", stringer(hostile), "map", map[string]string{"k": hostile},
		"partitions", []int{1, 2}, "nothing", nil)
	var line struct {
		Level, Msg, Text, Error, Word, Stringer, Map string
		List                                         []string
		Rows                                         int
		Partitions                                   []int
		Nothing                                      any
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line.Msg != want || line.Text != want || line.Error != `no file Åsa 🛂\x1b[2J; \u202e\u2028\x7f\xff` ||
		len(line.List) != 1 || line.List[0] != want || line.Rows != 7 || line.Word != want || line.Stringer != want ||
		line.Map != "map[k:"+want+"]" || line.Level != "INFO" || len(line.Partitions) != 2 || line.Nothing != nil {
		t.Errorf("got %+v, want %s in all texts", line, want)
	}
	out.Reset()
	Exit(&out, "consumer", errors.Join(errors.New("one\a"), errors.New(strings.Repeat("A", 100_000))))
	if got := out.String(); !strings.HasPrefix(got, `consumer: one\a; AAA`) || strings.Count(got, "\n") != 1 ||
		len(got) > 9<<10 {
		t.Errorf("got %d bytes, %.100q, want one line of at most 9 KiB", len(got), got)
	}
	out.Reset()
	w := Output(&out)
	for _, b := range []byte("a\t" + hostile + "\n") { // one byte at a time
		if n, err := w.Write([]byte{b}); n != 1 || err != nil {
			t.Fatalf("got %d, %v, want 1 byte written", n, err)
		}
	}
	if got, want := out.String(), "a\t"+strings.Replace(want, `\n`, "\n", 1)+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestScreenInJSON: what is said apart from the log is JSON, too, if the log is.
func TestScreenInJSON(t *testing.T) {
	var out bytes.Buffer
	s := NewScreen(&out)
	s.Format("json")
	s.Say("12 rows\x1b[2J")
	if got := Exit(s, "consumer", Coded(3, errors.New("some rows\nended badly"))); got != 3 {
		t.Errorf("got exit code %d, want 3", got)
	}
	p := StartProgress(NewScreen(s), "auto", func(time.Time) []Field {
		return []Field{{Text: "a line that is not JSON"}}
	})
	p.Stop()
	decoder := json.NewDecoder(&out)
	for _, want := range []string{
		`INFO 12 rows\x1b[2J  0`, `ERROR some rows; ended badly consumer 3`,
	} {
		var line struct {
			Level, Msg, Command string
			Exit                int
		}
		err := decoder.Decode(&line)
		if got := fmt.Sprintf("%s %s %s %d", line.Level, line.Msg, line.Command, line.Exit); err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	if decoder.More() {
		t.Errorf("got more than two records, want no more")
	}
}

// TestHintsWorkAsPrinted: hints name the commands of the program that runs, with what they need to find the ledger.
func TestHintsWorkAsPrinted(t *testing.T) {
	const text = "`consumer failures` lists them; `consumer status --run last`, then `importer x.csv`, see `consumer --help`"
	for _, tt := range []struct {
		under string
		find  [][2]string
		want  string
	}{
		{want: text},
		{find: [][2]string{{"--data-dir", "/a b"}}, want: "`consumer failures --data-dir '/a b'` lists them; " +
			"`consumer status --run last --data-dir '/a b'`, then `importer x.csv`, see `consumer --help`"},
		{under: "purser", find: [][2]string{{"--config", "p.yaml"}, {"--ledger", "l.db"}},
			want: "`purser failures --config p.yaml --ledger l.db` lists them; " +
				"`purser status --run last --config p.yaml --ledger l.db`, then `purser import x.csv`, see `purser --help`"},
	} {
		s := NewScreen(io.Discard)
		if tt.under != "" {
			s.Under(tt.under)
		}
		s.Find(tt.find)
		if got := s.Hints(text); got != tt.want || s.Hints(got) != got {
			t.Errorf("got  %s\nwant %s, also of a second call", got, tt.want)
		}
	}
}

// TestLine: an error is one line, and says nothing twice.
func TestLine(t *testing.T) {
	full := errors.New("write rejects: no space left on device")
	err := errors.Join(fmt.Errorf("halted at a.csv:7: %w", full), full, errors.Join(full, errors.New("close: \x1b")))
	want := `halted at a.csv:7: write rejects: no space left on device; close: \x1b`
	if got := Line(err); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestUnusable: 2 for what has to be changed, 1 for what may pass, and for what is not known.
func TestUnusable(t *testing.T) {
	for code, causes := range map[int][]error{
		ExitUsage: {
			fs.ErrPermission, fs.ErrNotExist, syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOENT, syscall.ENOTDIR,
			syscall.EISDIR, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.EINVAL, &lockfile.UnsafeError{Path: "x"},
		},
		ExitUnfinished: {
			syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EMFILE, syscall.ENFILE, syscall.EIO, syscall.ESTALE,
			syscall.ETIMEDOUT, syscall.ENOMEM, syscall.EBUSY, syscall.EINTR, errors.New("unknown"),
		},
		ExitWell: {nil},
	} {
		for _, cause := range causes {
			err := cause
			if err != nil {
				err = fmt.Errorf("rejects file: %w", &OutputError{Err: &fs.PathError{Op: "open", Path: "x", Err: cause}})
			}
			if got := Unusable(err); Code(got) != code || !errors.Is(got, cause) {
				t.Errorf("%v: got %v with exit code %d, want %d", cause, got, Code(got), code)
			}
		}
	}
}
