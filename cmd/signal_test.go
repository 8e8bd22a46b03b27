package cmd

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/sandbox"
)

// heedHangUp makes SIGHUP work in the commands that the test starts, also when the tests run under nohup: processes
// inherit that a signal is ignored, but not that it is caught.
func heedHangUp(t *testing.T) {
	t.Helper()
	heeded := make(chan os.Signal, 1)
	signal.Notify(heeded, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(heeded) })
}

// TestStopInTheMiddle stops a consumer in the middle of its work. After all signals but SIGKILL it reports the open
// rows. The next run settles them, and the partner received nothing twice.
func TestStopInTheMiddle(t *testing.T) {
	t.Parallel()
	heedHangUp(t)
	for _, tt := range []struct {
		signal syscall.Signal
		exit   int
		says   string
	}{
		{syscall.SIGINT, 1, "interrupted by interrupt"},
		{syscall.SIGTERM, 1, "interrupted by terminated"},
		{syscall.SIGHUP, 1, "interrupted by hangup"},
		{syscall.SIGKILL, -1, ""},
	} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			answered := newAfterLines(15)
			server, env := partnerEnv(t, sandbox.Config{Latency: 20 * time.Millisecond, HistoryLog: answered, DeclaredRate: 500})
			mustRun(t, env, "importer", customers)
			report := filepath.Join(t.TempDir(), "report.json")
			cmd, out := command(t, env, "consumer", "--drain", "--concurrency", "3", "--report", report)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-answered.done
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != tt.exit || !strings.Contains(out.String(), tt.says) {
				t.Fatalf("got %v, want exit code %d and %q:\n%s", err, tt.exit, tt.says, out)
			}
			if b := reportAt(t, report).Balance; tt.exit == 1 && (b == nil || !b.Received.OK || b.Received.Returned == 0) {
				t.Errorf("got balance %+v, want messages that were returned, and the sums to be right", b)
			}
			if tt.exit == 1 && !strings.Contains(out.String(), "not settled") {
				t.Errorf("got this output, want \"not settled\" in it:\n%s", out)
			}
			const waits = "waiting for the requests in flight (each --request-timeout at most) and for signatures; " +
				"a second signal cuts that short"
			if tt.exit == 1 && !strings.Contains(out.String(), waits) {
				t.Errorf("got this output, want %q in it:\n%s", waits, out)
			}
			if n := server.Stats().Created; n == 30 {
				t.Fatalf("got all %d customers created, want the stop before", n)
			}
			mustRun(t, env, "consumer", "--drain")
			judged(t, server, env)
		})
	}
}

// TestStopImporter stops an importer that waits for input from an idle pipe.
func TestStopImporter(t *testing.T) {
	_, env := partnerEnv(t, sandbox.Config{})
	cmd, out := command(t, env, "importer", "-")
	startReading(t, cmd)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out.String(), "interrupted by interrupt") {
		t.Errorf("got %v, want exit code 1 and \"interrupted by interrupt\":\n%s", err, out)
	}
}

// TestHangUp: several SIGHUPs are one soft stop. Under nohup they are ignored.
func TestHangUp(t *testing.T) {
	t.Parallel()
	heedHangUp(t)
	for name, test := range map[string]struct {
		args []string
		exit int
	}{
		"terminal": {[]string{"consumer", "--drain"}, 1},
		"nohup":    {[]string{"bash", "-c", "trap '' HUP; exec consumer --drain"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var once sync.Once
			begun, held := make(chan struct{}), make(chan struct{})
			server, env := partnerBehind(t, sandbox.Config{}, func(partner http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/customers") {
						once.Do(func() { close(begun) })
						<-held
					}
					partner.ServeHTTP(w, r)
				})
			})
			mustRun(t, env, "importer", customers)
			cmd, out := command(t, env, test.args[0], test.args[1:]...)
			output := &signalled{w: out, on: "stopping (hangup)", then: func() {
				if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
					t.Error(err)
				}
				close(held)
			}}
			cmd.Stdout, cmd.Stderr = output, output
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-begun
			if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if test.exit == 0 {
				close(held)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != test.exit {
				t.Fatalf("got exit code %d, want %d:\n%s", got, test.exit, out)
			}
			// A hard stop would have cut the requests short that were held.
			if n := server.Stats().Created; n == 0 {
				t.Errorf("got no customer created, want the requests in flight to be waited for:\n%s", out)
			}
			if test.exit == 0 {
				judged(t, server, env)
			}
		})
	}
}

// signalled passes on all writes, and calls then once, at the first write that contains on.
type signalled struct {
	w    io.Writer
	on   string
	then func()
	once sync.Once
}

func (s *signalled) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.on) {
		s.once.Do(s.then)
	}
	return s.w.Write(p)
}

// TestFullOutput: a command whose output cannot be written has not succeeded; one whose reader has gone has.
func TestFullOutput(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here: ", err)
	}
	defer full.Close()
	reader, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	_, env := partnerEnv(t, sandbox.Config{})
	mustRun(t, env, "importer", customers)
	for _, args := range [][]string{
		{"importer", "--dry-run", customers}, {"importer", "--help"}, {"consumer", "check"}, {"consumer", "redrive"},
		{"consumer", "--drain"}, {"consumer", "reconcile"}, {"consumer", "status"}, {"consumer", "failures"},
		{"consumer", "report"}, {"consumer", "rebind"}, {"sandbox", "--version"},
	} {
		for out, want := range map[*os.File]int{full: 1, closed: 0} {
			cmd, said := command(t, env, args[0], args[1:]...)
			cmd.Stdout = out
			_ = cmd.Run()
			says := !strings.Contains(said.String(), "no space left on device")
			if got := cmd.ProcessState.ExitCode(); got != want || says == (out == full) {
				t.Errorf("%v: ended with %d, want %d, and on standard error:\n%s", args, got, want, said)
			}
		}
	}
}
