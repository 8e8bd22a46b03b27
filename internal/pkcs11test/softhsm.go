// Package pkcs11test makes SoftHSM2 tokens for tests: a PKCS #11 module that stores keys in a directory.
//
// A test that asks for a token fails where SoftHSM2 is not installed (Debian: apt-get install softhsm2); it never
// skips. SoftHSM2 reads its configuration's name from the environment whenever it is initialised, so a process has one
// token at a time: a test that uses one is not parallel, and closes what it opened before it makes another.
package pkcs11test

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/miekg/pkcs11"
)

const (
	label    = "purser test"
	officer  = "security-officer-pin"
	variable = "SOFTHSM2_CONF"
	memory   = "/dev/shm" // creating a key takes 64 ms on a disk and 1 ms here
)

// Token is a SoftHSM2 token in a directory of its own.
type Token struct {
	Label   string
	PIN     string // must not be in any log
	PINFile string // holds PIN and a newline
	Module  string // the library's path
	Config  string // the file that SOFTHSM2_CONF names

	t      testing.TB
	tokens string // the directory that SoftHSM2 stores the token in
	lib    *pkcs11.Ctx
}

// New makes a token that holds keys, each with the address as CKA_ID and as CKA_LABEL, and no public keys. Until the
// test ends it sets SOFTHSM2_CONF in the environment of this process, which processes that it starts inherit (or see
// Env), and removes everything at the test's end.
func New(t testing.TB, keys ...*ecdsa.PrivateKey) *Token {
	t.Helper()
	dir := directory(t)
	token := &Token{
		Label: label, PIN: "pin-that-no-log-shows", PINFile: filepath.Join(dir, "pin"), Module: library(t),
		Config: filepath.Join(dir, "softhsm2.conf"), t: t, tokens: filepath.Join(dir, "tokens"),
	}
	if err := os.Mkdir(token.tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", token.tokens)
	for path, content := range map[string]string{token.Config: config, token.PINFile: token.PIN + "\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(variable, token.Config)
	if token.lib = pkcs11.New(token.Module); token.lib == nil {
		t.Fatalf("%s cannot be loaded", token.Module)
	}
	if err := token.initialise(); err != nil {
		t.Fatalf("make a SoftHSM2 token: %v", err)
	}
	token.Import(keys...)
	return token
}

// directory is in memory where there is such a thing.
func directory(t testing.TB) string {
	dir, err := os.MkdirTemp(memory, "purser-softhsm-") //nolint:usetesting // in memory, which t.TempDir is not
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func library(t testing.TB) string {
	t.Helper()
	for _, pattern := range []string{
		"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib*/pkcs11/libsofthsm2.so",
		"/usr/lib*/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so",
		"/opt/homebrew/lib/softhsm/libsofthsm2.so",
	} {
		if paths, err := filepath.Glob(pattern); err == nil && len(paths) > 0 {
			return paths[0]
		}
	}
	t.Fatal("SoftHSM2 is not installed: libsofthsm2.so is in none of the usual places (Debian: apt-get install softhsm2)")
	return ""
}

// URI is the signer URI of the token, with the PIN from its file and whatever parameters are given ("sessions=1").
func (k *Token) URI(parameters ...string) string {
	uri := fmt.Sprintf("pkcs11:token=%s?module-path=%s&pin-source=file:%s",
		url.PathEscape(k.Label), url.PathEscape(k.Module), k.PINFile)
	for _, parameter := range parameters {
		uri += "&" + parameter
	}
	return uri
}

// Env is what a process needs in its environment to open the token.
func (k *Token) Env() []string { return []string{variable + "=" + k.Config} }

// Import puts more keys onto the token, as New does. It may be called while the token is in use.
func (k *Token) Import(keys ...*ecdsa.PrivateKey) {
	k.t.Helper()
	if len(keys) == 0 {
		return
	}
	k.session(func(session pkcs11.SessionHandle) error {
		for _, key := range keys {
			address := crypto.PubkeyToAddress(key.PublicKey)
			if _, err := k.lib.CreateObject(session, append(private(address[:], address.Hex()),
				pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
				pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
				pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, curve()),
				pkcs11.NewAttribute(pkcs11.CKA_VALUE, crypto.FromECDSA(key)),
			)); err != nil {
				return fmt.Errorf("import %v: %w", address, err)
			}
		}
		return nil
	})
}

// Generate generates n keys on the token, as for an HSM whose keys never leave it. Their CKA_ID is a number and their
// CKA_LABEL a word, so only their public keys show their accounts.
func (k *Token) Generate(n int) []common.Address {
	k.t.Helper()
	var addresses []common.Address
	k.session(func(session pkcs11.SessionHandle) error {
		for i := range n {
			id := []byte{0x10, byte(i >> 8), byte(i)}
			mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}
			public, _, err := k.lib.GenerateKeyPair(session, mechanism, []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, curve()), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
				pkcs11.NewAttribute(pkcs11.CKA_LABEL, "customer"), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			}, private(id, "customer"))
			if err != nil {
				return fmt.Errorf("generate key %d: %w", i, err)
			}
			point, err := k.lib.GetAttributeValue(session, public,
				[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
			if err != nil {
				return fmt.Errorf("read public key %d: %w", i, err)
			}
			key, err := crypto.UnmarshalPubkey(point[0].Value[2:]) // an OCTET STRING
			if err != nil {
				return fmt.Errorf("read public key %d: %w", i, err)
			}
			addresses = append(addresses, crypto.PubkeyToAddress(*key))
		}
		return nil
	})
	return addresses
}

// Remove removes the token, as if its device were pulled out, also while it is used; Restore undoes it.
func (k *Token) Remove() {
	k.t.Helper()
	k.move(k.tokens, k.tokens+".removed")
}

// Restore undoes Remove.
func (k *Token) Restore() {
	k.t.Helper()
	k.move(k.tokens+".removed", k.tokens)
}

// move moves the content of the directory and not the directory, without which SoftHSM2 cannot be initialised.
func (k *Token) move(from, to string) {
	k.t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		k.t.Fatal(err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, entry := range entries {
		if err := os.Rename(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())); err != nil {
			k.t.Fatal(err)
		}
	}
}

func curve() []byte { return []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a} } // OID 1.3.132.0.10 in DER

