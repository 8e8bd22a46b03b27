package pkcs11

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

func TestConformance(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		return newBench(t, withKeys(t, keys...)).open()
	})
}

// A token that is pulled and put back: calls fail with a transient error meanwhile, never with a missing key, and find
// it again with one more login.
func TestTokenGoesAwayAndComesBack(t *testing.T) {
	for name, silent := range map[string]bool{"says so": false, "finds nothing without a word": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := withKeys(t, keys(3)...)
				d.slots[7].silent = silent
				token := newBench(t, d).open()
				if err := sign(t, token, signertest.Key(0)); err != nil {
					t.Fatal(err)
				}
				d.change(func() { d.slots[7].absent = true })
				for i := range 8 {
					err := sign(t, token, signertest.Key(uint64(i%3)))
					var away *AwayError
					if !errors.As(err, &away) || errors.Is(err, signer.ErrUnusable) || errors.Is(err, signer.ErrNoKey) {
						t.Fatalf("call %d while it is away: got error %v, want an *AwayError and no sentinel", i, err)
					}
					if away.Token != "purser" {
						t.Errorf("the error names token %q, want purser", away.Token)
					}
					time.Sleep(10 * time.Second)
				}
				if err := token.HasKey(t.Context(), addressOf(0)); err == nil {
					t.Error("HasKey while the token is away: got no error, want one")
				}
				if _, err := token.Check(t.Context()); err == nil {
					t.Error("Check while the token is away: got no error, want one")
				}
				d.change(func() { d.slots[7].absent = false })
				time.Sleep(15 * time.Second) // the longest pause between two attempts
				synctest.Wait()
				for i := range 3 {
					if err := sign(t, token, signertest.Key(uint64(i))); err != nil {
						t.Errorf("after it is back: got error %v, want none", err)
					}
				}
				if n := d.count("C_Login"); n != 2 {
					t.Errorf("%d logins, want 2", n)
				}
				if n := d.count("C_Initialize"); n > 16 {
					t.Errorf("the module was initialised %d times in 95 s, want at most 16", n)
				}
				if err := token.Close(); err != nil || d.up || len(d.sessions) > 0 {
					t.Errorf("Close: got error %v, initialised %v, %d sessions; want none, false, 0", err, d.up, len(d.sessions))
				}
			})
		})
	}
}

// A missing key makes us look for it; a token that is gone then must not turn into rows without keys.
func TestAwayTokenIsNoMissingKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withKeys(t, keys(2)...)
		d.slots[7].silent = true
		token := newBench(t, d).open()
		d.change(func() { d.slots[7].absent = true })
		time.Sleep(time.Minute)
		err := sign(t, token, signertest.Key(99))
		var away *AwayError
		if !errors.As(err, &away) || errors.Is(err, signer.ErrNoKey) {
			t.Errorf("error %v, want an AwayError", err)
		}
	})
}

func TestTokenAwayForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withKeys(t, keys(1)...)
		token := newBench(t, d).open()
		d.change(func() { d.slots[7].absent = true })
		begun := time.Now()
		for {
			err := sign(t, token, signertest.Key(0))
			if errors.Is(err, signer.ErrUnusable) {
				var away *AwayError
				if !errors.As(err, &away) || !away.Given || !strings.Contains(err.Error(), "has been away since") {
					t.Errorf("got error %v, want an *AwayError that is Given", err)
				}
				break
			}
			if time.Since(begun) > time.Hour {
				t.Fatalf("got error %v after an hour, want ErrUnusable", err)
			}
			time.Sleep(time.Second)
		}
		if waited := time.Since(begun); waited < 5*time.Minute || waited > 6*time.Minute {
			t.Errorf("given up after %v, want 5m", waited)
		}
		time.Sleep(time.Hour)
		attempts := d.count("C_Initialize")
		d.change(func() { d.slots[7].absent = false })
		time.Sleep(time.Hour)
		if n := d.count("C_Initialize"); n != attempts {
			t.Errorf("got %d more attempts after the token was given up, want 0", n-attempts)
		}
		if err := sign(t, token, signertest.Key(0)); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("error %v, want it to stay ErrUnusable", err)
		}
		if err := token.Close(); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	})
}

