package cmd

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/purser-onboard/purser/sandbox"
)

// metricsIn parses metrics as Prometheus does. The keys are names with labels in braces: name{label="value"}.
func metricsIn(t *testing.T, text string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("metrics: got %v, want a text that can be parsed; it is %s", err, text)
	}
	all := make(map[string]float64)
	for name, family := range families {
		for _, m := range family.GetMetric() {
			key := name
			for _, l := range m.GetLabel() {
				key += "{" + l.GetName() + `="` + l.GetValue() + `"}`
			}
			all[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// expectMetrics compares some of the metrics.
func expectMetrics(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if have, ok := got[name]; !ok || have != value {
			t.Errorf("%s: got %v (there: %v), want %v", name, have, ok, value)
		}
	}
}

// get returns the status and the body of a page.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// TestMetricsAreServed: on loopback, with the run's health, and with profiles only where they are asked for.
func TestMetricsAreServed(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", customers)
	for _, profiles := range []bool{false, true} {
		args := []string{"--metrics-listen", "0", "--log-level", "info"}
		if profiles {
			args = append(args, "--metrics-pprof")
		}
		cmd, _ := command(t, env, "consumer", args...)
		lines := started(t, cmd)
		served := regexp.MustCompile(`metrics are served.* address=(127\.0\.0\.1:\d+)`)
		address := ""
		for address == "" && lines.Scan() {
			if found := served.FindStringSubmatch(lines.Text()); found != nil {
				address = "http://" + found[1]
			}
		}
		if status, body := get(t, address+"/healthz"); status != http.StatusOK {
			t.Errorf("/healthz: got %d %q, want 200", status, body)
		}
		for lines.Scan() && !strings.Contains(lines.Text(), "partitions assigned") {
			continue
		}
		for last := ""; t.Context().Err() == nil; {
			status, body := get(t, address+"/readyz")
			if status == http.StatusOK {
				break
			}
			if body != last {
				t.Logf("/readyz: %d %s", status, body)
			}
			last = body
		}
		if profiles { // all rows were onboarded by the first consumer
			for _, page := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1"} {
				if status, _ := get(t, address+page); status != http.StatusOK {
					t.Errorf("%s: got %d, want 200", page, status)
				}
			}
		} else {
			if status, _ := get(t, address+"/debug/pprof/"); status != http.StatusNotFound {
				t.Errorf("/debug/pprof/ without --metrics-pprof: got %d, want 404", status)
			}
			var got map[string]float64
			for got[`purser_rows_total{stage="onboarded"}`] < 30 && t.Context().Err() == nil {
				_, text := get(t, address+"/metrics")
				got = metricsIn(t, text)
			}
			expectMetrics(t, got, map[string]float64{
				"purser_messages_total": 30, "purser_outage": 0, "purser_broker_reachable": 1, "purser_rate_limit": 500,
				`purser_rows_total{stage="creating"}`:                     30,
				`purser_requests_total{operation="create"}{status="2xx"}`: 30,
				`purser_request_duration_seconds{operation="submit"}`:     30,
				`purser_signer_duration_seconds{backend="keystore"}`:      30,
				`purser_stage_duration_seconds{stage="submitting"}`:       30,
				`purser_requests_total{operation="token"}{status="2xx"}`:  1,
				`purser_requests_total{operation="probe"}{status="4xx"}`:  1,
			})
			if _, ok := got["go_goroutines"]; !ok {
				t.Error("got no go_goroutines, want the metrics of the process")
			}
		}
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), readAll(lines)); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was stopped: exit code 1
	}
}

// readAll reads to the end.
func readAll(lines *bufio.Scanner) error {
	for lines.Scan() {
		continue
	}
	return lines.Err()
}

// TestMetricsFile: node_exporter, another user, can read the file that a run leaves, and a night that failed does not
// hide when the last one succeeded.
func TestMetricsFile(t *testing.T) {
	t.Parallel()
	_, env, away := leavingPartner(t)
	file := filepath.Join(t.TempDir(), "purser.prom")
	env = append(env, "PURSER_METRICS_TEXTFILE="+file, "PURSER_OUTAGE_WAIT=0s")
	read := func() map[string]float64 {
		t.Helper()
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return metricsIn(t, string(raw))
	}
	export, err := os.ReadFile(customers)
	if err != nil {
		t.Fatal(err)
	}
	some := filepath.Join(t.TempDir(), "some.csv")
	if err := os.WriteFile(some, []byte(strings.Join(strings.SplitAfter(string(export), "\n")[:11], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, env, "importer", some)
	mustRun(t, env, "consumer", "--drain")
	good := read()
	expectMetrics(t, good, map[string]float64{
		"purser_exit_code": 0, "purser_halted": 0, `purser_rows_total{stage="onboarded"}`: 10, "purser_signatures_total": 10,
	})
	const success = "purser_last_success_timestamp_seconds"
	if good[success] < good["purser_run_started_timestamp_seconds"] {
		t.Errorf("last success: got %v, want the end of the run that began at %v", good[success],
			good["purser_run_started_timestamp_seconds"])
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o644 {
		t.Errorf("mode of the file: got %o, want 644", got)
	}
	away.Store(true)
	mustRun(t, env, "importer", customers)
	exitsWith(t, env, 1, nil, "consumer", "--drain")
	bad := read()
	expectMetrics(t, bad, map[string]float64{
		"purser_exit_code": 1, "purser_halted": 1, `purser_rows_total{stage="onboarded"}`: 0, success: good[success],
	})

	// A run that does not begin leaves the file.
	exitsWith(t, append(env, "PURSER_SIGNER=nothing:x"), 2, nil, "consumer", "--drain")
	expectMetrics(t, read(), bad)
}

// TestMetricsCannotBegin: an address in use and a file that cannot be written are errors of the set-up.
func TestMetricsCannotBegin(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	exitsWith(t, env, 2, []string{"--metrics-listen", "in use"}, "consumer", "--drain",
		"--metrics-listen", taken.Addr().String())
	exitsWith(t, env, 2, []string{"--metrics-textfile", "no such file"}, "consumer", "--drain",
		"--metrics-textfile", filepath.Join(t.TempDir(), "missing", "purser.prom"))
}
