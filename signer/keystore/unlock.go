package keystore

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

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
		return nil, fmt.Errorf("%w: %v: key file %s is gone", signer.ErrNoKey, account, path)
	}
	if errors.Is(refusal(err), signer.ErrUnusable) {
		return nil, fmt.Errorf("%w: %w", signer.ErrUnusable, &FileError{path, err})
	}
	if err != nil { // not a missing key: it may well be readable the next time
		return nil, fmt.Errorf("unlock %v: %w", account, &FileError{path, err})
	}
	file, err := parseKeyFile(data)
	if err != nil {
		k.distrust()
		return nil, fmt.Errorf("%w: %v: %w", signer.ErrNoKey, account, &FileError{path, err})
	}
	key, err := k.decrypt(file, k.password)
	if errors.Is(err, errPassword) {
		return nil, fmt.Errorf("%w: key file %s: the password in password-file does not open it",
			signer.ErrUnusable, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v: %w", signer.ErrNoKey, account, &FileError{path, err})
	}
	if holds := crypto.PubkeyToAddress(key.PublicKey); holds != account {
		wipe(key)
		return nil, fmt.Errorf("%w %v: key file %s holds the key of %v", signer.ErrMismatch, account, path, holds)
	}
	return key, nil
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
