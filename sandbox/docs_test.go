package sandbox

import (
	"os"
	"strings"
	"testing"
)

// TestDocumentNamesEveryFaultAndRule keeps docs/sandbox.md equal to the code.
func TestDocumentNamesEveryFaultAndRule(t *testing.T) {
	raw, err := os.ReadFile("../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{
		string(OneCustomer), string(OnePayload), string(OpenKey), string(BlindSignature),
		string(SignedAnew), string(RateKept), string(NoRedirect), string(RowSettled),
		string(NobodyElse),
	}
	for _, f := range allFaults() {
		names = append(names, string(f))
	}
	for _, name := range names {
		if !strings.Contains(string(raw), "`"+name+"`") {
			t.Errorf("docs/sandbox.md: got no %s, want each fault and rule", name)
		}
	}
}
