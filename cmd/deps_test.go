package cmd

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImporterAndBrokerStaySmall: neither depends on the packages for the partner or the signers.
func TestImporterAndBrokerStaySmall(t *testing.T) {
	t.Parallel()
	const module = "github.com/purser-onboard/purser/"
	forbidden := []string{"client", "siwe", "signer", "httpsig", "pipeline/onboard", "pipeline/dispatch", "ledger"}
	for _, of := range []string{"cmd/importer", "broker"} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module+of).Output()
		if err != nil {
			t.Fatal(err)
		}
		deps := strings.Fields(string(out))
		if !slices.Contains(deps, module+"pipeline") {
			t.Errorf("%s: got %d dependencies without pipeline, want the list of them", of, len(deps))
		}
		for _, name := range forbidden {
			if slices.Contains(deps, module+name) {
				t.Errorf("%s: got %s among its dependencies, want it without", of, name)
			}
		}
	}
}
