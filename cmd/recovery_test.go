package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/sandbox"
)

// killedMidway imports the sample export and runs a consumer, which is killed at the partner's 25th answer.
func killedMidway(t *testing.T) (*sandbox.Server, []string) {
	t.Helper()
	answered := newAfterLines(25)
	server, env := partnerEnv(t, sandbox.Config{HistoryLog: answered, DeclaredRate: 500})
	mustRun(t, env, "importer", customers)
	killAfter(t, env, answered)
	return server, env
}

// TestLostLedger: with an empty ledger and a partner that has all customers or half of them, no customer is created
// twice.
func TestLostLedger(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string]int64{"full partner": 0, "half": 25} {
		t.Run(name, func(t *testing.T) {
			answered := newAfterLines(answers)
			server, env := partnerEnv(t, sandbox.Config{HistoryLog: answered, DeclaredRate: 500})
			mustRun(t, env, "importer", customers)
			if answers == 0 {
				mustRun(t, env, "consumer", "--drain")
			} else {
				killAfter(t, env, answered)
			}
			removeLedger(t, dataOf(env))
			mustRun(t, env, "importer", customers)
			mustRun(t, env, "consumer", "--drain")
			judged(t, server, env)
		})
	}
}

// TestLostLedgerBeyondTheHour: the same after the partner has forgotten the idempotency keys.
func TestLostLedgerBeyondTheHour(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	removeLedger(t, dataOf(env))
	server.Reset() // keys and history are forgotten …
	for _, c := range server.Customers() {
		t.Fatalf("got customer %s after the reset, want none", c.ID)
	}
	for i, row := range exportRows(t) { // … and the customers are there, some unsigned
		status := sandbox.StatusActive
		if i%3 == 0 {
			status = sandbox.StatusInitiating
		}
		if _, err := server.Add(row.Account.String(), row.ExternalID, status); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
	for _, e := range server.History() {
		if e.Created {
			t.Errorf("got customer %s created a second time, want none", e.CustomerID)
		}
	}
}

// TestLostQueue: after the queue was lost with rows in it, importing the file again settles the rest.
func TestLostQueue(t *testing.T) {
	t.Parallel()
	server, env := killedMidway(t)
	if err := os.RemoveAll(filepath.Join(dataOf(env), "broker")); err != nil {
		t.Fatal(err)
	}
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}

// TestQueueReplacedDuringAnImport: rows that were published to a queue that is not there any more are lost, and the
// importer says so.
func TestQueueReplacedDuringAnImport(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{})
	cmd, out := command(t, env, "importer", "--max-invalid", "100%", "-")
	input := startReading(t, cmd)
	queue := filepath.Join(dataOf(env), "broker")
	if err := errors.Join(os.Rename(queue, queue+".moved"), os.Mkdir(queue, 0o700), input.Close()); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "rows that were queued since are lost") {
		t.Errorf("got %v, want exit code 1 and the loss named:\n%s", err, out)
	}
}

// TestYesterdaysLedger: a ledger that was restored from a backup is behind the queue and the partner.
func TestYesterdaysLedger(t *testing.T) {
	t.Parallel()
	server, env := killedMidway(t)
	backup := t.TempDir()
	copyLedger(t, dataOf(env), backup)
	mustRun(t, env, "consumer", "--drain")
	removeLedger(t, dataOf(env))
	copyLedger(t, backup, dataOf(env))
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}

// TestRestoreYesterdaysBackup: the same by the commands. A restore is refused while a consumer has the ledger, and over a
// newer ledger. Rows that were onboarded since the backup are created no second time.
func TestRestoreYesterdaysBackup(t *testing.T) {
	t.Parallel()
	server, env := killedMidway(t)
	backup := filepath.Join(t.TempDir(), "backup.db")
	mustRun(t, env, "consumer", "ledger", "backup", backup)
	mustRun(t, env, "consumer", "--drain")

	running, _ := working(t, env)
	mustRun(t, env, "consumer", "ledger", "backup", backup+".later")
	exitsWith(t, env, 1, []string{fmt.Sprintf("in use by process %d", running.Process.Pid)},
		"consumer", "ledger", "restore", "--force", backup)
	if err := running.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = running.Wait() // killed
	exitsWith(t, env, 2, []string{"is newer", "--force"}, "consumer", "ledger", "restore", backup)
	mustRun(t, env, "consumer", "ledger", "restore", "--force", backup)

	exitsWith(t, env, 1, []string{"import their export again"}, "consumer", "--drain")
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}

// TestDiskFull: when the disk is full in the middle of a run, the run ends with that error. The next run goes on.
func TestDiskFull(t *testing.T) {
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", customers)
	// A limit on the size of files simulates the full disk. It grows until a run creates a customer before it is full.
	for kib := 250; server.Stats().Created == 0; kib += 50 {
		cmd, out := command(t, env, "bash", "-c", fmt.Sprintf("ulimit -f %d; exec consumer --drain --concurrency 4", kib))
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Fatalf("%d KiB: got %v, want exit code 1:\n%s", kib, err, out)
		}
		if !strings.Contains(out.String(), "disk is full") {
			t.Errorf("%d KiB: got this output, want \"disk is full\" in it:\n%s", kib, out)
		}
	}
	if n := server.Stats().Created; n == 30 {
		t.Errorf("got all %d customers created, want the disk full before", n)
	}
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}

// TestResults: every settled row has an event, also the rows that were settled just before a kill -9.
func TestResults(t *testing.T) {
	t.Parallel()
	server, env := killedMidway(t)
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
	b, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: filepath.Join(dataOf(env), "broker")})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	messages, err := b.Peek(t.Context(), "onboarding.results", "test", 1000)
	if err != nil {
		t.Fatal(err)
	}
	stages := map[string]pipeline.Stage{}
	for _, m := range messages {
		var e results.Event
		if err := json.Unmarshal(m.Value, &e); err != nil {
			t.Fatal(err)
		}
		if e.V != 1 || e.ChainID != string(m.Key) || e.CustomerID == "" || e.SettledAt.IsZero() || e.ImportID == "" {
			t.Errorf("got event %+v with key %s, want version 1, its account as key, a customer, an import and a time", e, m.Key)
		}
		stages[e.ChainID] = e.Stage
	}
	for _, r := range rowsOf(t, env) {
		if stages[r.ChainID] != pipeline.Onboarded {
			t.Errorf("%s: got stage %q in the results, want onboarded", r.ChainID, stages[r.ChainID])
		}
	}
}

// copyLedger copies the ledger with its write-ahead log, as a backup of a stopped consumer does.
func copyLedger(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(from, "ledger.db*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(f)), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func removeLedger(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "ledger.db*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRowsThatNoMessageBrings: a ledger that was restored from a backup has open rows whose offsets are committed. The
// run reports them and does not end with 0.
func TestRowsThatNoMessageBrings(t *testing.T) {
	t.Parallel()
	server, env := killedMidway(t)
	backup := t.TempDir()
	copyLedger(t, dataOf(env), backup)
	mustRun(t, env, "consumer", "--drain")
	removeLedger(t, dataOf(env))
	copyLedger(t, backup, dataOf(env))
	exitsWith(t, env, 1, []string{"unsettled rows that no message will deliver", "import their export again"},
		"consumer", "--drain")
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}
