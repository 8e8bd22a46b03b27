package cmd

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/sandbox"
)

// TestOneLedgerThroughLinks: a second consumer with a broker of its own reaches the ledger of a running one by a
// symbolic link, by a link to its directory and by a hard link. An importer reaches its broker by a link.
func TestOneLedgerThroughLinks(t *testing.T) {
	t.Parallel()
	env := running(t)
	dir := t.TempDir()
	book := filepath.Join(dataOf(env), "ledger.db")
	link, hard, data := filepath.Join(dir, "link.db"), filepath.Join(dir, "hard.db"), filepath.Join(dir, "data")
	if err := errors.Join(os.Symlink(book, link), os.Symlink(dataOf(env), data)); err != nil {
		t.Fatal(err)
	}
	other := append(env[:len(env):len(env)], "PURSER_DATA_DIR="+filepath.Join(dir, "other"))
	exitsWith(t, other, 1, []string{"in use by process"}, "consumer", "--drain", "--ledger", link)
	exitsWith(t, other, 1, []string{"in use by process"},
		"consumer", "--drain", "--ledger", filepath.Join(data, "ledger.db"))
	exitsWith(t, other, 0, []string{"using the embedded broker of a running process"},
		"importer", "--data-dir", data, customers)
	if err := os.Link(book, hard); err != nil {
		t.Fatal(err)
	}
	exitsWith(t, other, 2, []string{"has 2 hard links", "remove"}, "consumer", "--drain", "--ledger", hard)
}

// TestPlantedLinkForALock: a symbolic link in a lock file's place is an error, and its target keeps its content.
func TestPlantedLinkForALock(t *testing.T) {
	t.Parallel()
	for _, lock := range []string{"ledger.db.lock", "broker/lock"} {
		_, env := partnerEnv(t, sandbox.Config{})
		victim, path := filepath.Join(t.TempDir(), "victim"), filepath.Join(dataOf(env), lock)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(victim, []byte("precious"), 0o600),
			os.Symlink(victim, path)); err != nil {
			t.Fatal(err)
		}
		exitsWith(t, env, 2, []string{lock + " is a symbolic link: remove it"}, "consumer", "--drain")
		if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
			t.Errorf("%s: got target %q, %v; want it untouched", lock, text, err)
		}
	}
}

// TestDataDirectoryOfOthers: no command works in a data directory that others may write to or replace.
func TestDataDirectoryOfOthers(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{})
	dir := dataOf(env)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	says := []string{"may be written to by other users (mode 0770): run chmod go-w " + dir}
	exitsWith(t, env, 2, says, "importer", customers)
	exitsWith(t, env, 2, says, "consumer", "--drain")
	exitsWith(t, env, 2, says, "consumer", "check")
	if err := errors.Join(os.Chmod(dir, 0o750), os.Chmod(filepath.Dir(dir), 0o777)); err != nil {
		t.Fatal(err)
	}
	says = []string{"directory " + filepath.Dir(dir) + " may be written to by all users (mode 0777)", "run chmod o-w"}
	exitsWith(t, env, 2, says, "importer", customers)
	exitsWith(t, env, 2, says, "consumer", "--drain")
	if err := os.Chmod(filepath.Dir(dir), 0o750); err != nil {
		t.Fatal(err)
	}
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
}

// TestBasePathIsPartOfTheEnvironment: /v1 and /live/v1 of one host are two environments.
func TestBasePathIsPartOfTheEnvironment(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{})
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	env = append(env, "OFFBLOCKS_API_URL="+strings.TrimSuffix(setting(env, "OFFBLOCKS_API_URL"), "/v1")+"/live/v1")
	exitsWith(t, env, 2, []string{"/v1 with key id", "/live/v1 with key id", "another data directory"},
		"consumer", "--drain")
}

