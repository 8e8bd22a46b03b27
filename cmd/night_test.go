package cmd

import (
	"crypto/sha256"
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
