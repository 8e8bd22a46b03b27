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

// dataOf is the data directory that an environment names.
func dataOf(env []string) string {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PURSER_DATA_DIR="); ok {
			return value
		}
	}
	return ""
}

// judged fails the test if the partner saw a promise broken, or not all rows onboarded.
func judged(t *testing.T, server *sandbox.Server, env []string) {
	t.Helper()
	rows := rowsOf(t, env)
	for _, r := range rows {
		if r.Stage != "onboarded" {
			t.Errorf("%s is %s", r.ChainID, r.Stage)
		}
	}
	verdict := server.Judge(rows)
	if len(rows) != 30 || verdict.Customers != 30 || len(verdict.Violations) > 0 || !verdict.Complete {
		t.Errorf("%d rows, %+v", len(rows), verdict)
	}
}

// killAfter runs the consumer until the partner has given so many answers, then kills it.
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
		t.Fatalf("it was done before it was killed:\n%s", out)
	}
}

// copyLedger copies the ledger with its log, as a backup of a stopped consumer does.
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

// TestLostLedger: an empty ledger meets a partner that has everybody, or half of them, and nobody is created twice.
func TestLostLedger(t *testing.T) {
	for name, answers := range map[string]int64{"full partner": 0, "half": 25} {
		t.Run(name, func(t *testing.T) {
			answered := newAfterLines(answers)
			server, env := partnerEnv(t, sandbox.Config{HistoryLog: answered, DeclaredRate: 500})
			mustRun(t, env, "importer", "../testdata/customers.csv")
			if answers == 0 {
				mustRun(t, env, "consumer", "--drain")
			} else {
				killAfter(t, env, answered)
			}
			removeLedger(t, dataOf(env))
			mustRun(t, env, "importer", "../testdata/customers.csv")
			mustRun(t, env, "consumer", "--drain")
			judged(t, server, env)
		})
	}
}

// TestLostLedgerBeyondTheHour: the same when the partner has forgotten the idempotency keys.
func TestLostLedgerBeyondTheHour(t *testing.T) {
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", "../testdata/customers.csv")
	mustRun(t, env, "consumer", "--drain")
	removeLedger(t, dataOf(env))
	server.Reset() // keys and history are forgotten …
	for _, c := range server.Customers() {
		t.Fatalf("customer %s survived the reset", c.ID)
	}
	for i, row := range sampleRows(t) { // … and the customers are there, some unsigned
		status := sandbox.StatusActive
		if i%3 == 0 {
			status = sandbox.StatusInitiating
		}
		if _, err := server.Add(row.ChainID, row.ExternalID, status); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, env, "importer", "../testdata/customers.csv")
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
	for _, e := range server.History() {
		if e.Created {
			t.Errorf("customer %s was created a second time", e.CustomerID)
		}
	}
}

// sampleRows are the rows of testdata/customers.csv as a consumer with a partner of its own sees them.
func sampleRows(t *testing.T) []sandbox.Expected {
	t.Helper()
	_, env := partnerEnv(t, sandbox.Config{})
	mustRun(t, env, "importer", "../testdata/customers.csv")
	mustRun(t, env, "consumer", "--drain")
	return rowsOf(t, env)
}

// TestLostQueue: the queue is gone with rows in it; importing the file again settles what is missing.
func TestLostQueue(t *testing.T) {
	answered := newAfterLines(25)
	server, env := partnerEnv(t, sandbox.Config{HistoryLog: answered, DeclaredRate: 500})
	mustRun(t, env, "importer", "../testdata/customers.csv")
	killAfter(t, env, answered)
	if err := os.RemoveAll(filepath.Join(dataOf(env), "broker")); err != nil {
		t.Fatal(err)
	}
	mustRun(t, env, "importer", "../testdata/customers.csv")
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}

// TestYesterdaysLedger: a ledger restored from a backup knows less than the queue and the partner do.
func TestYesterdaysLedger(t *testing.T) {
	answered := newAfterLines(25)
	server, env := partnerEnv(t, sandbox.Config{HistoryLog: answered, DeclaredRate: 500})
	mustRun(t, env, "importer", "../testdata/customers.csv")
	killAfter(t, env, answered)
	backup := t.TempDir()
	copyLedger(t, dataOf(env), backup)
	mustRun(t, env, "consumer", "--drain")
	removeLedger(t, dataOf(env))
	copyLedger(t, backup, dataOf(env))
	mustRun(t, env, "importer", "../testdata/customers.csv")
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}

// TestDiskFull: the disk fills up in the middle of a run. The run ends, says so, and goes on when there is room.
func TestDiskFull(t *testing.T) {
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", "../testdata/customers.csv")
	// A limit on the size of files stands for the disk. The ledger's log reaches it soon, at the first customer or later:
	// there is more room each time until it is reached in the middle.
	for kib := 250; server.Stats().Created == 0; kib += 50 {
		cmd, out := command(t, env, "bash", "-c", fmt.Sprintf("ulimit -f %d; exec consumer --drain --concurrency 4", kib))
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Fatalf("%d KiB: ended with %v:\n%s", kib, err, out)
		}
		if !strings.Contains(out.String(), "disk is full") {
			t.Errorf("%d KiB: does not say that the disk is full:\n%s", kib, out)
		}
	}
	if n := server.Stats().Created; n == 30 {
		t.Errorf("%d customers were created: the disk was not full in the middle", n)
	}
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}

// TestResults: every settled row has its event, also those settled just before a kill -9.
func TestResults(t *testing.T) {
	answered := newAfterLines(25)
	server, env := partnerEnv(t, sandbox.Config{HistoryLog: answered, DeclaredRate: 500})
	mustRun(t, env, "importer", "../testdata/customers.csv")
	killAfter(t, env, answered)
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
	b, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: filepath.Join(dataOf(env), "broker")})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	messages, err := b.Peek(t.Context(), "onboarding.results", "nobody", 1000)
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
			t.Errorf("%+v", e)
		}
		stages[e.ChainID] = e.Stage
	}
	for _, r := range rowsOf(t, env) {
		if stages[r.ChainID] != pipeline.Onboarded {
			t.Errorf("%s: the results say %q", r.ChainID, stages[r.ChainID])
		}
	}
}
