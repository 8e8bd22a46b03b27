// Package signer is the interface to the holder of the customers' keys, which creates EIP-191 personal-message
// signatures. Each backend is a package below this one and imports no other backend; the commands map URI schemes to
// backends. Verified checks every signature that a backend returns, and every backend passes the suite in signertest.
package signer

import (
	"context"
	"errors"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Signature is r || s || v, v being 27 or 28 once it has passed through Verified.
type Signature = [65]byte

// Signer signs personal messages (EIP-191, version 0x45 'E').
type Signer interface {
	// SignMessage signs message, to which it adds the prefix "\x19Ethereum Signed Message:\n" and the length itself, with
	// the key of account. It blocks until there is a signature, an error, or ctx ends (then the error wraps ctx's). It may
	// be called by many goroutines, and repeatedly for the same message; the signatures need not be equal. Backends may
	// return v as 0/1 or 27/28, any other value where they know none, and a high s: Verified normalises all three. Errors
	// wrap one of the sentinels below where they apply; any other error is transient. No error holds key material, a PIN
	// or a password.
	SignMessage(ctx context.Context, account common.Address, message []byte) (Signature, error)
}

// Backend is an opened signer.
type Backend interface {
	Signer
	// Check verifies, without signing, that the backend works, and returns one line for the operator ("keystore /keys:
	// 1000 accounts"). An error says what to fix.
	Check(ctx context.Context) (string, error)
	// HasKey returns nil if the backend has a usable key of account; it does not sign. Otherwise the error says why not.
	// It wraps ErrNoKey if the backend has no such key, or cannot use it (a damaged file, a key object that names no
	// account); the text then contains that cause, as SignMessage's would. ErrDeclined, ErrMismatch and ErrUnusable have
	// the same meaning as for SignMessage; any other error means that the backend could not be asked.
	HasKey(ctx context.Context, account common.Address) error
	// Close waits for the backend's background work, then releases sessions and key material. No other method may be
	// called after it; Close may be called twice.
	Close() error
}

var (
	// ErrNoKey: the backend has no key for that account. The row fails; the run continues.
	ErrNoKey = errors.New("signer has no key of this account")
	// ErrDeclined: the backend, or a person who approves its signatures, declined to sign. The row fails; the run
	// continues.
	ErrDeclined = errors.New("signer declined")
	// ErrMismatch: the signature does not recover to the account. The row fails; several in a row halt the run.
	ErrMismatch = errors.New("signature does not recover to the account")
	// ErrUnusable: the backend is locked, absent or does not accept our credentials. The run halts, because a retry could
	// lock a device permanently.
	ErrUnusable = errors.New("signer is unusable")
)

// LockoutError is an ErrUnusable that another attempt with the same credential may make worse: a device locks after
// some wrong PINs, permanently or until its security officer unlocks it. A run ends with an exit code that schedulers
// do not retry.
type LockoutError struct{ Err error }

func (e *LockoutError) Error() string { return e.Err.Error() }

func (e *LockoutError) Unwrap() error { return e.Err }

// Environment is passed to a backend by the process that opens it.
type Environment struct {
	// Getenv reads the variables that a URI may point to (a PIN, say). Nil: there are none.
	Getenv func(string) string
	// Loopback: the partner API is on a loopback address, that is, a sandbox. Signers for trials do not open without it.
	Loopback bool
	// InsecurePermissions allows files of passwords and keys that other users of the machine may use.
	InsecurePermissions bool
	// Warn receives, as one line, a possible misconfiguration that does not stop the backend from working (a file among
	// the keys that is not a key). It is called while opening or later, from any goroutine, and must not block. Nil:
	// warnings are dropped.
	Warn func(text string)
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Opener opens the backend that uri names. It blocks while it reads what it needs (a directory, a password file, a
// token's list of keys); ctx bounds the opening, not the backend's lifetime. The error is a *URIError for a malformed
// uri, and wraps ErrUnusable if the backend cannot be opened.
type Opener func(ctx context.Context, uri string, env Environment) (Backend, error)
