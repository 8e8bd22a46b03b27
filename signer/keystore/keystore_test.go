package keystore

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"

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
	data, err := Encrypt(key, []byte(password), 2, 1, rand.NewChaCha8([32]byte{1}))
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
			t.Errorf("Open(%q): error %v is neither ErrUnusable nor a URIError", c.uri, err)
		}
		if strings.Contains(err.Error(), testPassword) {
			t.Errorf("Open(%q): the error holds the password", c.uri)
		}
	}
}

func TestPasswordEndings(t *testing.T) {
	key := signertest.Key(0)
	for content, good := range map[string]bool{
		testPassword: true, testPassword + "\n": true, testPassword + "\r\n": true,
		"\xef\xbb\xbf" + testPassword: false, testPassword + "\n\n": false,
		testPassword + " ": false, " " + testPassword: false, "": false, "\n": false, testPassword + "\r": false,
	} {
		s := newStore(t, key)
		s.write(s.pass, content)
		env := signer.Environment{}
		backend, err := Open(t.Context(), "keystore://"+s.dir+"?password-file="+s.pass, env)
		if err == nil {
			_, err = backend.SignMessage(t.Context(), signertest.Address(key), nil)
			_ = backend.Close()
		}
		if (err == nil) != good {
			t.Errorf("password file %q: error %v", content, err)
		}
		if err != nil && !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("password file %q: error %v, want ErrUnusable", content, err)
		}
	}
}

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
		t.Errorf("with InsecurePermissions: %v", err)
	}
}

// A directory that others may write to is refused at opening, and when it is read again.
func TestWritableDirectory(t *testing.T) {
	s := newStore(t, signertest.Key(0))
	k := s.open()
	uri := "keystore://" + s.dir + "?password-file=" + s.pass
	for mode, refused := range map[os.FileMode]bool{
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
			case !refused && err != nil:
				t.Errorf("%s with mode %v: got error %v, want none", call, mode, err)
			case refused && (!errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), want)):
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

func TestWrongPasswordNamesTheFiles(t *testing.T) {
	key := signertest.Key(0)
	s := newStore(t)
	s.write(filepath.Join(s.dir, "a.json"), encrypt(t, key, "another"))
	k := s.open()
	_, signErr := k.SignMessage(t.Context(), signertest.Address(key), nil)
	_, checkErr := k.Check(t.Context())
	for _, err := range []error{signErr, checkErr} {
		if !errors.Is(err, signer.ErrUnusable) {
			t.Fatalf("error %v, want ErrUnusable", err)
		}
		for _, want := range []string{filepath.Join(s.dir, "a.json"), "password-file"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not name %s", err, want)
			}
		}
	}
}