func private(id []byte, label string) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
	}
}

func (k *Token) initialise() error {
	if err := k.lib.Initialize(); err != nil {
		return fmt.Errorf("%w (was a token of an earlier test not closed?)", err)
	}
	defer func() { _ = k.lib.Finalize() }()
	slots, err := k.lib.GetSlotList(true)
	if err != nil {
		return err
	}
	if len(slots) != 1 {
		return fmt.Errorf("%d slots, want the one free one of an empty directory", len(slots))
	}
	if err := k.lib.InitToken(slots[0], officer, k.Label); err != nil {
		return err
	}
	session, err := k.lib.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	if err := k.lib.Login(session, pkcs11.CKU_SO, officer); err != nil {
		return err
	}
	return k.lib.InitPIN(session, k.PIN)
}

// session runs f in a logged-in read-write session, in addition to the sessions of the process.
func (k *Token) session(f func(session pkcs11.SessionHandle) error) {
	k.t.Helper()
	if err := k.within(f); err != nil {
		k.t.Fatalf("SoftHSM2: %v", err)
	}
}

func (k *Token) within(f func(session pkcs11.SessionHandle) error) error {
	err := k.lib.Initialize()
	switch {
	case err == nil:
		defer func() { _ = k.lib.Finalize() }()
	case !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)):
		return err
	}
	slots, err := k.lib.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		info, err := k.lib.GetTokenInfo(slot)
		if err != nil || info.Label != k.Label {
			continue
		}
		session, err := k.lib.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		defer func() { _ = k.lib.CloseSession(session) }()
		err = k.lib.Login(session, pkcs11.CKU_USER, k.PIN)
		if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
			return err
		}
		return f(session)
	}
	return fmt.Errorf("token %q is not there", k.Label)
}
