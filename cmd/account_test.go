package cmd

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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

// TestAccountOfAKilledImport: rows of an export may be missing after its import was killed: the night is not finished
// until the file is imported again.
func TestAccountOfAKilledImport(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", export(t, 3))
	late := filepath.Join(t.TempDir(), "late.csv")
	if err := syscall.Mkfifo(late, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out := command(t, env, "importer", "--max-invalid", "100%", late)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(late, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	fill(t, pipe)
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); err == nil {
		t.Fatalf("got exit code 0, want it killed:\n%s", out)
	}
	drain(t, env, 0)
	exitsWith(t, env, 0, []string{
		"Not finished: All 3 received rows are onboarded. The import of late.csv on ",
		" has no end: its process was killed, or could not record it.",
		"not known: the import of late.csv has not ended\n", "Import late.csv again", "importer --data-dir " + dataOf(env) +
			" late.csv\n", "import not finished: late.csv, exit 1", "Rows of late.csv so far",
	}, "consumer", "report")
	exitsWith(t, env, 0, []string{"not known: the import of late.csv has not ended"},
		"consumer", "report", "--format", "html")

	if err := os.Rename(export(t, 4), late); err != nil {
		t.Fatal(err)
	}
	mustRun(t, env, "importer", late)
	drain(t, env, 0)
	exitsWith(t, env, 0, []string{"Good: 1 of 4 received rows were onboarded; the others were settled before."},
		"consumer", "report")
}

// TestAccountOfALostQueue: rows that were published and that no run has received are missing, whatever the run ended
// with, until their file is imported again. Repeated imports are not missing.
func TestAccountOfALostQueue(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "importer", "--topic", "of-another-consumer", export(t, 5))
	if err := os.RemoveAll(filepath.Join(dataOf(env), "broker")); err != nil {
		t.Fatal(err)
	}
	three := filepath.Join(t.TempDir(), "three.csv")
	if err := os.Rename(export(t, 3), three); err != nil {
		t.Fatal(err)
	}
	mustRun(t, env, "importer", three)
	r, out := drainReport(t, env)
	want := results.PublishedBalance{Published: 33, InLedger: 3, NotSeen: 30}
	if got := r.Balance.Published; r.Exit != 0 || got == nil || *got != want {
		t.Errorf("got exit %d and %+v, want 0 and %+v:\n%s", r.Exit, got, want, out)
	}
	if lost := "import the files again"; strings.Count(out, lost) != 1 || !strings.Contains(out, "rows=30 files=[customers.csv]") {
		t.Errorf("got %q, want one warning that 30 rows of customers.csv are lost", out)
	}
	exitsWith(t, env, 0, []string{
		"Needs attention: All 3 received rows are onboarded.",
		"30 published rows of customers.csv have not been seen by any run",
		"Published rows of customers.csv: 30 published ≠ 0 onboarded (does not add up by 30)\n", "Import customers.csv again",
		"Published rows of three.csv: 3 published = 3 onboarded\n",
	}, "consumer", "report")

	for _, says := range [][]string{
		{"Good: 27 of 30 received rows were onboarded; the others were settled before.",
			" = 27 onboarded + 3 repeated, of another"},
		{"Good: All 30 received rows were settled before: nothing was left to do.",
			" = 0 onboarded + 30 repeated, of another"},
	} {
		mustRun(t, env, "importer", customers)
		if r, out = drainReport(t, env); r.Exit != 0 || !r.Balance.Published.OK {
			t.Errorf("got exit %d and %+v, want 0 and a balance that holds:\n%s", r.Exit, r.Balance.Published, out)
		}
		says = append(says, "30 published = 0 onboarded + 30 not seen, but imported again\n")
		exitsWith(t, env, 0, says, "consumer", "report")
	}
}

