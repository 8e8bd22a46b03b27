package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/purser-onboard/purser/sandbox"
)

// TestRunsAreTold: a dead man's switch and a webhook learn that a run has begun and how it has ended, also when it could
// not begin, and learn nothing of a customer. An endpoint that fails changes nothing, and no URL is shown.
func TestRunsAreTold(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked, bodies []string
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/broken") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		asked, bodies = append(asked, r.URL.Path+"?"+r.URL.RawQuery), append(bodies, string(body))
	}))
	defer receiver.Close()
	told := func() (requests []string, texts string) {
		mu.Lock()
		defer mu.Unlock()
		requests, texts = asked, strings.Join(bodies, "\n")
		asked, bodies = nil, nil
		return requests, texts
	}
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	report := filepath.Join(t.TempDir(), "report.json")
	env = append(env, "PURSER_REPORT="+report, "PURSER_PING_URL="+receiver.URL+"/ping/5ec2e7")
	mustRun(t, env, "importer", customers)

	// A set-up that cannot be used; then one that can.
	exitsWith(t, append(env, "PURSER_SIGNER=nothing:x"), 2, nil, "consumer", "--drain")
	if got, text := told(); len(got) != 2 || !strings.HasPrefix(got[0], "/ping/5ec2e7/start?rid=") ||
		!strings.HasPrefix(got[1], "/ping/5ec2e7/2?rid=") || !strings.Contains(text, "--signer") || strings.Contains(text, "status --run") {
		t.Errorf("without a signer: got %q and %q, want the start and exit code 2 with the setting, without a command for "+
			"a run that the ledger has not", got, text)
	}
	mustRun(t, env, "consumer", "--drain")
	run := reportAt(t, report).Run
	got, text := told()
	want := fmt.Sprint([]string{"/ping/5ec2e7/start?rid=" + run, "/ping/5ec2e7?rid=" + run})
	if fmt.Sprint(got) != want || !strings.Contains(text, "30 received: 30 onboarded") || strings.Contains(text, "0x") ||
		!strings.Contains(text, "`consumer status --run "+run) {
		t.Errorf("got %q and %q, want %s and the counts without an account", got, text, want)
	}

	// By webhook, too, while the switch is broken.
	mustRun(t, env, "importer", customers)
	env = append(env, "PURSER_PING_URL="+receiver.URL+"/broken", "PURSER_WEBHOOK_URL="+receiver.URL+"/hook/5ec2e7")
	cmd, out := command(t, env, "consumer", "--drain")
	if err := cmd.Run(); err != nil || strings.Contains(out.String(), "5ec2e7") || strings.Contains(out.String(), "broken") ||
		!strings.Contains(out.String(), "setting=--ping-url") || !strings.Contains(out.String(), "404 Not Found") {
		t.Errorf("a switch that answers 404: got %v and %s; want exit 0, and a warning without the URL", err, out)
	}
	got, text = told()
	var event struct {
		Run, State string
		Exit       *int
		Rows       struct{ Received, Skipped int }
	}
	last := text[strings.LastIndex(text, "\n")+1:]
	if err := json.Unmarshal([]byte(last), &event); err != nil || len(got) != 2 || event.State != "ended" ||
		event.Exit == nil || *event.Exit != 0 || event.Rows.Skipped != 30 || event.Run != reportAt(t, report).Run {
		t.Errorf("webhook: got %q and %s (%v), want two requests, the second of an ended run with exit 0", got, text, err)
	}
}

// TestExitCodeOfFullOutputs: a run whose report, page or summary cannot be written ends with 1, also if rows ended
// badly, and process, ledger, dead man's switch and report agree about it.
func TestExitCodeOfFullOutputs(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here: ", err)
	}
	defer full.Close()
	var mu sync.Mutex
	var pings []string
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		pings = append(pings, r.URL.Path)
	}))
	defer receiver.Close()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(env, "PURSER_PING_URL="+receiver.URL)
	dir := t.TempDir()
	report, page := filepath.Join(dir, "report.json"), filepath.Join(dir, "page.html")
	good, bad := export(t, 3), export(t, 0, fmt.Sprintf(keyless, 1, 1))
	for _, tt := range []struct {
		name, export string
		stdout       *os.File
		args         []string
	}{
		{"good night, --report", good, nil, []string{"--report", "/dev/full"}},
		{"good night, --report-html", good, nil, []string{"--report-html", "/dev/full", "--report", report}},
		{"good night, standard output", good, full, []string{"--report-html", page, "--report", report}},
		{"good night, --report -", good, full, []string{"--report", "-"}},
		{"bad night, standard output", bad, full, []string{"--report", report}},
		{"bad night, --report", bad, nil, []string{"--report", "/dev/full"}},
		{"bad night, --report -", bad, full, []string{"--report", "-"}},
	} {
		mustRun(t, env, "importer", tt.export)
		cmd, out := command(t, env, "consumer", append([]string{"--drain"}, tt.args...)...)
		if tt.stdout != nil {
			cmd.Stdout = tt.stdout
		}
		if err := ignoreExit(cmd.Run()); err != nil {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != 1 || strings.Count(out.String(), "no space left on device") != 1 {
			t.Errorf("%s: got exit code %d, want 1 and the error once:\n%s", tt.name, got, out)
		}
		mu.Lock()
		if want := "/1"; len(pings) == 0 || pings[len(pings)-1] != want {
			t.Errorf("%s: got pings %q, want the last to be %s", tt.name, pings, want)
		}
		mu.Unlock()
		exitsWith(t, env, 1, []string{`"exit": 1`, "no space left on device"}, "consumer", "status", "--run", "last")
		if slices.Contains(tt.args, report) {
			if got := reportAt(t, report); got.Exit != 1 || !strings.Contains(got.Reason, "no space left on device") {
				t.Errorf("%s: got exit %d and reason %q in the report, want 1 and the error", tt.name, got.Exit, got.Reason)
			}
		}
		if slices.Contains(tt.args, page) {
			text, err := os.ReadFile(page)
			if err != nil || !strings.Contains(string(text), "no space left on device") {
				t.Errorf("%s: got %v and no error on the page, want it:\n%s", tt.name, err, text)
			}
		}
	}
}
