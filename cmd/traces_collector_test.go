//go:build traces

package cmd

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/purser-onboard/purser/internal/freeport"
	"github.com/purser-onboard/purser/sandbox"
)

// collector is an OpenTelemetry Collector that prints what it receives.
type collector struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	text  strings.Builder
	url   string
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	binary := os.Getenv("PURSER_OTELCOL")
	if binary == "" {
		t.Fatal("got no $PURSER_OTELCOL, want the path of a collector: .ci/traces builds it")
	}
	free := freeport.Addresses(t, 1)[0]
	c := &collector{url: "http://" + free}
	config := filepath.Join(t.TempDir(), "otelcol.yaml")
	text := fmt.Sprintf(`
receivers: {otlp: {protocols: {http: {endpoint: %q}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
`, free)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.CommandContext(t.Context(), binary, "--config", config)
	c.lines = started(t, c.cmd)
	c.lines.Buffer(nil, 1<<20)
	for c.lines.Scan() {
		c.text.WriteString(c.lines.Text() + "\n")
		if strings.Contains(c.lines.Text(), "Everything is ready") {
			return c
		}
	}
	t.Fatalf("got a collector that ended, want it ready:\n%s", c.text.String())
	return nil
}

// collected is a span as the collector prints it.
type collected struct{ trace, parent, id, name, kind, text string }

// stop ends the collector, which then has printed all spans.
func (c *collector) stop(t *testing.T) []collected {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for c.lines.Scan() {
			c.text.WriteString(c.lines.Text() + "\n")
		}
	}()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("got %v from the collector, want it to end well", err)
	}
	var spans []collected
	for _, part := range regexp.MustCompile(`(?m)^Span #\d+$`).Split(c.text.String(), -1)[1:] {
		field := func(name string) string {
			found := regexp.MustCompile(`(?m)^ +` + name + ` *: *(.*)$`).FindStringSubmatch(part)
			if found == nil {
				return ""
			}
			return strings.TrimSpace(found[1])
		}
		spans = append(spans, collected{
			field("Trace ID"), field("Parent ID"), field("ID"), field("Name"), field("Kind"), part,
		})
	}
	return spans
}

// TestCollectorGetsTraces: a real run, exported over OTLP to a real collector. Each row has one trace through both
// commands, and no span holds a customer's data or a secret.
func TestCollectorGetsTraces(t *testing.T) {
	c := startCollector(t)
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url)
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	spans := c.stop(t)

	byID := map[string]collected{}
	for _, s := range spans {
		byID[s.id] = s
	}
	// path is the names from the trace's root down to the span.
	path := func(s collected) string {
		names := []string{s.name}
		for s.parent != "" {
			parent, ok := byID[s.parent]
			if !ok || parent.trace != s.trace {
				return "?"
			}
			s = parent
			names = append([]string{s.name}, names...)
		}
		return strings.Join(names, " > ")
	}
	counts := map[string]int{}
	for _, s := range spans {
		counts[path(s)]++
	}
	row := "create onboarding.customers > process onboarding.customers"
	for _, want := range []string{
		"create onboarding.customers", row, row + " > create > POST /v1/customers", row + " > check > UPDATE rows",
		row + " > sign > signer sign", row + " > submit > POST /v1/customers/{id}/challenge/sign", row + " > submit > UPDATE rows",
	} {
		if counts[want] != 30 {
			t.Errorf("got %d spans %q, want 30", counts[want], want)
		}
	}
	if counts["?"] > 0 {
		t.Errorf("got %d spans whose parents are missing, want none", counts["?"])
	}
	all := c.text.String()
	for _, want := range []string{
		"service.name: Str(purser-importer)", "service.name: Str(purser-consumer)", "schemas/1.43.0",
		"messaging.system: Str(kafka)", "http.request.method: Str(POST)", "db.system.name: Str(sqlite)",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("got no %q at the collector, want it", want)
		}
	}
	for _, data := range []string{"eip155", "0xE66c", "f23e9748", "Bearer", "eyJ"} {
		if at := slices.IndexFunc(spans, func(s collected) bool { return strings.Contains(s.text, data) }); at >= 0 {
			t.Errorf("got %q at the collector, want no customer data and no secret:\n%s", data, spans[at].text)
		}
	}
}
