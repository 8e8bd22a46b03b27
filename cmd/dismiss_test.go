package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/sandbox"
)

// TestDismiss: a row that the partner has rejected makes each night of a full export end with 3, until it is dismissed.
func TestDismiss(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	file := export(t, 2)
	purserNight(t, env, 0, file)
	execLedger(t, env, `UPDATE rows SET stage = 'rejected' WHERE id = 1`)
	for range 2 {
		r, out := purserNight(t, env, 3, file)
		if o := ofNight(t, r).Outcome; o.Rows != 2 || o.Rejected != 1 || !strings.Contains(out, ", 1 rejected by") {
			t.Errorf("got %+v, want 1 of 2 rows rejected:\n%s", o, out)
		}
	}
	exitsWith(t, env, 0, []string{"Needs attention", "purser dismiss --data-dir " + dataOf(env) + " rejected.csv"},
		"purser", "report")
	output := func(args ...string) string {
		cmd, out := command(t, env, "purser", args...)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	rejected := filepath.Join(t.TempDir(), "rejected.csv")
	if err := os.WriteFile(rejected, []byte(output("failures", "--stage", "rejected")), 0o600); err != nil {
		t.Fatal(err)
	}

	exitsWith(t, env, 0, []string{"1 row is dismissed\n"}, "purser", "dismiss", rejected)
	if _, out := purserNight(t, env, 0, file); !strings.Contains(out, "1 onboarded, 1 rejected by the partner") {
		t.Errorf("dismissed: got\n%s\nwant 1 onboarded and 1 rejected row", out)
	}
	exitsWith(t, env, 0, []string{"Good: ", "not counted: 1 dismissed row\n"}, "purser", "report")
	exitsWith(t, env, 0, []string{"(1 dismissed)"}, "purser", "status")
	exitsWith(t, env, 0, []string{"1 row is dismissed and not listed; --dismissed lists them"}, "purser", "failures",
		"--stage", "rejected")
	for args, want := range map[string]bool{"failures": false, "failures --dismissed": true} {
		if out := output(strings.Fields(args)...); strings.Contains(out, ",rejected,") != want {
			t.Errorf("%s: got the rejected row %t, want %t:\n%s", args, !want, want, out)
		}
	}

	// As a spreadsheet saves it, with the row twice.
	lines := strings.Split(strings.TrimSpace(output("failures", "--dismissed")), "\n")
	saved := "\ufeff" + strings.ReplaceAll(strings.Join(append(lines, lines[1]), "\r\n"), ",", ";") + "\r\n"
	spreadsheet := filepath.Join(t.TempDir(), "spreadsheet.csv")
	if err := os.WriteFile(spreadsheet, []byte(saved), 0o600); err != nil {
		t.Fatal(err)
	}
	exitsWith(t, env, 0, []string{"1 row is no longer dismissed\n"}, "purser", "dismiss", "--undo", spreadsheet)
	purserNight(t, env, 3, file)
	exitsWith(t, env, 3, []string{rejected + ":2: the row is not dismissed", "1 row was left unchanged"},
		"purser", "dismiss", "--undo", rejected)
	for content, says := range map[string]string{
		"":                                      "is empty",
		"address,chainId\n":                     "want CSV with address, externalId and chainId",
		"address,externalId,chainId\n0x1,a,1\n": "; no row of the file was changed",
	} {
		if err := os.WriteFile(rejected, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		exitsWith(t, env, 2, []string{says}, "purser", "dismiss", rejected)
	}
}
