package pkcs11

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// A PIN is given to the token byte for byte, in one form: a second form would be a second wrong PIN. The NFKC of this
// one is right.
func TestPINIsTriedInOneForm(t *testing.T) {
	d := withKeys(t, keys(1)...)
	b := newBench(t, d)
	b.pin = strings.Replace(devicePIN, "s", "\u017f", 1)
	if _, err := b.try("token=purser", ""); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("error %v, want ErrUnusable", err)
	}
	if n := d.count("C_Login"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

// Whatever says that the PIN is not right, it is said once: not even another Open of the same process tries again.
func TestPINIsNeverTriedTwice(t *testing.T) {
	for _, code := range []p11.Error{
		p11.CKR_PIN_INCORRECT, p11.CKR_PIN_LOCKED, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE,
		p11.CKR_USER_PIN_NOT_INITIALIZED, p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11.CKR_ARGUMENTS_BAD,
	} {
		t.Run(code.Error(), func(t *testing.T) {
			d := withKeys(t, keys(1)...)
			d.before = func(function string, _ p11.SessionHandle) error {
				if function == "C_Login" {
					return code
				}
				return nil
			}
			b := newBench(t, d)
			for range 3 {
				_, err := b.try("token=purser", "")
				if !errors.Is(err, signer.ErrUnusable) {
					t.Fatalf("error %v, want ErrUnusable", err)
				}
				if !errors.As(err, new(*signer.LockoutError)) {
					t.Errorf("got error %v, want a LockoutError", err)
				}
				if strings.Contains(err.Error(), devicePIN) {
					t.Errorf("got error %q, want none of the PIN in it", err)
				}
				if !strings.Contains(err.Error(), "C_Login: CKR_") {
					t.Errorf("got error %q, want the token's C_Login: CKR_…", err)
				}
			}
			if n := d.count("C_Login"); n != 1 {
				t.Errorf("%d logins, want 1", n)
			}
			if d.up {
				t.Error("got an initialised module, want it finalised")
			}
		})
	}
}

func TestPINAboutToLockIsNotTried(t *testing.T) {
	for flag, text := range map[uint]string{
		p11.CKF_USER_PIN_FINAL_TRY: "one more wrong PIN locks it", p11.CKF_USER_PIN_LOCKED: "has its PIN locked",
	} {
		d := withKeys(t, keys(1)...)
		d.slots[7].info.Flags |= flag
		_, err := newBench(t, d).try("token=purser", "")
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), text) ||
			!errors.As(err, new(*signer.LockoutError)) {
			t.Errorf("error %v, want ErrUnusable and a LockoutError that says %q", err, text)
		}
		if n := d.count("C_Login"); n != 0 {
			t.Errorf("%d logins, want none", n)
		}
	}
}

// A login that was accepted and yet left the session a public one finds no keys, and no error either.
func TestLoginIsVerified(t *testing.T) {
	d := withKeys(t, keys(1)...)
	d.before = func(function string, _ p11.SessionHandle) error {
		if function == "C_GetSessionInfo" {
			d.change(func() { d.slots[7].user = false })
		}
		return nil
	}
	_, err := newBench(t, d).try("token=purser", "")
	if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "not the logged-in user's") {
		t.Errorf("got error %v, want ErrUnusable with the session's state", err)
	}
}

// The PIN was changed while the token was away.
func TestLoginRefusedOnReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withKeys(t, keys(1)...)
		token := newBench(t, d).open()
		d.change(func() { d.slots[7].absent, d.slots[7].pin = true, "another" })
		if err := sign(t, token, signertest.Key(0)); errors.Is(err, signer.ErrUnusable) {
			t.Fatal(err)
		}
		d.change(func() { d.slots[7].absent = false })
		time.Sleep(time.Hour)
		if err := sign(t, token, signertest.Key(0)); !errors.Is(err, signer.ErrUnusable) ||
			!errors.As(err, new(*signer.LockoutError)) || !strings.Contains(err.Error(), "does not accept the PIN") {
			t.Errorf("got error %v, want ErrUnusable and a LockoutError because of the PIN", err)
		}
		if n := d.count("C_Login"); n != 2 {
			t.Errorf("got %d logins, want 2: a successful one and a failed one", n)
		}
	})
}

// A login that fails without saying why is repeated twice and no more.
func TestUnclearLoginIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withKeys(t, keys(1)...)
		token := newBench(t, d).open()
		d.set(func(function string, _ p11.SessionHandle) error {
			switch function {
			case "C_Sign":
				return p11.Error(p11.CKR_DEVICE_REMOVED)
			case "C_Login":
				return p11.Error(p11.CKR_GENERAL_ERROR)
			}
			return nil
		})
		_ = sign(t, token, signertest.Key(0))
		time.Sleep(time.Hour)
		if err := sign(t, token, signertest.Key(0)); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("error %v, want ErrUnusable", err)
		}
		if n := d.count("C_Login"); n != 1+mostUnclear {
			t.Errorf("%d logins, want %d", n, 1+mostUnclear)
		}
	})
}
