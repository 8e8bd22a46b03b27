package sandboxcmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/outfile"
	"github.com/purser-onboard/purser/sandbox"
)

// Files of the sandbox's directory.
const (
	idsFile    = "credentials.json" // API key and key id, no secrets
	secretFile = "api-secret"
	keyFile    = "signing-key.pem"
	envFile    = "sandbox.env"
)

type ids struct {
	APIKey string `json:"apiKey"`
	KeyID  string `json:"signingKeyId"`
}

// openCredentials reads the credentials in dir, or makes them when there are none, so that a consumer's settings and
// its ledger stay valid when the sandbox is restarted.
func openCredentials(dir string) (sandbox.Credentials, error) {
	raw, err := os.ReadFile(filepath.Join(dir, idsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return makeCredentials(dir)
	}
	if err != nil {
		return sandbox.Credentials{}, err
	}
	var known ids
	if err := json.Unmarshal(raw, &known); err != nil {
		return sandbox.Credentials{}, fmt.Errorf("read credentials from %s: %w; remove the directory to create new "+
			"credentials",
			filepath.Join(dir, idsFile), err)
	}
	secret, err := os.ReadFile(filepath.Join(dir, secretFile))
	if err != nil {
		return sandbox.Credentials{}, err
	}
	key, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return sandbox.Credentials{}, err
	}
	return sandbox.Credentials{
		APIKey: known.APIKey, KeyID: known.KeyID, APISecret: strings.TrimSpace(string(secret)), PrivateKeyPEM: key,
	}, nil
}

// makeCredentials writes new credentials. Files of their names that are there, without that of the ids, may be those of
// a real partner, and are not replaced.
func makeCredentials(dir string) (sandbox.Credentials, error) {
	for _, name := range []string{secretFile, keyFile} {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			return sandbox.Credentials{}, console.Coded(console.ExitUsage, fmt.Errorf("%s exists without %s, so it may not "+
				"be the sandbox's: choose another directory, or remove it to create new credentials", path, idsFile))
		}
	}
	creds, err := sandbox.NewCredentials(nil)
	if err != nil {
		return creds, err
	}
	public, err := json.MarshalIndent(ids{APIKey: creds.APIKey, KeyID: creds.KeyID}, "", "  ")
	if err != nil {
		return creds, err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{
		{secretFile, []byte(creds.APISecret + "\n")},
		{keyFile, creds.PrivateKeyPEM},
		{idsFile, append(public, '\n')}, // last: with it the set is complete
	} {
		if err := outfile.Write(filepath.Join(dir, file.name), file.data); err != nil {
			return creds, err
		}
	}
	return creds, nil
}

// writeEnvironment writes the settings of importer and consumer for the shell's `source`, and returns the file's path.
func writeEnvironment(c config.SandboxServe, creds sandbox.Credentials, url string) (string, error) {
	abs, err := filepath.Abs(c.Dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	variables := [][2]string{
		{"OFFBLOCKS_API_URL", url},
		{"OFFBLOCKS_API_KEY", creds.APIKey},
		{"OFFBLOCKS_API_SECRET_FILE", filepath.Join(abs, secretFile)},
		{"OFFBLOCKS_SIGNING_KEY", filepath.Join(abs, keyFile)},
		{"OFFBLOCKS_SIGNING_KEY_ID", creds.KeyID},
		{"PURSER_INSECURE_PERMISSIONS", "true"}, // the sample keys of a clone are readable by other users
		{"PURSER_CHAIN", c.Chain},
	}
	if _, err := os.Stat(c.Keystore); err == nil {
		password := c.PasswordFile
		if password == "" {
			password = filepath.Join(filepath.Dir(filepath.Clean(c.Keystore)), "keystore-password")
		}
		variables = append(variables, [2]string{"PURSER_SIGNER", keystoreURI(c.Keystore, password)})
	}
	for _, v := range variables {
		fmt.Fprintf(&b, "export %s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
	}
	path := filepath.Join(abs, envFile)
	err = outfile.Replaces(path, "a sandbox's settings file", func(head []byte) bool {
		return bytes.HasPrefix(head, []byte("export OFFBLOCKS_API_URL="))
	})
	if err != nil {
		return "", console.Coded(console.ExitUsage, err)
	}
	return path, outfile.Write(path, []byte(b.String()))
}
