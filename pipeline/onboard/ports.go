package onboard

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/signer"
)

// API is the partner's API; *client.Client implements it. Each call is one attempt, or two: it is repeated with a fresh
// token after a 401, and with a fresh signature after a signature error. It waits for the rate limiter, and blocks
// until a response, an error or the end of ctx. Errors are *client.Error, client.ErrStopped, or ctx's.
type API interface {
	CreateCustomer(ctx context.Context, key uuid.UUID, body []byte) (client.Customer, error)
	Customer(ctx context.Context, id string) (client.Customer, error)
	Challenge(ctx context.Context, id string) (string, error)
	SubmitSignature(ctx context.Context, id string, key uuid.UUID, body []byte) error
	// Customers streams the whole list; an error of yield stops it and is returned. took leaves out the waits for the
	// rate limiter.
	Customers(ctx context.Context, yield func(client.Customer) error) (took time.Duration, err error)
}

// Signer is the part of signer.Backend that the worker needs.
type Signer interface {
	signer.Signer
	// HasKey returns nil if the signer has the account's key, without signing; otherwise the error says why not.
	HasKey(ctx context.Context, account common.Address) error
}
