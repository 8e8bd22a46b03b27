package cmd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/consumecmd"
	"github.com/purser-onboard/purser/cmd/internal/importcmd"
	"github.com/purser-onboard/purser/cmd/internal/sandboxcmd"
	"github.com/purser-onboard/purser/sandbox"
)

// secretText is a text that must not be shown, and the pieces of it that are searched for.
type secretText struct {
	name, text string
	pieces     []string
}

func secretTexts(t *testing.T) []secretText {
	t.Helper()
	creds, err := sandbox.NewCredentials(nil) // of another partner: a real P-384 key
	if err != nil {
		t.Fatal(err)
	}
	key := string(creds.PrivateKeyPEM)
	body := strings.Split(key, "\n")[1]
	raw := make([]byte, 35)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString(raw) // 48 characters, padded
	payload := base64.RawURLEncoding.EncodeToString(raw)
	digits := hex.EncodeToString(raw[:32]) // as openssl rand -hex 32 prints them, and docs/setup.md recommends
	jwt := "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9." + payload + "." + payload
	return []secretText{
		{"PEM", key, []string{body[:24], body[24:48]}},
		{"base64", encoded, []string{encoded[:24], encoded[24:]}},
		{"hex", digits, []string{digits[:24], digits[24:48], digits[40:]}},
		{"JWT", jwt, []string{"eyJhbGci", payload[:24], payload[20:]}},
	}
}

// knob is a flag of a command, or its positional argument if it has no name.
type knob struct {
	name, placeholder string
	variables         []string
}

// knobs are those of a command of a grammar; command is empty for a grammar without commands.
func knobs(t *testing.T, grammar any) map[string][]knob {
	t.Helper()
	parser, err := kong.New(grammar, kong.Vars{"version": ""})
	if err != nil {
		t.Fatal(err)
	}
	own := func(n *kong.Node) (all []knob) {
		for _, f := range n.Flags {
			if f.Name != "help" && f.Name != "version" {
				all = append(all, knob{name: f.Name, placeholder: f.PlaceHolder, variables: f.Envs})
			}
		}
		if len(n.Positional) > 0 {
			all = append(all, knob{})
		}
		return all
	}
	common := own(parser.Model.Node)
	if len(parser.Model.Children) == 0 {
		return map[string][]knob{"": common}
	}
	commands := map[string][]knob{}
	for _, child := range parser.Model.Children {
		commands[child.Name] = slices.Concat(common, own(child))
	}
	return commands
}

// setenv makes the settings of an environment this process's.
func setenv(t *testing.T, env []string) {
	t.Helper()
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "OFFBLOCKS_") || strings.HasPrefix(name, "PURSER_") {
			t.Setenv(name, value)
		}
	}
}

// TestSecretsNeverLeave gives PEM, base64, hex and JWT text to every setting of every command, by flag, variable and
// configuration file, and as the content of the file that a setting names. Neither output, report nor any file of the
// data directory may hold a piece of it.
func TestSecretsNeverLeave(t *testing.T) {
	if raceEnabled {
		t.Skip("its thousands of commands are those of other tests with other settings: the detector would see nothing new")
	}
	_, env := partnerEnv(t, sandbox.Config{Now: time.Now})
	setenv(t, env)
	samples, err := filepath.Abs("../testdata")
	if err != nil {
		t.Fatal(err)
	}
	export := filepath.Join(samples, "customers.csv")
	texts := secretTexts(t)
	known, turn := map[string]bool{}, 0
	for _, program := range []struct {
		name    string
		grammar any
	}{{"consumer", &config.ConsumerCommands{}}, {"importer", &config.Importer{}}, {"sandbox", &config.SandboxCommands{}}} {
		commands := knobs(t, program.grammar)
		// The consumer's run first: it reads the most settings.
		names := slices.SortedFunc(maps.Keys(commands), func(a, b string) int {
			return strings.Compare(strings.TrimPrefix(a, "run"), strings.TrimPrefix(b, "run"))
		})
		for _, command := range names {
			for _, set := range commands[command] {
				for i, secret := range texts {
					leak := leakTest{program: program.name, command: command, set: set, secret: secret, export: export, ways: everyWay}
					// Another command's, too: one text in one way.
					if known[set.name] && set.name != "" {
						if i != turn%len(texts) {
							continue
						}
						leak.ways = turn / len(texts) % everyWay
						turn++
					}
					t.Run(strings.Join([]string{program.name, command, set.name, secret.name}, "/"), leak.run)
				}
				known[set.name] = true
			}
		}
	}
	for _, secret := range texts {
		for _, uri := range []string{
			"%s", "keystore:%s?password-file=/p", "keystore://" + samples + "/keystore?password-file=%s", "keystore:///d?%s=/p",
			"pkcs11:token=%s?module-path=/m", "pkcs11:?module-path=%s", "pkcs11:?module-path=/m&pin-source=file:%s",
			"pkcs11:?module-path=/m&pin-source=env:%s", "insecure-file:%s", "awskms:///?region=%s", "%s:x",
			"fireblocks://vault?api-key=%s&private-key-file=/k", "fireblocks://vault?api-key=a&private-key-file=%s",
			"fireblocks://vault?api-key-file=%s&private-key-file=/k", "web3signer+https://%s", "clef+unix:%s",
			"web3signer+https://127.0.0.1:1?ca-file=%s", "web3signer+https://127.0.0.1:1?cert-file=%s&key-file=/k",
			"web3signer+https://127.0.0.1:1?cert-file=/c&key-file=%s", "eth-rpc+http://u:%s@127.0.0.1:1",
		} {
			leak := leakTest{program: "consumer", command: "check", secret: secret, export: export, dir: t.TempDir()}
			for name, text := range map[string]string{"raw": secret.text, "escaped": url.PathEscape(secret.text)} {
				t.Run(secret.name+"/signer/"+name, func(t *testing.T) {
					leak.try(t, []string{"--signer", strings.ReplaceAll(uri, "%s", text)})
				})
			}
		}
		for _, variable := range []string{"OFFBLOCKS_API_SECRET", "KAFKA_PASSWORD", "PURSER_PKCS11_PIN"} {
			t.Run(secret.name+"/"+variable, func(t *testing.T) {
				t.Setenv(variable, secret.text)
				leak := leakTest{program: "consumer", command: "run", secret: secret, export: export, dir: t.TempDir()}
				args := map[string][]string{
					"KAFKA_PASSWORD":    {"--brokers=127.0.0.1:1", "--broker-wait=0s", "--kafka-sasl=plain", "--kafka-username=u"},
					"PURSER_PKCS11_PIN": {"--signer=pkcs11:?module-path=/no/such/module.so"},
				}
				if variable == "OFFBLOCKS_API_SECRET" {
					t.Setenv("OFFBLOCKS_API_SECRET_FILE", "")
				}
				leak.try(t, args[variable])
			})
		}
	}
}

