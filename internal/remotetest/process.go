// Package remotetest runs servers for tests of remote signers: the real program as a process, or a JSON-RPC server
// whose answers the test defines.
package remotetest

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// starting is how long a program may take until it is ready; only a failure waits that long.
const starting = time.Minute

// Start starts command and passes its output, both streams mixed, to ready line by line. It blocks until ready has
// found all wanted values, and returns them by the index that ready gave each. The test fails if the program ends
// before that, or takes longer than a minute. When the test ends, the program is killed and waited for, and its output
// logged if the test failed.
func Start(
	t testing.TB, command *exec.Cmd, wanted int, ready func(line string) (index int, value string, ok bool),
) []string {
	t.Helper()
	p := &process{values: make([]string, wanted), missing: wanted, ready: make(chan struct{})}
	reader, writer := io.Pipe()
	command.Stdout, command.Stderr = writer, writer // one writer: exec then copies both streams one after the other
	if err := command.Start(); err != nil {
		t.Fatalf("start %s: %v", command.Path, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(reader, ready)
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait() // killed, or its end shows in its output
		_ = writer.Close()
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended by itself
		<-ended
		<-read
		if t.Failed() {
			t.Logf("output of %s:\n%s", command.Path, p.text())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), starting)
	defer cancel()
	select {
	case <-p.ready:
		return p.values
	case <-ended:
		t.Fatalf("%s ended before it was ready", command.Path)
	case <-ctx.Done():
		t.Fatalf("%s was not ready in time: %v", command.Path, ctx.Err())
	}
	return nil
}

type process struct {
	values  []string
	missing int
	ready   chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
}

func (p *process) read(in io.Reader, ready func(string) (int, string, bool)) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.mu.Lock()
		p.output.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
		if p.missing == 0 {
			continue
		}
		if i, value, ok := ready(lines.Text()); ok && p.values[i] == "" {
			p.values[i] = value
			if p.missing--; p.missing == 0 {
				close(p.ready)
			}
		}
	}
	_, _ = io.Copy(io.Discard, in) // a line beyond the buffer must not block the program
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}
