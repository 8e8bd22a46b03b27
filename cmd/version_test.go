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
	for name, library := range map[string]string{
		"importer": "github.com/segmentio/kafka-go v", "consumer": "github.com/mattn/go-sqlite3 v", "sandbox": runtime.Version(),
	} {
		exitsWith(t, os.Environ(), 0, []string{"purser " + config.Version, runtime.Version(), library}, name, "--version")
	}
}
