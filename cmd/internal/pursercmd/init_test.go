package pursercmd

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
)

// TestSettings: what init writes is read back as it was given, whatever characters it has.
func TestSettings(t *testing.T) {
	given := config.Init{
		APIURL: "https://api.example.com/v1", APIKey: "00000000-0000-0000-0000-000000000001",
		APISecretFile: "/keys/a: b#c", SigningKey: "/keys/'signing' \"key\".pem", SigningKeyID: "007",
		Signer: "keystore:///keys?password-file=%2Fkeys%2Fp", Chain: "eip155:300", DataDir: "/data/ü",
	}
	text, err := settings(&given)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "purser.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c, _, err := config.ParseConsumer([]string{"check", "--config", file}, config.Streams{
		Stdout: &out, Stderr: &out, IgnoreEnvironment: true,
	})
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	got := config.Init{
		APIURL: c.APIURL, APIKey: c.APIKey, APISecretFile: c.APISecretFile, SigningKey: c.SigningKey,
		SigningKeyID: c.SigningKeyID, Signer: c.Signer, Chain: given.Chain, DataDir: c.DataDir,
	}
	if !reflect.DeepEqual(got, given) {
		t.Errorf("got  %+v\nwant %+v", got, given)
	}
	i, err := config.ParseImporter([]string{"--config", file, "x.csv"}, config.Streams{
		Stdout: &out, Stderr: &out, IgnoreEnvironment: true,
	})
	if err != nil || i.Chain != given.Chain {
		t.Errorf("the importer: got %+v, %v; want chain %s", i, err, given.Chain)
	}
}
