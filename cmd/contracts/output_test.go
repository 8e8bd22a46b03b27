package contracts

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
)

// schema compiles one of schemas/.
func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	s, err := compiler.Compile("../../schemas/" + name + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// decode decodes JSON as the validator wants it.
func decode(t *testing.T, text []byte) any {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		t.Fatalf("got %v for %s, want JSON", err, text)
	}
	return value
}

// conforms fails the test unless the value is as the schema says, and is not any more without one of its members or
// with an unknown one, in each object within it. optional are the paths of members that may be missing, such as
// "imports[].reason" or "settings.*".
func conforms(t *testing.T, s *jsonschema.Schema, value any, optional ...string) {
	t.Helper()
	if err := s.Validate(value); err != nil {
		t.Errorf("got %v, want it as %s says:\n%v", value, s.ID, err)
		return
	}
	var alter func(path string, part any)
	alter = func(path string, part any) {
		if list, ok := part.([]any); ok {
			for _, element := range list[:min(len(list), 3)] {
				alter(path+"[]", element)
			}
		}
		object, ok := part.(map[string]any)
		if !ok {
			return
		}
		object["unheardOf"] = "x"
		if err := s.Validate(value); err == nil {
			t.Errorf("%s: got no error with an unknown member in %s %v, want one", s.ID, path, object)
		}
		delete(object, "unheardOf")
		for _, name := range slices.Sorted(maps.Keys(object)) {
			place := strings.TrimPrefix(path+"."+name, ".")
			member := object[name]
			delete(object, name)
			mayMiss := slices.Contains(optional, place) || slices.Contains(optional, path+".*")
			if err := s.Validate(value); (err == nil) != mayMiss {
				t.Errorf("%s: got %v without %s, want an error: %v", s.ID, err, place, !mayMiss)
			}
			object[name] = member
			alter(place, member)
		}
	}
	alter("", value)
}

// TestNight: what the commands write in a night with trouble is as the schemas say, their requests are as
// docs/openapi.yaml says, and the ledger answers the questions of docs/looking-into-a-night.md.
func TestNight(t *testing.T) {
	t.Parallel()
	n := badNight(t)
	t.Run("reports", n.testReports)
	t.Run("messages", n.testMessages)
	t.Run("results", n.testResults)
	t.Run("dead letters", n.testDeadLetters)
	t.Run("queries", n.testQueries)
	t.Run("metadata", n.testMetadata)
	t.Run("traffic", n.testTraffic) // last: it changes the credentials
}

// testReports checks the report of the run, of its retry, and of a run in progress.
func (n *night) testReports(t *testing.T) {
	s := schema(t, "report")
	written, err := os.ReadFile(n.report())
	if err != nil {
		t.Fatal(err)
	}
	reports := [][]byte{written, results.Begun("01a21b0a-0000-7000-8000-000000000000", time.Now()).JSON()}
	book, err := ledger.OpenReadOnly(t.Context(), n.ledger())
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	runs, err := book.Runs(t.Context(), 10)
	if err != nil || len(runs) != 2 {
		t.Fatalf("got %d runs, %v; want 2", len(runs), err)
	}
	for _, run := range runs {
		reports = append(reports, []byte(run.Report))
	}
	for _, report := range reports {
		conforms(t, s, decode(t, report), "repeats", "repeatedDeadLetters", "imports", "imports[].earlierOutcome",
			"imports[].importer", "imports[].notSeen", "balance.published", "imports[].importer.endedAt",
			"imports[].importer.reason", "imports[].importer.topic", "imports[].importer.files[].sha256",
			"imports[].importer.files[].path", "imports[].importer.files[].reasons", "balance", "balance.lines", "latencies", "stages", "settings", "settings.*")
	}
}

func (n *night) testMessages(t *testing.T) {
	s := schema(t, "message")
	rows := 0
	for _, m := range n.messages(t, workTopic) {
		if _, err := pipeline.ParseMessage(m.Value); err != nil {
			continue // one of those that become dead letters
		}
		rows++
		conforms(t, s, decode(t, m.Value), "file", "line")
	}
	if rows < 30 {
		t.Errorf("got %d work messages, want at least those of 30 rows", rows)
	}
}

func (n *night) testResults(t *testing.T) {
	s, headers := schema(t, "result"), asyncSchema(t, "cloudEvent")
	stages := map[pipeline.Stage]int{}
	ids := map[string]int{}
	for _, m := range n.messages(t, resultsTopic) {
		conforms(t, s, decode(t, m.Value), "class", "reason", "customerId", "partnerStatus", "alreadyOnboarded")
		var event results.Event
		if err := json.Unmarshal(m.Value, &event); err != nil {
			t.Fatal(err)
		}
		conformsToCloudEvents(t, headers, m)
		stages[event.Stage]++
		ids[m.Header("ce_id")]++
		if m.Header("ce_subject") != event.ChainID || m.Header("ce_time") != event.SettledAt.Format(time.RFC3339Nano) ||
			!strings.HasPrefix(m.Header("ce_source"), "/purser/127.0.0.1:") ||
			m.Header("ce_type") != "com.github.purser-onboard.row."+string(event.Stage) {
			t.Errorf("got headers %q, want those of a CloudEvent of %s", m.Headers, m.Value)
		}
	}
	wantAll(t, "stages", stages, pipeline.Onboarded, pipeline.Conflict, pipeline.Refused, pipeline.Rejected, pipeline.Failed)
	for id, times := range ids {
		if times != 1 {
			t.Errorf("got %d events with the id %s, want 1", times, id)
		}
	}
}

