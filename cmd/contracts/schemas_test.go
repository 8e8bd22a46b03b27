package contracts

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/invopop/jsonschema"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
)

var update = flag.Bool("update", false, "write schemas/ from the code")

// schemaBase is where the schemas are published: the beginning of each $id.
const schemaBase = "https://raw.githubusercontent.com/purser-onboard/purser/main/schemas/"

// TestSchemas compares schemas/ with the code. Run with -update (`make schemas`) after a change of a type or setting.
func TestSchemas(t *testing.T) {
	generated := map[string]*jsonschema.Schema{
		"config":     configSchema(t),
		"report":     reportSchema(t),
		"message":    messageSchema(t),
		"result":     resultSchema(t),
		"deadletter": deadLetterSchema(),
	}
	for name, schema := range generated {
		file := name + ".schema.json"
		schema.Version, schema.ID = jsonschema.Version, jsonschema.ID(schemaBase+file)
		var want bytes.Buffer
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(schema); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("../../schemas", file)
		if *update {
			if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("schemas/%s: got %d bytes that differ from the code's, want its %d; run make schemas",
				file, len(got), want.Len())
		}
	}
	files, err := filepath.Glob("../../schemas/*.json")
	if err != nil || len(files) != len(generated) {
		t.Errorf("got schemas %v (%v), want those of %v", files, err, slices.Sorted(maps.Keys(generated)))
	}
}

// reflector makes schemas of types, with their comments as descriptions.
func reflector(t *testing.T) *jsonschema.Reflector {
	t.Helper()
	r := &jsonschema.Reflector{ExpandedStruct: true, Mapper: func(of reflect.Type) *jsonschema.Schema {
		switch of {
		case reflect.TypeFor[results.State]():
			return enum(results.Running, results.Ended)
		case reflect.TypeFor[pipeline.Stage](): // of what is settled: events know no other
			return enum(slices.DeleteFunc(pipeline.Stages(), func(s pipeline.Stage) bool { return !s.Terminal() })...)
		}
		return nil
	}}
	for _, dir := range []string{"../../pipeline", "../../ledger"} { // relative to this package's path
		if err := r.AddGoComments("github.com/purser-onboard/purser/cmd/contracts", dir, jsonschema.WithFullComment()); err != nil {
			t.Fatal(err)
		}
	}
	r.LookupComment = func(of reflect.Type, field string) string {
		name := of.PkgPath() + "." + of.Name()
		if field != "" {
			name += "." + field
		}
		return strings.ReplaceAll(r.CommentMap[name], "\n", " ")
	}
	return r
}

func enum[T ~string](values ...T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, v := range values {
		s.Enum = append(s.Enum, string(v))
	}
	return s
}

// member returns a member of an object.
func member(t *testing.T, of *jsonschema.Schema, name string) *jsonschema.Schema {
	t.Helper()
	s, ok := of.Properties.Get(name)
	if !ok {
		t.Fatalf("%s: got no member %s, want it", of.Title, name)
	}
	return s
}

// accountPattern is the form of a CAIP-10 account id.
const accountPattern = "^eip155:[1-9][0-9]*:0x[0-9a-fA-F]{40}$"

func reportSchema(t *testing.T) *jsonschema.Schema {
	s := reflector(t).Reflect(results.Report{})
	s.Title = "Report of a run of Purser's consumer"
	member(t, s, "run").Format = "uuid"
	settings := member(t, s, "settings")
	settings.PropertyNames = &jsonschema.Schema{}
	for _, f := range flags(t) {
		if !slices.Contains(settings.PropertyNames.Enum, any(f.Name)) {
			settings.PropertyNames.Enum = append(settings.PropertyNames.Enum, f.Name)
		}
	}
	exit := member(t, s, "exit")
	exit.Minimum, exit.Maximum = "0", "3"
	return s
}

func resultSchema(t *testing.T) *jsonschema.Schema {
	s := reflector(t).Reflect(results.Event{})
	s.Title = "Event of a settled row, the value of a message on onboarding.results"
	member(t, s, "v").Const = 1
	member(t, s, "chainId").Pattern = accountPattern
	return s
}

// workMessage has the members of a work message, as pipeline's own type has; TestMessageSchema compares the two.
type workMessage struct {
	V          int    `json:"v" jsonschema:"description=Version of the message."`
	ChainID    string `json:"chainId" jsonschema:"description=CAIP-10 account id."`
	ExternalID string `json:"externalId" jsonschema:"minLength=1,maxLength=255"`
	ImportID   string `json:"importId" jsonschema:"minLength=1,maxLength=64"`
	File       string `json:"file,omitempty" jsonschema:"description=Name of the export; only a label."`
	Line       int    `json:"line,omitempty" jsonschema:"minimum=0,description=Line of the row in the export."`
}

