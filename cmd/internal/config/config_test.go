package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestSampleConfiguration parses the shipped sample with both commands.
func TestSampleConfiguration(t *testing.T) {
	const sample = "../../../testdata/purser.yaml"
	var out bytes.Buffer
	streams := Streams{Stdout: &out, Stderr: &out}
	c, command, err := ParseConsumer([]string{"--config", sample, "--drain"}, streams)
	if err != nil {
		t.Fatal(err)
	}
	if command != "run" || !c.Run.Drain || c.Rate != 20 || c.Ledger != "/var/lib/purser/ledger.db" || !c.Embedded() {
		t.Errorf("%+v", c)
	}
	i, err := ParseImporter([]string{"--config", sample, "export.csv"}, streams)
	if err != nil {
		t.Fatal(err)
	}
	if i.ChainNumber != 300 || i.Rejects != "/var/lib/purser/rejects.csv" {
		t.Errorf("%+v", i)
	}
	// What is commented out in it is right, too.
	raw, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	full := regexp.MustCompile(`(?m)^# (brokers|report):`).ReplaceAll(raw, []byte("$1:"))
	path := filepath.Join(t.TempDir(), "full.yaml")
	if err := os.WriteFile(path, full, 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err = ParseConsumer([]string{"--config", path}, streams)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Brokers) != 2 || c.Report != "/var/lib/purser/report.json" {
		t.Errorf("%+v", c)
	}
}

// TestPrecedence: flag over variable over file over default.
func TestPrecedence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "purser.yaml")
	if err := os.WriteFile(path, []byte("rate: 30\nconcurrency: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	streams := Streams{Stdout: &out, Stderr: &out}
	rate := func(args ...string) float64 {
		t.Helper()
		c, _, err := ParseConsumer(append(args, "status"), streams)
		if err != nil {
			t.Fatal(err)
		}
		return c.Rate
	}
	if got := rate(); got != 20 {
		t.Errorf("default: %v", got)
	}
	if got := rate("--config", path); got != 30 {
		t.Errorf("file: %v", got)
	}
	t.Setenv("PURSER_RATE", "40")
	if got := rate("--config", path); got != 40 {
		t.Errorf("variable: %v", got)
	}
	if got := rate("--config", path, "--rate", "50"); got != 50 {
		t.Errorf("flag: %v", got)
	}
}

// TestReadmeNamesEverySetting keeps the README's table equal to the flags.
func TestReadmeNamesEverySetting(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, grammar := range []any{&Importer{}, &ConsumerCommands{}} {
		parser, err := kong.New(grammar, kong.Vars{"version": ""})
		if err != nil {
			t.Fatal(err)
		}
		var flags func(n *kong.Node) []*kong.Flag
		flags = func(n *kong.Node) []*kong.Flag {
			all := n.Flags
			for _, child := range n.Children {
				all = append(all, flags(child)...)
			}
			return all
		}
		for _, f := range flags(parser.Model.Node) {
			if f.Name == "help" || f.Name == "version" {
				continue
			}
			if !strings.Contains(string(readme), "`--"+f.Name+"`") {
				t.Errorf("the README does not name --%s", f.Name)
			}
			for _, variable := range f.Envs {
				if !strings.Contains(string(readme), "`"+variable+"`") {
					t.Errorf("the README does not name $%s", variable)
				}
			}
		}
	}
}

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := Consumer{Partner: Partner{APIURL: "https://api.example:8443/v1", APIKey: "k", SigningKey: "f", SigningKeyID: "i"}}
	env := func(name string) string {
		if name == "OFFBLOCKS_API_SECRET" {
			return "from the variable"
		}
		return ""
	}
	both := func(string) string { return "set" }

	c := base
	if _, err := c.CheckPartner(env); err != nil || c.Secret != "from the variable" || c.ChallengeDomain != "api.example:8443" {
		t.Errorf("%q, %q, %v", c.Secret, c.ChallengeDomain, err)
	}
	c = base
	c.APISecretFile = file
	if _, err := c.CheckPartner(env); err != nil || c.Secret != "from the file" {
		t.Errorf("%q, %v", c.Secret, err)
	}
	c.APISecretFile = filepath.Join(dir, "missing")
	var setting *Error
	if _, err := c.CheckPartner(env); !errors.As(err, &setting) || setting.Setting != "--api-secret-file" {
		t.Errorf("%v", err)
	}
	c = base
	if _, err := c.CheckPartner(both); !errors.As(err, &setting) || setting.Setting != "--api-secret-file" {
		t.Errorf("%v", err)
	}
	c = base
	if _, err := c.CheckPartner(func(string) string { return "" }); !errors.As(err, &setting) || setting.Setting != "--api-secret-file" {
		t.Errorf("%v", err)
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST": true, "127.0.0.1": true, "127.8.8.8": true, "::1": true, "[::1]": true,
		"": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false, "10.0.0.1": false, "0.0.0.0": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q) = %v", host, got)
		}
	}
}
