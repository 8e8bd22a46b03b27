package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// keyNamespace is the UUIDv5 namespace of all keys (RFC 9562 §5.5). It never changes: with another namespace a replay
// would derive other keys.
func keyNamespace() uuid.UUID {
	return uuid.UUID{
		0x6d, 0x1f, 0x0b, 0x52, 0x2a, 0x8e, 0x4c, 0x37, 0x9d, 0x63, 0x51, 0xe8, 0x07, 0xb4, 0xc9, 0x1e,
	}
}

// Keyring derives idempotency keys (rule "Derived keys"): the same operation on the same subject has the same key on
// another machine and after the ledger was lost.
type Keyring struct {
	APIHost  string // host and port of the API, lower case
	APIKeyID string // the API key's id; the partner keeps keys apart by it
}

// Create returns the key under which generation n of a row's customer is created.
func (k Keyring) Create(r Row, generation int) uuid.UUID {
	return k.CreateOf(r.Account.String(), r.ExternalID, generation)
}

// CreateOf is Create for an account that is given as Account.String has it.
func (k Keyring) CreateOf(account, externalID string, generation int) uuid.UUID {
	return k.derive(OpCreate, account+"\n"+externalID, generation)
}

// Submit returns the key under which a signature is submitted. Its subject contains the payload's digest and the
// customer: an HSM's signatures differ each time, and a key must never be used with two payloads, not even after the
// ledger with the first was lost.
func (k Keyring) Submit(customerID string, digest [sha256.Size]byte, generation int) uuid.UUID {
	return k.derive(OpSubmit, customerID+"\n"+hex.EncodeToString(digest[:]), generation)
}

// derive joins with line feeds, which none of the parts can hold.
func (k Keyring) derive(op Operation, subject string, generation int) uuid.UUID {
	name := strings.Join([]string{k.APIHost, k.APIKeyID, string(op), subject, strconv.Itoa(generation)}, "\n")
	return uuid.NewSHA1(keyNamespace(), []byte(name))
}
