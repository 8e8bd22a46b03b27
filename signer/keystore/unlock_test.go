package keystore

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

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
			t.Errorf("password file %q: got error %v, want success %v", content, err, good)
		}
		if err != nil && !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("password file %q: error %v, want ErrUnusable", content, err)
		}
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
	if !errors.Is(err, signer.ErrUnusable) || !strings.HasSuffix(err.Error(), "does not open it, neither unchanged nor in NFKC") {
		t.Errorf("error %v, want ErrUnusable that names both forms", err)
	}
	plain := newStore(t, key).open()
	tried = 0
	plain.decrypt = k.decrypt
	if _, err := plain.SignMessage(t.Context(), signertest.Address(key), nil); err != nil || tried != 1 {
		t.Errorf("%v after %d tries, want a signature after 1: the password is in NFKC", err, tried)
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
				t.Errorf("got error %v, want none", err)
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
					t.Errorf("got error %v, want none", err)
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
			t.Error("Close returned during a decryption, want it to wait")
		default:
		}
		close(g.open)
		<-closed
		if made == nil || made.D.Sign() != 0 && len(bytes.Trim(made.D.Bytes(), "\x00")) != 0 {
			t.Error("got a key in memory after Close, want zeros")
		}
		if len(bytes.Trim(slices.Concat(k.passwords...), "\x00")) != 0 || len(k.keys) != 0 {
			t.Error("got the password or keys in memory after Close, want zeros and none")
		}
		if err := k.HasKey(t.Context(), signertest.Address(keys[0])); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("after Close: error %v, want ErrUnusable", err)
		}
		if err := sign(t.Context(), keys[0]); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("after Close: error %v, want ErrUnusable", err)
		}
	})
}
