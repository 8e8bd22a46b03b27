package pkcs11

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/signer"
)

// A text that cannot be a PIN costs no try: it is an error before the module, which does not exist, is loaded.
func TestBadPINIsFoundBeforeLogin(t *testing.T) {
	const uri = "pkcs11:?module-path=/no/such/module.so"
	path := filepath.Join(t.TempDir(), "pin")
	for name, c := range map[string]struct {
		pin  string
		mode os.FileMode
		want string
	}{
		"byte order mark": {"\xef\xbb\xbf1234\n", 0o600, "byte order mark"},
		"UTF-16":          {"\xff\xfe1\x002\x00", 0o600, "byte order mark"},
		"two lines":       {"1234\n\n", 0o600, "more than one line"},
		"empty":           {"\n", 0o600, "is empty"},
		"others' mode":    {"1234\n", 0o644, "chmod 600 '" + path + "'"},
		"sound":           {"1234\n", 0o600, "/no/such/module.so"},
	} {
		if err := os.WriteFile(path, []byte(c.pin), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := new(Modules).Open(t.Context(), uri+"&pin-source=file:"+path, signer.Environment{})
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), c.want) ||
			strings.Contains(err.Error(), "1234") {
			t.Errorf("%s in a file: got %v, want ErrUnusable with %q", name, err, c.want)
		}
		if c.mode != 0o600 {
			continue
		}
		env := signer.Environment{Getenv: func(string) string { return c.pin }}
		if _, err := new(Modules).Open(t.Context(), uri, env); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s in the variable: got %v, want %q", name, err, c.want)
		}
	}
}