func messageSchema(t *testing.T) *jsonschema.Schema {
	s := reflector(t).Reflect(workMessage{})
	s.Title = "Row to onboard, the value of a message on onboarding.customers"
	s.Description = "The message's key is the row's chainId, in EIP-55 form. Strings are printable."
	member(t, s, "v").Const = 1
	member(t, s, "chainId").Pattern = accountPattern
	member(t, s, "externalId").Description = "The customer's id in your system."
	member(t, s, "importId").Description = "Id of the import. A row that ended badly starts again when another import brings it."
	return s
}

// deadLetterSchema is that of a dead letter's headers, as an object. Each header occurs once; the original's headers
// come first.
func deadLetterSchema() *jsonschema.Schema {
	count := "^[0-9]+$"
	s := &jsonschema.Schema{
		Title: "Headers of a dead letter on onboarding.deadletter",
		Description: "Key, value and other headers are those of the original message. All values are UTF-8. The headers " +
			"__connect.errors.* are those of Kafka Connect.",
		Type: "object", Properties: jsonschema.NewProperties(),
		AdditionalProperties: &jsonschema.Schema{Type: "string"},
	}
	var ours []any
	for _, h := range []struct{ name, pattern, description string }{
		{pipeline.HeaderClass, "^(syntax|version|row|partition|unauthenticated)$", "Machine-readable kind of the error."},
		{pipeline.HeaderReason, "", "One line for the operator."},
		{pipeline.HeaderStage, "^intake$", "How far the message came."},
		{pipeline.HeaderAttempts, count, "How often the message has been a dead letter."},
		{pipeline.HeaderTopic, "", "Topic of the original message."},
		{pipeline.HeaderPartition, count, "Partition of the original message."},
		{pipeline.HeaderOffset, count, "Offset of the original message."},
		{pipeline.ConnectTopic, "", "As " + pipeline.HeaderTopic + "."},
		{pipeline.ConnectPartition, count, "As " + pipeline.HeaderPartition + "."},
		{pipeline.ConnectOffset, count, "As " + pipeline.HeaderOffset + "."},
		{pipeline.ConnectName, "^purser$", "The program."},
		{pipeline.ConnectStage, "^(VALUE_CONVERTER|HEADER_CONVERTER|KAFKA_CONSUME)$", "The stage of Connect's."},
		{pipeline.ConnectClass, `^purser\.consumer$`, "What found the error."},
		{pipeline.ConnectException, `^purser\.[a-z]+$`, "purser. and " + pipeline.HeaderClass + "."},
		{pipeline.ConnectMessage, "", "As " + pipeline.HeaderReason + "."},
		{pipeline.HeaderValueTruncated, "^true$", "Only the beginning of the value is kept."},
		{pipeline.HeaderValueLength, count, "Length of the original value in bytes."},
		{pipeline.HeaderValueSHA256, "^[0-9a-f]{64}$", "SHA-256 of the original value."},
		{pipeline.HeaderKeyLength, count, "Length of the original key, of which only the beginning is kept."},
		{pipeline.HeaderDropped, count, "How many headers the original had: none is kept."},
	} {
		s.Properties.Set(h.name, &jsonschema.Schema{Type: "string", Pattern: h.pattern, Description: h.description})
		if len(ours) < 15 { // the last five are for what is truncated
			s.Required = append(s.Required, h.name)
		}
		ours = append(ours, h.name)
	}
	truncated := []string{pipeline.HeaderValueTruncated, pipeline.HeaderValueLength, pipeline.HeaderValueSHA256}
	s.DependentRequired = map[string][]string{}
	for _, name := range truncated {
		s.DependentRequired[name] = truncated
	}
	s.PropertyNames = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
		{Enum: ours}, {Not: &jsonschema.Schema{Pattern: "^purser-"}},
	}}
	return s
}

