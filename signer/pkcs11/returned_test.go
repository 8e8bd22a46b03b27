package pkcs11

import (
	"errors"
	"sync/atomic"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

func TestErrorsOfSigning(t *testing.T) {
	for _, c := range []struct {
		code p11.Error
		want error
	}{
		{p11.CKR_FUNCTION_REJECTED, signer.ErrDeclined},
		{p11.CKR_KEY_FUNCTION_NOT_PERMITTED, signer.ErrDeclined},
		{p11.CKR_MECHANISM_INVALID, signer.ErrUnusable},
		{p11.CKR_CURVE_NOT_SUPPORTED, signer.ErrUnusable},
		{p11.CKR_PIN_EXPIRED, signer.ErrUnusable},
		{p11.CKR_USER_NOT_LOGGED_IN, signer.ErrDeclined}, // although logged in: the key wants the PIN every time
		{p11.CKR_DEVICE_ERROR, nil},
		{p11.CKR_FUNCTION_FAILED, nil},
		{0x80000042, nil},
	} {
		d := withKeys(t, keys(1)...)
		token := newBench(t, d).open()
		for _, function := range []string{"C_SignInit", "C_Sign"} {
			var failed atomic.Bool
			d.set(func(f string, _ p11.SessionHandle) error {
				if f == function && failed.CompareAndSwap(false, true) {
					return c.code
				}
				return nil
			})
			err := sign(t, token, signertest.Key(0))
			for _, sentinel := range []error{signer.ErrDeclined, signer.ErrUnusable, signer.ErrNoKey, signer.ErrMismatch} {
				if errors.Is(err, sentinel) != errors.Is(c.want, sentinel) {
					t.Errorf("%v from %s: got error %v, want %v", c.code, function, err, c.want)
				}
			}
			if err == nil {
				t.Errorf("%v from %s: got no error, want one", c.code, function)
			}
			// An operation that was left open does no harm to those after it.
			for range 8 {
				if err := sign(t, token, signertest.Key(0)); err != nil {
					t.Errorf("after %v from %s: got error %v, want none", c.code, function, err)
				}
			}
		}
		if n := d.count("C_Initialize"); n != 1 {
			t.Errorf("%v: the module was initialised %d times, want once", c.code, n)
		}
	}
}

// After several vague errors in a row from a token that seems healthy, the module is restarted.
func TestVagueErrorsInARow(t *testing.T) {
	d := withKeys(t, keys(1)...)
	b := newBench(t, d)
	b.modules.timing = &shortly
	token := b.open()
	d.set(func(function string, _ p11.SessionHandle) error {
		if function == "C_Sign" && d.count("C_Initialize") == 1 {
			return p11.Error(p11.CKR_DEVICE_ERROR)
		}
		return nil
	})
	for range mostVague {
		if err := sign(t, token, signertest.Key(0)); err == nil || errors.Is(err, signer.ErrUnusable) {
			t.Fatalf("error %v, want a transient one", err)
		}
	}
	for sign(t, token, signertest.Key(0)) != nil { // until the keeper has it back
	}
	if n := d.count("C_Initialize"); n != 2 {
		t.Errorf("the module was initialised %d times, want 2", n)
	}
}

func TestWrongLength(t *testing.T) {
	d := withKeys(t, keys(1)...)
	b := newBench(t, d)
	b.modules.load = func(string) cryptoki { return der{d} }
	if err := sign(t, b.open(), signertest.Key(0)); !errors.Is(err, signer.ErrMismatch) {
		t.Errorf("error %v, want ErrMismatch", err)
	}
}

// der is a device that gives DER.
type der struct{ *device }

func (d der) Sign(handle p11.SessionHandle, digest []byte) ([]byte, error) {
	sig, err := d.device.Sign(handle, digest)
	return append(sig, 1, 2, 3, 4, 5, 6), err
}
