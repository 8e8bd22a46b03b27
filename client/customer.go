package client

import "time"

// Status is a customer's state at the partner. Values not listed here are kept as they came.
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

// Customer is a customer as the partner shows it.
type Customer struct {
	ID         string    `json:"id"`         // a UUID
	ChainID    string    `json:"chainId"`    // a CAIP-10 account id
	ExternalID string    `json:"externalId"` // the customer's id in our user's system
	Status     Status    `json:"status"`
	CreatedAt  time.Time `json:"createdAt"`
	UpdatedAt  time.Time `json:"updatedAt"`
	// Challenge is the sign-in message in base64; only the answer to a creation holds it.
	Challenge string `json:"challenge,omitempty"`
}
