// Package signertest holds the suite that every signer backend passes, and a backend in memory for the tests of
// packages that use a signer.
//
// The suite checks only what signer.Backend promises. It does not assume that the same message gives the same signature
// twice, a certain v or a low s: it sees signatures through signer.Verified, as the product does.
package signertest

import (
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

const (
	held       = 4                // keys that Run gives the backend
	goroutines = 16               // that sign at the same time
	each       = 4                // signatures each of them makes
	prompt     = 10 * time.Second // the longest a call may take after its context has ended; only a failure waits for it
)

// Run tests the backend that open returns. open is called once and must make a backend that holds exactly keys (import
// them, write them to files, give them to an emulator). The suite closes the backend; open removes the rest by
// t.Cleanup. About 80 signatures are made.
func Run(t *testing.T, open func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend) {
	t.Helper()
	keys := make([]*ecdsa.PrivateKey, held)
	for i := range keys {
		keys[i] = Key(uint64(i))
	}
	RunKeys(t, keys, func(t *testing.T) signer.Backend {
		t.Helper()
		return open(t, keys)
	})
}

// RunKeys is Run for a backend that generates its keys itself. keys are at least two of its keys; it must not have
// Key(4).
func RunKeys(t *testing.T, keys []*ecdsa.PrivateKey, open func(t *testing.T) signer.Backend) {
	t.Helper()
	if len(keys) < 2 {
		t.Fatalf("%d keys, want at least 2", len(keys))
	}
	s := &suite{stranger: Address(Key(held)), keys: keys}
	for _, key := range keys {
		s.accounts = append(s.accounts, Address(key))
		digits := hex.EncodeToString(crypto.FromECDSA(key))
		s.secrets = append(s.secrets, digits, key.D.String(), key.D.Text(16))
	}
	backend := open(t)
	if backend == nil {
		t.Fatal("open: got no backend, want one")
	}
	t.Cleanup(func() { _ = backend.Close() })
	s.backend = signer.Verified(backend)

	t.Run("Check", s.check)
	t.Run("HasKey", s.hasKey)
	t.Run("EveryKey", s.everyKey)
	t.Run("OddMessages", s.oddMessages)
	t.Run("UnknownAccount", s.unknownAccount)
	t.Run("Again", s.again)
	t.Run("Concurrent", s.concurrent)
	t.Run("Cancelled", s.cancelled)
	t.Run("Close", s.close)
}

type suite struct {
	keys     []*ecdsa.PrivateKey
	accounts []common.Address
	stranger common.Address // an account whose key the backend does not have
	secrets  []string
	backend  signer.Backend
}

// sign signs message and verifies the signature with the public key, independently of Verified.
func (s *suite) sign(ctx context.Context, i int, message []byte) error {
	sig, err := s.backend.SignMessage(ctx, s.accounts[i], message)
	if err != nil {
		return fmt.Errorf("account %d (%v): %w", i, s.accounts[i], err)
	}
	if sig[64] != 27 && sig[64] != 28 {
		return fmt.Errorf("account %d: v is %d", i, sig[64])
	}
	// VerifySignature fails for a high s.
	public := crypto.FromECDSAPub(&s.keys[i].PublicKey)
	if !crypto.VerifySignature(public, signer.MessageHash(message).Bytes(), sig[:64]) {
		return fmt.Errorf("account %d: the signature does not verify", i)
	}
	return nil
}

// clean fails when text holds key material.
func (s *suite) clean(t *testing.T, what, text string) {
	t.Helper()
	lower := strings.ToLower(text)
	for _, secret := range s.secrets {
		if strings.Contains(lower, secret) {
			t.Errorf("%s holds a private key", what)
		}
	}
}

func (s *suite) check(t *testing.T) {
	line, err := s.backend.Check(t.Context())
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	if strings.TrimSpace(line) == "" || strings.ContainsAny(line, "\r\n") {
		t.Errorf("Check says %q, want one line", line)
	}
	s.clean(t, "Check's line", line)
}

func (s *suite) hasKey(t *testing.T) {
	for i, account := range s.accounts {
		if err := s.backend.HasKey(t.Context(), account); err != nil {
			t.Errorf("HasKey(account %d) = %v, want nil", i, err)
		}
	}
	for _, account := range []common.Address{s.stranger, {}} {
		err := s.backend.HasKey(t.Context(), account)
		if !errors.Is(err, signer.ErrNoKey) || errors.Is(err, signer.ErrUnusable) {
			t.Errorf("HasKey(%v) = %v, want ErrNoKey and not ErrUnusable", account, err)
			continue
		}
		s.clean(t, "HasKey's error", err.Error())
		// The operator learns from it where the key was looked for, and reads it on one line.
		if text := err.Error(); text == signer.ErrNoKey.Error() || !printable.Is(text) {
			t.Errorf("HasKey(%v): error %q, want one printable line with the cause", account, text)
		}
	}
}

func (s *suite) everyKey(t *testing.T) {
	for i := range s.accounts {
		message := fmt.Sprintf("example.com wants you to sign in with your Ethereum account:\n%v\n", s.accounts[i])
		if err := s.sign(t.Context(), i, []byte(message)); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	}
}

// oddMessages signs texts that a backend might misread or change.
func (s *suite) oddMessages(t *testing.T) {
	for name, message := range map[string]string{
		"empty":                   "",
		"one byte":                "x",
		"32 bytes, like a digest": "0123456789abcdef0123456789abcdef",
		"hex, like encoded data":  "0x68656c6c6f",
		"a hash in hex":           "0xa080337ae51c4e064c189e113edd0ba391df9206e2f49db658bb32cf2911730b",
		"prefixed already":        "\x19Ethereum Signed Message:\n5hello",
		"JSON":                    `{"jsonrpc":"2.0","method":"eth_sign"}`,
		"line ends":               "one\r\ntwo\nthree\r\n\n",
		"spaces at the ends":      "  two before, one after ",
		"percent and format":      "100%s %d %x %00",
		"markup":                  `<a href="x">&amp;</a> "quoted" \ back`,
		"several scripts":         "Grüße, 你好, مرحبا, \u200b👩‍🚀, e\u0301 is not é",
		"16 KiB":                  strings.Repeat("0123456789abcde\n", 1024), // twice the longest challenge there is
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.sign(t.Context(), 0, []byte(message)); err != nil {
				t.Errorf("got error %v, want none", err)
			}
		})
	}
}

