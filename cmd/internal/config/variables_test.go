package config

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/alecthomas/kong"
)

// TestKnownVariables: the tags of the grammars have the variables that the parser finds there.
func TestKnownVariables(t *testing.T) {
	want := map[string]bool{"OFFBLOCKS_API_SECRET": true, "KAFKA_PASSWORD": true, "PURSER_PKCS11_PIN": true}
	for _, grammar := range grammars() {
		parser, err := kong.New(grammar, kong.Vars{"version": ""})
		if err != nil {
			t.Fatal(err)
		}
		if err := kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
			if flag, ok := node.(*kong.Flag); ok {
				for _, variable := range flag.Envs {
					want[variable] = true
				}
			}
			return next(nil)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if got := knownVariables(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

// TestUnknownVariables: what looks like a setting and is none is named, with what may have been meant, and without its
// value.
func TestUnknownVariables(t *testing.T) {
	for name, test := range map[string]struct {
		environ, signers, want []string
	}{
		"known": {environ: []string{"OFFBLOCKS_API_SECRET=s", "KAFKA_PASSWORD=s", "PURSER_PKCS11_PIN=s", "PURSER_RATE=1",
			"PURSER_SHEET=", "KAFKA_HOME=/opt", "HOME=/root", "TERM=xterm", "broken"}},
		"a letter is missing": {environ: []string{"OFFBLOCKS_API_SECRE=s"},
			want: []string{"OFFBLOCKS_API_SECRE (did you mean OFFBLOCKS_API_SECRET?)"}},
		"although the right variable is set": {environ: []string{"PURSER_RATES=1", "PURSER_RATE=2"},
			want: []string{"PURSER_RATES (did you mean PURSER_RATE?)"}},
		"two letters are wrong": {environ: []string{"PURSER_CONCURENCI=4"},
			want: []string{"PURSER_CONCURENCI (did you mean PURSER_CONCURRENCY?)"}},
		"the wrong prefix": {environ: []string{"OFFBLOCKS_RATE=1", "PURSER_API_URL=u", "PURSER_BROKERS=b:1"}, want: []string{
			"OFFBLOCKS_RATE (did you mean PURSER_RATE?)", "PURSER_API_URL (did you mean OFFBLOCKS_API_URL?)",
			"PURSER_BROKERS (did you mean KAFKA_BROKERS?)"}},
		"a prefix with a mistake": {environ: []string{"OFBLOCKS_API_KEY=k", "KAFKA_BROKER=b:1"}, want: []string{
			"KAFKA_BROKER (did you mean KAFKA_BROKERS?)", "OFBLOCKS_API_KEY (did you mean OFFBLOCKS_API_KEY?)"}},
		"another program's, whose name is near": {environ: []string{"KAFKA_BROKER=b:1", "KAFKA_BROKERS=b:1"}},
		"lower case":                            {environ: []string{"purser_rate=1"}, want: []string{"purser_rate (did you mean PURSER_RATE?)"}},
		"like none":                             {environ: []string{"PURSER_DEPLOYMENT_COLOUR=blue", "PURSER_TEST_KAFKA_4=/k"}},
		"of Kubernetes": {environ: []string{"PURSER_SERVICE_HOST=10.0.0.1", "PURSER_SERVICE_PORT=80",
			"PURSER_SERVICE_PORT_METRICS=80", "PURSER_PORT=tcp://10.0.0.1:80", "PURSER_PORT_80_TCP=tcp://10.0.0.1:80",
			"PURSER_PORT_80_TCP_ADDR=10.0.0.1", "PURSER_FLEET_PORT_80_TCP_PROTO=tcp"}},
		"that the signer reads": {environ: []string{"PURSER_PKCS11_PIN2=s", "PURSER_PKCS11_PINS=s"},
			signers: []string{"", "pkcs11:token=t?pin-source=env:PURSER_PKCS11_PIN2"},
			want:    []string{"PURSER_PKCS11_PINS (did you mean PURSER_PKCS11_PIN?)"}},
	} {
		if got := unknownVariables(test.environ, test.signers...); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

// TestUnknownVariablesOfCommands: each command knows the variables of the others, and the signer that the file names.
func TestUnknownVariablesOfCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "purser.yaml")
	if err := os.WriteFile(file, []byte("signer: pkcs11:token=t?pin-source=env:PURSER_HSM_PIN\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for variable, value := range map[string]string{
		"PURSER_HSM_PIN": "s", "PURSER_CHAIN": "eip155:300", "PURSER_RATE": "1", "OFFBLOCKS_API_SECRE": "hush",
	} {
		t.Setenv(variable, value)
	}
	want := []string{"OFFBLOCKS_API_SECRE (did you mean OFFBLOCKS_API_SECRET?)"}
	streams := Streams{Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)}
	i, err := ParseImporter([]string{"--config", file, "x.csv"}, streams)
	if err != nil || !slices.Equal(i.UnknownVariables, want) {
		t.Errorf("importer: got %v, %v; want %q", i, err, want)
	}
	c, _, err := ParseConsumer([]string{"status", "--config", file}, streams)
	if err != nil || !slices.Equal(c.UnknownVariables, want) {
		t.Errorf("consumer: got %v, %v; want %q", c, err, want)
	}
	_, night, err := ParseNight([]string{"--config", file, "x.csv"}, streams)
	if err != nil || !slices.Equal(night.UnknownVariables, want) {
		t.Errorf("night: got %v, %v; want %q", night, err, want)
	}
	streams.IgnoreEnvironment = true
	c, _, err = ParseConsumer([]string{"status", "--config", file}, streams)
	if err != nil || len(c.UnknownVariables) > 0 {
		t.Errorf("without the environment: got %v, %v; want none", c, err)
	}
}
