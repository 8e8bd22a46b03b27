package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/purser-onboard/purser/night"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/sandbox"
)

// pageText is the text of a page, and pageCommands the commands that it prints.
func pageText(t *testing.T, raw []byte) (text string, commands []string) {
	t.Helper()
	root, err := html.Parse(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			all.WriteString(n.Data)
			if n.Parent.DataAtom == atom.Code && n.Parent.Parent.DataAtom == atom.Pre {
				commands = append(commands, n.Data)
			}
		}
	}
	return all.String(), commands
}

// TestNightPage: a run with bad rows leaves a page that only its user can read, with ids and addresses masked, whose
// commands work as they are printed, in any directory.
func TestNightPage(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	exitsWith(t, env, 3, nil, "importer", export(t, 3, fmt.Sprintf(keyless, 1, 1), fmt.Sprintf(keyless, 2, 2), "0x12,short,"))
	path := filepath.Join(t.TempDir(), "night-{run}.html")
	drain(t, env, 3, "--report-html", path)
	found, err := filepath.Glob(strings.Replace(path, "{run}", "*", 1))
	if err != nil || len(found) != 1 {
		t.Fatalf("got the pages %v, %v; want one", found, err)
	}
	info, err := os.Stat(found[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("got mode %v, %v; want 0600", info.Mode(), err)
	}
	raw, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	text, commands := pageText(t, raw)
	for _, want := range []string{
		"3 of 5 received rows were onboarded; 2 failed. 1 row of the exports is invalid and was not published.",
		"7 lines read", "5 in published rows", "5 received", "docs/runbook.md#no-key", "export.csv:5", "ke…-1", "0x0000…0001",
		"address has N hex digits, want 40", "events not published", "Requests per second:", "; --rate is 500",
		"How long rows were in a stage", "settings of the latest run",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page: got\n%s\nwant %q in it", text, want)
		}
	}
	for _, secret := range []string{"keyless-1", "0x0000000000000000000000000000000000000001", "add up"} {
		if strings.Contains(text, secret) {
			t.Errorf("the page: got %q in it, want it without", secret)
		}
	}

	// In another directory, by a user who has not set the data directory.
	elsewhere := slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, "PURSER_DATA_DIR=") })
	dir := t.TempDir()
	var got []string
	for _, line := range commands {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Env, cmd.Dir = elsewhere, dir
		out, err := cmd.CombinedOutput()
		if err := ignoreExit(err); err != nil {
			t.Fatal(err)
		}
		name := strings.ReplaceAll(line, " --data-dir "+dataOf(env), "")
		got = append(got, fmt.Sprintf("%s: %d", name, cmd.ProcessState.ExitCode()))
		if strings.Contains(string(out), "usage") {
			t.Errorf("%s: got %s, want no misuse", line, out)
		}
	}
	want := "consumer failures > again.csv: 0; importer again.csv: 0; consumer run --drain: 3" // the signer still has no key
	if strings.Join(got, "; ") != want {
		t.Errorf("the page's commands: got %q, want %q", strings.Join(got, "; "), want)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("got the files %v, %v; want again.csv alone", left, err)
	}
}

// TestReport: the account of a night as text, JSON and page; of one run, or of several together.
func TestReport(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	exitsWith(t, env, 2, []string{"there is no ledger"}, "consumer", "report")
	mustRun(t, env, "importer", export(t, 3))
	first, _ := drainReport(t, env)
	mustRun(t, env, "importer", export(t, 4, fmt.Sprintf(keyless, 1, 1)))
	drain(t, env, 3)
	exitsWith(t, env, 0, []string{
		"Needs attention: 1 of 5 received rows were onboarded; 1 failed and 3 were settled before.", "consumer failures --data-dir " + dataOf(env),
		"5 received = 1 onboarded + 3 skipped + 1 failed", "no-key (failed): 1 of these runs, 1 in the ledger now",
		"docs/runbook.md#no-key", "the queue was not read",
	}, "consumer", "report")
	exitsWith(t, env, 0, []string{"4 of 8 received rows were onboarded", "2 runs: 8 received"}, "consumer", "report", "--last", "2")
	exitsWith(t, env, 0, []string{"keyless-1", "0x0000000000000000000000000000000000000001"}, "consumer", "report", "--unmask")
	exitsWith(t, env, 0, []string{"purser failures --data-dir", "purser import --data-dir", "purser run --data-dir"},
		"purser", "report")
	exitsWith(t, env, 0, []string{"<!DOCTYPE html>", "Content-Security-Policy"}, "consumer", "report", "--format", "html")
	exitsWith(t, env, 2, []string{"no such run"}, "consumer", "report", "--run", "01a21b0a-0000-7000-8000-000000000000")
	exitsWith(t, env, 2, []string{"--last"}, "consumer", "report", "--run", first.Run, "--last", "2")
	exitsWith(t, env, 0, []string{"no-key: Add the account's key", "docs/runbook.md#no-key"}, "consumer", "status")
	exitsWith(t, env, 0, []string{",docs/runbook.md#no-key"}, "consumer", "failures")

	cmd, out := command(t, env, "consumer", "report", "--format", "json", "--run", first.Run)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	var a night.Account
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	if len(a.Runs) != 1 || a.Runs[0].Report.Run != first.Run || len(a.History) != 2 || a.Rows().Onboarded != 3 {
		t.Errorf("the account of the first run: got %+v, want 3 rows onboarded and 2 runs in the history", a)
	}
	// That run was good; the rows of the later one are not.
	if a.Verdict.Level != night.Bad || !strings.Contains(a.Verdict.Sentence, "1 row of this ledger") {
		t.Errorf("got %+v, want it bad because of the ledger's rows", a.Verdict)
	}
}

