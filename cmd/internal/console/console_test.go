package console

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"syscall"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
)

// TestScreen: what is logged stands above the progress line, which is drawn anew below it.
func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := NewScreen(&out)
	s.show("12 rows")
	fmt.Fprintln(s, "a log line")
	s.show("3 rows")
	s.show("")
	fmt.Fprintln(s, "the end")
	want := "\r12 rows" + "\r       \ra log line\n12 rows" + "\r3 rows " + "\r      \r" + "the end\n"
	if out.String() != want {
		t.Errorf("%q\nwant %q", out.String(), want)
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
		{Coded(2, fmt.Errorf("open x: %w", syscall.EMFILE)), 1}, // not a matter of the settings that were being used
		{errors.New("ledger: unable to open database file: too many open files"), 1},
	} {
		if got := Code(tt.err); got != tt.want {
			t.Errorf("Code(%v) = %d, want %d", tt.err, got, tt.want)
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
