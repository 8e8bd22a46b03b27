package sandboxcmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
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
