package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
		t.Errorf("got command %q, %+v; want run with --drain, rate 20, the sample's ledger and the embedded broker", command, c)
	}
	i, err := ParseImporter([]string{"--config", sample, "export.csv"}, streams)
	if err != nil {
		t.Fatal(err)
	}
	if i.ChainNumber != 300 || i.Rejects != "/var/lib/purser/rejects.csv" {
		t.Errorf("got chain %d, rejects %q; want 300, /var/lib/purser/rejects.csv", i.ChainNumber, i.Rejects)
	}
	// The settings that are commented out are valid, too.
	raw, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	full := regexp.MustCompile(`(?m)^# (brokers|report|metrics-textfile|metrics-listen):`).ReplaceAll(raw, []byte("$1:"))
	path := filepath.Join(t.TempDir(), "full.yaml")
	if err := os.WriteFile(path, full, 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err = ParseConsumer([]string{"--config", path}, streams)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Brokers) != 2 || c.Report != "/var/lib/purser/report.json" || c.MetricsListen != "127.0.0.1:9464" {
		t.Errorf("got %d brokers, report %q, metrics at %q; want 2, /var/lib/purser/report.json, 127.0.0.1:9464",
			len(c.Brokers), c.Report, c.MetricsListen)
	}
}

// TestPackagedConfiguration parses the file that the packages install, as it is and with every setting turned on.
func TestPackagedConfiguration(t *testing.T) {
	raw, err := os.ReadFile("../../../packaging/purser.yaml")
	if err != nil {
		t.Fatal(err)
	}
	setting := regexp.MustCompile(`(?m)^#([a-z-]+:)`)
	if n := len(setting.FindAll(raw, -1)); n < 8 {
		t.Errorf("got %d settings that are commented out, want at least 8", n)
	}
	for name, content := range map[string][]byte{"as installed": raw, "all settings": setting.ReplaceAll(raw, []byte("$1"))} {
		path := filepath.Join(t.TempDir(), "purser.yaml")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		streams := Streams{Stdout: &out, Stderr: &out}
		if _, err := ParseImporter([]string{"--config", path, "export.csv"}, streams); err != nil {
			t.Errorf("%s: importer: got %v, want no error", name, err)
		}
		if _, _, err := ParseConsumer([]string{"--config", path}, streams); err != nil {
			t.Errorf("%s: consumer: got %v, want no error", name, err)
		}
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
		t.Errorf("default: got rate %v, want 20", got)
	}
	if got := rate("--config", path); got != 30 {
		t.Errorf("file: got rate %v, want 30", got)
	}
	t.Setenv("PURSER_RATE", "40")
	if got := rate("--config", path); got != 40 {
		t.Errorf("variable: got rate %v, want 40", got)
	}
	if got := rate("--config", path, "--rate", "50"); got != 50 {
		t.Errorf("flag: got rate %v, want 50", got)
	}
}

// TestReadmeNamesEverySetting: the README names every flag and variable, and the subcommands that have a flag of their
// own.
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
				t.Errorf("README: got no --%s, want it in backticks", f.Name)
			}
			for _, variable := range f.Envs {
				if !strings.Contains(string(readme), "`"+variable+"`") {
					t.Errorf("README: got no %s, want it in backticks", variable)
				}
			}
		}
		for _, command := range parser.Model.Children {
			for _, f := range command.Flags {
				if command.Name != "run" && !slices.Contains(readmeCommands(string(readme), f.Name), command.Name) {
					t.Errorf("README: got --%s without the command %s, want it in the last column", f.Name, command.Name)
				}
			}
		}
	}
}

// readmeCommands are the words in the last column of a flag's rows.
func readmeCommands(readme, flag string) (words []string) {
	for row := range strings.Lines(readme) {
		cells := strings.Split(strings.TrimSpace(row), "|")
		if len(cells) > 3 && strings.Contains(cells[1], "`--"+flag+"`") {
			words = append(words, strings.FieldsFunc(cells[len(cells)-2], func(r rune) bool {
				return strings.ContainsRune(" ,;", r)
			})...)
		}
	}
	return words
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
		t.Errorf("variable: got secret %q, domain %q, %v; want the variable's, api.example:8443", c.Secret, c.ChallengeDomain, err)
	}
	c = base
	c.APISecretFile = file
	if _, err := c.CheckPartner(env); err != nil || c.Secret != "from the file" {
		t.Errorf("file and variable: got secret %q, %v; want the file's", c.Secret, err)
	}
	c.APISecretFile = filepath.Join(dir, "missing")
	var setting *Error
	if _, err := c.CheckPartner(env); !errors.As(err, &setting) || setting.Setting != "--api-secret-file" {
		t.Errorf("missing file: got %v, want an *Error of --api-secret-file", err)
	}
	c = base
	if _, err := c.CheckPartner(both); !errors.As(err, &setting) || setting.Setting != "--api-secret-file" {
		t.Errorf("every variable set: got %v, want an *Error of --api-secret-file", err)
	}
	c = base
	if _, err := c.CheckPartner(func(string) string { return "" }); !errors.As(err, &setting) || setting.Setting != "--api-secret-file" {
		t.Errorf("no secret: got %v, want an *Error of --api-secret-file", err)
	}
}

