// Package keystore signs with go-ethereum key files, a directory of version 3 files ("UTC--…"), all under one password.
//
// The directory is read once, when it is opened; a file's account is in its address field or else in its name. A key is
// decrypted when it is first needed, because the standard cost is more than a second and 256 MiB per key. It then stays
// in memory until Close. Two callers never decrypt the same key at once. A key that was added later is found when it is
// first requested.
package keystore

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
)

// Shape is how the URI looks. A relative directory is keystore:directory?…; both paths have percent-escapes undone.
const Shape = "keystore:///directory?password-file=/file"

// mostAtOnce bounds how many keys are decrypted at the same time: at the standard cost of 256 MiB each, 1 GiB.
const mostAtOnce = 4

var errClosed = fmt.Errorf("%w: the keystore is closed", signer.ErrUnusable)

// Keystore is an opened directory of key files; it implements signer.Backend.
//
// Its errors: ErrNoKey when no sound file holds the account's key (naming the damaged file, if one would), ErrUnusable
// when the directory is gone or the password does not open a file, ErrMismatch when a file holds another key than that
// of its account.
type Keystore struct {
	dir          string
	insecure     bool // files that other users may use are allowed
	passwordFile string
	exposed      bool // everybody on the machine may read the password file
	now          func() time.Time
	warn         func(string)
	decrypt      func(f *keyFile, password []byte) (*ecdsa.PrivateKey, error)

	passwords [][]byte      // the password's forms; unchanged until every unlocking has ended
	form      atomic.Int32  // the form that last opened a file: it is tried first
	slots     chan struct{} // one taken by each decryption under way
	closing   chan struct{}
	unlocking sync.WaitGroup
	looking   sync.Mutex // held while the directory is read
	warned    []string   // the strays in the last warning; guarded by looking

	mu     sync.RWMutex // guards what follows
	closed bool
	index  *index
	keys   map[common.Address]*ecdsa.PrivateKey
	opens  map[common.Address]*unlock
}

// Open opens the directory that uri names (see Shape); it is a signer.Opener. It reads the password file and every key
// file, but decrypts none. One newline at the password's end is dropped. A file is tried with the unchanged password,
// then, if it differs, with its Unicode form NFKC, which ethers and other programs use. Files that other users of the
// machine may use, and a directory that they may write to, are an error unless env.InsecurePermissions is set; then
// Check reports that everybody can read the password file.
func Open(ctx context.Context, uri string, env signer.Environment) (signer.Backend, error) {
	u, err := signer.ParseURI(uri, Shape, "password-file")
	if err != nil {
		return nil, err
	}
	if u.Scheme != "keystore" {
		return nil, &signer.URIError{Scheme: u.Scheme, Problem: "is not a keystore", Shape: Shape}
	}
	passwordFile := u.Params["password-file"]
	if passwordFile == "" {
		return nil, &signer.URIError{Scheme: u.Scheme, Problem: "has no password-file", Shape: Shape}
	}
	password, exposed, err := readPassword(passwordFile, env.InsecurePermissions)
	if err != nil {
		return nil, fmt.Errorf("%w: password-file %w", signer.ErrUnusable, err)
	}
	k := &Keystore{
		dir:          filepath.Clean(u.Path),
		insecure:     env.InsecurePermissions,
		passwordFile: passwordFile,
		exposed:      exposed,
		now:          env.Now,
		warn:         env.Warn,
		decrypt:      (*keyFile).decrypt,
		passwords:    forms(password),
		slots:        make(chan struct{}, min(runtime.GOMAXPROCS(0), mostAtOnce)),
		closing:      make(chan struct{}),
		keys:         map[common.Address]*ecdsa.PrivateKey{},
		opens:        map[common.Address]*unlock{},
	}
	if k.now == nil {
		k.now = time.Now
	}
	if k.warn == nil {
		k.warn = func(string) {}
	}
	x, err := k.look(ctx, nil)
	if err != nil {
		_ = k.Close() // wipes the password, and cannot fail
		return nil, err
	}
	if first, count := x.exposed(); first != nil {
		_ = k.Close()
		return nil, fmt.Errorf("%w: key files (%d): the first %w", signer.ErrUnusable, count, first)
	}
	return k, nil
}

// SignMessage implements signer.Signer. The first signature of an account waits for its key's decryption; if ctx ends
// first, the decryption continues and the key is kept for the next caller.
func (k *Keystore) SignMessage(ctx context.Context, account common.Address, message []byte) (signer.Signature, error) {
	if err := ctx.Err(); err != nil {
		return signer.Signature{}, err
	}
	hash := signer.MessageHash(message)
	sig, signed, err := k.sign(account, hash)
	if signed || err != nil {
		return sig, err
	}
	if err := k.unlock(ctx, account); err != nil {
		return signer.Signature{}, err
	}
	sig, signed, err = k.sign(account, hash)
	if err == nil && !signed {
		return signer.Signature{}, errClosed // only Close removes keys
	}
	return sig, err
}

// sign signs if the key is in memory. It holds the lock meanwhile, so that Close cannot wipe the key.
func (k *Keystore) sign(account common.Address, hash common.Hash) (sig signer.Signature, signed bool, err error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return sig, false, errClosed
	}
	key := k.keys[account]
	if key == nil {
		return sig, false, nil
	}
	raw, err := crypto.Sign(hash[:], key)
	if err != nil {
		return sig, false, fmt.Errorf("sign for %v: %w", account, err)
	}
	copy(sig[:], raw)
	return sig, true, nil
}

