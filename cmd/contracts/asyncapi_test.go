package contracts

import (
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/purser-onboard/purser/pipeline"
)

// asyncAPI is docs/asyncapi.yaml.
func asyncAPI(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile("../../docs/asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return fromYAML(t, text).(map[string]any)
}

// asyncSchema compiles a schema of docs/asyncapi.yaml.
func asyncSchema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("asyncapi.yaml", asyncAPI(t)); err != nil {
		t.Fatal(err)
	}
	s, err := compiler.Compile("asyncapi.yaml#/components/schemas/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// conformsToCloudEvents fails the test unless a result's headers are as docs/asyncapi.yaml says, and are not any more
// without one of them.
func conformsToCloudEvents(t *testing.T, s *jsonschema.Schema, m pipeline.Message) {
	t.Helper()
	headers := map[string]any{}
	for _, h := range m.Headers {
		headers[h.Key] = string(h.Value)
	}
	if err := s.Validate(headers); err != nil || len(headers) != len(m.Headers) {
		t.Errorf("got headers %q, want each once and as docs/asyncapi.yaml says: %v", m.Headers, err)
	}
	for _, h := range m.Headers {
		delete(headers, h.Key)
		if err := s.Validate(headers); err == nil {
			t.Errorf("got no error without header %s, want one", h.Key)
		}
		headers[h.Key] = string(h.Value)
	}
}

// TestAsyncAPI: the document has the topics under their default names, and refers to the schemas of their messages.
// That it is valid AsyncAPI is tested with AsyncAPI's own parser (TestAsyncAPIParser, `make test-external`).
func TestAsyncAPI(t *testing.T) {
	t.Parallel()
	defaults := map[string]string{}
	for _, f := range flags(t) {
		defaults[f.Name] = f.Default
	}
	doc := asyncAPI(t)
	messages := doc["components"].(map[string]any)["messages"].(map[string]any)
	for channel, tt := range map[string]struct{ setting, message, part, schema string }{
		"work":        {"topic", "row", "payload", "message"},
		"results":     {"results-topic", "settled", "payload", "result"},
		"deadLetters": {"dead-letter-topic", "deadLetter", "headers", "deadletter"},
	} {
		found := doc["channels"].(map[string]any)[channel].(map[string]any)
		if got := found["address"]; got != defaults[tt.setting] {
			t.Errorf("channel %s: got address %v, want the default of --%s: %s", channel, got, tt.setting, defaults[tt.setting])
		}
		if _, ok := found["messages"].(map[string]any)[tt.message]; !ok {
			t.Errorf("channel %s: got messages %v, want %s", channel, found["messages"], tt.message)
		}
		got := messages[tt.message].(map[string]any)[tt.part].(map[string]any)["$ref"]
		if want := "../schemas/" + tt.schema + ".schema.json"; got != want {
			t.Errorf("%s of message %s: got %v, want %s", tt.part, tt.message, got, want)
		}
	}
}
