// Package insecurefile signs with unencrypted private keys in a CSV file. It is for tests and trials: it opens only
// while the partner API is on a loopback address, so that no such key ever signs for the real partner.
package insecurefile

import (
	"context"
	"crypto/ecdsa"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
)

// Shape is how the URI looks; an absolute path is insecure-file:/keys.csv.
const Shape = "insecure-file:keys.csv"

// File is an opened key file; it implements signer.Backend. All keys are in memory from Open to Close.
type File struct {
	path string

	mu     sync.RWMutex
	closed bool
	keys   map[common.Address]*ecdsa.PrivateKey
}

// Open reads the file that uri names (see Shape); it is a signer.Opener. Without env.Loopback it fails before it reads
// the file. The file must have no permission for group or others, unless env.InsecurePermissions is set, and begin with
// the header address,privateKey; a private key is 64 hex digits, with or without 0x, and must be that of the address in
// its line. The error for a bad line is a *LineError.
func Open(ctx context.Context, uri string, env signer.Environment) (signer.Backend, error) {
	u, err := signer.ParseURI(uri, Shape)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "insecure-file" {
		return nil, &signer.URIError{Scheme: u.Scheme, Problem: "is not an insecure-file", Shape: Shape}
	}
	if !env.Loopback {
		return nil, fmt.Errorf("%w: insecure-file is for trials: it signs only while the API is on a loopback address",
			signer.ErrUnusable)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	info, err := os.Stat(u.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: key file %s: %w", signer.ErrUnusable, u.Path, secretfile.Reason(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: key file %s is not a regular file", signer.ErrUnusable, u.Path)
	}
	f, err := os.Open(u.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: key file %s: %w", signer.ErrUnusable, u.Path, secretfile.Reason(err))
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil { // of the opened file: the name may have got another one
		return nil, fmt.Errorf("%w: key file %s: %w", signer.ErrUnusable, u.Path, secretfile.Reason(err))
	}
	if err := secretfile.CheckMode(u.Path, info, env.InsecurePermissions); err != nil {
		return nil, fmt.Errorf("%w: key file %w", signer.ErrUnusable, err)
	}
	keys, err := parse(u.Path, f)
	if err != nil {
		return nil, err
	}
	return &File{path: u.Path, keys: keys}, nil
}

// LineError reports an invalid line of the key file. It never quotes a field: if columns are swapped, any field may be
// a key.
type LineError struct {
	Path    string
	Line    int
	Problem string
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Problem) }

func parse(path string, r io.Reader) (_ map[common.Address]*ecdsa.PrivateKey, err error) {
	keys, lines := map[common.Address]*ecdsa.PrivateKey{}, map[common.Address]int{}
	defer func() {
		if err != nil {
			wipe(keys)
		}
	}()
	in := csv.NewReader(r)
	in.FieldsPerRecord = -1
	in.ReuseRecord = true
	for n := 0; ; n++ {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			if n == 0 {
				return nil, &LineError{path, 1, "the file is empty, want the header address,privateKey"}
			}
			return keys, nil
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			return nil, &LineError{path, bad.Line, bad.Err.Error()}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: key file %s: %w", signer.ErrUnusable, path, secretfile.Reason(err))
		}
		line, _ := in.FieldPos(0)
		if n == 0 {
			if len(record) != 2 || !strings.EqualFold(record[0], "address") || !strings.EqualFold(record[1], "privateKey") {
				return nil, &LineError{path, line, "the header is not address,privateKey"}
			}
			continue
		}
		if len(record) != 2 {
			return nil, &LineError{path, line, fmt.Sprintf("has %s, want address,privateKey",
				printable.Count(len(record), "field", "fields"))}
		}
		address, err := signer.ParseAddress(record[0])
		if err != nil {
			return nil, &LineError{path, line, "address " + err.Error()}
		}
		key, problem := parseKey(record[1])
		if problem != "" {
			return nil, &LineError{path, line, problem}
		}
		if holds := crypto.PubkeyToAddress(key.PublicKey); holds != address {
			return nil, &LineError{path, line, fmt.Sprintf("privateKey belongs to %v, not to %v", holds, address)}
		}
		if first, again := lines[address]; again {
			return nil, &LineError{path, line, fmt.Sprintf("%v is on line %d already", address, first)}
		}
		keys[address], lines[address] = key, line
	}
}

func parseKey(s string) (*ecdsa.PrivateKey, string) {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	defer clear(b)
	if err != nil || len(b) != 32 {
		return nil, "privateKey is not 64 hex digits"
	}
	key, err := crypto.ToECDSA(b)
	if err != nil {
		return nil, "privateKey is zero or not below the group order"
	}
	return key, ""
}

// SignMessage implements signer.Signer; v is 0 or 1.
func (f *File) SignMessage(ctx context.Context, account common.Address, message []byte) (signer.Signature, error) {
	var sig signer.Signature
	if err := ctx.Err(); err != nil {
		return sig, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock() // held while signing: Close must not wipe the key in between
	if f.closed {
		return sig, f.errClosed()
	}
	key := f.keys[account]
	if key == nil {
		return sig, f.noKey(account)
	}
	raw, err := crypto.Sign(signer.MessageHash(message).Bytes(), key)
	if err != nil {
		return sig, fmt.Errorf("sign for %v: %w", account, err)
	}
	copy(sig[:], raw)
	return sig, nil
}

// Check implements signer.Backend. A file without keys is an error.
func (f *File) Check(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return "", f.errClosed()
	}
	if len(f.keys) == 0 {
		return "", fmt.Errorf("%w: key file %s holds no key", signer.ErrUnusable, f.path)
	}
	return fmt.Sprintf("insecure-file %s: %s, for trials only", f.path,
		printable.Count(len(f.keys), "account", "accounts")), nil
}

// HasKey implements signer.Backend.
func (f *File) HasKey(ctx context.Context, account common.Address) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return f.errClosed()
	}
	if f.keys[account] == nil {
		return f.noKey(account)
	}
	return nil
}

func (f *File) noKey(account common.Address) error {
	return fmt.Errorf("%w: %v: %s has no line for it", signer.ErrNoKey, account, f.path)
}

// Close implements signer.Backend: it overwrites the keys in memory.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	wipe(f.keys)
	return nil
}

func (f *File) errClosed() error {
	return fmt.Errorf("%w: key file %s is closed", signer.ErrUnusable, f.path)
}

func wipe(keys map[common.Address]*ecdsa.PrivateKey) {
	for _, key := range keys {
		clear(key.D.Bits())
	}
	clear(keys)
}
