package keystore

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

func TestKeyFilesOfOthers(t *testing.T) {
	s := newStore(t, signertest.Key(0), signertest.Key(1))
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	k := s.open()
	for _, entry := range entries {
		if err := os.Chmod(filepath.Join(s.dir, entry.Name()), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	first := "chmod 600 '" + filepath.Join(s.dir, entries[0].Name()) + "'"
	_, signErr := k.SignMessage(t.Context(), signertest.Address(signertest.Key(0)), nil)
	_, openErr := Open(t.Context(), "keystore://"+s.dir+"?password-file="+s.pass, signer.Environment{})
	for name, err := range map[string]error{"sign": signErr, "open": openErr} {
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), first) {
			t.Errorf("%s: got %v, want ErrUnusable with %q", name, err, first)
		}
	}
	if openErr == nil || !strings.Contains(openErr.Error(), "key files (2)") {
		t.Errorf("open: got %v, want the number of files", openErr)
	}
	s.insecure = true
	if _, err := s.open().SignMessage(t.Context(), signertest.Address(signertest.Key(0)), nil); err != nil {
		t.Errorf("with InsecurePermissions: got error %v, want none", err)
	}
}

// A directory that others may write to is an error at opening, and when it is read again.
func TestWritableDirectory(t *testing.T) {
	s := newStore(t, signertest.Key(0))
	k := s.open()
	uri := "keystore://" + s.dir + "?password-file=" + s.pass
	for mode, bad := range map[os.FileMode]bool{
		0o700: false, 0o500: false, 0o755: false, 0o770: true, 0o702: true, 0o777: true, 0o777 | os.ModeSticky: true,
	} {
		if err := os.Chmod(s.dir, mode); err != nil {
			t.Fatal(err)
		}
		backend, openErr := Open(t.Context(), uri, signer.Environment{})
		if openErr == nil {
			_ = backend.Close()
		}
		_, checkErr := k.Check(t.Context())
		for call, err := range map[string]error{"Open": openErr, "Check": checkErr} {
			want := fmt.Sprintf("keystore directory can be written to by other users of this machine (mode %04o): "+
				"run chmod go-w '%s', or set --insecure-permissions", mode.Perm(), s.dir)
			switch {
			case !bad && err != nil:
				t.Errorf("%s with mode %v: got error %v, want none", call, mode, err)
			case bad && (!errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), want)):
				t.Errorf("%s with mode %v: got error %v, want ErrUnusable with %q", call, mode, err, want)
			}
		}
	}
	if err := os.Chmod(s.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s.insecure = true
	if _, err := s.open().Check(t.Context()); err != nil {
		t.Errorf("Check with mode 0777 and InsecurePermissions: got error %v, want none", err)
	}
}

// What lies about in a directory of keys, and what Check and SignMessage make of it.
func TestWhatIsAKeyFile(t *testing.T) {
	key := signertest.Key(0)
	account := signertest.Address(key)
	good := encrypt(t, key, testPassword)
	unnamed := strings.Replace(good, fmt.Sprintf(`"address":"%x",`, account), "", 1)
	bare := fmt.Sprintf("%x", account)
	for _, c := range []struct {
		name, content string
		check         string // what Check says, or its error
		signs         string // empty: signs; else the error
	}{
		{"UTC--2025-01-01T00-00-00Z--" + bare, good, ": 1 account, the password opens the first", ""},
		{"any name", good, ": 1 account", ""},
		{"key", strings.Replace(good, bare, account.Hex(), 1), ": 1 account", ""},
		{"key", strings.Replace(good, `"crypto"`, `"Crypto"`, 1), ": 1 account", ""},
		{"UTC--2025-01-01T00-00-00Z--" + bare, unnamed, ": 1 account", ""},
		{account.Hex() + ".json", unnamed, ": 1 account", ""},
		{bare, strings.Replace(unnamed, `{`, `{"address":"",`, 1), ": 1 account", ""},
		{"nameless", unnamed, "nameless names no account, neither in its address field nor in its file name", "no file for it"},
		{bare, "", "is not a JSON key file", "is not a JSON key file"},
		{bare + ".json", good[:200], "is not a JSON key file", bare + ".json is not a JSON key file"},
		{bare + ".json", strings.Replace(good, `"ciphertext":"`, `"ciphertext":"00`, 1),
			"has a ciphertext of 33 bytes, want 32", bare + ".json has a ciphertext of 33 bytes, want 32"},
		{bare + ".json", short(good), "has a ciphertext of 31 bytes, want 32", "has a ciphertext of 31 bytes, want 32"},
		{"UTC--1", "", "UTC--1 is not a JSON key file", "of unknown account: 1, the first: key file "},
		{"a\nb", good[:200], `a\nb" is not a JSON key file`, `a\nb" is not a JSON key file`},
		{"customer-3.json", good[:200], "customer-3.json is not a JSON key file", "customer-3.json is not a JSON key file"},
		{"key.json", "hello", "holds no key file", "no file for it"},
		{"notes", "{}", "holds no key file", "no file for it"},
		{"README.md", "# keys", "holds no key file", "no file for it"},
		{".hidden", good, "holds no key file", "no file for it"},
		{bare + "~", good, "holds no key file", "no file for it"},
		{bare, good + strings.Repeat(" ", maxKeyFile), "has more than 65536 bytes", "has more than 65536 bytes"},
	} {
		s := newStore(t)
		s.write(filepath.Join(s.dir, c.name), c.content)
		k := s.open()
		line, err := k.Check(t.Context())
		if err != nil {
			line = err.Error()
		}
		if !strings.Contains(line, c.check) {
			t.Errorf("%s: Check says %q, want %q", c.name, line, c.check)
		}
		_, err = k.SignMessage(t.Context(), account, nil)
		hasErr := k.HasKey(t.Context(), account)
		switch {
		case c.signs == "" && err != nil:
			t.Errorf("%s: SignMessage: got error %v, want none", c.name, err)
		case c.signs != "" && (!errors.Is(err, signer.ErrNoKey) || !strings.Contains(err.Error(), c.signs)):
			t.Errorf("%s: error %v, want ErrNoKey and %q", c.name, err, c.signs)
		case fmt.Sprint(hasErr) != fmt.Sprint(err):
			t.Errorf("%s: HasKey = %v, want SignMessage's error, %v", c.name, hasErr, err)
		}
	}
}

