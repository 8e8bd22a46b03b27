package cmd

import (
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/sandbox"
)

// drainReport runs `consumer --drain` with a report, and returns it with what the command printed. The exit code must
// be that of the report.
func drainReport(t *testing.T, env []string) (results.Report, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.json")
	cmd, out := command(t, env, "consumer", "--drain", "--report", path)
	if err := ignoreExit(cmd.Run()); err != nil {
		t.Fatal(err)
	}
	r := reportAt(t, path)
	if got := cmd.ProcessState.ExitCode(); got != r.Exit {
		t.Fatalf("got exit code %d, want %d as in the report:\n%s", got, r.Exit, out)
	}
	return r, out.String()
}

// export writes an export of the first n customers of the sample, and further lines.
func export(t *testing.T, n int, more ...string) string {
	t.Helper()
	sample, err := os.ReadFile(customers)
	if err != nil {
		t.Fatal(err)
	}
	lines := append(strings.Split(string(sample), "\n")[:n+1:n+1], more...)
	path := filepath.Join(t.TempDir(), "export.csv")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keyless is a row that fails, as the signer has no key for it.
const keyless = "0x00000000000000000000000000000000000000%02x,keyless-%d,"

// TestRetryStaysRed: a drain that ended with 3 is repeated by the retries, which receive nothing, until its rows are
// imported again or another night has ended well.
func TestRetryStaysRed(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", export(t, 3, fmt.Sprintf(keyless, 1, 1), fmt.Sprintf(keyless, 2, 2)))
	night, _ := drainReport(t, env)
	if night.Exit != 3 || night.Rows.Failed != 2 || night.Repeats != "" {
		t.Fatalf("the night: got %+v, want exit 3 with 2 failed rows", night)
	}
	for range 2 {
		retry, out := drainReport(t, env)
		says := fmt.Sprintf("the queue is empty, but run %s of %s left 2 failed rows; `consumer failures` lists them",
			night.Run, night.StartedAt.Format("2006-01-02 15:04Z"))
		if retry.Exit != 3 || retry.Repeats != night.Run || retry.Rows.Received != 0 || !strings.Contains(out, says) ||
			!strings.Contains(retry.Reason, says) {
			t.Errorf("the retry: got %+v and %q; want exit 3 for run %s and %q", retry, out, night.Run, says)
		}
	}
	exitsWith(t, env, 3, []string{night.Run}, "consumer", "status", "--run", "last")
	exitsWith(t, env, 0, []string{"some rows ended badly"}, "consumer", "runs")

	// A night that ends well, although the rows of the earlier one are as they were.
	mustRun(t, env, "importer", export(t, 6))
	if next, out := drainReport(t, env); next.Exit != 0 || next.Rows.Received != 6 || next.Repeats != "" {
		t.Errorf("the next night: got %+v, want exit 0:\n%s", next, out)
	}
	if retry, out := drainReport(t, env); retry.Exit != 0 || retry.Reason != "" {
		t.Errorf("an empty drain after it: got %+v, want exit 0:\n%s", retry, out)
	}

	// The same rows again: they are this night's.
	mustRun(t, env, "importer", export(t, 1, fmt.Sprintf(keyless, 1, 1)))
	again, _ := drainReport(t, env)
	if again.Exit != 3 || again.Rows.Failed != 1 {
		t.Errorf("the rows imported again: got %+v, want exit 3 with a failed row", again)
	}
	if retry, out := drainReport(t, env); retry.Exit != 3 || retry.Repeats != again.Run ||
		!strings.Contains(out, "left 1 failed row;") {
		t.Errorf("its retry: got %+v, want exit 3 for run %s:\n%s", retry, again.Run, out)
	}
}

// TestRetryAfterAKill: rows that ended badly before the process was killed are reported by the retry, which is not
// given them.
func TestRetryAfterAKill(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", export(t, 3, fmt.Sprintf(keyless, 1, 1)))
	night, _ := drainReport(t, env)
	// What a kill after the last commit leaves: the run has no end.
	id := night.Run
	execLedger(t, env, `UPDATE runs SET ended_at = NULL, exit = NULL, report = json_set(report, '$.state', 'running')
		WHERE id = '`+id+`'; DELETE FROM run_rows`)
	retry, out := drainReport(t, env)
	if retry.Exit != 3 || retry.Repeats != id || !strings.Contains(out, "left 1 failed row;") {
		t.Errorf("the retry: got %+v, want exit 3 for run %s:\n%s", retry, id, out)
	}
	if again, out := drainReport(t, env); again.Exit != 3 || again.Repeats != id {
		t.Errorf("its retry: got %+v, want exit 3 for run %s:\n%s", again, id, out)
	}
}

// TestRetryNamesWhoLeftWhat: a run that ends rows badly itself and reports those of a killed run before it counts them
// apart, and so do its retries.
func TestRetryNamesWhoLeftWhat(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", export(t, 3, fmt.Sprintf(keyless, 1, 1)))
	killed, _ := drainReport(t, env)
	execLedger(t, env, `UPDATE runs SET ended_at = NULL, exit = NULL, report = json_set(report, '$.state', 'running')
		WHERE id = '`+killed.Run+`'; DELETE FROM run_rows`)
	mustRun(t, env, "importer", export(t, 0, fmt.Sprintf(keyless, 2, 2), fmt.Sprintf(keyless, 3, 3)))
	left := func(r results.Report, what string) string {
		return fmt.Sprintf("run %s of %s left %s", r.Run, r.StartedAt.Format("2006-01-02 15:04Z"), what)
	}
	next, out := drainReport(t, env)
	says := left(killed, "1 failed row") + "; some rows ended badly: `consumer failures` lists them"
	if next.Exit != 3 || next.Rows.Failed != 2 || next.Repeats != killed.Run || next.Reason != says {
		t.Errorf("the next night: got %+v, want exit 3 and reason %q:\n%s", next, says, out)
	}
	says = "the queue is empty, but " + left(next, "2 failed rows") + ", and " + left(killed, "1 failed row") + "; "
	for i := range 2 {
		retry, out := drainReport(t, env)
		if retry.Exit != 3 || retry.Repeats != next.Run || !strings.HasPrefix(retry.Reason, says) {
			t.Errorf("retry %d: got %+v, want exit 3 for run %s and reason %q:\n%s", i, retry, next.Run, says, out)
		}
	}
}

// TestRetryNamesAllThatCouldNotFinish: what an interrupted and a killed run have left is counted for each of them, by
// the retry and by its retries.
func TestRetryNamesAllThatCouldNotFinish(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", export(t, 3, fmt.Sprintf(keyless, 1, 1)))
	interrupted, _ := drainReport(t, env)
	execLedger(t, env, `UPDATE runs SET exit = 1, report = json_set(report, '$.exit', 1) WHERE id = '`+interrupted.Run+
		`'; DELETE FROM run_rows`)
	empty, _ := drainReport(t, env)
	execLedger(t, env, `UPDATE runs SET exit = 1, report = json_set(report, '$.exit', 1) WHERE id = '`+empty.Run+
		`'; DELETE FROM run_rows`)
	mustRun(t, env, "importer", export(t, 0, fmt.Sprintf(keyless, 2, 2), fmt.Sprintf(keyless, 3, 3)))
	killed, _ := drainReport(t, env)
	execLedger(t, env, `UPDATE runs SET ended_at = NULL, exit = NULL,
		report = json_remove(json_set(report, '$.state', 'running'), '$.repeats') WHERE id = '`+killed.Run+
		`'; DELETE FROM run_rows`)
	left := func(r results.Report, what string) string {
		return fmt.Sprintf("run %s of %s left %s", r.Run, r.StartedAt.Format("2006-01-02 15:04Z"), what)
	}
	says := "the queue is empty, but " + left(killed, "2 failed rows") + ", and " + left(interrupted, "1 failed row") + "; "
	for i := range 3 {
		retry, out := drainReport(t, env)
		if retry.Exit != 3 || retry.Repeats != killed.Run || !strings.HasPrefix(retry.Reason, says) {
			t.Errorf("retry %d: got exit %d for run %s and reason %q, want exit 3 for run %s and reason %q:\n%s",
				i, retry.Exit, retry.Repeats, retry.Reason, killed.Run, says, out)
		}
	}
}

// TestRetryWithDeadLetters: dead letters keep the retry red until they are put back.
func TestRetryWithDeadLetters(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	publishEmbedded(t, env, "onboarding.customers", []pipeline.Message{{Key: []byte("k"), Value: []byte("not json")}})
	night, _ := drainReport(t, env)
	retry, out := drainReport(t, env)
	if retry.Exit != 3 || retry.Repeats != night.Run || !strings.Contains(out, "left 1 dead letter;") {
		t.Errorf("the retry: got %+v, want exit 3 for run %s:\n%s", retry, night.Run, out)
	}
	mustRun(t, env, "consumer", "redrive", "--forget")
	mustRun(t, env, "consumer", "redrive", "--forget")
	if again, out := drainReport(t, env); again.Exit != 3 || again.Rows.DeadLettered != 1 {
		t.Errorf("after they were put back: got %+v, want them dead-lettered again:\n%s", again, out)
	}
}

// execLedger changes the ledger of an environment in a way that no command would.
func execLedger(t *testing.T, env []string, script string) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dataOf(env), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), script)
	if e := db.Close(); err != nil || e != nil {
		t.Fatal(err, e)
	}
}

