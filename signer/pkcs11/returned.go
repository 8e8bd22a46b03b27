package pkcs11

import (
	"errors"
	"fmt"
	"strings"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
)

// CallError reports a PKCS #11 function that did not return CKR_OK.
type CallError struct {
	Function string // "C_Sign"
	Code     uint   // CK_RV
}

func (e *CallError) Error() string {
	text := p11.Error(e.Code).Error() // "pkcs11: 0xA0: CKR_PIN_INCORRECT"
	name := text[strings.LastIndexByte(text, ' ')+1:]
	if name == "" { // vendors have codes of their own
		name = fmt.Sprintf("0x%08X", e.Code)
	}
	return e.Function + ": " + name
}

// AwayError reports an opened token that cannot be reached: the device was removed or restarted, or the network is
// down. A goroutine looks for it, and the next call may succeed. After five minutes the error wraps signer.ErrUnusable.
type AwayError struct {
	Token string    // its label
	Since time.Time // when that was noticed
	Err   error     // the last error
	Given bool      // no longer looked for
}

func (e *AwayError) Error() string {
	if e.Given {
		return fmt.Sprintf("%v: PKCS #11 token %q has been away since %s: %v",
			signer.ErrUnusable, e.Token, e.Since.Format(time.RFC3339), e.Err)
	}
	return fmt.Sprintf("PKCS #11 token %q is away; searching for it: %v", e.Token, e.Err)
}

// Unwrap returns Err, and signer.ErrUnusable if Given.
func (e *AwayError) Unwrap() []error {
	if e.Given {
		return []error{signer.ErrUnusable, e.Err}
	}
	return []error{e.Err}
}

// call adds the name of the function that returned err.
func call(function string, err error) error {
	var code p11.Error
	if errors.As(err, &code) {
		return &CallError{Function: function, Code: uint(code)}
	}
	return err
}

// returned returns the CK_RV in err, CKR_OK when there is none.
func returned(err error) uint {
	var called *CallError
	if errors.As(err, &called) {
		return called.Code
	}
	var code p11.Error
	if errors.As(err, &code) {
		return uint(code)
	}
	return p11.CKR_OK
}

// meaning is what a return value means for the token.
type meaning int

const (
	vague      meaning = iota // nothing: check its health
	gone                      // the token or the session is gone
	stale                     // the handle of the key is not valid, or no longer
	unlicensed                // the user is not logged in, or the key requires a login of its own
	badPIN                    // the PIN is not accepted
	declined                  // this key may not sign, or a person declined
	unfit                     // the device cannot make such signatures
)

// judge returns the meaning of a return value. Unlisted ones, such as vendors' own, are vague.
func judge(err error) meaning {
	if errors.Is(err, errRestarted) {
		return gone
	}
	switch returned(err) {
	case p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_SLOT_ID_INVALID,
		p11.CKR_SESSION_CLOSED, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_CRYPTOKI_NOT_INITIALIZED:
		return gone
	case p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_KEY_CHANGED:
		return stale
	case p11.CKR_USER_NOT_LOGGED_IN:
		return unlicensed
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_LOCKED, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE, p11.CKR_PIN_EXPIRED,
		p11.CKR_PIN_TOO_WEAK, p11.CKR_NEW_PIN_MODE, p11.CKR_USER_PIN_NOT_INITIALIZED, p11.CKR_USER_TYPE_INVALID,
		p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11.CKR_USER_TOO_MANY_TYPES:
		return badPIN
	case p11.CKR_FUNCTION_REJECTED, p11.CKR_ACTION_PROHIBITED, p11.CKR_KEY_FUNCTION_NOT_PERMITTED,
		p11.CKR_KEY_TYPE_INCONSISTENT, p11.CKR_KEY_SIZE_RANGE:
		return declined
	case p11.CKR_MECHANISM_INVALID, p11.CKR_CURVE_NOT_SUPPORTED, p11.CKR_FUNCTION_NOT_SUPPORTED:
		return unfit
	}
	return vague
}
