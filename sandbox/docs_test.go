package sandbox_test

import (
	"os"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/sandbox"
)

// TestDocumentNamesEveryFaultAndRule keeps docs/sandbox.md equal to the code.
func TestDocumentNamesEveryFaultAndRule(t *testing.T) {
	raw, err := os.ReadFile("../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{
		string(sandbox.OneCustomer), string(sandbox.OnePayload), string(sandbox.OpenKey), string(sandbox.BlindSignature),
		string(sandbox.SignedAnew), string(sandbox.RateKept), string(sandbox.NoRedirect), string(sandbox.RowSettled),
		string(sandbox.NobodyElse),
	}
	for _, f := range sandbox.AllFaults() {
		names = append(names, string(f))
	}
	for _, name := range names {
		if !strings.Contains(string(raw), "`"+name+"`") {
			t.Errorf("docs/sandbox.md: got no %s, want each fault and rule", name)
		}
	}
}
