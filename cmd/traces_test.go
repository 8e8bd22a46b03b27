package cmd

import (
	"strings"
	"testing"

	"github.com/purser-onboard/purser/sandbox"
)

// TestTracesDoNotMatter: a collector that is away is a warning of importer and consumer, and their results stay what
// they are; a protocol that is not supported is an error of the set-up.
func TestTracesDoNotMatter(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1/5ec2e7", "OTEL_EXPORTER_OTLP_HEADERS=key=5ec2e7")
	exitsWith(t, append(env, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"), 2, []string{"$OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"},
		"importer", customers)
	exitsWith(t, append(env, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"), 2, []string{"$OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"},
		"consumer", "--drain")
	for _, args := range [][]string{{"importer", customers}, {"consumer", "--drain"}} {
		cmd, out := command(t, env, args[0], args[1:]...)
		if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "spans of traces were not exported") ||
			!strings.Contains(out.String(), "connection refused") || strings.Contains(out.String(), "5ec2e7") {
			t.Errorf("%v: got %v and %s; want success, and a warning without path and header", args, err, out)
		}
	}
}

// TestConsoleTraces: without a collector the spans are lines of JSON on standard error.
func TestConsoleTraces(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(env, "OTEL_TRACES_EXPORTER=console")
	mustRun(t, env, "importer", customers)
	cmd, out := command(t, env, "consumer", "--drain")
	if err := cmd.Run(); err != nil || strings.Count(out.String(), `"Name":"process onboarding.customers"`) != 30 ||
		strings.Contains(out.String(), "eip155") {
		t.Errorf("got %v and %s, want a span for each of the 30 rows, and no account", err, out)
	}
}