func (s *suite) unknownAccount(t *testing.T) {
	for _, account := range []common.Address{s.stranger, {}} {
		sig, err := s.backend.SignMessage(t.Context(), account, []byte("hello"))
		if !errors.Is(err, signer.ErrNoKey) {
			t.Fatalf("signing with %v: error %v, want ErrNoKey", account, err)
		}
		if errors.Is(err, signer.ErrUnusable) {
			t.Errorf("a missing key is the row's failure, not the run's: %v", err)
		}
		if sig != (signer.Signature{}) {
			t.Errorf("got signature %x with the error, want none", sig)
		}
		s.clean(t, "the error", err.Error())
	}
}

func (s *suite) again(t *testing.T) {
	for range 2 {
		if err := s.sign(t.Context(), 1, []byte("the same message")); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	}
}

func (s *suite) concurrent(t *testing.T) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for g := range goroutines {
		all.Go(func() {
			<-start
			for n := range each {
				if err := s.sign(t.Context(), (g+n)%len(s.keys), fmt.Appendf(nil, "message %d of goroutine %d", n, g)); err != nil {
					t.Errorf("got error %v, want none", err)
					return
				}
			}
		})
		all.Go(func() {
			<-start
			if err := s.backend.HasKey(t.Context(), s.accounts[g%len(s.keys)]); err != nil {
				t.Errorf("HasKey among signatures = %v, want nil", err)
			}
		})
	}
	close(start)
	all.Wait()
}

// cancelled checks that a call whose context has ended returns at once: with the context's error or, for HasKey and
// Check, with a result.
func (s *suite) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancelLate()
	for _, c := range []struct {
		name string
		ctx  context.Context
		want error
	}{{"cancelled", ctx, context.Canceled}, {"past its deadline", late, context.DeadlineExceeded}} {
		promptly(t, "SignMessage", func() {
			_, err := s.backend.SignMessage(c.ctx, s.accounts[0], []byte("too late"))
			if !errors.Is(err, c.want) {
				t.Errorf("SignMessage, context %s: error %v, want %v", c.name, err, c.want)
			} else {
				s.clean(t, "the error", err.Error())
			}
		})
		promptly(t, "HasKey", func() {
			if err := s.backend.HasKey(c.ctx, s.accounts[0]); err != nil && !errors.Is(err, c.want) {
				t.Errorf("HasKey, context %s: %v, want nil or %v", c.name, err, c.want)
			}
		})
		promptly(t, "Check", func() {
			if line, err := s.backend.Check(c.ctx); !errors.Is(err, c.want) && (err != nil || line == "") {
				t.Errorf("Check, context %s: %q, %v; want a line or %v", c.name, line, err, c.want)
			}
		})
	}
	if err := s.sign(t.Context(), 0, []byte("after the cancelled ones")); err != nil {
		t.Errorf("the backend did not survive a cancelled call: %v", err)
	}
}

func promptly(t *testing.T, what string, call func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	timeout := time.NewTimer(prompt)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		t.Fatalf("%s did not return within %v of its context's end", what, prompt)
	}
}

func (s *suite) close(t *testing.T) {
	for i := range 2 {
		if err := s.backend.Close(); err != nil {
			t.Errorf("Close, call %d: %v", i+1, err)
		}
	}
}
