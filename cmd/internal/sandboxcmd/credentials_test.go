package sandboxcmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/sandbox"
)

// TestEnvironmentIsComplete: sandbox.env names chain and signer, if the keystore exists.
func TestEnvironmentIsComplete(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	serve := config.SandboxServe{Dir: dir, Chain: "eip155:300", Keystore: keys}
	want := "export PURSER_CHAIN='eip155:300'\n"
	signer := "export PURSER_SIGNER='keystore://" + keys + "?password-file="
	for _, exists := range []bool{false, true} {
		if exists {
			if err := os.Mkdir(keys, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		path, err := writeEnvironment(serve, sandbox.Credentials{APIKey: "k", KeyID: "i"}, "http://127.0.0.1:1/v1")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(text); !strings.Contains(got, want) || strings.Contains(got, signer) != exists {
			t.Errorf("keystore exists: %v: got %s; want %q in it, and %q if the keystore exists", exists, got, want, signer)
		}
	}
}

// TestFilesOfOthersStay: the names of the sandbox's files are also those of a real partner's.
func TestFilesOfOthersStay(t *testing.T) {
	for _, name := range []string{secretFile, keyFile, envFile} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("of a partner\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		creds, err := openCredentials(dir)
		if err == nil {
			_, err = writeEnvironment(config.SandboxServe{Dir: dir}, creds, "http://127.0.0.1:1/v1")
		}
		if console.Code(err) != console.ExitUsage || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an error that names it, with exit code 2", name, err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "of a partner\n" {
			t.Errorf("%s: got %q, %v; want it as it was", name, text, err)
		}
	}

	dir := t.TempDir() // its own files are used again
	for range 2 {
		creds, err := openCredentials(dir)
		if err == nil {
			_, err = writeEnvironment(config.SandboxServe{Dir: dir}, creds, "http://127.0.0.1:1/v1")
		}
		if err != nil {
			t.Error(err)
		}
	}
}