// TestChallengeStatement: the statement is the documented one, a text, a file's, none or any.
func TestChallengeStatement(t *testing.T) {
	file := filepath.Join(t.TempDir(), "statement")
	if err := os.WriteFile(file, []byte("Prove that this wallet is yours.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const documented = "OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using " +
		"OffBlocks, you agree to our Terms of services and Privacy Policy"
	needed := []string{"--api-url", "https://api.example/v1", "--api-key", "6f1c2d3e-8a4b-4c5d-9e6f-7a8b9c0d1e2f",
		"--signing-key", "f", "--signing-key-id", "i"}
	secret := func(name string) string { return map[string]string{"OFFBLOCKS_API_SECRET": "s"}[name] }
	for name, tt := range map[string]struct {
		args      []string
		statement string
		anything  bool
		setting   string // of the error
	}{
		"default":       {statement: documented},
		"text":          {args: []string{"--challenge-statement", "Hello."}, statement: "Hello."},
		"none":          {args: []string{"--challenge-statement="}},
		"any":           {args: []string{"--challenge-statement", "any"}, anything: true},
		"file":          {args: []string{"--challenge-statement", "file:" + file}, statement: "Prove that this wallet is yours."},
		"missing file":  {args: []string{"--challenge-statement", "file:" + file + "x"}, setting: "--challenge-statement"},
		"URI host":      {args: []string{"--challenge-uri-host", "login.example"}, statement: documented},
		"bad URI host":  {args: []string{"--challenge-uri-host", "https://a"}, setting: "--challenge-uri-host"},
		"URI and host":  {args: []string{"--challenge-uri", "https://a", "--challenge-uri-host", "a"}, setting: "--challenge-uri-host"},
		"any by itself": {args: []string{"--challenge-statement", "any text"}, statement: "any text"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := ParseConsumer(append(needed, tt.args...), Streams{IgnoreEnvironment: true})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.CheckPartner(secret)
			var setting *Error
			if errors.As(err, &setting) != (tt.setting != "") || setting != nil && setting.Setting != tt.setting {
				t.Fatalf("got error %v, want one of %q", err, tt.setting)
			}
			if err == nil && (c.Statement != tt.statement || c.AnyStatement != tt.anything) {
				t.Errorf("got statement %q, any %v, want %q, %v", c.Statement, c.AnyStatement, tt.statement, tt.anything)
			}
		})
	}
}

// TestSettingsFilesAreBounded: a configuration file and a statement that never end are errors.
func TestSettingsFilesAreBounded(t *testing.T) {
	var out bytes.Buffer
	_, _, err := ParseConsumer([]string{"--config=/dev/zero"}, Streams{Stdout: &out, Stderr: &out})
	if want := "--config: the file has more than 1048576 bytes"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	_, err = readStatement("/dev/zero")
	if want := "--challenge-statement: the file has more than 65536 bytes"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

// TestMetricsListen: what is not written out is loopback.
func TestMetricsListen(t *testing.T) {
	var out bytes.Buffer
	for _, c := range []struct{ given, want string }{
		{"9464", "127.0.0.1:9464"}, {":9464", "127.0.0.1:9464"}, {"0", "127.0.0.1:0"}, {"localhost:9464", "localhost:9464"},
		{"0.0.0.0:9464", "0.0.0.0:9464"}, {"[::]:9464", "[::]:9464"}, {"[::1]:9464", "[::1]:9464"},
		{"localhost", ""}, {"10.0.0.1", ""}, {"http://localhost:9464", ""}, {":65536", ""}, {":-1", ""}, {"::1", ""},
	} {
		got, _, err := ParseConsumer([]string{"--metrics-listen", c.given}, Streams{Stdout: &out, Stderr: &out})
		switch {
		case c.want == "" && (err == nil || !strings.Contains(err.Error(), "--metrics-listen")):
			t.Errorf("%s: got error %v, want one that names --metrics-listen", c.given, err)
		case c.want != "" && (err != nil || got.MetricsListen != c.want):
			t.Errorf("%s: got %+v, %v; want %s", c.given, got, err, c.want)
		}
	}
	for _, args := range [][]string{{"--metrics-pprof"}, {"--metrics-textfile", "/run/purser.txt"}} {
		if _, _, err := ParseConsumer(args, Streams{Stdout: &out, Stderr: &out}); err == nil {
			t.Errorf("%s: got no error, want one", args)
		}
	}
}
