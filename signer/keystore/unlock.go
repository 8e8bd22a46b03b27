package keystore

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"golang.org/x/text/unicode/norm"

	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
)

// unlock is the decryption of one key, which any number of callers may wait for.
type unlock struct {
	done chan struct{} // closed when err is set
	err  error
}

// unlock brings account's key into memory.
func (k *Keystore) unlock(ctx context.Context, account common.Address) error {
	name, err := k.locate(ctx, account)
	if err != nil {
		return err
	}
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return errClosed
	}
	if k.keys[account] != nil {
		k.mu.Unlock()
		return nil
	}
	u := k.opens[account]
	if u == nil {
		u = &unlock{done: make(chan struct{})}
		k.opens[account] = u
		k.unlocking.Go(func() { k.open(u, account, name) })
	}
	k.mu.Unlock()
	select {
	case <-u.done:
		return u.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keystore) open(u *unlock, account common.Address, name string) {
	defer close(u.done)
	key, err := k.load(account, name)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.opens, account)
	if err == nil {
		k.keys[account] = key
	}
	u.err = err
}

func (k *Keystore) load(account common.Address, name string) (*ecdsa.PrivateKey, error) {
	select {
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	case <-k.closing:
		return nil, errClosed
	}
	path := filepath.Join(k.dir, name)
	data, err := readFile(path, k.insecure)
	if errors.Is(err, fs.ErrNotExist) {
		k.distrust()
		return nil, fmt.Errorf("%w: %v: key file %s is gone", signer.ErrNoKey, account, shown(path))
	}
	if errors.Is(sentinel(err), signer.ErrUnusable) {
		return nil, fmt.Errorf("%w: %w", signer.ErrUnusable, &FileError{path, err})
	}
	if err != nil { // not ErrNoKey: it may be readable the next time
		return nil, fmt.Errorf("unlock %v: %w", account, &FileError{path, err})
	}
	file, err := parseKeyFile(data)
	if err != nil {
		k.distrust()
		return nil, fmt.Errorf("%w: %v: %w", signer.ErrNoKey, account, &FileError{path, err})
	}
	key, err := k.tryPasswords(file)
	if errors.Is(err, errPassword) {
		how := ""
		if len(k.passwords) > 1 {
			how = ", neither unchanged nor in NFKC"
		}
		return nil, fmt.Errorf("%w: key file %s: the password in password-file does not open it%s",
			signer.ErrUnusable, shown(path), how)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v: %w", signer.ErrNoKey, account, &FileError{path, err})
	}
	if holds := crypto.PubkeyToAddress(key.PublicKey); holds != account {
		wipe(key)
		return nil, fmt.Errorf("%w %v: key file %s holds the key of %v", signer.ErrMismatch, account, shown(path), holds)
	}
	return key, nil
}

// tryPasswords decrypts file with the form of the password that has opened a file last, then with the others.
func (k *Keystore) tryPasswords(file *keyFile) (key *ecdsa.PrivateKey, err error) {
	first := int(k.form.Load())
	for i := range k.passwords {
		form := (first + i) % len(k.passwords)
		key, err = k.decrypt(file, k.passwords[form])
		if err == nil {
			k.form.Store(int32(form))
		}
		if !errors.Is(err, errPassword) {
			break
		}
	}
	return key, err
}

// forms returns the password in the forms that programs use: go-ethereum as it was typed, ethers in NFKC (Unicode
// Standard Annex #15).
func forms(password []byte) [][]byte {
	if normal := norm.NFKC.Bytes(password); !bytes.Equal(normal, password) {
		return [][]byte{password, normal}
	}
	return [][]byte{password}
}

func wipe(key *ecdsa.PrivateKey) { clear(key.D.Bits()) }

func readPassword(path string, insecure bool) (password []byte, exposed bool, err error) {
	content, exposed, err := secretfile.Read(path, 4<<10, insecure)
	if err != nil {
		return nil, false, err
	}
	password, err = secretfile.Line(content)
	if err != nil {
		clear(content)
		return nil, false, err
	}
	return password, exposed, nil
}