// A call that the device does not answer blocks its session only; Close does not wait for it without limit.
func TestStuckCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withKeys(t, keys(1)...)
		token := newBench(t, d).open()
		stuck := make(chan struct{})
		var first atomic.Bool
		d.set(func(function string, _ p11.SessionHandle) error {
			if function == "C_Sign" && first.CompareAndSwap(false, true) {
				<-stuck
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := token.SignMessage(ctx, addressOf(0), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v, want the context's", err)
		}
		for range 20 {
			if err := sign(t, token, signertest.Key(0)); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		if err := token.Close(); err == nil || time.Since(begun) != 10*time.Second {
			t.Errorf("Close of a stuck token: %v after %v, want an error after 10s", err, time.Since(begun))
		}
		if !d.up {
			t.Error("the module was finalised during a call, want it initialised")
		}
		close(stuck)
		if err := token.Close(); err != nil || d.up || len(d.sessions) > 0 {
			t.Errorf("Close: got error %v, initialised %v, %d sessions; want none, false, 0", err, d.up, len(d.sessions))
		}
		if _, err := token.SignMessage(t.Context(), addressOf(0), nil); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("signing after Close: got error %v, want ErrUnusable", err)
		}
	})
}

// A token that is gone while calls to it are stuck: the keeper must wait for them, and ErrUnusable comes all the same.
func TestStuckDeviceIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withKeys(t, keys(1)...)
		token := newBench(t, d).open()
		stuck := make(chan struct{})
		var n atomic.Int32
		d.set(func(function string, _ p11.SessionHandle) error {
			if function != "C_Sign" {
				return nil
			}
			if n.Add(1) == 4 { // three of four sessions are stuck by then
				return p11.Error(p11.CKR_DEVICE_REMOVED)
			}
			<-stuck
			return nil
		})
		var all sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 8 {
			all.Go(func() { _, _ = token.SignMessage(ctx, addressOf(0), nil) })
		}
		all.Wait()
		if err := sign(t, token, signertest.Key(0)); err == nil || errors.Is(err, signer.ErrUnusable) {
			t.Errorf("error %v, want a transient one", err)
		}
		time.Sleep(5 * time.Minute)
		if err := sign(t, token, signertest.Key(0)); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("error %v, want ErrUnusable", err)
		}
		close(stuck)
		synctest.Wait()
	})
}

func TestOpenOfStuckDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withKeys(t, keys(1)...)
		stuck := make(chan struct{})
		d.before = func(function string, _ p11.SessionHandle) error {
			if function == "C_Login" {
				<-stuck
			}
			return nil
		}
		b := newBench(t, d)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		env := signer.Environment{Getenv: func(string) string { return devicePIN }}
		_, err := b.modules.Open(ctx, "pkcs11:?module-path="+b.path, env)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		close(stuck)
		synctest.Wait()
		if d.up || len(d.sessions) > 0 {
			t.Errorf("after the abandoned Open: got initialised %v and %d sessions, want false and 0", d.up, len(d.sessions))
		}
	})
}

// The device fails the test when a session has two users or is finalised during a call; here it is given every chance.
func TestOneOwnerPerSession(t *testing.T) {
	d := withKeys(t, keys(4)...)
	b := newBench(t, d)
	b.modules.timing = &shortly
	token := b.open()
	var n atomic.Int64
	d.set(func(function string, _ p11.SessionHandle) error {
		if function != "C_Sign" && function != "C_SignInit" {
			return nil
		}
		switch n.Add(1) % 97 {
		case 13:
			return p11.Error(p11.CKR_DEVICE_REMOVED)
		case 29:
			return p11.Error(p11.CKR_GENERAL_ERROR)
		case 43:
			return p11.Error(p11.CKR_SESSION_HANDLE_INVALID)
		}
		return nil
	})
	var all sync.WaitGroup
	var signed atomic.Int64
	for g := range 16 {
		all.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if (g+i)%7 == 0 {
					cancel() // sometimes before, sometimes, see below, in the middle
				}
				if (g+i)%11 == 0 {
					all.Go(cancel)
				}
				key := signertest.Key(uint64((g + i) % 4))
				_, err := signer.Verified(token).SignMessage(ctx, signertest.Address(key), fmt.Append(nil, i))
				cancel()
				switch {
				case err == nil:
					signed.Add(1)
				case errors.Is(err, signer.ErrNoKey), errors.Is(err, signer.ErrMismatch), errors.Is(err, signer.ErrUnusable),
					errors.Is(err, signer.ErrDeclined):
					t.Errorf("got error %v, want none", err)
				}
			}
		})
	}
	all.Wait()
	if signed.Load() == 0 {
		t.Error("got 0 signatures, want some")
	}
	if err := token.Close(); err != nil || d.up {
		t.Errorf("Close: got error %v, initialised %v; want none, false", err, d.up)
	}
}
