package cmd

import (
	"os"
	"runtime"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
)

// TestVersion: --version names what a report of a fault needs.
func TestVersion(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"importer", "consumer", "sandbox"} {
		exitsWith(t, os.Environ(), 0, []string{"purser " + config.Version, runtime.Version()}, name, "--version")
	}
}
