package contracts

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/purser-onboard/purser/cmd/internal/config"
)

// fromYAML decodes YAML as the validator wants it.
func fromYAML(t *testing.T, text []byte) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// TestSampleHasItsSchema: the shipped sample names its schema and is as it says, also with the settings that are
// commented out.
func TestSampleHasItsSchema(t *testing.T) {
	sample, err := os.ReadFile(samples + "/purser.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := schema(t, "config")
	const line = "# yaml-language-server: $schema=" + schemaBase + "config.schema.json\n"
	if !bytes.HasPrefix(sample, []byte(line)) {
		t.Errorf("got the sample begin with %.120q, want %q", sample, line)
	}
	full := regexp.MustCompile(`(?m)^# (brokers|report):`).ReplaceAll(sample, []byte("$1:"))
	for _, text := range [][]byte{sample, full} {
		if err := s.Validate(fromYAML(t, text)); err != nil {
			t.Errorf("got %v, want the sample as its schema says", err)
		}
	}
}

// TestConfigSchema: every name of the schema is a setting, and what is wrong for the program is so for the schema.
func TestConfigSchema(t *testing.T) {
	s := schema(t, "config")
	path := filepath.Join(t.TempDir(), "purser.yaml")
	parse := func(text string) string {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		_, _, err := config.ParseConsumer([]string{"--config", path},
			config.Streams{Stdout: &out, Stderr: &out, IgnoreEnvironment: true})
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if len(s.Properties) < 50 {
		t.Errorf("got %d settings, want all", len(s.Properties))
	}
	for name := range s.Properties {
		if got := parse(name + ": x\n"); strings.Contains(got, "unknown setting") {
			t.Errorf("%s: got %s, want a setting", name, got)
		}
	}
	for text, valid := range map[string]bool{
		"rate: 20":                                true,
		"rate: 0.5":                               true,
		"rate: fast":                              false,
		"max-invalid: 5000":                       true,
		"max-invalid: 5%":                         true,
		"concurrency: 32":                         true,
		"concurrency: 1.5":                        false,
		"outage-wait: 1m30s":                      true,
		"outage-wait: 0":                          true,
		"outage-wait: 90":                         false, // without a unit
		"outage-wait: soon":                       false,
		"log-format: json":                        true,
		"log-format: xml":                         false,
		"allow-resources: true":                   true,
		"allow-resources: maybe":                  false,
		"brokers: [kafka-1:9092, b:9092]":         true,
		"brokers: kafka-1:9092,b:9092":            true,
		"bootstrap.servers: kafka-1:9092":         true,
		"session.timeout.ms: 45000\nbrokers: a:1": true,
		"session.timeout.ms: 45s\nbrokers: a:1":   false,
		"Rate: 20":                                false,
		"api-secret: s":                           false,
		"kafka-password: s":                       false,
		"sasl.password: s":                        false,
		"config: other.yaml":                      false,
		"no-such-setting: 1":                      false,
	} {
		validated := s.Validate(fromYAML(t, []byte(text)))
		if (validated == nil) != valid {
			t.Errorf("%s: the schema says %v, want it valid: %v", text, validated, valid)
		}
		// What is required may be missing; the error then names another setting.
		name, _, _ := strings.Cut(text, ":")
		got := parse(text)
		blames := strings.Contains(got, name) || !valid && strings.Contains(got, "--config")
		if blames == valid {
			t.Errorf("%s: the program says %q, want it valid: %v", text, got, valid)
		}
	}
}
