package cmd

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/sandbox"
)

// running starts a consumer that runs until the test ends, and returns when it has sent requests.
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

// TestOneLedgerThroughLinks: a second consumer with a broker of its own reaches the ledger of a running one by a
// symbolic link, by a link to its directory and by a hard link.
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
	exitsWith(t, other, 1, []string{"broker's directory", "in use by process"},
		"importer", "--data-dir", data, customers)
	if err := os.Link(book, hard); err != nil {
		t.Fatal(err)
	}
	exitsWith(t, other, 2, []string{"has 2 hard links", "remove"}, "consumer", "--drain", "--ledger", hard)
}

// TestPlantedLinkForALock: a symbolic link in a lock file's place is refused, and its target keeps its content.
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
			t.Errorf("%s: the target holds %q, %v; want it untouched", lock, text, err)
		}
	}
}

// TestDataDirectoryOfOthers: no command works in a data directory that others may write to.
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
	if err := os.Chmod(dir, 0o750); err != nil {
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
	for _, v := range env {
		if url, ok := strings.CutPrefix(v, "OFFBLOCKS_API_URL="); ok {
			env = append(env, "OFFBLOCKS_API_URL="+strings.TrimSuffix(url, "/v1")+"/live/v1")
		}
	}
	exitsWith(t, env, 2, []string{"/v1 with key id", "/live/v1 with key id", "another data directory"},
		"consumer", "--drain")
}

// TestLedgerLostDuringARun: a ledger that is removed or replaced in the middle of a run ends it with 1.
func TestLedgerLostDuringARun(t *testing.T) {
	t.Parallel()
	for _, says := range []string{"was removed during the run", "was replaced by another file during the run"} {
		var requests atomic.Int64
		var lose func() error
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
		book := filepath.Join(dataOf(env), "ledger.db")
		lose = func() error {
			if err := os.Rename(book, book+".away"); err != nil || !strings.Contains(says, "replaced") {
				return err
			}
			return os.WriteFile(book, nil, 0o600)
		}
		mustRun(t, env, "importer", customers)
		exitsWith(t, env, 1, []string{says}, "consumer", "--drain", "--concurrency", "3")
		if n := server.Stats().Created; n == 30 {
			t.Errorf("%s: all customers were created, want the run to end before", says)
		}
	}
}

// TestRowsThatNoMessageBrings: a ledger that has lost what happened since yesterday holds open rows whose offsets are
// committed. The run says so and does not end with 0.
func TestRowsThatNoMessageBrings(t *testing.T) {
	t.Parallel()
	answered := newAfterLines(25)
	server, env := partnerEnv(t, sandbox.Config{HistoryLog: answered, DeclaredRate: 500})
	mustRun(t, env, "importer", customers)
	killAfter(t, env, answered)
	backup := t.TempDir()
	copyLedger(t, dataOf(env), backup)
	mustRun(t, env, "consumer", "--drain")
	removeLedger(t, dataOf(env))
	copyLedger(t, backup, dataOf(env))
	exitsWith(t, env, 1, []string{"are not settled, and no message will bring them", "import their export again"},
		"consumer", "--drain")
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}

// TestClosedPipe: a reader of standard output that has gone does not decide how a command ends.
func TestClosedPipe(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, sandbox.Config{})
	report := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(report, []byte("yesterday's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"importer", customers}, {"consumer", "--drain", "--report", report}, {"consumer", "status"},
		{"consumer", "failures"}, {"consumer", "check"},
	} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd, out := command(t, env, args[0], args[1:]...)
		cmd.Stdout = writer
		if err := errors.Join(reader.Close(), cmd.Run(), writer.Close()); err != nil {
			t.Errorf("%v ended with %v, want 0:\n%s", args, err, out)
		}
	}
	judged(t, server, env)
	var got results.Report
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &got); err != nil || got.Exit != 0 || got.Rows.Onboarded != 30 {
		t.Errorf("report %s, %v; want exit 0 and 30 onboarded", text, err)
	}
}

// TestHangUp: several SIGHUPs are one soft stop, and under nohup none.
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
				t.Fatalf("ended with %d, want %d:\n%s", got, test.exit, out)
			}
			// A hard stop would have cut the requests short that were held.
			if n := server.Stats().Created; n == 0 {
				t.Errorf("no customer was created, want the requests in flight to be waited for:\n%s", out)
			}
			if test.exit == 0 {
				judged(t, server, env)
			}
		})
	}
}

// signalled passes on what is written and calls then once, when a line holds on.
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
