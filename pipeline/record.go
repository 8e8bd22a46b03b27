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

// KeyState is what is known of the requests sent under an idempotency key.
type KeyState string

const (
	// KeyOpen: no answer was received yet; the partner may or may not have acted.
	KeyOpen KeyState = "open"
	// KeyHeard: one answer was received that settles nothing (the partner's 5xx). It may be a gateway's, while an earlier
	// request is still under way.
	KeyHeard KeyState = "heard"
	// KeyAnswered: answers were received that settle nothing (twice a 5xx without a silence between them, 422): they are
	// stored under the key, and the generation may go up.
	KeyAnswered KeyState = "answered"
	// KeyRefused: what was sent under it is not to be sent again: the partner did not accept the signature (400), or it
	// is in an encoding that is not used any more.
	KeyRefused KeyState = "refused"
	// KeySettled: the operation is known to have happened, or never to happen under this key.
	KeySettled KeyState = "settled"
)

// Key is an idempotency key as the ledger keeps it.
type Key struct {
	Operation  Operation
	Generation int // 0 for the first
	ID         uuid.UUID
	Digest     [sha256.Size]byte // SHA-256 of the payload; the payload of one key never changes
	FirstSent  time.Time         // when it was recorded, just before the first send
	LastSent   time.Time         // when the latest send was recorded
	Outcome    KeyState
}

// Record is all that the ledger knows of a row. The worker computes the next Record; the ledger stores it by
// compare-and-set on (ID, Version).
type Record struct {
	Row // as its latest import stated it
	// FirstFile and FirstLine are where its first import had it, as far as this ledger knows: the ledger topic has the
	// latest place only.
	FirstFile string
	FirstLine int

	ID      int64 // the ledger's own number, 0 before it is stored
	Version int64 // grows by one with every stored change
	Stage   Stage

	CustomerID    string // the partner's id; empty until known
	PartnerStatus string // the partner's status as last seen; empty until seen

	Challenge   string    // the challenge's text, decoded; empty when it must be fetched
	ChallengeAt time.Time // when it was received
	// Nonce is the challenge's, in the update that records that it has passed the policy; empty in all others. The ledger
	// keeps it apart from the record.
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
