//go:build unix

package ledger

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// childVariable is the role of the test binary when a test starts it as a child process, to be killed, limited or run
// without rights.
const childVariable = "LEDGER_TEST_CHILD"

func TestMain(m *testing.M) {
	role, arguments, _ := strings.Cut(os.Getenv(childVariable), " ")
	if role == "" {
		syscall.Umask(0o022) // for t.TempDir: Open fails in a directory that a group may write to
		os.Exit(m.Run())
	}
	child, known := children()[role]
	if !known {
		fmt.Fprintf(os.Stderr, "no child %q\n", role)
		os.Exit(2)
	}
	if err := child(context.Background(), strings.Fields(arguments)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is a running child.
type process struct {
	*exec.Cmd
	lines  *bufio.Scanner
	stderr strings.Builder
}

// startChild starts the test binary in a role; arguments may not hold spaces.
func startChild(t testing.TB, role string, arguments ...string) *process {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.CommandContext(t.Context(), executable)}
	p.Env = append(os.Environ(), childVariable+"="+role+" "+strings.Join(arguments, " "))
	p.Stderr = &p.stderr
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(stdout)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// runChild runs a child, which must succeed, and returns its output.
func runChild(t testing.TB, role string, arguments ...string) string {
	t.Helper()
	p := startChild(t, role, arguments...)
	var out strings.Builder
	for p.lines.Scan() {
		fmt.Fprintln(&out, p.lines.Text())
	}
	if err := p.Wait(); err != nil {
		t.Fatalf("child %s: got %v, want success\n%s%s", role, err, out.String(), p.stderr.String())
	}
	return out.String()
}
