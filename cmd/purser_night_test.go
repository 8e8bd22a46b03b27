package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/sandbox"
)

// purserNight runs `purser night` with a report, and returns it with what the command printed. The exit code must be
// that of the report.
func purserNight(t *testing.T, env []string, exit int, args ...string) (results.Report, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.json")
	cmd, out := command(t, env, "purser", append([]string{"night", "--report", path}, args...)...)
	if err := ignoreExit(cmd.Run()); err != nil {
		t.Fatal(err)
	}
	r := reportAt(t, path)
	if got := cmd.ProcessState.ExitCode(); got != exit || r.Exit != exit {
		t.Fatalf("purser night %v: got exit code %d, and %d in the report, want %d:\n%s", args, got, r.Exit, exit, out)
	}
	return r, out.String()
}

// ofNight returns the import of a night, with all of its rows in the outcome.
func ofNight(t *testing.T, r results.Report) results.ReportImport {
	t.Helper()
	if len(r.Imports) == 0 || r.Imports[0].Importer == nil {
		t.Fatalf("got imports %+v, want that of the night, with the importer's record", r.Imports)
	}
	i := r.Imports[0]
	if i.EarlierOutcome != nil {
		i.Outcome = i.Outcome.Plus(*i.EarlierOutcome)
	}
	return i
}

// TestNight: the import and the drain are one run. Another attempt of the night has the same exit code, and reports the
// state of the same rows, each once, however often the export has it.
func TestNight(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	file := export(t, 5, "0x12,short,", fmt.Sprintf(keyless, 1, 1))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	if err := os.WriteFile(file, []byte(string(text)+lines[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	for attempt := range 3 {
		r, out := purserNight(t, env, 3, file)
		i := ofNight(t, r)
		if o := i.Outcome; o.Rows != 6 || o.Onboarded != 5 || o.Failed != 1 || i.Importer.Invalid != 1 {
			t.Errorf("attempt %d: got %+v, want 5 rows onboarded, 1 failed and 1 invalid", attempt, i)
		}
		for _, says := range []string{
			"purser: 1 of 8 rows are invalid: see ", "; some rows ended badly: `purser failures` lists them",
			"night     6 rows: 5 onboarded, 1 failed, 1 more invalid\n",
		} {
			if !strings.Contains(out, says) {
				t.Errorf("attempt %d: got this output, want %q in it:\n%s", attempt, says, out)
			}
		}
	}
	// The fixed export.
	r, out := purserNight(t, env, 0, export(t, 6))
	if o := ofNight(t, r).Outcome; o.Rows != 6 || o.Onboarded != 6 || r.Rows.Onboarded != 1 || r.Rows.Skipped != 5 {
		t.Errorf("the next night: got %+v, want 6 rows onboarded, 1 of them now:\n%s", r, out)
	}
	exitsWith(t, env, 0, nil, "purser", "status", "--run", "last")
	judgeRows(t, server, rowsOf(t, env), 6)
}

// TestNightWithoutExport: a file that cannot be read is exit code 2, and does not keep the queue from being drained.
func TestNightWithoutExport(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", export(t, 3))
	for attempt, onboarded := range []int64{3, 0} {
		r, out := purserNight(t, env, 2, "missing.csv")
		if r.Rows.Onboarded != onboarded || !strings.Contains(r.Reason, "missing.csv") ||
			!strings.Contains(out, "the import failed; draining the queue anyway") {
			t.Errorf("attempt %d: got %+v, want %d rows onboarded and the file named:\n%s", attempt, r, onboarded, out)
		}
	}
	if r, out := purserNight(t, env, 0, export(t, 4)); ofNight(t, r).Outcome.Onboarded != 4 {
		t.Errorf("with the file: got %+v, want 4 rows onboarded:\n%s", r, out)
	}
	judgeRows(t, server, rowsOf(t, env), 4)
}

// TestNightWithoutSetUp: a setting of the drain that is missing is found before anything is imported.
func TestNightWithoutSetUp(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{})
	exitsWith(t, append(env, "OFFBLOCKS_API_URL="), 2, []string{"--api-url"}, "purser", "night", customers)
	if _, err := os.Stat(filepath.Join(dataOf(env), "imports")); err == nil {
		t.Error("got an import recorded, want none")
	}
	exitsWith(t, env, 2, []string{"--max-invalid"}, "purser", "night", "--max-invalid", "x", customers)
	exitsWith(t, env, 2, []string{"purser night --help"}, "purser", "night")
}

// TestNightPartnerAway: the rows are queued and the run could not finish; another attempt onboards them.
func TestNightPartnerAway(t *testing.T) {
	t.Parallel()
	server, env, away := leavingPartner(t)
	away.Store(true)
	r, out := purserNight(t, env, 1, "--outage-wait", "0s", customers)
	if i := r.Imports; len(i) != 1 || i[0].Importer.Published != 30 || r.Reason == "" {
		t.Errorf("got %+v, want 30 rows published and a reason:\n%s", r, out)
	}
	away.Store(false)
	if r, out := purserNight(t, env, 0, customers); ofNight(t, r).Outcome.Onboarded != 30 {
		t.Errorf("the retry: got %+v, want 30 rows onboarded:\n%s", r, out)
	}
	judged(t, server, env)
}

// TestNightStopped: a night that is stopped or killed in its import or in its drain can be started again.
func TestNightStopped(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run("drain/"+signal.String(), func(t *testing.T) {
			t.Parallel()
			answered := newAfterLines(15)
			server, env := partnerEnv(t, sandbox.Config{
				Latency: 20 * time.Millisecond, HistoryLog: answered, DeclaredRate: 500,
			})
			cmd, out := command(t, env, "purser", "night", "--concurrency", "3", customers)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-answered.done
			_ = cmd.Process.Signal(signal)
			_ = cmd.Wait()
			stopped(t, cmd.ProcessState.ExitCode(), signal, out.String())
			if r, out := purserNight(t, env, 0, customers); ofNight(t, r).Outcome.Onboarded != 30 {
				t.Errorf("the retry: got %+v, want 30 rows onboarded:\n%s", r, out)
			}
			judged(t, server, env)
		})
		t.Run("import/"+signal.String(), func(t *testing.T) {
			t.Parallel()
			server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
			report := filepath.Join(t.TempDir(), "report.json")
			cmd, out := command(t, env, "purser", "night", "--max-invalid", "100%", "--report", report, "-")
			startReading(t, cmd)
			_ = cmd.Process.Signal(signal)
			_ = cmd.Wait()
			stopped(t, cmd.ProcessState.ExitCode(), signal, out.String())
			if r := reportAt(t, report); r.Exit != 1 || server.Stats().Requests > 0 {
				t.Errorf("got exit %d in the report and %d requests, want 1 and none", r.Exit, server.Stats().Requests)
			}
			if r, out := purserNight(t, env, 0, customers); ofNight(t, r).Outcome.Onboarded != 30 {
				t.Errorf("the retry: got %+v, want 30 rows onboarded:\n%s", r, out)
			}
			judged(t, server, env)
		})
	}
}

// stopped fails the test unless a command has ended as the signal asks.
func stopped(t *testing.T, exit int, signal syscall.Signal, out string) {
	t.Helper()
	if signal == syscall.SIGKILL && exit == -1 {
		return
	}
	if exit != 1 || !strings.Contains(out, "interrupted by interrupt") {
		t.Errorf("after %v: got exit code %d, want 1 and the interruption named:\n%s", signal, exit, out)
	}
}
