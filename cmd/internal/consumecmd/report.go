package consumecmd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/outfile"
)

// reportFile is where --report or --report-html goes: a file, which is replaced as a whole, or a stream or device,
// which is written to.
type reportFile struct {
	flag   string // that names it, for errors
	path   string // empty: nowhere
	stream io.Writer
	kind   fileKind
	room   io.Closer // held for the end; nil: none
}

// hold keeps room for the final report: a run that ends because the disk is full says so in its report. Without room
// there is nothing to hold, and the end will tell.
func (f *reportFile) hold(bytes int) {
	if f.path == "" || f.stream != nil || f.device() {
		return
	}
	if room, err := outfile.Hold(f.path, bytes); err == nil {
		f.room = room
	}
}

// fileKind is what an output may replace: an earlier one of its kind.
type fileKind struct {
	name  string // "a report"
	known func(head []byte) bool
}

// openReport determines the kind of file that the setting names; {run} in it is replaced by the run's id.
func openReport(flag, setting, run string, kind fileKind, s Streams) reportFile {
	path := strings.ReplaceAll(setting, "{run}", run)
	switch path {
	case "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1":
		return reportFile{flag: flag, path: path, stream: s.Stdout, kind: kind}
	case "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2":
		return reportFile{flag: flag, path: path, stream: s.Stderr, kind: kind}
	}
	return reportFile{flag: flag, path: path, kind: kind}
}

// same reports whether both go to one file, stream or device.
func (f reportFile) same(other reportFile) bool {
	if f.path == "" || other.path == "" {
		return false
	}
	if f.stream != nil || other.stream != nil {
		return f.stream == other.stream
	}
	one, err := os.Stat(f.path)
	another, e := os.Stat(other.path)
	return absolute(f.path) == absolute(other.path) || err == nil && e == nil && os.SameFile(one, another)
}

// begin writes the report at the start of the run, so that an earlier run's report is not mistaken for this run's.
// Streams and devices get only the final report.
func (f reportFile) begin(content []byte) error {
	if f.path == "" || f.stream != nil || f.device() {
		return nil
	}
	return f.write(content)
}

// replaces returns a *config.Error if the file at the path is not one that a run writes for this flag.
func (f reportFile) replaces() error {
	if f.path == "" || f.stream != nil {
		return nil
	}
	return replaceable(f.flag, f.path, f.kind)
}

// replaceable returns a *config.Error if the file at a flag's path is of another kind.
func replaceable(flag, path string, kind fileKind) error {
	if err := outfile.Replaces(path, kind.name, kind.known); err != nil {
		return &config.Error{Setting: flag, Problem: err.Error()}
	}
	return nil
}

// write replaces the file. It looks at the earlier one each time: the rejects file, say, may have got its name since.
func (f reportFile) write(content []byte) error {
	if err := f.replaces(); err != nil {
		return err
	}
	return f.named(outfile.Write(f.path, content))
}

// end writes the final report.
func (f reportFile) end(content []byte) error {
	if f.room != nil {
		_ = f.room.Close() // a file without a name; a second call does no harm
	}
	switch {
	case f.path == "":
		return nil
	case f.stream != nil:
		_, err := f.stream.Write(content)
		if _, ok := f.stream.(*console.Stdout); ok {
			return nil // it remembers its error, for Result
		}
		return f.named(err)
	case f.device():
		return f.named(writeTo(f.path, content))
	}
	return f.write(content)
}

func (f reportFile) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", f.flag, &console.OutputError{Err: err})
}

// correct replaces the final report, if it went to a file.
func (f reportFile) correct(content []byte) error {
	if f.stream != nil {
		return nil
	}
	return f.begin(content)
}

// device reports whether the path is a pipe, terminal or other device.
func (f reportFile) device() bool {
	info, err := os.Stat(f.path)
	return err == nil && !info.Mode().IsRegular() && !info.IsDir()
}

// writeTo writes to a device. A pipe without a reader is an error, not a wait.
func writeTo(path string, data []byte) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	_, err = out.Write(data)
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}
