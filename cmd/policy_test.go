package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/sandbox"
)

// TestHostilePartner: a challenge that asks for more than a sign-in is not signed. When all challenges do, the run
// halts after five rows and names the setting that permits it, if there is one.
func TestHostilePartner(t *testing.T) {
	for fault, says := range map[string]string{
		"challenge-statement":  "--challenge-statement",
		"challenge-uri":        "--challenge-uri-host",
		"challenge-uri-query":  "--challenge-uri",
		"challenge-expiration": "expiration-time",
		"challenge-not-before": "not-before",
		"challenge-request-id": "--allow-request-id",
		"challenge-resources":  "--allow-resources",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			server, env := partnerEnv(t, withFaults(t, fault+"=1"))
			mustRun(t, env, "importer", customers)
			r := drain(t, env, 2)
			if r.Rows.Refused != 5 || r.Rows.Onboarded != 0 || r.Signatures != 0 {
				t.Errorf("got %d rows refused, %d onboarded, %d signatures, want 5, 0, 0",
					r.Rows.Refused, r.Rows.Onboarded, r.Signatures)
			}
			if !strings.Contains(r.Reason, says) {
				t.Errorf("got reason %q, want it to name %s", r.Reason, says)
			}
			noneSubmitted(t, server)
		})
	}
}

// TestUsedNonce: a nonce that an earlier run has signed is not signed again.
func TestUsedNonce(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, withFaults(t, ""))
	all, err := os.ReadFile(customers)
	if err != nil {
		t.Fatal(err)
	}
	some := filepath.Join(t.TempDir(), "some.csv")
	head := strings.Join(strings.SplitAfterN(string(all), "\n", 12)[:11], "") // the header and ten rows
	if err := os.WriteFile(some, []byte(head), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, env, "importer", some)
	if r := drain(t, env, 0); r.Rows.Onboarded != 10 {
		t.Fatalf("got %d onboarded, want 10", r.Rows.Onboarded)
	}
	server.SetFaults(sandbox.Faults{ChallengeNonce: 1})
	mustRun(t, env, "importer", customers)
	r := drain(t, env, 2)
	if r.Rows.Refused != 5 || r.Rows.Onboarded != 0 || r.Signatures != 0 || !strings.Contains(r.Reason, "nonce") {
		t.Errorf("got %d rows refused, %d onboarded, %d signatures, reason %q, want 5, 0, 0 and the nonce",
			r.Rows.Refused, r.Rows.Onboarded, r.Signatures, r.Reason)
	}
	if v := server.Judge(nil).Violations; len(v) > 0 {
		t.Errorf("got violations %+v, want none", v)
	}
}

// TestPartnerThatDeviates: with the setting that a refusal names, the partner's challenges are signed.
func TestPartnerThatDeviates(t *testing.T) {
	statement := filepath.Join(t.TempDir(), "statement")
	if err := os.WriteFile(statement, []byte("Prove that this wallet is yours.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		config sandbox.Config
		args   []string
	}{
		"statement": {sandbox.Config{Statement: "Prove that this wallet is yours."},
			[]string{"--challenge-statement", "file:" + statement}},
		"URI host": {sandbox.Config{ChallengeURI: "https://login.example/"}, []string{"--challenge-uri-host", "login.example"}},
		"URI": {sandbox.Config{ChallengeURI: "https://login.example/in?from=api"},
			[]string{"--challenge-uri", "https://login.example/in?from=api"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.config.DeclaredRate = 500
			server, env := partnerEnv(t, tt.config)
			mustRun(t, env, "importer", customers)
			if r := drain(t, env, 2); r.Signatures != 0 {
				t.Errorf("got %d signatures without the setting, want none", r.Signatures)
			}
			mustRun(t, env, "importer", customers)
			if r := drain(t, env, 0, tt.args...); r.Rows.Onboarded != 30 {
				t.Errorf("got %d onboarded with %v (%s), want 30", r.Rows.Onboarded, tt.args, r.Reason)
			}
			if v := server.Judge(nil).Violations; len(v) > 0 {
				t.Errorf("got violations %+v, want none", v)
			}
		})
	}
	for fault, setting := range map[string]string{
		"challenge-request-id": "--allow-request-id", "challenge-resources": "--allow-resources",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			_, env := partnerEnv(t, withFaults(t, fault+"=1"))
			mustRun(t, env, "importer", customers)
			// The sandbox does not accept the signature, but it was made.
			if r := drainTo(t, env, []int{2, 3}, setting); r.Signatures == 0 || r.Rows.Refused != 0 {
				t.Errorf("got %d signatures, %d rows refused, want some and none", r.Signatures, r.Rows.Refused)
			}
		})
	}
}

// noneSubmitted fails the test if a signature has reached the partner.
func noneSubmitted(t *testing.T, server *sandbox.Server) {
	t.Helper()
	for _, e := range server.History() {
		if e.Op == sandbox.OpSign {
			t.Errorf("got a signature of customer %s, want none", e.CustomerID)
		}
	}
	if v := server.Judge(nil).Violations; len(v) > 0 {
		t.Errorf("got violations %+v, want none", v)
	}
}

// TestAnyStatement: the opt-out signs every text, and check warns about it.
func TestAnyStatement(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, withFaults(t, "challenge-statement=1"))
	mustRun(t, env, "importer", customers)
	cmd, out := command(t, env, "consumer", "check", "--challenge-statement", "any")
	if err := cmd.Run(); err != nil {
		t.Fatalf("check: got %v, want exit code 0:\n%s", err, out)
	}
	if !strings.Contains(out.String(), "warn  challenge --challenge-statement any") {
		t.Errorf("check: got this output, want a warning about --challenge-statement any:\n%s", out)
	}
	// The sandbox does not accept a signature of a challenge that it did not issue, but it was made.
	if r := drainTo(t, env, []int{2, 3}, "--challenge-statement", "any"); r.Signatures == 0 || r.Rows.Refused != 0 {
		t.Errorf("got %d signatures and %d rows refused, want some and none", r.Signatures, r.Rows.Refused)
	}
	path := filepath.Join(t.TempDir(), "no-such-file")
	cmd, out = command(t, env, "consumer", "check", "--challenge-statement", "file:"+path)
	if err := ignoreExit(cmd.Run()); err != nil || cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("got exit code %d, want 2:\n%s", cmd.ProcessState.ExitCode(), out)
	}
}