// configSchema is that of the file of --config: the flags of all commands, and librdkafka's names of some.
func configSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s := &jsonschema.Schema{
		Title: "Purser's configuration file (--config)",
		Description: "The names are those of the flags; all commands can share a file. A variable takes precedence over " +
			"the file, and a flag over both.",
		Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema,
	}
	defaults := map[string]string{}
	for _, f := range flags(t) {
		if earlier, ok := s.Properties.Get(f.Name); ok {
			if defaults[f.Name] != f.Default {
				earlier.Default = nil // of several commands
			}
			continue
		}
		defaults[f.Name] = f.Default
		s.Properties.Set(f.Name, settingSchema(t, f))
	}
	milliseconds := &jsonschema.Schema{Type: "integer", Minimum: "0"}
	mechanism := enum("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER",
		"plain", "scram-sha-256", "scram-sha-512", "oauthbearer")
	for _, alias := range []struct {
		name, ours string
		schema     *jsonschema.Schema
	}{
		{"bootstrap.servers", "brokers", list()},
		{"metadata.broker.list", "brokers", list()},
		{"security.protocol", "kafka-tls", enum("plaintext", "ssl", "sasl_plaintext", "sasl_ssl",
			"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")},
		{"sasl.mechanism", "kafka-sasl", mechanism},
		{"sasl.mechanisms", "kafka-sasl", mechanism},
		{"sasl.username", "kafka-username", &jsonschema.Schema{Type: "string"}},
		{"ssl.ca.location", "kafka-ca", &jsonschema.Schema{Type: "string"}},
		{"ssl.certificate.location", "kafka-cert", &jsonschema.Schema{Type: "string"}},
		{"ssl.key.location", "kafka-key", &jsonschema.Schema{Type: "string"}},
		{"group.id", "group", &jsonschema.Schema{Type: "string"}},
		{"client.id", "kafka-client-id", &jsonschema.Schema{Type: "string"}},
		{"session.timeout.ms", "kafka-session-timeout", milliseconds},
		{"heartbeat.interval.ms", "kafka-heartbeat-interval", milliseconds},
	} {
		schema := *alias.schema
		schema.Description = "librdkafka's name of " + alias.ours + "."
		s.Properties.Set(alias.name, &schema)
	}
	return s
}

// flags are those of all commands that a file may set.
func flags(t *testing.T) (all []*kong.Flag) {
	t.Helper()
	var add func(n *kong.Node)
	add = func(n *kong.Node) {
		for _, f := range n.Flags {
			if f.Name != "config" && f.Name != "help" && f.Name != "version" {
				all = append(all, f)
			}
		}
		for _, child := range n.Children {
			add(child)
		}
	}
	for _, grammar := range []any{&config.ConsumerCommands{}, &config.Importer{}, &config.SandboxCommands{}} {
		parser, err := kong.New(grammar, kong.Vars{"version": ""})
		if err != nil {
			t.Fatal(err)
		}
		add(parser.Model.Node)
	}
	return all
}

// settingSchema is that of a flag's value in the file.
func settingSchema(t *testing.T, f *kong.Flag) *jsonschema.Schema {
	t.Helper()
	of := f.Target.Type()
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	var s *jsonschema.Schema
	var standard any = f.Default
	switch {
	case of == reflect.TypeFor[time.Duration]():
		s = duration()
	case of.Kind() == reflect.Bool:
		s, standard = &jsonschema.Schema{Type: "boolean"}, false
	case of.Kind() == reflect.Float64:
		s = &jsonschema.Schema{Type: "number"}
		standard = json.Number(f.Default)
	case of.Kind() == reflect.Int || of.Kind() == reflect.Uint64:
		s = &jsonschema.Schema{Type: "integer"}
		standard = json.Number(f.Default)
	case of.Kind() == reflect.Slice:
		s = list()
	case of.Kind() == reflect.String:
		s = &jsonschema.Schema{Type: "string"}
		for _, word := range strings.FieldsFunc(f.Enum, func(r rune) bool { return r == ',' }) {
			s.Enum = append(s.Enum, word)
		}
		if _, err := strconv.ParseFloat(f.Default, 64); err == nil { // a number or, say, a percentage
			s = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{s, {Type: "number"}}}
		}
	default:
		t.Fatalf("--%s: got a flag of type %s, want one that settingSchema knows", f.Name, of)
	}
	if f.Default != "" || of.Kind() == reflect.Bool {
		s.Default = standard
	}
	s.Description = strings.ReplaceAll(f.Help, "$$", "$")
	if len(f.Envs) > 0 {
		s.Description += " Variable: " + strings.Join(f.Envs, ", ") + "."
	}
	return s
}

// duration is a text in Go's form, such as 1m30s, or 0.
func duration() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
		{Type: "string", Pattern: `^(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+$`}, {Const: 0},
	}}
}

// list is a list, or a text with commas.
func list() *jsonschema.Schema {
	text := &jsonschema.Schema{Type: "string"}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{text, {Type: "array", Items: text}}}
}