func (n *night) testDeadLetters(t *testing.T) {
	s := schema(t, "deadletter")
	letters := n.messages(t, deadTopic)
	for _, m := range letters {
		headers := map[string]any{}
		for _, h := range m.Headers {
			if _, twice := headers[h.Key]; twice {
				t.Errorf("got header %s twice in %q, want it once", h.Key, m.Headers)
			}
			headers[h.Key] = string(h.Value)
		}
		if err := s.Validate(headers); err != nil {
			t.Errorf("got headers %q, want them as the schema says: %v", m.Headers, err)
		}
		for name := range headers {
			if name == "trace" {
				continue
			}
			less := maps.Clone(headers)
			delete(less, name)
			if err := s.Validate(less); err == nil {
				t.Errorf("got no error without header %s, want one", name)
			}
		}
		headers["purser-unheard-of"] = "x"
		if err := s.Validate(headers); err == nil {
			t.Error("got no error with header purser-unheard-of, want one")
		}
	}
	truncated := func(m pipeline.Message) bool { return m.Header(pipeline.HeaderValueTruncated) != "" }
	if len(letters) != 3 || !slices.ContainsFunc(letters, truncated) {
		t.Errorf("got %d dead letters, one truncated: %v; want 3, true", len(letters), slices.ContainsFunc(letters, truncated))
	}
}

// TestMessageSchema: the schema of the work message and the program agree on what a row is.
func TestMessageSchema(t *testing.T) {
	s := schema(t, "message")
	account, err := pipeline.ParseAccount("eip155:300:0xE66c9b8E74D0ece13e824f4987Aa568Bc3963C3f")
	if err != nil {
		t.Fatal(err)
	}
	message := pipeline.AppendMessage(nil, pipeline.Row{
		Account: account, ExternalID: "c-1", ImportID: "i-1", File: "export.csv", Line: 2,
	})
	for name, change := range map[string]func(m map[string]any){
		"as written":         func(map[string]any) {},
		"no v":               func(m map[string]any) { delete(m, "v") },
		"no chainId":         func(m map[string]any) { delete(m, "chainId") },
		"no externalId":      func(m map[string]any) { delete(m, "externalId") },
		"no importId":        func(m map[string]any) { delete(m, "importId") },
		"no file":            func(m map[string]any) { delete(m, "file") },
		"no line":            func(m map[string]any) { delete(m, "line") },
		"unknown member":     func(m map[string]any) { m["name"] = "Ada" },
		"member in capitals": func(m map[string]any) { m["ChainId"] = m["chainId"] },
		"another version":    func(m map[string]any) { m["v"] = json.Number("2") },
		"no chain":           func(m map[string]any) { m["chainId"] = "0xE66c9b8E74D0ece13e824f4987Aa568Bc3963C3f" },
		"another namespace":  func(m map[string]any) { m["chainId"] = "solana:300:0xE66c9b8E74D0ece13e824f4987Aa568Bc3963C3f" },
		"lower case":         func(m map[string]any) { m["chainId"] = strings.ToLower(m["chainId"].(string)) },
		"short address":      func(m map[string]any) { m["chainId"] = "eip155:300:0xE66c9b" },
		"empty externalId":   func(m map[string]any) { m["externalId"] = "" },
		"long externalId":    func(m map[string]any) { m["externalId"] = strings.Repeat("x", 256) },
		"longest externalId": func(m map[string]any) { m["externalId"] = strings.Repeat("x", 255) },
		"externalId number":  func(m map[string]any) { m["externalId"] = json.Number("7") },
		"empty importId":     func(m map[string]any) { m["importId"] = "" },
		"long importId":      func(m map[string]any) { m["importId"] = strings.Repeat("x", 65) },
		"negative line":      func(m map[string]any) { m["line"] = json.Number("-1") },
		"line as text":       func(m map[string]any) { m["line"] = "2" },
	} {
		value := decode(t, message)
		change(value.(map[string]any))
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		_, parsed := pipeline.ParseMessage(text)
		if validated := s.Validate(value); (validated == nil) != (parsed == nil) {
			t.Errorf("%s: %s: the schema says %v, the program %v; want both to accept it or both not",
				name, text, validated, parsed)
		}
	}
}
