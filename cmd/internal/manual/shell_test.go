//go:build shell

package manual_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/manual"
)

// TestPagesHaveNoWarnings formats each page with mandoc, man and groff.
func TestPagesHaveNoWarnings(t *testing.T) {
	dir := t.TempDir()
	if err := manual.Write(dir, config.Purser(), "2026-11-27"); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 15 {
		t.Fatalf("got %d pages, %v; want one for each command", len(pages), err)
	}
	for _, page := range pages {
		for _, args := range [][]string{
			{"mandoc", "-T", "lint", "-W", "warning"},
			{"groff", "-man", "-Tutf8", "-ww", "-z"},
			{"man", "--warnings", "--local-file"},
		} {
			cmd := exec.CommandContext(t.Context(), args[0], append(args[1:], page)...)
			var out bytes.Buffer
			cmd.Stderr = &out
			if args[0] != "man" { // which prints the page
				cmd.Stdout = &out
			}
			if err := cmd.Run(); err != nil || out.Len() > 0 {
				t.Errorf("%s %s: got %v and this output, want none:\n%s", args[0], filepath.Base(page), err, &out)
			}
		}
	}
}
