package cmd

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
	// More than a pipe holds: when all of it is written, the import is reading.
	if _, err := io.WriteString(pipe, "address,externalId\n"+strings.Repeat("no address,e\n", 40_000)); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); err == nil {
		t.Fatalf("got exit code 0, want it killed:\n%s", out)
	}
	drain(t, env, 0)
	exitsWith(t, env, 0, []string{
		"Not finished: All 3 received rows are onboarded. The import of late.csv on ", " has not ended: it is in progress, or",
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
	exitsWith(t, env, 0, []string{"Good: 1 of 4 received rows are onboarded; the others were settled before."}, "consumer", "report")
}
