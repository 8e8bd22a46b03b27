//go:build observability

package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/purser-onboard/purser/internal/freeport"
)

// TestObservabilityRules: the shipped rules are valid, and fire when they should.
func TestObservabilityRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "rules", "../monitoring/alerts.yaml"}, {"test", "rules", "../monitoring/alerts_test.yaml"},
	} {
		out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
		if err != nil {
			t.Errorf("promtool %v: got %v, want no error:\n%s", args, err, out)
		}
	}
}

// TestObservability: a night with a slow partner, an outage, a halt and bad rows, as Prometheus, node_exporter and
// Alertmanager see it. Every alert that the night should raise arrives in Alertmanager, and every expression of the
// dashboard has data.
func TestObservability(t *testing.T) {
	t.Parallel()
	var mood atomic.Int32 // of the partner
	const (
		well = iota
		silent
		away
	)
	faults := withFaults(t, "challenge-address=0.2,throttle-429=0.1,limit=1,retry-after=1s,on=create+challenge")
	speaks, submissions := make(chan struct{}), atomic.Int32{}
	_, env := partnerBehind(t, faults, func(partner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/sign") && submissions.Add(1) == 8 {
				mood.CompareAndSwap(well, silent)
			}
			if mood.Load() == silent {
				select {
				case <-speaks:
				case <-r.Context().Done():
				}
			}
			if mood.Load() == away {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			partner.ServeHTTP(w, r)
		})
	})
	env = append(env, "PURSER_RATE=10", "PURSER_CONCURRENCY=4")
	o := observe(t)

	// No run yet.
	o.fires("PurserMetricsAbsent", "")
	o.fires("PurserDown", "purser")

	// A consumer that runs on: at first all is well but for some rows, then the partner does not answer, then it is away.
	mustRun(t, env, "importer", customers)
	consumer, out := command(t, append(env, "PURSER_OUTAGE_WAIT=4s"), "consumer", "--metrics-listen", o.consumer)
	if err := consumer.Start(); err != nil {
		t.Fatal(err)
	}
	missing := dashboard(t)
	o.until("the partner has fallen silent", func() bool {
		missing = slices.DeleteFunc(missing, o.hasData)
		return mood.Load() == silent
	})
	o.fires("PurserBadRows", "purser")
	o.fires("PurserPartitionStalled", "purser")
	mood.Store(away)
	close(speaks)
	o.fires("PurserOutage", "purser")
	if err := ignoreExit(consumer.Wait()); err != nil || consumer.ProcessState.ExitCode() != 1 {
		t.Errorf("consumer: got exit code %d, %v; want 1:\n%s", consumer.ProcessState.ExitCode(), err, out)
	}
	o.fires("PurserDown", "purser")

	// The same by cron: a drain that halts, one with bad rows, and its retry, which has nothing to do.
	env = append(env, "PURSER_METRICS_TEXTFILE="+o.textfile, "PURSER_RATE=500")
	exitsWith(t, env, 1, nil, "consumer", "--drain", "--outage-wait", "0s")
	o.fires("PurserHalted", "node")
	o.fires("PurserNoSuccess", "node")
	mood.Store(well)
	exitsWith(t, env, 3, nil, "consumer", "--drain")
	o.until("the bad rows are scraped", func() bool {
		return o.hasData(`purser_rows_total{job="node",stage="refused"} > 0 and on () purser_exit_code{job="node"} == 3`)
	})
	o.fires("PurserBadRows", "node")
	exitsWith(t, env, 3, []string{"the queue is empty"}, "consumer", "--drain")
	o.until("the retry is scraped", func() bool {
		return o.hasData(`purser_rows_total{job="node",stage="refused"} == 0 and on () purser_exit_code{job="node"} == 3`)
	})
	// Two evaluations later it is still red.
	at := o.evaluations()
	o.until("the rules are evaluated", func() bool { return o.evaluations() > at+2 })
	o.fires("PurserBadRows", "node")

	o.until("every expression of the dashboard has had data", func() bool {
		missing = slices.DeleteFunc(missing, o.hasData)
		return len(missing) == 0
	})
}

