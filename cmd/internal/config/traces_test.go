package config

import (
	"strings"
	"testing"
)

func TestTraceExporter(t *testing.T) {
	for _, test := range []struct {
		variables string // NAME=value NAME=value
		want      string
		problem   string
	}{
		{"", "", ""},
		{"OTEL_SERVICE_NAME=purser", "", ""},
		{"OTEL_TRACES_EXPORTER=none OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "", ""},
		{"OTEL_TRACES_EXPORTER=console", "console", ""},
		{"OTEL_TRACES_EXPORTER=otlp", "otlp", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "otlp", ""},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:4318/v1/traces", "otlp", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318 OTEL_SDK_DISABLED=true", "", ""},
		{"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "otlp", ""},
		{"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
			"otlp", ""},
		{"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "",
			`$OTEL_EXPORTER_OTLP_PROTOCOL "grpc": OTLP over gRPC is not supported`},
		{"OTEL_TRACES_EXPORTER=console OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "console", ""},
		{"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=http/json", "", "want http/protobuf"},
		{"OTEL_TRACES_EXPORTER=zipkin", "", `$OTEL_TRACES_EXPORTER "zipkin": want otlp, console or none`},
	} {
		variables := map[string]string{}
		for pair := range strings.FieldsSeq(test.variables) {
			name, value, _ := strings.Cut(pair, "=")
			variables[name] = value
		}
		got, err := TraceExporter(func(name string) string { return variables[name] })
		if got != test.want || (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: got %q, %v; want %q, an error with %q", test.variables, got, err, test.want, test.problem)
		}
	}
}
