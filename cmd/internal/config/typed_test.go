package config

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTyped: what operators type often and what is not meant is an error that says what to type.
func TestTyped(t *testing.T) {
	file := filepath.Join(t.TempDir(), "purser.yaml")
	if err := os.WriteFile(file, []byte("data-dir: ~/purser\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args     []string
		variable string
		want     string // empty: no error of this kind
	}{
		"tilde in a flag":      {[]string{"--data-dir=~/purser"}, "", "--data-dir: a shell expands ~ only"},
		"tilde alone":          {[]string{"--data-dir=~"}, "", "--data-dir: a shell expands ~ only"},
		"tilde in the file":    {[]string{"--config", file}, "", "--config:1): a shell expands ~ only"},
		"tilde in a variable":  {nil, "~/rejects.csv", "$PURSER_REJECTS): a shell expands ~ only"},
		"tilde within":         {[]string{"--data-dir=/srv/~/a"}, "", ""},
		"tilde in a name":      {[]string{"--data-dir=~purser"}, "", ""},
		"empty --config":       {[]string{"--config="}, "", "--config: is empty: is a shell variable unset?"},
		"one dash":             {[]string{"-data-dir=/srv"}, "", "unknown flag -data-dir, did you mean --data-dir?"},
		"one dash, two words":  {[]string{"-data-dir", "/srv"}, "", "unknown flag -data-dir, did you mean --data-dir?"},
		"one dash, no setting": {[]string{"-nothing"}, "", "unknown flag -n"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.variable != "" {
				t.Setenv("PURSER_REJECTS", tt.variable)
			}
			args := append([]string{"--chain=eip155:300"}, tt.args...)
			_, err := ParseImporter(append(args, "export.csv"), Streams{Stdout: io.Discard, Stderr: io.Discard})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestTildeInSigner: so is a ~ in the URI of a signer, which no shell replaces.
func TestTildeInSigner(t *testing.T) {
	for uri, want := range map[string]bool{
		"keystore:~/keys?password-file=/p":                                 true,
		"keystore:///k?password-file=~/p":                                  true,
		"pkcs11:token=a?module-path=/m.so&pin-source=file:~/pin":           true,
		"pkcs11:token=~;object=b~/c?module-path=/m~/so&pin-source=env:PIN": false,
	} {
		_, err := ParseInit([]string{"--signer=" + uri}, Streams{Stdout: io.Discard, Stderr: io.Discard})
		if got := err != nil && strings.Contains(err.Error(), "--signer: a shell expands ~ only"); got != want {
			t.Errorf("%s: got %v, want an error %v", uri, err, want)
		}
	}
}

// TestParallelIsBounded: a call in parallel is a goroutine, so that a typing error would take the memory of the machine.
func TestParallelIsBounded(t *testing.T) {
	for flag, want := range map[string]string{
		"--concurrency":        "want at most 4096",
		"--signer-concurrency": "want at most 4096",
	} {
		args := []string{
			"--api-url=https://partner.example/v1", "--api-key=27c9aa3b-0000-4000-8000-000000000000", "--api-secret-file=secret",
			"--signing-key=key.pem", "--signing-key-id=id", "--signer=insecure-file:keys.csv", flag + "=99999999999",
		}
		_, _, err := ParseConsumer(args, Streams{Stdout: io.Discard, Stderr: io.Discard})
		if err == nil || !strings.Contains(err.Error(), flag+` "99999999999"`) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", flag, err, want)
		}
	}
}