// TestPageOfAKilledRun: a run whose process was killed leaves a page that says so, not that of an earlier night.
func TestPageOfAKilledRun(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	path := filepath.Join(t.TempDir(), "night.html")
	mustRun(t, env, "importer", export(t, 3))
	drain(t, env, 0, "--report-html", path)
	if text := pageAt(t, path); !strings.Contains(text, "All 3 received rows are onboarded.") {
		t.Errorf("the good night: got %s, want all rows onboarded", text)
	}
	cmd, _ := working(t, env, "--report-html", path)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if text := pageAt(t, path); !strings.Contains(text, "has no end: it is in progress, or its process was killed") {
		t.Errorf("the killed run: got %s, want a run without an end", text)
	}
}

func pageAt(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := pageText(t, raw)
	return text
}

// TestReportOfARedRetry: a retry that is red for the dead letters of an earlier run says so, and how they are put back.
func TestReportOfARedRetry(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", export(t, 5))
	keyed := append(slices.Clone(env), "PURSER_MESSAGE_KEY_FILE="+keyFile(t, 1))
	first, _ := drainReport(t, keyed)
	retry, _ := drainReport(t, keyed)
	if first.Rows.DeadLettered != 5 || retry.Exit != 3 || retry.RepeatedDeadLetters != 5 {
		t.Fatalf("got %+v and %+v, want 5 dead letters, and a retry that repeats them", first, retry)
	}
	exitsWith(t, keyed, 0, []string{
		"Needs attention: The queue was empty, but 5 dead letters of run " + first.Run + " have not been put back.",
		"consumer redrive --data-dir " + dataOf(env) + " --dry-run\n", "consumer redrive --data-dir " + dataOf(env) + "\n",
		"consumer run --data-dir " + dataOf(env) + " --drain\n",
	}, "consumer", "report")
}

// TestReportOfAnUnreadExport: the account of a night without its export names the export, and the command that imports
// it, in any directory. That of an interrupted run asks for no more than another run.
func TestReportOfAnUnreadExport(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	path := filepath.Join(t.TempDir(), "the night.csv")
	r, _ := purserNight(t, env, 2, path)
	if r.Cause != results.CauseImport || r.Export != path {
		t.Errorf("got the cause %q and the export %q, want %q and %q", r.Cause, r.Export, results.CauseImport, path)
	}
	step := "purser import --data-dir " + dataOf(env) + " '" + path + "'\n"
	exitsWith(t, env, 0, []string{
		"Not finished: The export " + path + " could not be read, and nothing was imported.", step,
		"purser run --data-dir " + dataOf(env) + " --drain\n",
	}, "purser", "report")
	content, err := os.ReadFile(export(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out := command(t, env, "sh", "-c", step)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: got %v, want it imported:\n%s", step, err, out)
	}
	exitsWith(t, env, 2, []string{"--report-html: "}, "consumer", "--drain", "--report-html", path+"/night.html")

	cmd, lines := working(t, env, "--report-html", filepath.Join(t.TempDir(), "night.html"))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := ignoreExit(cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	cmd, out = command(t, env, "consumer", "report", "--format", "json")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	var a night.Account
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(a.Verdict.Sentence, "The run was interrupted after ") || len(a.Todo) != 1 ||
		!strings.HasPrefix(a.Todo[0].Text, "Run again.") {
		t.Errorf("got the verdict %+v and the steps %+v, want an interruption, and to run again", a.Verdict, a.Todo)
	}
}
