package cmd

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// TestOutputJSON: with --output json a command prints one JSON document, whatever its exit code.
func TestOutputJSON(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	document := func(exit int, name string, args ...string) (d struct {
		// importer
		Published int64
		Exit      int
		Rejects   string
		DryRun    bool
		// runs
		Runs []struct{ Report struct{ Exit int } }
		// status
		Rows   int64
		Stages []struct {
			Stage string
			Rows  int64
		}
		// check
		Checks []struct{ Check, Result, Text string }
		Failed int
		// reconcile
		Customers, Matched int64
		// redrive
		LookedAt, PutBack int
		Letters           []struct{ Class string }
	}) {
		t.Helper()
		cmd, stderr := command(t, env, name, append(args, "--output", "json")...)
		var stdout bytes.Buffer
		cmd.Stdout = &stdout
		if err := ignoreExit(cmd.Run()); err != nil || cmd.ProcessState.ExitCode() != exit {
			t.Fatalf("%s %v: got %v and exit code %d, want %d:\n%s", name, args, err, cmd.ProcessState.ExitCode(), exit, stderr)
		}
		decoder := json.NewDecoder(&stdout)
		if err := decoder.Decode(&d); err != nil {
			t.Fatalf("%s %v: got %v, want a document", name, args, err)
		}
		if _, err := decoder.Token(); err != io.EOF {
			t.Errorf("%s %v: got more than one document (%v), want one", name, args, err)
		}
		return d
	}
	bad := export(t, 2, "0x12,x,")
	if d := document(3, "importer", "--dry-run", bad); d.Published != 2 || !d.DryRun || d.Rejects == "" || d.Exit != 3 {
		t.Errorf("importer --dry-run: got %+v, want 2 rows that would be published, a rejects file and exit 3", d)
	}
	if d := document(0, "importer", customers); d.Published != 30 || d.DryRun || d.Rejects != "" || d.Exit != 0 {
		t.Errorf("importer: got %+v, want 30 rows published and exit 0", d)
	}
	if d := document(0, "consumer", "check"); len(d.Checks) < 5 || d.Failed != 0 || d.Checks[0].Check != "partner" ||
		d.Checks[0].Result != "ok" {
		t.Errorf("check: got %+v, want five checks or more that are ok", d)
	}
	if d := document(2, "consumer", "check", "--signing-key-id", "another"); d.Failed == 0 || d.Checks[0].Result != "FAIL" {
		t.Errorf("check with a wrong key id: got %+v, want a failed check", d)
	}
	mustRun(t, env, "consumer", "--drain")
	if d := document(0, "consumer", "runs"); len(d.Runs) != 1 || d.Runs[0].Report.Exit != 0 {
		t.Errorf("runs: got %+v, want one that ended with 0", d)
	}
	if d := document(0, "consumer", "status"); d.Rows != 30 || len(d.Stages) != 1 || d.Stages[0].Stage != "onboarded" {
		t.Errorf("status: got %+v, want 30 rows onboarded", d)
	}
	if d := document(0, "consumer", "reconcile"); d.Customers != 30 || d.Matched != 30 {
		t.Errorf("reconcile: got %+v, want 30 customers and rows", d)
	}
	publishEmbedded(t, env, "onboarding.customers", []pipeline.Message{{Key: []byte("k"), Value: []byte("not json")}})
	exitsWith(t, env, 3, nil, "consumer", "--drain")
	if d := document(0, "consumer", "redrive", "--dry-run"); d.LookedAt != 1 || d.PutBack != 1 || len(d.Letters) != 1 ||
		d.Letters[0].Class != "syntax" || !d.DryRun {
		t.Errorf("redrive --dry-run: got %+v, want the dead letter", d)
	}
	if d := document(0, "consumer", "redrive"); d.LookedAt != 1 || d.PutBack != 1 || d.DryRun {
		t.Errorf("redrive: got %+v, want one put back", d)
	}
}
