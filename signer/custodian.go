package signer

import (
	"context"
	"errors"

	"github.com/ethereum/go-ethereum/common"
)

// Custodian is a Backend that may take minutes or hours for a signature, because a person may have to approve it. A
// signature is requested once, under an id that we choose, and then polled, possibly by another process.
//
// SignMessage of a Custodian derives the id from account and message, requests the signature, and polls until ctx ends.
type Custodian interface {
	Backend

	// Request requests a signature of message by account under externalID (at most 64 bytes of [0-9A-Za-z-], recorded by
	// the caller before the call). It may be called again with the same three arguments, after a crash or an error: there
	// is never a second transaction for one externalID, and nil is returned if there is one already. After any error
	// except ErrNoKey, ErrDeclined and ErrUnusable the request may have been accepted.
	Request(ctx context.Context, externalID string, account common.Address, message []byte) error

	// Poll reads the state of the request once, without waiting. ErrPending: not decided yet. ErrUnknownRequest: there is
	// no transaction with that id. ErrDeclined: it was declined, failed or was cancelled permanently; the text says which.
	Poll(ctx context.Context, externalID string, account common.Address, message []byte) (Signature, error)

	// Cancel cancels the request, if the vendor allows that. It also returns nil if the request was already decided or
	// cancelled.
	Cancel(ctx context.Context, externalID string) error
}

var (
	// ErrPending: the custodian has not decided yet.
	ErrPending = errors.New("signature is waiting for the custodian")
	// ErrUnknownRequest: the custodian knows no request of that id.
	ErrUnknownRequest = errors.New("custodian knows no such request")
)