// short takes the last byte of the key away.
func short(file string) string {
	before, rest, _ := strings.Cut(file, `"ciphertext":"`)
	return before + `"ciphertext":"` + rest[2:]
}

// A JSON file that is not a key file causes a warning when it is found, fails neither Check nor a row, and causes no
// warning again for as long as it is the only one.
func TestStrayFilesAreWarnings(t *testing.T) {
	key := signertest.Key(0)
	s := newStore(t, key)
	s.write(filepath.Join(s.dir, "README"), "keys")
	k := s.open()
	if len(s.warnings) != 0 {
		t.Errorf("warnings %q for a file that has nothing of a key file, want none", s.warnings)
	}
	s.write(filepath.Join(s.dir, "notes.json"), `{"rotated":"2025"}`)
	for range 2 {
		line, err := k.Check(t.Context())
		if err != nil || !strings.Contains(line, ": 1 account") || !strings.Contains(line, "not key files: 2") {
			t.Errorf("Check says %q, %v; want 1 account, 2 files that are not key files", line, err)
		}
	}
	want := []string{fmt.Sprintf("keystore %s: notes.json has no version: it is not a key file", s.dir)}
	if !slices.Equal(s.warnings, want) {
		t.Errorf("warnings %q\nwant     %q", s.warnings, want)
	}
	if _, err := k.SignMessage(t.Context(), signertest.Address(key), nil); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	s.write(filepath.Join(s.dir, "\x1b[2J.json"), "[]")
	s.warnings = nil
	s.open()
	want = []string{fmt.Sprintf(`keystore %s: "\x1b[2J.json" is not a JSON key file: json: cannot unmarshal array into `+
		"Go value of type keystore.keyFileJSON (and 1 more that is not a key file)", s.dir)}
	if !slices.Equal(s.warnings, want) {
		t.Errorf("warnings %q\nwant     %q", s.warnings, want)
	}
}

// A key that arrives later is found; a directory that has not changed is not read again for each missing key.
func TestDirectoryChanges(t *testing.T) {
	first, second, third := signertest.Key(0), signertest.Key(1), signertest.Key(2)
	s := newStore(t, first)
	k := s.open()
	missing := func(key *ecdsa.PrivateKey, missing bool) {
		t.Helper()
		var want error
		if missing {
			want = signer.ErrNoKey
		}
		if err := k.HasKey(t.Context(), signertest.Address(key)); !errors.Is(err, want) {
			t.Fatalf("HasKey = %v, want %v", err, want)
		}
	}
	before := k.index
	missing(second, true)
	missing(second, true)
	if k.index != before {
		t.Error("got a new index of an unchanged directory, want the one before")
	}
	s.add("second", second) // a real change: the directory's time moves on from the fixed hour
	missing(second, false)

	// Within the step of the file system's clock a change may leave the time as it was.
	s.age(settling)
	k = s.open()
	s.add("third", third)
	s.age(settling)
	missing(third, false)

	if err := os.Remove(filepath.Join(s.dir, "third")); err != nil {
		t.Fatal(err)
	}
	_, err := k.SignMessage(t.Context(), signertest.Address(third), nil)
	if !errors.Is(err, signer.ErrNoKey) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("error %v, want ErrNoKey for a file that is gone", err)
	}
	missing(third, true)

	if err := os.Rename(s.dir, s.dir+".away"); err != nil {
		t.Fatal(err)
	}
	for _, account := range []common.Address{{1}, {2}} {
		if err := k.HasKey(t.Context(), account); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("error %v, want ErrUnusable without the directory", err)
		}
	}
	if _, err := k.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("Check's error is %v, want ErrUnusable without the directory", err)
	}
}
