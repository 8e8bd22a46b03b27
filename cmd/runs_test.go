package cmd

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/sandbox"
)

// reportAt reads a report.
func reportAt(t *testing.T, path string) (r results.Report) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		t.Fatalf("report %s: got %v, want a report; it is %q", path, err, raw)
	}
	return r
}

// TestRunsAreRemembered: each run has an id, in its report as in the ledger, and its exit code can be asked for later. A
// run whose process was killed is not taken for the one before it.
func TestRunsAreRemembered(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	dir := t.TempDir()
	report := filepath.Join(dir, "report.json")
	env = append(env, "PURSER_REPORT="+report)
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	first := reportAt(t, report)
	if first.State != results.Ended || first.Exit != 0 || first.Run == "" || first.Rows.Onboarded != 30 {
		t.Errorf("the first run: got %+v, want an id, 30 rows onboarded and exit 0", first)
	}

	// One that is not drained is killed: its report says that it has not ended.
	cmd, _ := working(t, env)
	exitsWith(t, env, 0, []string{"not ended: running"}, "consumer", "runs")
	exitsWith(t, env, 1, []string{`"alive": true`}, "consumer", "status", "--run", "last")
	exitsWith(t, env, 0, []string{"is in progress"}, "consumer", "status")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	killed := reportAt(t, report)
	if killed.State != results.Running || killed.Exit != 1 || killed.Run == first.Run {
		t.Errorf("the killed run: got %+v, want another id, state running and exit 1", killed)
	}
	exitsWith(t, env, 1, []string{`"state": "running"`, `"alive": false`, killed.Run}, "consumer", "status", "--run", "last")
	exitsWith(t, env, 0, []string{`"onboarded": 30`}, "consumer", "status", "--run", first.Run)
	exitsWith(t, env, 2, []string{"--run", "no such run"}, "consumer", "status", "--run", "01a21b0a-0000-7000-8000-000000000000")
	exitsWith(t, env, 0, []string{first.Run, killed.Run, "not ended: killed"}, "consumer", "runs")
	exitsWith(t, env, 0, []string{"has no end: its process was killed"}, "consumer", "status")

	// A run that does not begin leaves the report.
	exitsWith(t, append(env, "PURSER_SIGNER=nothing:x"), 2, nil, "consumer", "--drain")
	if got := reportAt(t, report); got.Run != killed.Run {
		t.Errorf("after a run that did not begin: got the report of run %s, want that of %s", got.Run, killed.Run)
	}
}

// TestReportGoesWhereItIsSent: to standard output, also as a device, without replacing what is there, and alone: the
// summary goes to standard error then; and to a file for each run. Report and page must not be one file.
func TestReportGoesWhereItIsSent(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	dir := t.TempDir()
	for _, name := range []string{"-", "/dev/stdout"} {
		log := filepath.Join(dir, "app.log")
		if err := os.WriteFile(log, []byte("earlier\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd, stderr := command(t, env, "consumer", "--drain", "--report", name)
		cmd.Stdout = out
		cmd.Dir = dir
		err = cmd.Run()
		if e := out.Close(); err != nil || e != nil {
			t.Fatal(err, e)
		}
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		document, ok := bytes.CutPrefix(text, []byte("earlier\n"))
		if !ok || !json.Valid(document) || !bytes.Contains(document, []byte(`"state": "ended"`)) {
			t.Errorf("--report %s: got %q, want what was there and the report", name, text)
		}
		if want := "rows      0 received"; !strings.Contains(stderr.String(), want) {
			t.Errorf("--report %s: got %q on standard error, want %q in it", name, stderr, want)
		}
	}
	cmd, stderr := command(t, env, "purser", "night", "--report", "-", "--log-format", "json", export(t, 2))
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := cmd.Run(); err != nil || !json.Valid(stdout.Bytes()) ||
		!strings.Contains(stderr.String(), `"msg":"night     2 rows`) {
		t.Errorf("a night: got %v, %q and %q; want one document, and the summary in the log", err, &stdout, stderr)
	}
	for _, paths := range [][2]string{
		{"-", "/dev/stdout"}, {filepath.Join(dir, "a.json"), dir + "/./a.json"}, {dir + "/{run}", dir + "/{run}"},
	} {
		exitsWith(t, env, 2, []string{"--report-html: names the same file as --report"},
			"consumer", "--drain", "--report", paths[0], "--report-html", paths[1])
	}
	metrics := filepath.Join(dir, "metrics.prom")
	for _, flag := range []string{"--report", "--report-html"} {
		exitsWith(t, env, 2, []string{"--metrics-textfile: names the same file as " + flag},
			"consumer", "--drain", "--metrics-textfile", metrics, flag, dir+"/./metrics.prom")
	}
	exitsWith(t, env, 2, []string{"--metrics-textfile: names the rejects file (--rejects)"},
		"purser", "night", "--metrics-textfile", metrics, "--rejects", metrics, export(t, 2))
	if _, err := os.Lstat(metrics); !os.IsNotExist(err) {
		t.Errorf("a file that two flags name: got %v, want none", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "-")); !os.IsNotExist(err) {
		t.Errorf("a file named -: got %v, want none", err)
	}
	for _, flag := range []string{"--report", "--report-html"} {
		first := filepath.Join(dir, "first"+flag) // a data directory that is made by this run
		for _, data := range []string{dataOf(env), first} {
			exitsWith(t, env, 2, []string{flag + ": is a file of the ledger and would overwrite it"},
				"consumer", "--drain", "--data-dir", data, flag, filepath.Join(data, "ledger.db"))
		}
	}
	mustRun(t, env, "consumer", "--drain", "--report", filepath.Join(dir, "night-{run}.json"))
	files, err := filepath.Glob(filepath.Join(dir, "night-*.json"))
	if err != nil || len(files) != 1 || !strings.Contains(files[0], reportAt(t, files[0]).Run) {
		t.Errorf("got reports %v, %v; want one, named by its run", files, err)
	}
}

// TestHardStopIsRemembered: a second SIGINT cuts the request in flight short, and the end of the run is recorded.
func TestHardStopIsRemembered(t *testing.T) {
	t.Parallel()
	begun, cut := make(chan struct{}), make(chan struct{})
	var once sync.Once
	_, env := partnerBehind(t, sandbox.Config{}, func(partner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/customers") {
				_, _ = io.Copy(io.Discard, r.Body) // without it, the server does not notice that the client is gone
				once.Do(func() { close(begun) })
				<-r.Context().Done()
				return
			}
			partner.ServeHTTP(w, r)
		})
	})
	mustRun(t, env, "importer", customers)
	cmd, out := command(t, env, "consumer", "--drain", "--report", filepath.Join(t.TempDir(), "report.json"))
	output := &signalled{w: out, on: "stopping (interrupt)", then: func() { close(cut) }}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-cut
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 1 {
		t.Errorf("got exit code %d, want 1:\n%s", got, out)
	}
	book, err := ledger.OpenReadOnly(t.Context(), filepath.Join(dataOf(env), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	runs, err := book.Runs(t.Context(), 10)
	if e := book.Close(); err != nil || e != nil {
		t.Fatal(err, e)
	}
	if len(runs) != 1 || !runs[0].Ended() || runs[0].Exit != 1 || !strings.Contains(runs[0].Report, "interrupted") {
		t.Errorf("got runs %+v, want one that ended with 1 because it was interrupted", runs)
	}
}

// TestRunAndFleet: a fleet has no runs to ask for.
func TestRunAndFleet(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{})
	exitsWith(t, env, 2, []string{"--run", "--fleet"}, "consumer", "status", "--run", "last", "--fleet")
}