// TestImportsAreRemembered: an import is recorded while a consumer has the ledger, and appears with its counts, reasons
// and outcome in the report of the run that takes its rows. Lines and messages add up.
func TestImportsAreRemembered(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "consumer", "--drain") // makes the ledger
	book, err := ledger.OpenReadOnly(t.Context(), filepath.Join(dataOf(env), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	environment, err := book.Environment(t.Context())
	if e := book.Close(); err != nil || e != nil {
		t.Fatal(err, e)
	}
	locked, err := ledger.Open(t.Context(), ledger.Options{Path: book.Path(), Environment: environment, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	path := export(t, 5, "0x12,short-1,", "0x123,short-2,", "", fmt.Sprintf(keyless, 1, 1))
	exitsWith(t, env, 3, nil, "importer", path)
	exitsWith(t, env, 3, []string{"imported before", filepath.Base(path)}, "importer", path)
	if err := locked.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dataOf(env), "imports", "*.json"))
	if err != nil || len(files) != 2 {
		t.Fatalf("got records %v, %v; want two", files, err)
	}
	info, err := os.Stat(files[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v; want 0600", info.Mode(), err)
	}

	r, out := drainReport(t, env)
	if len(r.Imports) != 2 || r.Balance == nil || r.Balance.Lines == nil {
		t.Fatalf("got imports %+v and balance %+v, want two imports and a balance:\n%s", r.Imports, r.Balance, out)
	}
	first, second := r.Imports[1], r.Imports[0]
	if first.Importer == nil || len(first.Importer.Files) != 1 {
		t.Fatalf("got no record of the importer with one file, want it: %+v", first.Importer)
	}
	counts := pipeline.ImportCounts{
		Lines: 10, Rows: 8, Published: 6, PublishedLines: 6, Invalid: 2, InvalidLines: 2, Header: 1, Blank: 1, Neither: 2,
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file := first.Importer.Files[0]
	reasons := fmt.Sprint(file.Reasons)
	if file.ImportCounts != counts || first.Importer.ImportCounts != counts || file.Size != int64(len(content)) ||
		file.SHA256 != fmt.Sprintf("%x", sha256.Sum256(content)) || file.Name != "export.csv" || first.Importer.Exit != 3 ||
		reasons != "[{address address has N hex digits, want 40 2}]" || !first.Importer.Ended() {
		t.Errorf("got %+v, want counts %+v, its size, digest and reason, and exit 3", first.Importer, counts)
	}
	// The second import started the row without a key again, or continued it; the others stayed with the first.
	if first.Received != 6 || second.Received != 6 || first.Outcome.Rows+second.Outcome.Rows != 6 ||
		first.Outcome.Onboarded+second.Outcome.Onboarded != 5 || first.Outcome.Failed+second.Outcome.Failed != 1 {
		t.Errorf("got %+v and %+v, want 6 messages of each and 6 rows, of which 1 failed", first, second)
	}
	lines := results.LineBalance{Read: 20, Published: 12, Invalid: 4, Neither: 4, OK: true}
	received := results.ReceivedBalance{Received: 12, Outcomes: 12, OK: true}
	if *r.Balance.Lines != lines || r.Balance.Received != received {
		t.Errorf("got balance %+v, %+v; want %+v, %+v", *r.Balance.Lines, r.Balance.Received, lines, received)
	}

	// The ledger keeps what the importer recorded.
	if err := os.RemoveAll(filepath.Join(dataOf(env), "imports")); err != nil {
		t.Fatal(err)
	}
	if book, err = ledger.OpenReadOnly(t.Context(), book.Path()); err != nil {
		t.Fatal(err)
	}
	kept, err := book.Imports(t.Context(), 10)
	if e := book.Close(); err != nil || e != nil {
		t.Fatal(err, e)
	}
	want, _ := json.Marshal(first.Importer)
	if got, _ := json.Marshal(kept[len(kept)-1]); len(kept) != 2 || string(got) != string(want) {
		t.Errorf("in the ledger: got %s, want %s", got, want)
	}
}

// TestNightIsMeasured: the ledger has the minutes of a run, and the report its latencies, the time per stage and the
// settings, without secrets.
func TestNightIsMeasured(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", export(t, 5, fmt.Sprintf(keyless, 1, 1)))
	r, _ := drainReport(t, env)
	book, err := ledger.OpenReadOnly(t.Context(), filepath.Join(dataOf(env), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	runs, err := book.Runs(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := book.Minutes(t.Context(), runs[0].ID)
	if e := book.Close(); err != nil || e != nil {
		t.Fatal(err, e)
	}
	settled, created, signatures := map[string]int64{}, int64(0), int64(0)
	for _, m := range stored {
		var minute results.Minute
		if err := json.Unmarshal([]byte(m.Data), &minute); err != nil {
			t.Fatal(err)
		}
		for stage, n := range minute.Settled {
			settled[stage] += n
		}
		created += minute.Requests["create"]["2xx"]
		signatures += minute.Signatures
	}
	if fmt.Sprint(settled) != "map[failed:1 onboarded:5]" || created != 5 || signatures != 5 {
		t.Errorf("got settled %v, %d created, %d signatures; want 5 onboarded, 1 failed, 5 created, 5 signatures:\n%v",
			settled, created, signatures, stored)
	}
	counts := map[string]int64{}
	for _, l := range r.Latencies {
		counts[l.Operation] = l.Count
		if l.P50 <= 0 || l.P50 > l.P95 || l.P95 > l.P99 {
			t.Errorf("got %+v, want quantiles in order", l)
		}
	}
	if counts["create"] != 5 || counts["submit"] != 5 || counts["sign"] < 5 {
		t.Errorf("got latencies %+v, want 5 of create, 5 of submit and 5 of the signer or more", r.Latencies)
	}
	if len(r.Stages) == 0 || r.Stages[0].Stage != string(pipeline.Planned) || r.Stages[0].Count != 6 {
		t.Errorf("got stages %+v, want the first with 6 rows that were planned", r.Stages)
	}
	if r.Settings["rate"] != "500" || r.Settings["drain"] != "true" || r.Settings["api-secret-file"] != "(not shown)" ||
		r.Settings["signer"] != "(not shown)" {
		t.Errorf("got settings %v, want the rate and no secrets", r.Settings)
	}
}
