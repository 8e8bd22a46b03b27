package cmd

import (
	"os"
	"runtime"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
)

// TestVersion: --version prints the version and the Go version.
func TestVersion(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"importer", "consumer", "sandbox"} {
		exitsWith(t, os.Environ(), 0, []string{"purser " + config.Version, runtime.Version()}, name, "--version")
	}
}
