// Package console is what the commands share in talking to the operator: exit codes, log, standard output, signals and
// progress.
package console

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log" //nolint:depguard // whose output is adopted here
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/printable"
)

// Exit codes of all commands.
const (
	ExitWell       = 0 // all rows onboarded
	ExitUnfinished = 1 // could not finish: halted, interrupted, broker gone
	ExitUsage      = 2 // usage or configuration
	ExitRowsBad    = 3 // finished, but some rows are invalid, rejected, failed, refused, in conflict or dead-lettered
)

// CodedError is an error with an exit code.
type CodedError struct {
	Code int
	Err  error
}

func (e *CodedError) Error() string { return e.Err.Error() }
func (e *CodedError) Unwrap() error { return e.Err }

// Coded gives an error its exit code; nil stays nil.
func Coded(code int, err error) error {
	if err == nil {
		return nil
	}
	return &CodedError{Code: code, Err: err}
}

// Unusable gives the error of a path in a setting or argument exit code 2 if it is Lasting. Any other error keeps its
// code, 1 by default.
func Unusable(err error) error {
	switch {
	case !Lasting(err):
		return err
	case errors.As(err, new(*lockfile.UnsafeError)): // has its own advice
		return Coded(ExitUsage, err)
	}
	return Coded(ExitUsage, fmt.Errorf("%w: choose another path, or make this one accessible", err))
}

// Lasting reports whether the error of a path is permanent until the command or the path is changed. Every other error
// may be temporary: there may be space again (ENOSPC, EDQUOT), fewer files may be open (EMFILE, ENFILE), a disk or a
// file server may come back (EIO, ESTALE, ETIMEDOUT), and unknown errors may be either.
func Lasting(err error) bool {
	if errors.As(err, new(*lockfile.UnsafeError)) {
		return true
	}
	return slices.ContainsFunc([]error{
		fs.ErrPermission,                // permissions, owners and attributes are set by a person
		syscall.EROFS,                   // so are mount options; a disk that was made read-only after an error stays so
		fs.ErrNotExist,                  // what Purser may make, it makes: a person makes the rest, or mounts its disk
		syscall.ENOTDIR, syscall.EISDIR, // something of another kind has the name
		syscall.ELOOP, syscall.ENAMETOOLONG, syscall.EINVAL, // there can be no file of that name
	}, func(cause error) bool { return errors.Is(err, cause) })
}

// Exit returns a command's exit code, after writing its error to w in the format of its Screen.
func Exit(w io.Writer, command string, err error) int {
	code := Code(err)
	if code == ExitWell {
		return code
	}
	text := Line(err)
	if outOfFiles(err) {
		text += fmt.Sprintf("; the limit is %s: raise it with ulimit -n, to 256 or more", fileLimit())
	}
	NewScreen(w).complain((*slog.Logger).Error, command, text, "exit", code)
	return code
}

// maxLine limits a text in the log and on the terminal.
const maxLine = 8 << 10

// Line returns an error as one printable line; semicolons separate the errors that errors.Join puts on separate lines.
// Of errors with the same text, such as those of several writers to a full disk, it has the first.
func Line(err error) string {
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if !slices.ContainsFunc(lines, func(said string) bool {
			return said == line || strings.HasSuffix(said, ": "+line)
		}) {
			lines = append(lines, line)
		}
	}
	return printable.Line(strings.Join(lines, "; "), maxLine)
}

// outOfFiles reports that a file or a connection could not be opened because the process has too many, wherever that
// was: not every library keeps the error itself.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || err != nil && strings.Contains(err.Error(), syscall.EMFILE.Error())
}

func fileLimit() string {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return "not known"
	}
	return strconv.FormatUint(limit.Cur, 10)
}

// Code returns the exit code of an error.
func Code(err error) int {
	var coded *CodedError
	var usage *config.UsageError
	var setting *config.Error
	switch {
	case err == nil, errors.Is(err, config.ErrPrinted):
		return ExitWell
	case outOfFiles(err):
		return ExitUnfinished
	case errors.As(err, &coded):
		return coded.Code
	case errors.As(err, &usage), errors.As(err, &setting), errors.As(err, new(*lockfile.UnsafeError)):
		return ExitUsage
	}
	return ExitUnfinished
}

// Worse joins the errors of two parts of a command and gives them the worse of their exit codes: 2 (fix something
// first) is worse than 1 (another attempt may succeed), and 1 is worse than 3.
func Worse(first, second error) error {
	rank := []int{ExitWell, ExitRowsBad, ExitUnfinished, ExitUsage}
	one, other := Code(first), Code(second)
	switch {
	case one == ExitWell:
		return second
	case other == ExitWell:
		return first
	case slices.Index(rank, other) > slices.Index(rank, one):
		one = other
	}
	return Coded(one, errors.Join(first, second))
}

// NewLogger returns the log of a command. Message and attributes are made printable, those of any other type than
// numbers, times, errors and texts as fmt.Sprint has them: JSON escapes control characters only below U+0020, and
// neither form bounds a text.
func NewLogger(w io.Writer, form, level string) *slog.Logger {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		least = slog.LevelInfo // the flag's enum admits no other
	}
	options := &slog.HandlerOptions{Level: least, ReplaceAttr: printed}
	if form == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// WarnOfVariables writes one warning, without values, about variables whose names are almost those of settings.
func WarnOfVariables(w io.Writer, c config.Common) {
	if len(c.UnknownVariables) > 0 {
		NewLogger(w, c.LogFormat, c.LogLevel).Warn("ignored unknown variables that look like settings",
			"variables", strings.Join(c.UnknownVariables, ", "))
	}
}

// printed escapes an attribute's text.
func printed(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case string:
		a.Value = slog.StringValue(printable.Line(v, maxLine))
	case error:
		a.Value = slog.StringValue(Line(v))
	case []string:
		shown := make([]string, len(v))
		for i, text := range v {
			shown[i] = printable.Line(text, maxLine)
		}
		a.Value = slog.AnyValue(shown)
	case []int:
	default:
		if a.Value.Kind() == slog.KindAny && v != nil { // not a number, a time or a duration
			a.Value = slog.StringValue(printable.Line(fmt.Sprint(v), maxLine))
		}
	}
	return a
}

// AdoptStandardLog redirects net/http's messages in the standard library's log to the command's log. net/http quotes
// unsolicited responses of a server, which may contain a token: these are left out.
func AdoptStandardLog(to *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(adopted{to})
}

type adopted struct{ log *slog.Logger }

func (a adopted) Write(line []byte) (int, error) {
	text, quoted, _ := strings.Cut(strings.TrimRight(string(line), "\n"), " starting with ")
	a.log.Info("net/http: "+text, "bytes_not_shown", len(quoted))
	return len(line), nil
}
