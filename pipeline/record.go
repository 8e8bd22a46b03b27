package pipeline

import (
	"crypto/sha256"
	"time"

	"github.com/google/uuid"
)

// Operation names a request that carries an idempotency key.
type Operation string

// The two operations that change something at the partner.
const (
	OpCreate Operation = "create" // POST /customers
	OpSubmit Operation = "submit" // POST /customers/{id}/challenge/sign
)

// KeyState is the state of the requests sent under an idempotency key.
type KeyState string

const (
	// KeyOpen: no answer was received yet; the partner may or may not have acted.
	KeyOpen KeyState = "open"
	// KeyHeard: one response that settles nothing (5xx) was received. It may come from a gateway while an earlier request
	// is still in flight.
	KeyHeard KeyState = "heard"
	// KeyAnswered: responses that settle nothing were received (two 5xx with no silence between them, or a 422): they are
	// stored under the key, and the generation may go up.
	KeyAnswered KeyState = "answered"
	// KeyRefused: the payload must not be sent again: the partner did not accept the signature (400), or its encoding is
	// no longer used.
	KeyRefused KeyState = "refused"
	// KeySettled: the operation is known to have happened, or never to happen under this key.
	KeySettled KeyState = "settled"
)

// Key is an idempotency key in the ledger.
type Key struct {
	Operation  Operation
	Generation int // 0 for the first
	ID         uuid.UUID
	Digest     [sha256.Size]byte // SHA-256 of the payload; the payload of one key never changes
	FirstSent  time.Time         // when it was recorded, just before the first send
	LastSent   time.Time         // when the latest send was recorded
	Outcome    KeyState
}

// Record is the ledger's state of a row. The worker computes the next Record; the ledger stores it by compare-and-set
// on (ID, Version).
type Record struct {
	Row // as its latest import stated it
	// FirstFile and FirstLine are the row's place in its first import that this ledger knows: the ledger topic has only
	// the latest place.
	FirstFile string
	FirstLine int

	ID      int64 // the ledger's own number, 0 before it is stored
	Version int64 // grows by one with every stored change
	Stage   Stage

	CustomerID    string // the partner's id; empty until known
	PartnerStatus string // the partner's status as last seen; empty until seen

	Challenge   string    // the challenge's text, decoded; empty when it must be fetched
	ChallengeAt time.Time // when it was received
	// Nonce is the challenge's nonce, set only in the update that records that the challenge has passed the policy. The
	// ledger stores it separately.
	Nonce string

	ExternalTxID string // a custodian's transaction id, recorded before the custodian is asked
	Signature    string // 65 bytes as 0x hex, v 27 or 28; recorded before it is sent
	Refusals     int    // signatures that the partner did not accept (rule "Fresh challenge")

	CreateKey Key // zero until the first creation is recorded
	SubmitKey Key // zero until the first submission is recorded; replaced with each new signature

	Attempts         int  // of the present operation that settled nothing
	AlreadyOnboarded bool // onboarded because the customer was found past initiating

	Class  string // machine-readable kind if the row ended badly, "no-key", "invalid", …; else empty
	Reason string // one line for the operator; no secrets

	Dismissed bool // an operator has dealt with the row, which ended badly; the next change of the row ends this

	AcceptedAt time.Time
	UpdatedAt  time.Time
}

// IsZero reports whether no key was recorded yet.
func (k Key) IsZero() bool { return k.FirstSent.IsZero() }