// TestPasswordInSigner: a password that was taken for a scheme or a path does not get out, however short it is; a path
// that leads to something is shown.
func TestPasswordInSigner(t *testing.T) {
	_, env := partnerEnv(t, sandbox.Config{Now: time.Now})
	setenv(t, env)
	samples, err := filepath.Abs("../testdata")
	if err != nil {
		t.Fatal(err)
	}
	secret := secretText{"password", "hunter2hunter", []string{"hunter"}}
	for _, uri := range []string{
		"%s", "%s:x", "%s://x", "%s:///x", "keystore:%s?password-file=/p", "keystore:///%s?password-file=/p",
		"keystore:///%s/%s?password-file=/p", "keystore:%%68unter2hunter?password-file=/p",
		"keystore://" + samples + "/keystore?password-file=%s", "keystore://" + samples + "/keystore?password-file=/%s",
		"insecure-file:%s", "insecure-file:///%s", "clef+unix:///%s", "clef+unix:%s", "pkcs11:?module-path=/%s",
		"pkcs11:?module-path=/m&pin-source=%s", "pkcs11:?module-path=/m&pin-source=file:%s",
		"pkcs11:?module-path=/m&pin-source=file:/%s",
		"fireblocks://vault?api-key=a&private-key-file=%s", "fireblocks://vault?api-key-file=/%s&private-key-file=/k",
		"web3signer+https://127.0.0.1:1?ca-file=%s", "web3signer+https://127.0.0.1:1?cert-file=/%s&key-file=/k",
	} {
		for _, command := range []string{"check", "run"} {
			leak := leakTest{program: "consumer", command: command, secret: secret, dir: t.TempDir()}
			t.Run(command+" "+uri, func(t *testing.T) {
				leak.try(t, []string{"--signer", strings.ReplaceAll(strings.ReplaceAll(uri, "%s", secret.text), "%%", "%")})
			})
		}
	}
	missing := filepath.Join(t.TempDir(), "keys.csv")
	exitsWith(t, env, 1, []string{"key file " + missing + ": no such file"},
		"consumer", "check", "--signer", "insecure-file:"+missing)
}

