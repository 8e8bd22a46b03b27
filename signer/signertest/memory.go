package signertest

import (
	"context"
	"crypto/ecdsa"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/signer"
)

// Key returns test key i, the same each time: its bytes are the Keccak-256 of "purser signertest key" and i. It must
// never control anything of value.
func Key(i uint64) *ecdsa.PrivateKey {
	seed := binary.BigEndian.AppendUint64([]byte("purser signertest key"), i)
	key, err := crypto.ToECDSA(crypto.Keccak256(seed))
	if err != nil {
		panic(err) // one hash in 2^128 is no key; these are all known
	}
	return key
}

// Address is the account of key.
func Address(key *ecdsa.PrivateKey) common.Address { return crypto.PubkeyToAddress(key.PublicKey) }

// Memory is a backend for other packages' tests: keys in memory, and a hook to falsify signatures. Its v is 0 or 1.
type Memory struct {
	// Alter may change a signature before it is returned, or fail instead; nil changes nothing. Set it before the first
	// call.
	Alter func(account common.Address, sig *signer.Signature) error

	mu   sync.Mutex
	keys map[common.Address]*ecdsa.PrivateKey
	made int
}

// NewMemory opens a Memory with keys.
func NewMemory(keys ...*ecdsa.PrivateKey) *Memory {
	m := &Memory{keys: make(map[common.Address]*ecdsa.PrivateKey, len(keys))}
	for _, key := range keys {
		m.keys[Address(key)] = key
	}
	return m
}

// Add adds a key to the open backend.
func (m *Memory) Add(key *ecdsa.PrivateKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys[Address(key)] = key
}

// Made counts the signatures returned so far.
func (m *Memory) Made() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made
}

// SignMessage implements signer.Signer.
func (m *Memory) SignMessage(ctx context.Context, account common.Address, message []byte) (signer.Signature, error) {
	var sig signer.Signature
	if err := ctx.Err(); err != nil {
		return sig, err
	}
	m.mu.Lock()
	key := m.keys[account]
	m.mu.Unlock()
	if key == nil {
		return sig, noKey(account)
	}
	raw, err := crypto.Sign(signer.MessageHash(message).Bytes(), key)
	if err != nil {
		return sig, err
	}
	copy(sig[:], raw)
	if m.Alter != nil {
		if err := m.Alter(account, &sig); err != nil {
			return signer.Signature{}, err
		}
	}
	m.mu.Lock()
	m.made++
	m.mu.Unlock()
	return sig, nil
}

// Check implements signer.Backend.
func (m *Memory) Check(ctx context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("memory: %d accounts", len(m.keys)), ctx.Err()
}

// HasKey implements signer.Backend.
func (m *Memory) HasKey(ctx context.Context, account common.Address) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case m.keys[account] == nil:
		return noKey(account)
	}
	return nil
}

func noKey(account common.Address) error { return fmt.Errorf("%w: %v", signer.ErrNoKey, account) }

// Close implements signer.Backend: it forgets the keys.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = nil
	return nil
}
