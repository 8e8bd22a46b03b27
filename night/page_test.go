//go:build page

package night_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPageInChromium: in a real browser, at the widths of a telephone, a tablet and a desktop, light and dark, the style
// is applied, nothing is wider than the window, nothing else is requested, the console stays empty, and axe-core and
// html-validate find nothing. The screenshots and PDFs are left in bin/page.
func TestPageInChromium(t *testing.T) {
	screenshots, err := filepath.Abs("../bin/page")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(screenshots); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	writePages(t, folder)
	out, err := exec.CommandContext(t.Context(), "node", "testdata/page/check.mjs", folder, screenshots).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("got %v and these findings, want none:\n%s", err, out)
	}
	for _, name := range []string{
		"bad-360-light.png", "bad-360-dark.png", "bad-768-light.png", "bad-1280-light.png", "bad-1280-dark.png", "bad.pdf",
	} {
		if _, err := os.Stat(filepath.Join(screenshots, name)); err != nil {
			t.Errorf("got %v, want the screenshot", err)
		}
	}
	t.Logf("screenshots: %s", screenshots)
}