// TestAccountOfAnInterruptedNight: the summary has the rows that were published and not taken from the queue.
func TestAccountOfAnInterruptedNight(t *testing.T) {
	t.Parallel()
	answered := newAfterLines(3)
	_, env := partnerEnv(t, sandbox.Config{Latency: 20 * time.Millisecond, HistoryLog: answered, DeclaredRate: 500})
	path := filepath.Join(t.TempDir(), "report.json")
	cmd, out := command(t, env, "purser", "night", "--max-outstanding", "2", "--concurrency", "1", "--report", path,
		customers)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-answered.done
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	r := reportAt(t, path)
	queued := 30 - r.Rows.Received
	want := fmt.Sprintf(", %d still in the queue", queued)
	if r.Exit != 1 || queued <= 0 || !strings.Contains(out.String(), want) {
		t.Errorf("got exit %d and %d rows received, want 1, less than 30, and %q in:\n%s", r.Exit, r.Rows.Received, want, out)
	}
	exitsWith(t, env, 0, []string{"Not finished: ", fmt.Sprintf(" + %d not yet seen by a run\n", queued)}, "purser", "report")
	if r, out := purserNight(t, env, 0, customers); strings.Contains(out, "queue") || r.Balance.Published.NotSeen != 0 {
		t.Errorf("the retry: got %+v, want all rows seen:\n%s", r.Balance.Published, out)
	}
}

// TestAccountOfInvalidRows: a night whose rows are all onboarded says that others are invalid, and no longer when the
// corrected export was imported. An export without rows is named, and an import that ended early is no defect.
func TestAccountOfInvalidRows(t *testing.T) {
	t.Parallel()
	var told atomic.Value
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		told.Store(string(body))
	}))
	defer receiver.Close()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(env, "PURSER_WEBHOOK_URL="+receiver.URL)
	file := export(t, 3, "0x12,short,")
	purserNight(t, env, 3, file)
	if got, _ := told.Load().(string); !strings.Contains(got, `"reason":"an export has invalid rows or no rows"`) {
		t.Errorf("got %s, want the invalid rows as the reason", got)
	}
	exitsWith(t, env, 0, []string{"1 of 4 rows are invalid: see "}, "purser", "runs")
	exitsWith(t, env, 0, []string{"Needs attention: ", "1 row of the exports is invalid", " it is rejects-<time>.csv."},
		"purser", "report")

	r, _ := purserNight(t, env, 2, "--max-invalid", "0", file)
	if l := r.Balance.Lines; l == nil || !l.OK || l.NotFinished == 0 {
		t.Errorf("got lines %+v, want some not finished, and none lost", l)
	}
	cmd, out := command(t, env, "purser", "report")
	if err := cmd.Run(); err != nil || strings.Contains(out.String(), "add up") || strings.Contains(out.String(), "defect") {
		t.Errorf("the import ended early: got %v and this report, want no defect:\n%s", err, out)
	}

	if err := os.Rename(export(t, 4), file); err != nil {
		t.Fatal(err)
	}
	purserNight(t, env, 0, file)
	exitsWith(t, env, 0, []string{"Good: 1 of 4 received rows were onboarded; the others were settled before."},
		"purser", "report")

	none := export(t, 0)
	purserNight(t, env, 3, "--require-rows", none)
	exitsWith(t, env, 0, []string{"no rows in " + none}, "purser", "runs")
	exitsWith(t, env, 0, []string{"Needs attention: The queue was empty.\nreason: no rows in ",
		"Rows of export.csv so far: 1 onboarded and 3 repeated, of another import, dead-lettered or not seen\n"},
		"purser", "report")

	exitsWith(t, env, 3, []string{"no rows in "}, "importer", "--require-rows", none, export(t, 5))
	drain(t, env, 0)
	cmd, out = command(t, env, "consumer", "report")
	if err := cmd.Run(); err != nil || !strings.HasPrefix(out.String(), "Good: ") ||
		strings.Contains(out.String(), "reason: ") {
		t.Errorf("after a good run: got %v and this report, want no reason:\n%s", err, out)
	}
}
