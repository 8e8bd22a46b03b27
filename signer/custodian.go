package signer

import (
	"context"
	"errors"

	"github.com/ethereum/go-ethereum/common"
)

// Custodian is a Backend that may take minutes or hours over a signature, because a person may have to approve it. It
// is asked once under an id of ours and polled from then on; whoever polls may be another process than the one that
// asked.
//
// SignMessage of a Custodian makes up its own id from account and message, asks, and polls until ctx ends.
type Custodian interface {
	Backend

	// Request asks for a signature of message by account under externalID (at most 64 bytes of [0-9A-Za-z-], recorded
	// by the caller before the call). It may be called again with the same three arguments, after a crash or an error:
	// no second transaction is ever made for one externalID, and nil is returned when there is one already. After any
	// error but ErrNoKey, ErrDeclined and ErrUnusable the request may have been taken.
	Request(ctx context.Context, externalID string, account common.Address, message []byte) error

	// Poll asks once, without waiting, what became of the request. ErrPending: not decided yet. ErrUnknownRequest: there
	// is no transaction of that id. ErrDeclined: refused, failed or cancelled for good; its text says which.
	Poll(ctx context.Context, externalID string, account common.Address, message []byte) (Signature, error)

	// Cancel gives the request up, where the vendor allows it; nil also when it was decided or cancelled already.
	Cancel(ctx context.Context, externalID string) error
}

var (
	// ErrPending: the custodian has not decided yet.
	ErrPending = errors.New("signature is waiting for the custodian")
	// ErrUnknownRequest: the custodian knows no request of that id.
	ErrUnknownRequest = errors.New("custodian knows no such request")
)
