package insecurefile

import (
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

const header = "address,privateKey\n"

func digits(key *ecdsa.PrivateKey) string { return hex.EncodeToString(crypto.FromECDSA(key)) }

func line(key *ecdsa.PrivateKey) string {
	return fmt.Sprintf("%v,0x%s\n", signertest.Address(key), digits(key))
}

func write(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.csv")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConformance(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		t.Helper()
		content := header
		for _, key := range keys {
			content += line(key)
		}
		backend, err := Open(t.Context(), "insecure-file:"+write(t, content, 0o600), signer.Environment{Loopback: true})
		if err != nil {
			t.Fatal(err)
		}
		return backend
	})
}

func TestOnlyOnLoopback(t *testing.T) {
	for _, path := range []string{write(t, header+line(signertest.Key(0)), 0o600), "/not/even/there"} {
		_, err := Open(t.Context(), "insecure-file:"+path, signer.Environment{})
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("got error %v, want ErrUnusable without loopback", err)
		}
	}
}

func TestOnlyForItsOwner(t *testing.T) {
	for mode, good := range map[os.FileMode]bool{
		0o600: true, 0o400: true, 0o700: true, 0o640: false, 0o604: false, 0o644: false, 0o660: false, 0o602: false,
	} {
		path := write(t, header+line(signertest.Key(0)), mode)
		backend, err := Open(t.Context(), "insecure-file:"+path, signer.Environment{Loopback: true})
		if err == nil {
			_ = backend.Close()
		}
		if (err == nil) != good {
			t.Errorf("mode %04o: got error %v, want success %v", mode, err, good)
		}
		if err != nil && (!errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "chmod 600")) {
			t.Errorf("mode %04o: got error %q, want ErrUnusable with the chmod", mode, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for uri, want := range map[string]string{
		"insecure-file:":                     "names no path",
		"keystore:" + dir:                    "is not an insecure-file",
		"insecure-file:k.csv?password-file=": "unknown parameter",
		"insecure-file:" + dir + "/none":     "no such file",
		"insecure-file:" + dir:               "not a regular file",
	} {
		_, err := Open(t.Context(), uri, signer.Environment{Loopback: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): error %v, want %q", uri, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, "insecure-file:"+dir, signer.Environment{Loopback: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestAccepts(t *testing.T) {
	a, b := signertest.Key(0), signertest.Key(1)
	hexA := signertest.Address(a).Hex()
	for name, content := range map[string]string{
		"as documented":      header + line(a) + line(b),
		"no 0x at the key":   header + hexA + "," + digits(a) + "\n" + line(b),
		"lower-case address": header + strings.ToLower(hexA) + "," + digits(a) + "\n" + line(b),
		"upper-case digits":  header + "0x" + strings.ToUpper(hexA[2:]) + "," + strings.ToUpper(digits(a)) + "\n" + line(b),
		"CRLF":               strings.ReplaceAll(header+line(a)+line(b), "\n", "\r\n"),
		"header in any case": "Address,PRIVATEKEY\n" + line(a) + line(b),
		"no newline at end":  strings.TrimSuffix(header+line(a)+line(b), "\n"),
		"blank line":         header + "\n" + line(a) + line(b),
		"quoted fields":      header + line(a) + `"` + strings.ReplaceAll(strings.TrimSpace(line(b)), ",", `","`) + `"`,
	} {
		keys, err := parse("k.csv", strings.NewReader(content))
		if err != nil || len(keys) != 2 || keys[signertest.Address(a)] == nil || keys[signertest.Address(b)] == nil {
			t.Errorf("%s: got %d keys, error %v; want both accounts' keys", name, len(keys), err)
		}
	}
}

func TestLineErrors(t *testing.T) {
	a, b := signertest.Key(0), signertest.Key(1)
	hexA := signertest.Address(a).Hex()
	swapped := strings.Replace(hexA, "b", "B", 1) // a change of case in a checksummed address
	if swapped == hexA {
		t.Fatalf("got %q again, want another spelling: choose another letter", hexA)
	}
	for name, c := range map[string]struct{ content, want string }{
		"empty":             {"", "k.csv:1: the file is empty"},
		"no header":         {line(a), "k.csv:1: the header is not address,privateKey"},
		"a third column":    {"address,privateKey,name\n", "k.csv:1: the header"},
		"too few":           {header + line(b) + hexA + "\n", "k.csv:3: has 1 field,"},
		"too many":          {header + strings.TrimSpace(line(a)) + ",x\n", "k.csv:2: has 3 fields"},
		"columns swapped":   {header + digits(a) + "," + hexA + "\n", "k.csv:2: address is not 0x and 40 hex digits"},
		"no 0x":             {header + hexA[2:] + "," + digits(a) + "\n", "k.csv:2: address is not 0x"},
		"checksum":          {header + swapped + "," + digits(a) + "\n", "k.csv:2: address fails its EIP-55 checksum"},
		"space":             {header + hexA + ", " + digits(a) + "\n", "k.csv:2: privateKey is not 64 hex digits"},
		"short key":         {header + hexA + "," + digits(a)[2:] + "\n", "k.csv:2: privateKey is not 64 hex digits"},
		"no hex":            {header + hexA + "," + digits(a)[1:] + "g\n", "k.csv:2: privateKey is not 64 hex digits"},
		"zero":              {header + hexA + "," + strings.Repeat("0", 64) + "\n", "k.csv:2: privateKey is zero"},
		"too great":         {header + hexA + "," + strings.Repeat("f", 64) + "\n", "k.csv:2: privateKey is zero or not"},
		"another's key":     {header + "\n" + hexA + "," + digits(b) + "\n", "k.csv:3: privateKey belongs to " + signertest.Address(b).Hex() + ", not to " + hexA},
		"twice":             {header + line(a) + line(b) + line(a), "k.csv:4: " + hexA + " is on line 2 already"},
		"unterminated":      {header + line(b) + `"` + line(a), "k.csv:3: extraneous or missing \""},
		"quote in the data": {header + hexA + `,"` + digits(a) + `"x` + "\n", "k.csv:2: extraneous or missing \""},
	} {
		_, err := parse("k.csv", strings.NewReader(c.content))
		var bad *LineError
		if !errors.As(err, &bad) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
			continue
		}
		for _, key := range []*ecdsa.PrivateKey{a, b} {
			if strings.Contains(err.Error(), digits(key)[2:60]) {
				t.Errorf("%s: got an error that holds a key, want none of it", name)
			}
		}
	}
}

func TestCloseWipes(t *testing.T) {
	key := signertest.Key(0)
	path := write(t, header+line(key), 0o600)
	backend, err := Open(t.Context(), "insecure-file:"+path, signer.Environment{Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	held := backend.(*File).keys[signertest.Address(key)]
	if err := backend.Close(); err != nil {
		t.Fatal(err)
	}
	for _, word := range held.D.Bits() {
		if word != 0 {
			t.Fatal("got a key in memory after Close, want zeros")
		}
	}
	_, err = backend.SignMessage(t.Context(), signertest.Address(key), nil)
	if !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("after Close: error %v, want ErrUnusable", err)
	}
}

func TestCheckWantsKeys(t *testing.T) {
	backend, err := Open(t.Context(), "insecure-file:"+write(t, header, 0o600), signer.Environment{Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	if _, err := backend.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("error %v, want ErrUnusable for a file without keys", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(header + line(signertest.Key(0)))
	f.Add("address,privateKey\r\n\"a\nb\",\r\n")
	f.Fuzz(func(t *testing.T, content string) {
		keys, err := parse("k.csv", strings.NewReader(content))
		var bad *LineError
		if err != nil && (!errors.As(err, &bad) || bad.Line < 1) {
			t.Fatalf("got error %v, want a *LineError with a line", err)
		}
		for address, key := range keys {
			if crypto.PubkeyToAddress(key.PublicKey) != address {
				t.Fatalf("%v: got the key of %v, want the address's own", address, crypto.PubkeyToAddress(key.PublicKey))
			}
		}
	})
}
