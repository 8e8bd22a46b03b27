package config

import (
	"cmp"
	"strings"
)

// TraceExporter returns where the spans of traces go, by the standard variables of OpenTelemetry: "otlp", "console"
// (standard error), or "" if no variable names an exporter or an OTLP endpoint. OpenTelemetry's libraries read the
// other variables (headers, certificates, sampler, limits).
func TraceExporter(getenv func(string) string) (string, error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return "", nil
	}
	name := getenv("OTEL_TRACES_EXPORTER")
	if name == "" && cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), getenv("OTEL_EXPORTER_OTLP_ENDPOINT")) != "" {
		name = "otlp"
	}
	switch name {
	case "", "none":
		return "", nil
	case "console":
		return name, nil
	case "otlp":
	default:
		return "", &Error{"$OTEL_TRACES_EXPORTER", name, "want otlp, console or none"}
	}
	for _, variable := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		switch protocol := getenv(variable); protocol {
		case "":
			continue
		case "http/protobuf":
			return name, nil
		case "grpc":
			return "", &Error{"$" + variable, protocol, "OTLP over gRPC is not supported: set it to http/protobuf, and the " +
				"endpoint to the collector's port for HTTP (4318)"}
		default:
			return "", &Error{"$" + variable, protocol, "want http/protobuf"}
		}
	}
	return name, nil
}