func TestFileOfAnotherKey(t *testing.T) {
	says, holds := signertest.Key(0), signertest.Key(1)
	s := newStore(t)
	digits := func(key *ecdsa.PrivateKey) string { return fmt.Sprintf("%x", signertest.Address(key)) }
	s.write(filepath.Join(s.dir, "x"), strings.Replace(encrypt(t, holds, testPassword), digits(holds), digits(says), 1))
	k := s.open()
	_, err := k.SignMessage(t.Context(), signertest.Address(says), nil)
	if !errors.Is(err, signer.ErrMismatch) || !strings.Contains(err.Error(), signertest.Address(holds).Hex()) {
		t.Errorf("error %v, want ErrMismatch with the account it holds", err)
	}
	if _, err := k.SignMessage(t.Context(), signertest.Address(holds), nil); !errors.Is(err, signer.ErrNoKey) {
		t.Errorf("error %v, want ErrNoKey: nothing says that this key is there", err)
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
		{"UTC--2025-01-01T00-00-00Z--" + bare, good, ": 1 accounts, the password opens the first", ""},
		{"any name", good, ": 1 accounts", ""},
		{"key", strings.Replace(good, bare, account.Hex(), 1), ": 1 accounts", ""},
		{"key", strings.Replace(good, `"crypto"`, `"Crypto"`, 1), ": 1 accounts", ""},
		{"UTC--2025-01-01T00-00-00Z--" + bare, unnamed, ": 1 accounts", ""},
		{account.Hex() + ".json", unnamed, ": 1 accounts", ""},
		{bare, strings.Replace(unnamed, `{`, `{"address":"",`, 1), ": 1 accounts", ""},
		{"nameless", unnamed, "nameless says neither in itself nor in its name", "no file of it"},
		{bare, "", "is not a JSON key file", "is not a JSON key file"},
		{bare + ".json", good[:200], "is not a JSON key file", bare + ".json is not a JSON key file"},
		{bare + ".json", strings.Replace(good, `"ciphertext":"`, `"ciphertext":"00`, 1),
			"has a ciphertext of 33 bytes, want 32", bare + ".json has a ciphertext of 33 bytes, want 32"},
		{bare + ".json", short(good), "has a ciphertext of 31 bytes, want 32", "has a ciphertext of 31 bytes, want 32"},
		{"UTC--1", "", "UTC--1 is not a JSON key file", "may be anybody's: 1, the first: key file "},
		{"a\nb", good[:200], `a\nb" is not a JSON key file`, `a\nb" is not a JSON key file`},
		{"customer-3.json", good[:200], "customer-3.json is not a JSON key file", "customer-3.json is not a JSON key file"},
		{"key.json", "hello", "holds no key file", "no file of it"},
		{"notes", "{}", "holds no key file", "no file of it"},
		{"README.md", "# keys", "holds no key file", "no file of it"},
		{".hidden", good, "holds no key file", "no file of it"},
		{bare + "~", good, "holds no key file", "no file of it"},
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
			t.Errorf("%s: %v", c.name, err)
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

// A JSON file that is not a key file is told of when it is found, fails neither Check nor a row, and is not told of
// again for as long as it is the only one.
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
		if err != nil || !strings.Contains(line, ": 1 accounts") || !strings.Contains(line, "no key files: 2") {
			t.Errorf("Check says %q, %v; want 1 account, 2 files that are no key files", line, err)
		}
	}
	want := []string{fmt.Sprintf("keystore %s: notes.json has no version: it is not a key file", s.dir)}
	if !slices.Equal(s.warnings, want) {
		t.Errorf("warnings %q\nwant     %q", s.warnings, want)
	}
	if _, err := k.SignMessage(t.Context(), signertest.Address(key), nil); err != nil {
		t.Error(err)
	}
	s.write(filepath.Join(s.dir, "\x1b[2J.json"), "[]")
	s.warnings = nil
	s.open()
	want = []string{fmt.Sprintf(`keystore %s: "\x1b[2J.json" is not a JSON key file: json: cannot unmarshal array into `+
		"Go value of type keystore.keyFileJSON (and 1 more that are not key files)", s.dir)}
	if !slices.Equal(s.warnings, want) {
		t.Errorf("warnings %q\nwant     %q", s.warnings, want)
	}
}

