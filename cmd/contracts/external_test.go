//go:build external

package contracts

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/pipeline/results"
)

// node runs a program of testdata/node, whose packages `make test-external` installs, and returns its output. A machine
// without them cannot pass: these tests were asked for.
func node(t *testing.T, input string, program string, args ...string) []byte {
	t.Helper()
	dir := filepath.Join("testdata", "node")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatalf("got %v, want the packages of %s (make test-external installs them)", err, dir)
	}
	cmd := exec.CommandContext(t.Context(), "node", append([]string{program}, args...)...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, strings.NewReader(input), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node %s: got %v, want success:\n%s", program, err, &stderr)
	}
	return out
}

// TestAsyncAPIParser: AsyncAPI's own parser reads docs/asyncapi.yaml without errors and warnings, with the schemas that
// it refers to, and does find errors in a broken one.
func TestAsyncAPIParser(t *testing.T) {
	t.Parallel()
	parse := func(path string) (said struct {
		Problems []string
		Channels map[string]struct {
			Address                      *string
			Operations, Payload, Headers []string
		}
	}) {
		absolute, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(node(t, "", "asyncapi.mjs", absolute), &said); err != nil {
			t.Fatal(err)
		}
		return said
	}
	got := parse("../../docs/asyncapi.yaml")
	if len(got.Problems) > 0 {
		t.Errorf("got problems %q, want none", got.Problems)
	}
	for channel, tt := range map[string]struct {
		operations int
		payload    string // a member that its schema has
		header     string
	}{
		"work":        {2, "externalId", "mac-sha256"},
		"results":     {1, "settledAt", "ce_id"},
		"deadLetters": {2, "", "__connect.errors.exception.message"},
		"ledger":      {2, "apiKeyId", ""},
	} {
		c := got.Channels[channel]
		if len(c.Operations) != tt.operations || tt.payload != "" && !slices.Contains(c.Payload, tt.payload) ||
			tt.header != "" && !slices.Contains(c.Headers, tt.header) {
			t.Errorf("channel %s: got %+v, want %d operations, the member %s and the header %s",
				channel, c, tt.operations, tt.payload, tt.header)
		}
	}
	text, err := os.ReadFile("../../docs/asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "asyncapi.yaml")
	text = bytes.ReplaceAll(text, []byte("action: send"), []byte("action: publish"))
	if err := os.WriteFile(broken, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := parse(broken); len(got.Problems) == 0 {
		t.Error("got no problems of a document with unknown actions and schemas that are not there, want some")
	}
}

// TestCloudEventsSDK: the results are CloudEvents for the SDK of CloudEvents, which reads them from Kafka's headers;
// the data is the event.
func TestCloudEventsSDK(t *testing.T) {
	t.Parallel()
	messages := badNight(t).messages(t, resultsTopic)
	var input bytes.Buffer
	encoder := json.NewEncoder(&input)
	for _, m := range messages {
		headers := map[string]string{}
		for _, h := range m.Headers {
			headers[h.Key] = string(h.Value)
		}
		err := encoder.Encode(map[string]any{"key": string(m.Key), "value": string(m.Value), "headers": headers})
		if err != nil {
			t.Fatal(err)
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(node(t, input.String(), "cloudevents.mjs")))
	for _, m := range messages {
		var said struct {
			Error string
			Event struct {
				ID, Source, Type, Subject, SpecVersion, DataContentType string
				Data                                                    results.Event
			}
		}
		if err := decoder.Decode(&said); err != nil {
			t.Fatal(err)
		}
		var want results.Event
		if err := json.Unmarshal(m.Value, &want); err != nil {
			t.Fatal(err)
		}
		e := said.Event
		if said.Error != "" || e.Data != want || e.ID != m.Header("ce_id") || e.Source != m.Header("ce_source") ||
			e.Type != m.Header("ce_type") || e.Subject != want.ChainID || e.SpecVersion != "1.0" ||
			e.DataContentType != "application/json" {
			t.Errorf("got %+v, want the event of %s with headers %q", said, m.Value, m.Headers)
		}
	}
}
