package consumecmd

import (
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/console"
)

// TestUnwritten: a full disk is no mistake in the settings.
func TestUnwritten(t *testing.T) {
	for cause, want := range map[error]int{
		nil: console.ExitWell, syscall.ENOSPC: console.ExitUnfinished, syscall.EDQUOT: console.ExitUnfinished,
		syscall.EFBIG: console.ExitUnfinished, fs.ErrPermission: console.ExitUsage, syscall.ENOTDIR: console.ExitUsage,
	} {
		var err error
		if cause != nil {
			err = reportFile{flag: "--report"}.named(fmt.Errorf("write report.json: %w", cause))
		}
		if got := console.Code(unwritten(err)); got != want {
			t.Errorf("%v: got exit code %d, want %d", cause, got, want)
		}
	}
}