// The password file holds the text as it was typed; ethers made the key file, with its form NFKC.
func TestPasswordInBothForms(t *testing.T) {
	const typed = "\ufb01ne pa\u0308ssword \u2116" + "5"
	key, other := signertest.Key(0), signertest.Key(1)
	s := newStore(t)
	s.write(s.pass, typed+"\n")
	s.write(filepath.Join(s.dir, "ethers"), ethersVector)
	s.write(filepath.Join(s.dir, "as typed"), encrypt(t, key, typed))
	s.write(filepath.Join(s.dir, "another"), encrypt(t, other, "another"))
	k := s.open()
	var tried int
	k.decrypt = func(f *keyFile, password []byte) (*ecdsa.PrivateKey, error) {
		tried++
		return f.decrypt(password)
	}
	for _, account := range []common.Address{common.HexToAddress(ethersAddress), signertest.Address(key)} {
		tried = 0
		if _, err := k.SignMessage(t.Context(), account, nil); err != nil || tried != 2 {
			t.Errorf("%v: %v after %d tries, want a signature after 2", account, err, tried)
		}
	}
	_, err := k.SignMessage(t.Context(), signertest.Address(other), nil)
	if !errors.Is(err, signer.ErrUnusable) || !strings.HasSuffix(err.Error(), "does not open it, neither as it is nor in NFKC") {
		t.Errorf("error %v, want ErrUnusable that names both forms", err)
	}
	plain := newStore(t, key).open()
	tried = 0
	plain.decrypt = k.decrypt
	if _, err := plain.SignMessage(t.Context(), signertest.Address(key), nil); err != nil || tried != 1 {
		t.Errorf("%v after %d tries, want a signature after 1: the password is in NFKC", err, tried)
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
		"files that are no key files: 1; everybody on this machine can read %s", s.dir, s.pass)
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
		t.Error("an unchanged directory was read again")
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

// gate holds every decryption until it is opened, and counts.
type gate struct {
	open  chan struct{}
	calls atomic.Int32
}

func gated(k *Keystore) *gate {
	g := &gate{open: make(chan struct{})}
	k.decrypt = func(f *keyFile, password []byte) (*ecdsa.PrivateKey, error) {
		g.calls.Add(1)
		<-g.open
		return f.decrypt(password)
	}
	return g
}

func TestOneDecryptionPerKey(t *testing.T) {
	key := signertest.Key(0)
	s := newStore(t, key)
	synctest.Test(t, func(t *testing.T) {
		k := s.open()
		g := gated(k)
		var all sync.WaitGroup
		sign := func() {
			if _, err := k.SignMessage(t.Context(), signertest.Address(key), []byte("hello")); err != nil {
				t.Error(err)
			}
		}
		for range 16 {
			all.Go(sign)
		}
		synctest.Wait()
		close(g.open)
		all.Wait()
		sign()
		if n := g.calls.Load(); n != 1 {
			t.Errorf("%d decryptions, want 1", n)
		}
		_ = k.Close()
	})
}

func TestFewDecryptionsAtOnce(t *testing.T) {
	var keys []*ecdsa.PrivateKey
	for i := range uint64(12) {
		keys = append(keys, signertest.Key(i))
	}
	s := newStore(t, keys...)
	synctest.Test(t, func(t *testing.T) {
		k := s.open()
		g := gated(k)
		var all sync.WaitGroup
		for _, key := range keys {
			all.Go(func() {
				if _, err := k.SignMessage(t.Context(), signertest.Address(key), nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := int(g.calls.Load()); n != cap(k.slots) || n > mostAtOnce {
			t.Errorf("%d decryptions at once, want %d", n, cap(k.slots))
		}
		close(g.open)
		all.Wait()
		if n := int(g.calls.Load()); n != len(keys) {
			t.Errorf("%d decryptions, want %d", n, len(keys))
		}
		_ = k.Close()
	})
}

// Who gives up does not stop the decryption; Close waits for it, lets those in the queue go, and wipes what came of it.
func TestGivingUpAndClosing(t *testing.T) {
	var keys []*ecdsa.PrivateKey
	for i := range uint64(mostAtOnce + 1) {
		keys = append(keys, signertest.Key(i))
	}
	s := newStore(t, keys...)
	synctest.Test(t, func(t *testing.T) {
		k := s.open()
		k.slots = make(chan struct{}, 1)
		g := gated(k)
		var made *ecdsa.PrivateKey
		slow := k.decrypt
		k.decrypt = func(f *keyFile, password []byte) (*ecdsa.PrivateKey, error) {
			key, err := slow(f, password)
			made = key
			return key, err
		}
		ctx, cancel := context.WithCancel(t.Context())
		patient := make(chan error, len(keys))
		impatient := make(chan error, 1)
		sign := func(ctx context.Context, key *ecdsa.PrivateKey) error {
			_, err := k.SignMessage(ctx, signertest.Address(key), nil)
			return err
		}
		go func() { impatient <- sign(ctx, keys[0]) }()
		synctest.Wait()
		cancel()
		if err := <-impatient; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled while the decryption goes on", err)
		}
		for _, key := range keys[1:] {
			go func() { patient <- sign(t.Context(), key) }()
		}
		synctest.Wait()
		closed := make(chan struct{})
		go func() { _ = k.Close(); close(closed) }()
		for range keys[1:] {
			if err := <-patient; !errors.Is(err, signer.ErrUnusable) {
				t.Errorf("error %v, want ErrUnusable for those still in the queue", err)
			}
		}
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait for the decryption under way")
		default:
		}
		close(g.open)
		<-closed
		if made == nil || made.D.Sign() != 0 && len(bytes.Trim(made.D.Bytes(), "\x00")) != 0 {
			t.Error("Close left the key in memory")
		}
		if len(bytes.Trim(slices.Concat(k.passwords...), "\x00")) != 0 || len(k.keys) != 0 {
			t.Error("Close left the password in memory")
		}
		if err := k.HasKey(t.Context(), signertest.Address(keys[0])); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("after Close: error %v, want ErrUnusable", err)
		}
		if err := sign(t.Context(), keys[0]); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("after Close: error %v, want ErrUnusable", err)
		}
	})
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
	data, err := Encrypt(key, []byte("p"), 2, 1, rand.NewChaCha8([32]byte{1}))
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