// TestKeyIDIsUUID: a secret that was given as --api-key is neither shown nor bound into the ledger.
func TestKeyIDIsUUID(t *testing.T) {
	_, env := partnerEnv(t, sandbox.Config{})
	for _, n := range []int{3, 4, 8} {
		id := strings.Repeat("5ec2e7ab", n)
		env := append(slices.Clone(env), "OFFBLOCKS_API_KEY="+id)
		for _, args := range [][]string{{"--drain"}, {"check"}, {"status"}, {"reconcile"}, {"redrive"}, {"rebind"}} {
			cmd, out := command(t, env, "consumer", args...)
			if err := cmd.Run(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(out.String(), "--api-key") ||
				strings.Contains(out.String(), "5ec2e7") {
				t.Errorf("%v with %s as the key's id: got %v and %q, want exit code 2 without the value", args, id, err, out)
			}
		}
	}
	exitsWith(t, env, 2, []string{"--from: is not a UUID"}, "consumer", "rebind", "--from", "old")
}

// leakTest gives a secret text to a setting of a command.
type leakTest struct {
	program, command string
	set              knob
	secret           secretText
	export, dir      string
	ways             int // everyWay, or one of the ways below
}

// The ways to give a text to a setting.
const (
	byFlag = iota
	byFile
	byVariable
	byContent
	everyWay
)

func (l leakTest) goes(way int) bool { return l.ways == everyWay || l.ways == way }

func (l leakTest) run(t *testing.T) {
	l.dir = t.TempDir()
	if l.set.name == "" {
		l.try(t, []string{"--", l.secret.text})
		return
	}
	if l.goes(byFlag) {
		l.try(t, []string{"--" + l.set.name + "=" + l.secret.text})
		if l.secret.name == "PEM" { // begins like a flag
			l.try(t, []string{"--" + l.set.name, l.secret.text})
		}
	}
	file := filepath.Join(l.dir, "file")
	write := func(content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if l.goes(byFile) {
		write(l.set.name + ": |-\n  " + strings.ReplaceAll(strings.TrimSpace(l.secret.text), "\n", "\n  ") + "\n")
		l.try(t, []string{"--config", file})
	}
	if l.set.placeholder == "FILE" && l.goes(byContent) {
		write(l.secret.text)
		args := []string{"--" + l.set.name, file}
		if strings.HasPrefix(l.set.name, "kafka-") {
			args = append(args, "--brokers=127.0.0.1:1", "--broker-wait=0s", "--kafka-tls")
			switch l.set.name {
			case "kafka-password-file":
				args = append(args, "--kafka-sasl=plain", "--kafka-username=u")
			case "kafka-token-file":
				args = append(args, "--kafka-sasl=oauthbearer")
			case "kafka-cert":
				args = append(args, "--kafka-key", file)
			case "kafka-key":
				args = append(args, "--kafka-cert", file)
			}
		}
		l.try(t, args)
	}
	for _, variable := range l.set.variables {
		if !l.goes(byVariable) {
			break
		}
		t.Setenv(variable, l.secret.text)
		l.try(t, nil)
	}
}

// try runs the command with more arguments and searches its output and files.
func (l leakTest) try(t *testing.T, more []string) {
	t.Helper()
	dir := filepath.Join(l.dir, "work")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(dir, "report.json")
	var out bytes.Buffer
	var err error
	ended, end := context.WithCancel(t.Context())
	defer end()
	has := func(flag string) bool {
		return l.set.name == flag || slices.ContainsFunc(more, func(s string) bool { return strings.HasPrefix(s, "--"+flag) })
	}
	args := []string{}
	if l.command != "" {
		args = append(args, l.command)
	}
	if !has("data-dir") && (l.program != "sandbox" || l.command == "run") {
		args = append(args, "--data-dir", filepath.Join(dir, "data"))
	}
	switch l.program + " " + l.command {
	case "consumer run":
		args = append(args, "--drain")
		if !has("report") {
			args = append(args, "--report", report)
		}
	case "consumer rotate-secret":
		if !has("new-secret-file") {
			args = append(args, "--new-secret-file", filepath.Join(dir, "none"))
		}
	case "sandbox serve":
		end() // it serves until stopped
	}
	args = append(args, more...)
	if l.set.name != "" && (l.program == "importer" || l.program == "sandbox" && l.command == "run") {
		args = append(args, l.export)
	}
	switch l.program {
	case "importer":
		err = importcmd.Main(t.Context(), args, strings.NewReader(""), &out, &out)
	case "consumer":
		err = consumecmd.Main(t.Context(), t.Context(), args, consumecmd.Streams{Stdout: &out, Stderr: &out, Getenv: os.Getenv})
	case "sandbox":
		err = sandboxcmd.Main(ended, t.Context(), args, &out, &out)
	}
	console.Exit(&out, l.program, err)
	l.search(t, "output", out.String())
	if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		l.search(t, "name", strings.TrimPrefix(path, dir))
		if !entry.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		l.search(t, strings.TrimPrefix(path, dir), string(content))
		return err
	}); err != nil {
		t.Error(err)
	}
}

func (l leakTest) search(t *testing.T, where, text string) {
	t.Helper()
	for _, piece := range l.secret.pieces {
		if at := strings.Index(text, piece); at >= 0 {
			t.Errorf("%s: got %q, want no piece of the secret", where, text[max(at-150, 0):min(at+60, len(text))])
			return
		}
	}
}
