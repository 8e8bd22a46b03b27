package keystore

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/internal/keystoretest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

const testPassword = "correct horse"

// store is a keystore directory on disk.
type store struct {
	insecure bool
	warnings []string
	t        *testing.T
	dir      string
	pass     string
	now      time.Time // what the keystore takes for the present
}

func newStore(t *testing.T, keys ...*ecdsa.PrivateKey) *store {
	t.Helper()
	s := &store{t: t, dir: filepath.Join(t.TempDir(), "keys"), pass: filepath.Join(t.TempDir(), "password")}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.write(s.pass, testPassword+"\n")
	for i, key := range keys {
		s.add(fmt.Sprintf("UTC--2025-01-01T00-00-%02dZ--%x", i, signertest.Address(key)), key)
	}
	s.age(time.Hour)
	return s
}

func (s *store) write(path, content string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) add(name string, key *ecdsa.PrivateKey) {
	s.t.Helper()
	s.write(filepath.Join(s.dir, name), encrypt(s.t, key, testPassword))
}

// age sets the directory's last change to a fixed hour and the clock to d after it.
func (s *store) age(d time.Duration) {
	s.t.Helper()
	changed := time.Date(2025, 1, 1, 12, 0, 0, 0, time.UTC)
	if err := os.Chtimes(s.dir, changed, changed); err != nil {
		s.t.Fatal(err)
	}
	s.now = changed.Add(d)
}

func (s *store) open() *Keystore {
	s.t.Helper()
	env := signer.Environment{
		Now: func() time.Time { return s.now }, InsecurePermissions: s.insecure,
		Warn: func(text string) { s.warnings = append(s.warnings, text) },
	}
	backend, err := Open(s.t.Context(), "keystore://"+s.dir+"?password-file="+s.pass, env)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = backend.Close() })
	return backend.(*Keystore)
}

func encrypt(t *testing.T, key *ecdsa.PrivateKey, password string) string {
	t.Helper()
	data, err := keystoretest.KeyFile(key, password, 2, 1, rand.NewChaCha8([32]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestConformance(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		t.Helper()
		return newStore(t, keys...).open()
	})
}

func TestOpenRefuses(t *testing.T) {
	s := newStore(t, signertest.Key(0))
	file := filepath.Join(t.TempDir(), "file")
	s.write(file, "one\ntwo\n")
	long := filepath.Join(t.TempDir(), "long")
	s.write(long, strings.Repeat("x", 5000))
	for _, c := range []struct{ uri, want string }{
		{"keystore:" + s.dir, "has no password-file (want " + Shape},
		{"insecure-file:" + s.dir, "is not a keystore"},
		{"keystore:" + s.dir + "?password=" + testPassword, `unknown parameter "password"`},
		{"keystore:" + s.dir + "/none?password-file=" + s.pass, "/none: no such file"},
		{"keystore:" + s.pass + "?password-file=" + s.pass, "not a directory"},
		{"keystore:" + s.dir + "?password-file=" + s.pass + "x", "password-file cannot be read: no such file"},
		{"keystore:" + s.dir + "?password-file=" + s.dir, "is a directory"},
		{"keystore:" + s.dir + "?password-file=" + file, "has more than one line"},
		{"keystore:" + s.dir + "?password-file=" + long, "has more than 4096 bytes"},
	} {
		_, err := Open(t.Context(), c.uri, signer.Environment{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open(%q): error %v, want %q", c.uri, err, c.want)
			continue
		}
		var u *signer.URIError
		if !errors.Is(err, signer.ErrUnusable) && !errors.As(err, &u) {
			t.Errorf("Open(%q): got error %v, want ErrUnusable or a *URIError", c.uri, err)
		}
		if strings.Contains(err.Error(), testPassword) {
			t.Errorf("Open(%q): got an error that holds the password, want none of it", c.uri)
		}
	}
}

func TestCheckCounts(t *testing.T) {
	s := newStore(t, signertest.Key(0), signertest.Key(1))
	s.add("a copy", signertest.Key(1))
	s.write(filepath.Join(s.dir, "README"), "keys")
	if err := os.Mkdir(filepath.Join(s.dir, "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.pass, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), "keystore://"+s.dir+"?password-file="+s.pass, signer.Environment{}); err == nil ||
		!errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "chmod 600 '"+s.pass+"'") {
		t.Errorf("password file with mode 0644: got %v, want ErrUnusable and the chmod", err)
	}
	s.insecure = true
	line, err := s.open().Check(t.Context())
	want := fmt.Sprintf("keystore %s: 2 accounts, the password opens the first; files that repeat an account: 1; "+
		"files that are not key files: 1; everybody on this machine can read %s", s.dir, s.pass)
	if err != nil || line != want {
		t.Errorf("Check says %q, %v\nwant %q", line, err, want)
	}
	s.write(filepath.Join(s.dir, "1.json"), `{"crypto":`)
	s.write(filepath.Join(s.dir, "2.json"), `{"crypto":`)
	_, err = s.open().Check(t.Context())
	var file *FileError
	if !errors.As(err, &file) || filepath.Base(file.Path) != "1.json" || !strings.Contains(err.Error(), "and 1 more") {
		t.Errorf("Check's error is %v, want a FileError of 1.json and a count of the rest", err)
	}
}

func TestOpenStopsWithItsContext(t *testing.T) {
	s := newStore(t, signertest.Key(0))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open(ctx, "keystore://"+s.dir+"?password-file="+s.pass, signer.Environment{})
	if !errors.Is(err, context.Canceled) || errors.Is(err, signer.ErrUnusable) {
		t.Errorf("error %v, want context.Canceled alone", err)
	}
}

// BenchmarkSign is the cost of a signature with an unlocked key.
func BenchmarkSign(b *testing.B) {
	dir := b.TempDir()
	key := signertest.Key(0)
	data, err := keystoretest.KeyFile(key, "p", 2, 1, rand.NewChaCha8([32]byte{1}))
	if err != nil {
		b.Fatal(err)
	}
	for name, content := range map[string][]byte{"k.json": data, "password": []byte("p")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	k, err := Open(b.Context(), "keystore://"+dir+"?password-file="+dir+"/password", signer.Environment{})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	for b.Loop() {
		if _, err := k.SignMessage(b.Context(), signertest.Address(key), []byte("hello")); err != nil {
			b.Fatal(err)
		}
	}
}