// locate returns the base name of account's key file, reading the directory again if it has changed.
func (k *Keystore) locate(ctx context.Context, account common.Address) (string, error) {
	k.mu.RLock()
	x := k.index
	k.mu.RUnlock()
	if name, ok := x.files[account]; ok {
		return name, nil
	}
	x, err := k.look(ctx, x)
	if err != nil {
		return "", err
	}
	if name, ok := x.files[account]; ok {
		return name, nil
	}
	if name, problem := x.brokenFile(account); problem != nil {
		return "", fmt.Errorf("%w: %v: %w", sentinel(problem), account, &FileError{filepath.Join(k.dir, name), problem})
	}
	err = fmt.Errorf("%w: %v: keystore %s has no file for it", signer.ErrNoKey, account, k.dir)
	if name, count := x.nameless(); count > 0 {
		err = fmt.Errorf("%w; damaged files of unknown account: %d, the first: %w", err, count,
			&FileError{filepath.Join(k.dir, name), x.findings[name].problem})
	}
	return "", err
}

// warnStrays warns of the files that look like key files and are not, unless they are those of the last warning.
func (k *Keystore) warnStrays(x *index) {
	if slices.Equal(x.strays, k.warned) {
		return
	}
	if k.warned = x.strays; len(x.strays) == 0 {
		return
	}
	name := x.strays[0]
	text := fmt.Sprintf("keystore %s: %s %v", shown(k.dir), shown(name), x.findings[name].problem)
	if more := len(x.strays) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more that %s)", more,
			printable.Plural(more, "is not a key file", "are not key files"))
	}
	k.warn(text)
}

// sentinel returns the sentinel for a file that cannot be used: a wrong mode is a fault of the set-up, damage one of
// the file.
func sentinel(problem error) error {
	var mode *secretfile.ModeError
	if errors.As(problem, &mode) {
		return signer.ErrUnusable
	}
	return signer.ErrNoKey
}

// look returns an up-to-date index. It always reads the directory if missed is nil. Otherwise it returns the index that
// replaced missed, if there is one, and does not read a directory that has not changed: a thousand rows without a key
// cost a thousand stats.
func (k *Keystore) look(ctx context.Context, missed *index) (*index, error) {
	k.looking.Lock()
	defer k.looking.Unlock()
	k.mu.RLock()
	before := k.index
	k.mu.RUnlock()
	if missed != nil {
		if before != missed {
			return before, nil
		}
		info, err := os.Stat(k.dir)
		if err != nil {
			return nil, fmt.Errorf("%w: keystore directory %s: %w", signer.ErrUnusable, k.dir, secretfile.Reason(err))
		}
		if before.stable && info.ModTime().Equal(before.modified) {
			return before, nil
		}
	}
	x, err := look(ctx, k.dir, k.insecure, before, k.now)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var mode *secretfile.ModeError
	if errors.As(err, &mode) { // its text names the directory
		return nil, fmt.Errorf("%w: keystore directory %w", signer.ErrUnusable, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: keystore directory %s: %w", signer.ErrUnusable, k.dir, secretfile.Reason(err))
	}
	k.mu.Lock()
	k.index = x
	k.mu.Unlock()
	k.warnStrays(x)
	return x, nil
}

// distrust makes the next look read every file again, because one of them has changed.
func (k *Keystore) distrust() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.index = &index{}
}

// HasKey implements signer.Backend: it returns nil if an undamaged file names account. Nothing is decrypted.
func (k *Keystore) HasKey(ctx context.Context, account common.Address) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k.mu.RLock()
	closed, unlocked := k.closed, k.keys[account] != nil
	k.mu.RUnlock()
	if closed {
		return errClosed
	}
	if unlocked {
		return nil
	}
	_, err := k.locate(ctx, account)
	return err
}

// Check implements signer.Backend: it reads the directory again, fails if a key file is damaged or there is none, and
// decrypts the first one to verify the password.
func (k *Keystore) Check(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	x, err := k.look(ctx, nil)
	if err != nil {
		return "", err
	}
	if len(x.broken) > 0 {
		name := x.broken[0]
		err := &FileError{filepath.Join(k.dir, name), x.findings[name].problem}
		if len(x.broken) > 1 {
			return "", fmt.Errorf("%w (and %d more like it)", err, len(x.broken)-1)
		}
		return "", err
	}
	if x.first == "" {
		return "", fmt.Errorf("%w: keystore directory %s holds no key file", signer.ErrUnusable, k.dir)
	}
	if err := k.unlock(ctx, x.findings[x.first].address); err != nil {
		return "", err
	}
	line := fmt.Sprintf("keystore %s: %s, the password opens the first", k.dir,
		printable.Count(len(x.files), "account", "accounts"))
	if x.twice > 0 {
		line += fmt.Sprintf("; files that repeat an account: %d", x.twice)
	}
	if x.other > 0 {
		line += fmt.Sprintf("; files that are not key files: %d", x.other)
	}
	if k.exposed {
		line += fmt.Sprintf("; everybody on this machine can read %s", k.passwordFile)
	}
	return line, nil
}

// Close implements signer.Backend. It waits for running decryptions, at most a few seconds, then overwrites keys and
// password in memory.
func (k *Keystore) Close() error {
	k.mu.Lock()
	if !k.closed {
		k.closed = true
		close(k.closing)
	}
	k.mu.Unlock()
	k.unlocking.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		wipe(key)
	}
	clear(k.keys)
	for _, password := range k.passwords {
		clear(password)
	}
	return nil
}