// dashboard returns the expressions of the shipped dashboard, with values for Grafana's variables.
func dashboard(t *testing.T) (expressions []string) {
	t.Helper()
	raw, err := os.ReadFile("../monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	type expression struct{ Expr string }
	var d struct {
		Panels      []struct{ Targets []expression }
		Annotations struct{ List []expression }
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	list := d.Annotations.List
	for _, p := range d.Panels {
		list = append(list, p.Targets...)
	}
	variables := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "4s", "[1m]", "[20s]")
	for _, e := range list {
		expressions = append(expressions, variables.Replace(e.Expr))
	}
	return expressions
}

// observers are the programs that watch a run.
type observers struct {
	t                                  *testing.T
	consumer, prometheus, alertmanager string // host:port
	textfile                           string
}

// observe starts them. Their settings are those of a real installation, but for shorter times.
func observe(t *testing.T) *observers {
	t.Helper()
	dir := t.TempDir()
	ports := freeport.Addresses(t, 4)
	node := ports[3]
	o := &observers{t: t, consumer: ports[0], prometheus: ports[1], alertmanager: ports[2],
		textfile: filepath.Join(dir, "textfile", "purser.prom")}
	rules, err := os.ReadFile("../monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	short := string(regexp.MustCompile(`\bfor: \d+m`).ReplaceAll(rules, []byte("for: 0s")))
	short = strings.NewReplacer("26 * 3600", "5", "[15m]", "[4s]", "[1h]", "[10s]", "offset 15m", "offset 3s").Replace(short)
	settings := fmt.Sprintf(`
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}
rule_files: [alerts.yaml]
alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}
scrape_configs:
  - {job_name: purser, static_configs: [{targets: [%q]}]}
  - {job_name: node, static_configs: [{targets: [%q]}]}
`, o.alertmanager, o.consumer, node)
	const receiver = "route: {receiver: none, group_wait: 0s}\nreceivers: [{name: none}]\n"
	for name, text := range map[string]string{
		"alerts.yaml": short, "prometheus.yaml": settings, "alertmanager.yaml": receiver,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Dir(o.textfile), 0o700); err != nil {
		t.Fatal(err)
	}
	o.start("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yaml"),
		"--storage.tsdb.path="+filepath.Join(dir, "prometheus"), "--web.listen-address="+o.prometheus,
		"--rules.alert.resend-delay=1s") // Alertmanager is found a few seconds after the first alert
	o.start("prometheus-alertmanager", "--config.file="+filepath.Join(dir, "alertmanager.yaml"),
		"--storage.path="+filepath.Join(dir, "alertmanager"), "--web.listen-address="+o.alertmanager,
		"--cluster.listen-address=")
	o.start("prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
		"--collector.textfile.directory="+filepath.Dir(o.textfile), "--web.listen-address="+node)
	return o
}

// start starts a program, which is stopped when the test ends; its output is shown if the test fails.
func (o *observers) start(name string, args ...string) {
	o.t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if o.t.Failed() {
			o.t.Logf("%s:\n%s", name, out.String())
		}
	})
}

// until asks until the answer is yes.
func (o *observers) until(what string, yes func() bool) {
	o.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for !yes() {
		select {
		case <-tick.C:
		case <-limit.C:
			o.t.Fatalf("got no end of the wait in 30s, want that %s", what)
		}
	}
}

// ask reads a JSON answer; false: there was none.
func (o *observers) ask(url string, answer any) bool {
	r, err := http.Get(url)
	if err != nil {
		return false // it is still starting
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return false
	}
	return json.NewDecoder(r.Body).Decode(answer) == nil
}

// fires waits until Alertmanager has an alert of this job.
func (o *observers) fires(alert, job string) {
	o.t.Helper()
	o.until("Alertmanager has "+alert+" of job "+job, func() bool {
		var alerts []struct {
			Labels      map[string]string
			Annotations map[string]string
			Status      struct{ State string }
		}
		if !o.ask("http://"+o.alertmanager+"/api/v2/alerts?active=true", &alerts) {
			return false
		}
		for _, a := range alerts {
			if a.Labels["alertname"] == alert && a.Labels["job"] == job {
				o.t.Logf("%s %s: %s", a.Status.State, alert, a.Annotations["summary"])
				return true
			}
		}
		return false
	})
}

// hasData reports whether Prometheus has a value for an expression now. What it cannot parse ends the test.
func (o *observers) hasData(expression string) bool {
	r, err := http.Get("http://" + o.prometheus + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return false // it is still starting
	}
	defer r.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []struct{ Value [2]any } }
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return false
	}
	if answer.Status != "success" && r.StatusCode == http.StatusBadRequest {
		o.t.Fatalf("%s: got %s, want an expression that can be evaluated", expression, answer.Error)
	}
	for _, series := range answer.Data.Result {
		if series.Value[1] != "NaN" {
			return true
		}
	}
	return false
}

// evaluations returns how often the rules were evaluated.
func (o *observers) evaluations() (n float64) {
	var answer struct {
		Data struct {
			Groups []struct {
				LastEvaluation time.Time
			}
		}
	}
	o.ask("http://"+o.prometheus+"/api/v1/rules", &answer)
	for _, g := range answer.Data.Groups {
		n = float64(g.LastEvaluation.UnixMilli()) / 500
	}
	return n
}
