package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/sandbox"
)

// TestReportOfAFullDisk: a run that fills its disk says so in its report, which is on the same disk, by names that the
// operator knows.
func TestReportOfAFullDisk(t *testing.T) {
	disk := t.TempDir()
	const size = 3 << 20
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=3m"); err != nil {
		t.Skip("a small file system cannot be mounted here: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	path, page := filepath.Join(disk, "report.json"), filepath.Join(disk, "night.html")
	// The room grows until a run creates a customer before the disk is full.
	for room := 900 << 10; server.Stats().Created == 0; room += 200 << 10 {
		for _, name := range []string{"data", "report.json", "night.html"} {
			if err := os.RemoveAll(filepath.Join(disk, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(disk, "filler"), make([]byte, size-room), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, out := command(t, env, "purser", "night", "--concurrency", "4", "--data-dir", filepath.Join(disk, "data"),
			"--report", path, "--report-html", page, customers)
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != console.ExitUnfinished {
			t.Fatalf("%d bytes: got %v, want exit code 1:\n%s", room, err, out)
		}
	}
	report := reportAt(t, path)
	if report.State != results.Ended || !strings.Contains(report.Reason, "the disk is full") ||
		strings.Contains(report.Reason, ".tmp") || strings.Contains(report.Reason, "temporary") {
		t.Errorf("got a report with state %s and reason %q; want it ended, and the reason without temporary files",
			report.State, report.Reason)
	}
	text, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(text), "the disk is full") {
		t.Errorf("the page: got %d bytes, %v; want the reason in it", len(text), err)
	}
}
