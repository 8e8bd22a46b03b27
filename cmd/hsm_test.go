//go:build hsm

package cmd

import (
	"strings"
	"testing"

	"github.com/purser-onboard/purser/internal/pkcs11test"
	"github.com/purser-onboard/purser/sandbox"
)

// TestHSM onboards the sample export with keys in a PKCS#11 token, whose signatures differ each time, and a kill -9 in
// the middle.
func TestHSM(t *testing.T) {
	token := pkcs11test.New(t, sampleKeys(t)...)
	answered := newAfterLines(25)
	server, env := partnerEnv(t, sandbox.Config{
		HistoryLog: answered, DeclaredRate: 500,
		Faults: sandbox.Faults{DropAfter: 0.2, DropBefore: 0.1, Stored5xx: 0.1, RefuseSignature: 0.1, Limit: 2,
			On: []sandbox.Operation{sandbox.OpCreate, sandbox.OpSign}}, // the preflight meets none
	})
	env = append(env, "PURSER_SIGNER="+token.URI(), "PURSER_RETRY_MIN=5ms", "PURSER_RETRY_MAX=100ms",
		"PURSER_LIST_PAUSE=50ms")
	env = append(env, token.Env()...)
	mustRun(t, env, "importer", customers)
	const says = "key for 30 of the queue's first 30 rows"
	check, out := command(t, env, "consumer", "check")
	if err := check.Run(); err != nil || !strings.Contains(out.String(), says) {
		t.Errorf("check: got %v, want exit code 0 and %q:\n%s", err, says, out)
	}
	if strings.Contains(out.String(), token.PIN) {
		t.Errorf("check: got the PIN in the output, want it hidden:\n%s", out)
	}
	killAfter(t, env, answered)
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
}
