package client

import (
	"strings"
	"time"

	"github.com/purser-onboard/purser/printable"
)

// Status is a customer's status at the partner, as ParseStatus returns it.
type Status string

// The documented statuses, in the order of the partner's process.
const (
	StatusInitiating Status = "initiating" // created; the challenge is not verified yet
	StatusScreening  Status = "screening"
	StatusVerifying  Status = "verifying"
	StatusActive     Status = "active"
	StatusInactive   Status = "inactive"
	StatusRejected   Status = "rejected" // final
)

// ParseStatus returns the documented status that word is, in any case. Another word is unknown, and never a success: it
// is made printable, cut to 80 bytes, and quoted if it would look like a documented status then.
func ParseStatus(word string) Status {
	if s, ok := knownStatus(word); ok {
		return s
	}
	shown := printable.Line(word, mostCode)
	if _, ok := knownStatus(strings.TrimSpace(shown)); ok {
		shown = printable.Quote(word, mostCode-len(`""…`)) // a status and spaces: nothing in it is escaped
	}
	return Status(shown)
}

func knownStatus(word string) (Status, bool) {
	for _, s := range [...]Status{StatusInitiating, StatusScreening, StatusVerifying, StatusActive, StatusInactive,
		StatusRejected} {
		// Of the same length, because EqualFold takes some letters outside of ASCII for letters of a status.
		if len(word) == len(s) && strings.EqualFold(word, string(s)) {
			return s, true
		}
	}
	return "", false
}

// Known reports whether the partner documents this status.
func (s Status) Known() bool { return s == StatusInitiating || s == StatusRejected || s.Past() }

// Past reports whether a customer in this status has proved that it owns the account.
func (s Status) Past() bool {
	switch s {
	case StatusScreening, StatusVerifying, StatusActive, StatusInactive:
		return true
	}
	return false
}

// Customer is a customer as the partner shows it.
type Customer struct {
	ID         string    `json:"id"`         // a UUID
	ChainID    string    `json:"chainId"`    // a CAIP-10 account id
	ExternalID string    `json:"externalId"` // the customer's id in our user's system
	Status     Status    `json:"status"`     // may be unknown, and empty where the answer has none
	CreatedAt  time.Time `json:"createdAt"`
	UpdatedAt  time.Time `json:"updatedAt"`
	// Challenge is the sign-in message in base64; only the answer to a creation has it.
	Challenge string `json:"challenge,omitempty"`
}
