package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func TestKindOfSecret(t *testing.T) {
	jwt := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
	text := strings.Repeat("qR7+xT0kLm9/Zc4Q", 3)
	digits := strings.Repeat("0123456789aBcDeF", 3)
	for value, want := range map[string]string{
		"-----BEGIN PRIVATE KEY-----\nMIGH":                                         "a PEM block",
		base64.StdEncoding.EncodeToString([]byte("-----BEGIN EC PRIVATE KEY-----")): "a PEM block",
		jwt:                                     "a JSON web token",
		digits:                                  "hex text",
		"0x" + digits:                           "hex text",
		"keystore:/k?password-file=" + digits:   "hex text",
		"keystore:///keys?password-file=" + jwt: "a JSON web token",
		"keystore:///keys?password-file=%65" + jwt[1:]: "a JSON web token",
		"b-1:9092," + jwt:            "a JSON web token",
		text:                         "base64 text",
		"/" + text:                   "base64 text",
		text[:20] + "\n" + text[20:]: "base64 text",
		"c2VjcmV0LXNlY3JldA==":       "base64 text",
		"keystore:///" + text + "?password-file=/p": "base64 text",
		// Padded, and too regular to be recognized without its padding.
		"web3signer+https://B6gotZ24GYNoaumodz4Jus7hol1xyeylC4rcwbyiABPE2Pw=":  "base64 text",
		"pkcs11:?module-path=B6gotZ24GYNoaumodz4Jus7hol1xyeylC4rcwbyiABPE2Pw=": "base64 text",
		strings.Repeat("0", 40):                "",
		"":                                     "",
		"6f1c2d3e-8a4b-4c5d-9e6f-7a8b9c0d1e2f": "",
		"/var/lib/kubelet/pods/6f1c2d3e-8a4b-4c5d/volumes/api":                                                      "",
		"/var/folders/zz/zyxvpxvq6csfxvn0n0000000000000/T/TestX3/001/keys":                                          "",
		"/tmp/TestTheConsumerDrains1234567890/001/purser-data/Ledger2":                                              "",
		"keystore:///var/lib/Purser2/keys?password-file=/var/lib/Purser2/password":                                  "",
		"awskms:///?region=eu-central-1&endpoint=https://kms.eu-central-1.amazonaws.com":                            "",
		"fireblocks://vault?api-key=7a1c4f3e-9d52-4a8b-b1a0-5f6c7d8e9f00&private-key-file=/k.pem":                   "",
		"@method,@authority,@path,@query,authorization,content-type,content-digest,idempotency-key":                 "",
		filepath.Join(t.TempDir(), text[:9], text):                                                                  "",
		"https://api.sandbox.offblocks.example/v1":                                                                  "",
		"onboarding.customers.of-the-Night-of-2026-11-27":                                                           "",
		"pkcs11:token=purser;object=customers?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/pin": "",
	} {
		if got := kindOfSecret(value, true); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

// Every setting that is given a file or a directory is one that errors do not show.
func TestFilesAreNotShown(t *testing.T) {
	for _, grammar := range []any{&Importer{}, &ConsumerCommands{}, &SandboxCommands{}} {
		parser, err := kong.New(grammar, kong.Vars{"version": ""})
		if err != nil {
			t.Fatal(err)
		}
		var visit func(n *kong.Node)
		visit = func(n *kong.Node) {
			for _, f := range n.Flags {
				if (f.PlaceHolder == "FILE" || f.PlaceHolder == "DIR") && !private(f.Name) {
					t.Errorf("--%s: got a setting whose errors show its value, want it hidden", f.Name)
				}
			}
			for _, child := range n.Children {
				visit(child)
			}
		}
		visit(parser.Model.Node)
	}
	for _, err := range []*Error{
		{"--signing-key", "/etc/purser/key.pem", "/etc/purser/key.pem is bad"},
		{"--topic", "eyJhbGciOiJIUzI1NiJ9", `"eyJhbGciOiJIUzI1NiJ9" is bad`},
		{"--chain", "a\nb", "is bad"},
	} {
		if strings.Contains(err.Error(), err.Value) || !strings.HasPrefix(err.Error(), err.Setting+": ") {
			t.Errorf("got %q, want it to begin with %s and to hide the value", err, err.Setting)
		}
	}
}

// TestPEMInVariables: a setting that names a file may hold PEM text instead, a private key in its variable only.
func TestPEMInVariables(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	secret := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	var out bytes.Buffer
	parse := func(args ...string) (*ConsumerCommands, error) {
		c, _, err := ParseConsumer(append([]string{"--brokers=b:1", "--kafka-tls"}, args...), Streams{Stdout: &out, Stderr: &out})
		return c, err
	}
	t.Run("variables", func(t *testing.T) {
		t.Setenv("OFFBLOCKS_SIGNING_KEY", secret)
		t.Setenv("OFFBLOCKS_API_CA", certificate)
		t.Setenv("KAFKA_CA", certificate)
		t.Setenv("KAFKA_CERT", certificate)
		t.Setenv("KAFKA_KEY", secret)
		c, err := parse("--api-url=https://api.example")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.ReadSigningKey(); err != nil || string(got) != secret {
			t.Errorf("--signing-key: got %d bytes, %v; want the PEM text of the variable", len(got), err)
		}
		// The shell's $(…) takes the line feed from the last line end of a file with CR LF, and leaves the CR.
		c.SigningKey = strings.TrimSuffix(strings.ReplaceAll(secret, "\n", "\r\n"), "\n")
		if got, err := c.ReadSigningKey(); err != nil {
			t.Error(err)
		} else if block, _ := pem.Decode(got); block == nil {
			t.Errorf("CR LF in a variable: got %q without a PEM block, want the key", got[max(0, len(got)-30):])
		}
		if pool, err := c.Authorities(); err != nil || pool == nil {
			t.Errorf("--api-ca: got %v, %v; want a pool", pool, err)
		}
		if got, err := c.TLSConfig(); err != nil || len(got.Certificates) != 1 || got.RootCAs == nil {
			t.Errorf("--kafka-…: got %v, %v; want a certificate and authorities", got, err)
		}
	})
	if _, err := parse("--kafka-ca=" + certificate); err != nil {
		t.Errorf("certificates in a flag: got %v, want no error", err)
	}
	file := filepath.Join(t.TempDir(), "c.yaml")
	indented := strings.ReplaceAll(strings.TrimSpace(secret), "\n", "\n  ")
	if err := os.WriteFile(file, []byte("signing-key: |\n  "+indented+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"flag": {"--signing-key", secret}, "flag with =": {"--signing-key=" + secret}, "file": {"--config", file},
	} {
		_, err := parse(args...)
		var setting *Error
		if !errors.As(err, &setting) || !strings.Contains(err.Error(), "$OFFBLOCKS_SIGNING_KEY") ||
			strings.Contains(err.Error(), "BEGIN") || setting.Setting != "--signing-key" {
			t.Errorf("%s: got %v, want an error of --signing-key that names the variable", name, err)
		}
	}
}

func TestSecretsOfOthersAndMarks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	none := func(string) string { return "" }
	q := Queue{Kafka: Kafka{TLS: true, Cert: file, Key: file, SASL: "plain", PasswordFile: file}}
	for setting, read := range map[string]func(insecure bool) error{
		"--kafka-key": func(insecure bool) error {
			q.InsecurePermissions = insecure
			_, err := q.TLSConfig()
			return err
		},
		"--kafka-password-file": func(insecure bool) error {
			q.InsecurePermissions = insecure
			_, err := q.Password(none)
			return err
		},
		"--signing-key": func(insecure bool) error {
			_, err := (&Consumer{Queue: Queue{InsecurePermissions: insecure}, Partner: Partner{SigningKey: file}}).ReadSigningKey()
			return err
		},
		"--api-secret-file": func(insecure bool) error {
			c := Consumer{Queue: Queue{InsecurePermissions: insecure}, Partner: Partner{
				APIURL: "https://api.example", APIKey: "k", SigningKey: file, SigningKeyID: "i", APISecretFile: file,
			}}
			_, err := c.CheckPartner(none)
			return err
		},
	} {
		err := read(false)
		if err == nil || !strings.HasPrefix(err.Error(), setting+": ") || !strings.Contains(err.Error(), "chmod 600 '"+file) {
			t.Errorf("mode 0644: got %v, want an error of %s with the chmod", err, setting)
		}
		if err := read(true); err != nil && strings.Contains(err.Error(), "chmod") {
			t.Errorf("--insecure-permissions: got %v, want no error about the mode", err)
		}
	}
	mark := "\xef\xbb\xbfhunter2"
	if err := os.WriteFile(file, []byte(mark), 0o600); err != nil {
		t.Fatal(err)
	}
	_, fromFile := ReadSecret("--api-secret-file", file, true)
	c := Consumer{Partner: Partner{APIURL: "https://api.example", APIKey: "k", SigningKey: "f", SigningKeyID: "i"}}
	_, fromAPI := c.CheckPartner(func(name string) string { return map[string]string{"OFFBLOCKS_API_SECRET": mark}[name] })
	_, fromKafka := Queue{Kafka: Kafka{SASL: "plain"}}.Password(func(name string) string {
		return map[string]string{"KAFKA_PASSWORD": mark}[name]
	})
	for name, err := range map[string]error{"file": fromFile, "API variable": fromAPI, "Kafka variable": fromKafka} {
		if err == nil || !strings.Contains(err.Error(), "byte order mark") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want an error about the byte order mark that hides the secret", name, err)
		}
	}
}

// TestEffectiveSettings: the settings of a run are remembered with their defaults, and without secrets, the files of
// secrets, and texts that may be secrets in the wrong place.
func TestEffectiveSettings(t *testing.T) {
	const misplaced = "correct-horse-battery-staple"
	c, _, err := ParseConsumer([]string{
		"--drain", "--rate", "7.5", "--api-url", "https://api.sandbox.offblocks.example/v1",
		"--brokers", "kafka-1.internal.example:9092",
		"--api-key", "6f1c2d3e-8a4b-4c5d-9e6f-7a8b9c0d1e2f", "--api-secret-file", "/run/secrets/api", "--group", misplaced,
		"--signer", "keystore:///keys?password-file=/run/secrets/pw", "--kafka-sasl", "plain", "--kafka-tls",
		"--kafka-username", "night", "--kafka-password-file", "/run/secrets/kafka",
		"--report", "r.json", "--ping-url", "https://hc.example/x",
	}, Streams{IgnoreEnvironment: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"drain": "true", "rate": "7.5", "api-url": "https://api.sandbox.offblocks.example/v1", "concurrency": "32",
		"brokers": "kafka-1.internal.example:9092", "request-timeout": "30s", "topic": "onboarding.customers",
		"data-dir":             "./purser-data",
		"signature-components": "@method,@authority,@path,@query,authorization,content-type,content-digest,idempotency-key",
		"api-key":              NotShown, "api-secret-file": NotShown, "group": NotShown, "signer": NotShown, "kafka-username": NotShown,
		"report": NotShown, "ping-url": NotShown, "ledger": "", "help": "",
	} {
		if got := c.Settings[name]; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for name, value := range c.Settings {
		if strings.Contains(value, misplaced) || strings.Contains(value, "/run/secrets") {
			t.Errorf("%s: got %q, want it not shown", name, value)
		}
	}
}
