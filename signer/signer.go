// Package signer declares what Purser asks of whoever holds the customers' keys: one EIP-191 personal-message
// signature by one account. Backends live in packages of their own below this one and know nothing of each other; the
// commands keep the table of schemes and open one of them by its URI. Whatever a backend returns goes through Verified
// before anybody believes it, and every backend passes the suite in signertest.
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
	// the key of account. It blocks until there is a signature, an error, or ctx ends (then the error wraps ctx's); it may
	// be called by many goroutines and again for the same message, which need not give the same signature again. Backends
	// may return v as 0/1 or 27/28, any other value where they know none, and a high s: the wrapper Verified mends all
	// three. Errors wrap one of the sentinels below where they apply; any other error is transient. No error holds key
	// material, a PIN or a password.
	SignMessage(ctx context.Context, account common.Address, message []byte) (Signature, error)
}

// Backend is an opened signer.
type Backend interface {
	Signer
	// Check asks the backend for its health without signing anything: the answer is one line for the operator
	// ("keystore /keys: 1000 accounts"). An error says what to mend.
	Check(ctx context.Context) (string, error)
	// HasKey returns nil when the backend holds a usable key of account, without signing. Otherwise the error says why
	// not. It wraps ErrNoKey when the backend has no such key, or has it and cannot use it (a damaged file, a key object
	// that names no account); the text then holds that cause, as SignMessage's would. ErrDeclined, ErrMismatch and
	// ErrUnusable mean what they mean there; any other error means that the backend could not be asked.
	HasKey(ctx context.Context, account common.Address) error
	// Close releases sessions and key material, after waiting for what the backend itself still has under way. No call
	// may be made after it; closing twice is fine.
	Close() error
}

var (
	// ErrNoKey: the backend has no key of that account. The row fails; the run goes on.
	ErrNoKey = errors.New("signer has no key of this account")
	// ErrDeclined: the backend or a person refused to sign. The row fails; the run goes on.
	ErrDeclined = errors.New("signer declined")
	// ErrMismatch: the signature does not recover to the account. The row fails; several in a row halt the run.
	ErrMismatch = errors.New("signature does not recover to the account")
	// ErrUnusable: the backend is locked, absent or refuses our credentials. The run halts; trying again could lock a
	// device for good.
	ErrUnusable = errors.New("signer is unusable")
)

// Environment is what a backend may know of the process it is opened in.
type Environment struct {
	// Getenv reads the variables that a URI may point to (a PIN, say). Nil: there are none.
	Getenv func(string) string
	// Loopback says that the partner API is on a loopback address, that is, a sandbox. Signers made for trials refuse to
	// open without it.
	Loopback bool
	// InsecurePermissions allows files of passwords and keys that other users of the machine may use.
	InsecurePermissions bool
	// Warn is told of a possible misconfiguration that does not keep the backend from working (a file among the keys that
	// is not a key), in one line, when it is found: while opening or later, from any goroutine. It must not block. Nil:
	// warnings are dropped.
	Warn func(text string)
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Opener opens the backend that uri names. It reads what it must to be able to answer (a directory, a password file, a
// token's list of keys) and blocks while it does so; ctx bounds the opening, not the backend's life. A uri that does
// not fit is a *URIError; a backend that cannot be had wraps ErrUnusable.
type Opener func(ctx context.Context, uri string, env Environment) (Backend, error)
