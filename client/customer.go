package client

import (
	"strings"
	"time"

	"github.com/purser-onboard/purser/printable"
)

// Status is a customer's state at the partner, as ParseStatus returns it.
type Status string

// The states of a customer, in the order of the partner's process.
const (
	StatusInitiating Status = "initiating" // created; the challenge is not verified yet
	StatusScreening  Status = "screening"
	StatusVerifying  Status = "verifying"
	StatusActive     Status = "active"
	StatusInactive   Status = "inactive"
	StatusRejected   Status = "rejected" // final
)

// ParseStatus returns the state that word names in any case. Another word is kept as it came, printable and clipped to
// 80 bytes, and quoted where it would look like a state then: it is unknown, and an unknown state is never a success.
func ParseStatus(word string) Status {
	if s, ok := knownStatus(word); ok {
		return s
	}
	shown := printable.Line(word, mostCode)
	if _, ok := knownStatus(strings.TrimSpace(shown)); ok {
		shown = printable.Quote(word, mostCode-len(`""…`)) // a state and spaces: nothing in it is escaped
	}
	return Status(shown)
}

func knownStatus(word string) (Status, bool) {
	for _, s := range [...]Status{StatusInitiating, StatusScreening, StatusVerifying, StatusActive, StatusInactive,
		StatusRejected} {
		// Of the same length, so that no letter from beyond ASCII is folded into one of a state's.
		if len(word) == len(s) && strings.EqualFold(word, string(s)) {
			return s, true
		}
	}
	return "", false
}

// Known reports whether the partner documents this state.
func (s Status) Known() bool { return s == StatusInitiating || s == StatusRejected || s.Past() }

// Past reports whether a customer in this state has proved that it owns the account.
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
	// Challenge is the sign-in message in base64; only the answer to a creation holds it.
	Challenge string `json:"challenge,omitempty"`
}
