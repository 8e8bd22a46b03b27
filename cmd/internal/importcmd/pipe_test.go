//go:build unix

package importcmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/purser-onboard/purser/cmd/internal/console"
)

func pipeAt(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPipe: an export may be a named pipe, as the shell makes for <(…), which can be read only once.
func TestPipe(t *testing.T) {
	export, err := os.ReadFile("../../../testdata/customers.csv")
	if err != nil {
		t.Fatal(err)
	}
	path := pipeAt(t)
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(path, export, 0o600) }()
	var out strings.Builder
	args := []string{"--dry-run", "--chain=eip155:300", "--data-dir", t.TempDir(), path}
	err = Main(t.Context(), args, nil, &out, io.Discard)
	if err != nil || !strings.Contains(out.String(), "30 valid") {
		t.Errorf("got %v and %q, want the 30 rows of the export", err, out.String())
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}

// TestPipeInADirectory: it is read only if it is named itself.
func TestPipeInADirectory(t *testing.T) {
	pipe := pipeAt(t)
	export := filepath.Join(filepath.Dir(pipe), "piper.csv")
	if err := os.WriteFile(export, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	log := console.NewLogger(console.NewScreen(&said), "text", "info")
	for arg, want := range map[string]string{
		filepath.Dir(pipe): export, filepath.Join(filepath.Dir(pipe), "pipe*"): export, pipe: pipe,
	} {
		if got, err := expand([]string{arg}, log); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, %v; want %s", arg, got, err, want)
		}
	}
	if n := strings.Count(said.String(), "skipped a pipe, socket or device in a directory or pattern"); n != 2 {
		t.Errorf("got %d warnings, want 2:\n%s", n, &said)
	}
}

// TestStopAtAPipe: a signal ends the wait for the writer of a pipe.
func TestStopAtAPipe(t *testing.T) {
	for _, name := range []string{"pipe", "pipe.gz"} {
		path := pipeAt(t)
		if err := os.Rename(path, filepath.Join(filepath.Dir(path), name)); err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(filepath.Dir(path), name)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(console.ErrInterrupted)
		args := []string{"--dry-run", "--chain=eip155:300", "--data-dir", t.TempDir(), path}
		err := Main(ctx, args, nil, io.Discard, io.Discard)
		if !errors.Is(err, console.ErrInterrupted) || console.Code(err) != console.ExitUnfinished {
			t.Errorf("%s: got %v with exit code %d, want %v with 1", name, err, console.Code(err), console.ErrInterrupted)
		}
		writer, err := os.OpenFile(path, os.O_RDWR, 0) // for the goroutine that still waits
		if err != nil {
			t.Fatal(err)
		}
		writer.Close()
	}
}

// TestStopWhileReading: a signal ends a read that blocks in the middle of an export, and the goroutine that reads has
// ended before its decoder is released.
func TestStopWhileReading(t *testing.T) {
	var packed bytes.Buffer
	encoder, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../../testdata/customers.csv")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encoder.Write(bytes.Repeat(text, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := encoder.Flush(); err != nil { // without an end
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"export.csv": text, "export.csv.zst": packed.Bytes()} {
		path := filepath.Join(filepath.Dir(pipeAt(t)), name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() {
			args := []string{"--dry-run", "--chain=eip155:300", "--data-dir", t.TempDir(), path}
			ended <- Main(ctx, args, nil, io.Discard, io.Discard)
		}()
		writer, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write(content); err != nil {
			t.Fatal(err)
		}
		cancel(console.ErrInterrupted) // the writer stays, so the next read blocks
		if err := <-ended; !errors.Is(err, console.ErrInterrupted) {
			t.Errorf("%s: got %v, want %v", name, err, console.ErrInterrupted)
		}
		writer.Close()
	}
}
