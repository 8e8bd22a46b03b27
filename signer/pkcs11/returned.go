package pkcs11

import (
	"errors"
	"fmt"
	"strings"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
)

// CallError is a PKCS #11 function that returned something else than CKR_OK.
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

// AwayError is a token that was there and is not at present: the device was pulled or restarted, the network is down.
// It is looked for in the background, and the next call may find it back. Once it has been away too long the error
// wraps signer.ErrUnusable.
type AwayError struct {
	Token string    // its label
	Since time.Time // when it was noticed
	Err   error     // what was noticed last
	Given bool      // given up
}

func (e *AwayError) Error() string {
	if e.Given {
		return fmt.Sprintf("%v: PKCS #11 token %q has been away since %s: %v",
			signer.ErrUnusable, e.Token, e.Since.Format(time.RFC3339), e.Err)
	}
	return fmt.Sprintf("PKCS #11 token %q is away and being looked for: %v", e.Token, e.Err)
}

// Unwrap gives Err, and signer.ErrUnusable when the token was given up.
func (e *AwayError) Unwrap() []error {
	if e.Given {
		return []error{signer.ErrUnusable, e.Err}
	}
	return []error{e.Err}
}

// call names the function that err came from.
func call(function string, err error) error {
	var code p11.Error
	if errors.As(err, &code) {
		return &CallError{Function: function, Code: uint(code)}
	}
	return err
}

// returned gives the CK_RV in err, CKR_OK when there is none.
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

// verdict is what a return value tells about the token.
type verdict int

const (
	vague      verdict = iota // it may be well: ask it
	gone                      // the token or the session is
	stale                     // the handle of the key is not, or no longer, one
	unlicensed                // nobody is logged in, or the key wants its own login
	refused                   // the PIN
	declined                  // this key may not sign, or a person said no
	unfit                     // the device cannot do what we need
)

// judge sorts return values. What is not listed is vague, vendors' own codes among them.
func judge(err error) verdict {
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
		return refused
	case p11.CKR_FUNCTION_REJECTED, p11.CKR_ACTION_PROHIBITED, p11.CKR_KEY_FUNCTION_NOT_PERMITTED,
		p11.CKR_KEY_TYPE_INCONSISTENT, p11.CKR_KEY_SIZE_RANGE:
		return declined
	case p11.CKR_MECHANISM_INVALID, p11.CKR_CURVE_NOT_SUPPORTED, p11.CKR_FUNCTION_NOT_SUPPORTED:
		return unfit
	}
	return vague
}
