package console

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

func raise(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		t.Fatal(err)
	}
}

// TestSignals: SIGHUP is a soft stop however often it comes. Another signal after it is a hard stop.
func TestSignals(t *testing.T) {
	heeded := make(chan os.Signal, 2) // the tests may run under nohup
	signal.Notify(heeded, syscall.SIGHUP)
	defer signal.Stop(heeded)
	var said strings.Builder
	soft, hard, stop := Signals(t.Context(), &said, Stopping{Command: "consumer", Waits: "waiting for requests"})
	defer stop()
	raise(t, syscall.SIGHUP)
	<-soft.Done()
	want := "consumer: stopping (hangup): waiting for requests; a second signal cuts that short\n"
	if said.String() != want {
		t.Errorf("got message %q, want %q", said.String(), want)
	}
	raise(t, syscall.SIGHUP)
	raise(t, syscall.SIGTERM)
	<-hard.Done()
	for ctx, want := range map[context.Context]string{soft: "interrupted by hangup", hard: "interrupted by terminated"} {
		if got := context.Cause(ctx); !errors.Is(got, ErrInterrupted) || got.Error() != want {
			t.Errorf("got cause %v, want %s", got, want)
		}
	}
}

func TestSignalsOnce(t *testing.T) {
	var said strings.Builder
	soft, hard, stop := Signals(t.Context(), &said, Stopping{Command: "importer", Waits: "waiting", Once: true})
	defer stop()
	raise(t, syscall.SIGTERM)
	<-soft.Done()
	if want := "a second signal ends the process\n"; !strings.HasSuffix(said.String(), want) || hard.Err() != nil {
		t.Errorf("got message %q and hard stop %v, want %q and none", said.String(), hard.Err(), want)
	}
}

// TestOutput: a closed pipe is no error, another failure is.
func TestOutput(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	out := Output(writer)
	for range 2 {
		if n, err := io.WriteString(out, "line\n"); n != 5 || err != nil {
			t.Errorf("after the reader was closed: got %d, %v; want 5 and no error", n, err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if got := out.Result(nil); got != nil {
		t.Errorf("after the reader has gone: got result %v, want none", got)
	}
	out = Output(Output(writer)) // as when main and a command's Main make it
	if _, err := io.WriteString(out, "line\n"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed file: got %v, want %v", err, os.ErrClosed)
	}
	if got := out.Result(nil); !errors.Is(got, os.ErrClosed) || Code(got) != ExitUnfinished {
		t.Errorf("a closed file: got result %v with exit code %d, want %v with 1", got, Code(got), os.ErrClosed)
	}
	for code, want := range map[int]int{ExitRowsBad: 1, ExitUnfinished: 1, ExitUsage: 2} {
		before := Coded(code, errors.New("rows"))
		got := out.Result(before)
		if !errors.Is(got, before) || !errors.Is(got, os.ErrClosed) || Code(got) != want {
			t.Errorf("a command that ended with %d: got result %v with exit code %d, want both errors and %d",
				code, got, Code(got), want)
		}
		if again := out.Result(got); again != got { //nolint:errorlint // the same error
			t.Errorf("a result of a result: got %v, want it unchanged: %v", again, got)
		}
	}
}
