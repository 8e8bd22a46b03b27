package cmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// command prepares a command and collects its output.
func command(t testing.TB, env []string, name string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &out
	return cmd, &out
}

// started starts a command and returns the lines of its standard error, which the caller is to read.
func started(t testing.TB, cmd *exec.Cmd) *bufio.Scanner {
	t.Helper()
	cmd.Stderr = nil
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return bufio.NewScanner(stderr)
}

// working starts a consumer and waits until it has its partitions. The lines that follow on its standard error are to be
// read by the caller.
func working(t testing.TB, env []string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd, _ := command(t, env, "consumer", args...)
	lines := started(t, cmd)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "partitions assigned") {
			return cmd, lines
		}
	}
	t.Fatalf("got the end of the output of consumer %q, want its partitions assigned", args)
	return nil, nil
}

// startReading starts a command that imports standard input, and returns its input while it reads and waits for more.
func startReading(t *testing.T, cmd *exec.Cmd) io.Closer {
	t.Helper()
	pipe, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fill(t, pipe)
	return pipe
}

// fill writes invalid rows to an import's pipe, more than a pipe holds: when all of them are written, it is reading.
func fill(t *testing.T, pipe io.Writer) {
	t.Helper()
	if _, err := io.WriteString(pipe, "address,externalId\n"+strings.Repeat("no address,e\n", 40_000)); err != nil {
		t.Fatal(err)
	}
}

// mustRun runs a command and fails the test unless it ends with exit code 0.
func mustRun(t testing.TB, env []string, name string, args ...string) {
	t.Helper()
	cmd, out := command(t, env, name, args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: got %v, want exit code 0:\n%s", name, strings.Join(args, " "), err, out)
	}
}

// exitsWith runs a command and fails the test unless it ends with the exit code and its output has all of says.
func exitsWith(t *testing.T, env []string, code int, says []string, name string, args ...string) {
	t.Helper()
	cmd, out := command(t, env, name, args...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("%s %v: got exit code %d, want %d:\n%s", name, args, got, code, out)
	}
	for _, s := range says {
		if !strings.Contains(out.String(), s) {
			t.Errorf("%s %v: got this output, want %q in it:\n%s", name, args, s, out)
		}
	}
}

// ignoreExit is nil for a process that was killed or ended with an exit code.
func ignoreExit(err error) error {
	if errors.As(err, new(*exec.ExitError)) {
		return nil
	}
	return err
}

// report is the part of a consumer's --report that tests read.
type report struct {
	Rows struct {
		Received, Skipped, Onboarded, AlreadyOnboarded, Refused, Failed, Conflict int
	}
	Requests   struct{ Sent int }
	Signatures int
	Reason     string
	Exit       int
}

// drain runs a consumer to its end, fails the test unless it has the exit code, and returns the report.
func drain(t *testing.T, env []string, code int, args ...string) report {
	t.Helper()
	return drainTo(t, env, []int{code}, args...)
}

// drainTo is drain with several allowed exit codes.
func drainTo(t *testing.T, env []string, codes []int, args ...string) report {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.json")
	cmd, out := command(t, env, "consumer", append([]string{"--drain", "--report", path}, args...)...)
	if err := ignoreExit(cmd.Run()); err != nil {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); !slices.Contains(codes, got) {
		t.Errorf("consumer %v: got exit code %d, want one of %v:\n%s", args, got, codes, out)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// afterLines closes done at the n-th write.
type afterLines struct {
	left atomic.Int64
	done chan struct{}
}

func (w *afterLines) Write(p []byte) (int, error) {
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
	return len(p), nil
}

func newAfterLines(n int64) *afterLines {
	w := &afterLines{done: make(chan struct{})}
	w.left.Store(n)
	return w
}

// killAfter runs the consumer and kills it when answered is done.
func killAfter(t *testing.T, env []string, answered *afterLines) {
	t.Helper()
	cmd, out := command(t, env, "consumer", "--drain", "--concurrency", "3")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-answered.done
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatalf("got exit code 0, want it killed before its end:\n%s", out)
	}
}

// rowsOf returns the rows of the ledger with their stages.
func rowsOf(t *testing.T, env []string) []sandbox.Expected {
	t.Helper()
	book, err := ledger.OpenReadOnly(context.WithoutCancel(t.Context()), filepath.Join(dataOf(env), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	var rows []sandbox.Expected
	err = book.Each(t.Context(), func(r pipeline.Record, _ []pipeline.Customer) error {
		rows = append(rows, sandbox.Expected{ChainID: r.Account.String(), ExternalID: r.ExternalID, Stage: string(r.Stage)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// judged fails the test unless all 30 rows of the sample export are onboarded and the partner found no violation.
func judged(t *testing.T, server *sandbox.Server, env []string) {
	t.Helper()
	rows := rowsOf(t, env)
	for _, r := range rows {
		if r.Stage != "onboarded" {
			t.Errorf("%s: got stage %s, want onboarded", r.ChainID, r.Stage)
		}
	}
	if len(rows) != 30 {
		t.Errorf("got %d rows, want 30", len(rows))
	}
	judgeRows(t, server, rows, 30)
}

// judgeRows fails the test unless the partner has the number of customers, and found no violation for these rows.
func judgeRows(t *testing.T, server *sandbox.Server, rows []sandbox.Expected, want int) {
	t.Helper()
	if v := server.Judge(rows); v.Customers != want || !v.Complete || len(v.Violations) > 0 {
		t.Errorf("got %d customers, history complete: %v, violations %+v; want %d, true, none",
			v.Customers, v.Complete, v.Violations, want)
	}
}
