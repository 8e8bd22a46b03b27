package manual_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/manual"
)

func TestPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if err := manual.Write(dir, config.Purser(), "2026-11-27"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "purser-status.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`.TH PURSER-STATUS 1 2026-11-27 "purser ` + config.Version + `" "User Commands"`,
		`.SH NAME` + "\n" + `purser\-status \- `, `\fB\-\-fleet\fR`, `.B KAFKA_BROKERS`, ".SH EXIT STATUS",
		`purser status \-\-run last`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("got this page, want %q in it:\n%s", want, text)
		}
	}
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "'") {
			t.Errorf("line %d: got %q, want no request", i+1, line)
		}
	}
}