// TestLedgerLostDuringARun: a ledger that is removed or replaced in the middle of a run ends it with 1.
func TestLedgerLostDuringARun(t *testing.T) {
	t.Parallel()
	for _, says := range []string{"was removed during the run", "was replaced by another file during the run"} {
		var requests atomic.Int64
		var book atomic.Pointer[string] // set before the first request
		lose := func() error {
			path := *book.Load()
			if err := os.Rename(path, path+".away"); err != nil || !strings.Contains(says, "replaced") {
				return err
			}
			return os.WriteFile(path, nil, 0o600)
		}
		server, env := partnerBehind(t, sandbox.Config{}, func(partner http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == 20 {
					if err := lose(); err != nil {
						t.Error(err)
					}
				}
				partner.ServeHTTP(w, r)
			})
		})
		path := filepath.Join(dataOf(env), "ledger.db")
		book.Store(&path)
		mustRun(t, env, "importer", customers)
		exitsWith(t, env, 1, []string{says}, "consumer", "--drain", "--concurrency", "3")
		if n := server.Stats().Created; n == 30 {
			t.Errorf("%s: got all 30 customers created, want the run to end before", says)
		}
	}
}

// TestClosedPipe: a closed reader of standard output does not change how a command ends.
func TestClosedPipe(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, sandbox.Config{})
	report := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(report, results.Begun("yesterday's", time.Time{}).JSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"importer", customers}, {"consumer", "--drain", "--report", report}, {"consumer", "status"},
		{"consumer", "failures"}, {"consumer", "report", "--format", "html"}, {"consumer", "check"},
	} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd, out := command(t, env, args[0], args[1:]...)
		cmd.Stdout = writer
		if err := errors.Join(reader.Close(), cmd.Run(), writer.Close()); err != nil {
			t.Errorf("%v: got %v, want exit code 0:\n%s", args, err, out)
		}
	}
	judged(t, server, env)
	var got results.Report
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &got); err != nil || got.Exit != 0 || got.Rows.Onboarded != 30 {
		t.Errorf("got report %s, %v; want exit 0 and 30 onboarded", text, err)
	}
}

// TestSecondCopy starts a second consumer on the data directory of a running one.
func TestSecondCopy(t *testing.T) {
	t.Parallel()
	answered := newAfterLines(3)
	_, env := partnerEnv(t, sandbox.Config{HistoryLog: answered})
	mustRun(t, env, "importer", customers)
	cmd, out := command(t, env, "consumer")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-answered.done
	exitsWith(t, env, 1, []string{"in use by process"}, "consumer", "--drain")
	mustRun(t, env, "consumer", "status") // reading is possible
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Errorf("got exit code 0, want another after SIGTERM:\n%s", out)
	}
}

// TestFeedRunningConsumer imports twice into the embedded broker of a consumer that waits for rows.
func TestFeedRunningConsumer(t *testing.T) {
	t.Parallel()
	answered := newAfterLines(62) // a token, the probe, and two for each row
	server, env := partnerEnv(t, sandbox.Config{HistoryLog: answered})
	raw, err := os.ReadFile(customers)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(raw), "\n")
	half := filepath.Join(t.TempDir(), "half.csv")
	if err := os.WriteFile(half, []byte(strings.Join(lines[:16], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out := command(t, env, "consumer")
	waits := make(chan struct{})
	output := &signalled{w: out, on: "partitions assigned", then: func() { close(waits) }}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-waits
	mustRun(t, env, "importer", half)
	mustRun(t, env, "importer", customers)
	<-answered.done
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 1 {
		t.Errorf("got exit code %d, want 1 after SIGTERM:\n%s", got, out)
	}
	judged(t, server, env)
	mustRun(t, env, "consumer", "--drain") // the queue is whole
}

// running starts a consumer that runs until the test ends, and returns after its first requests.
func running(t *testing.T) (env []string) {
	t.Helper()
	answered := newAfterLines(3)
	_, env = partnerEnv(t, sandbox.Config{HistoryLog: answered})
	mustRun(t, env, "importer", customers)
	cmd, _ := command(t, env, "consumer")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	<-answered.done
	return env
}
