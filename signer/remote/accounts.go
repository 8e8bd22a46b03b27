package remote

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// apart is the least time between two reads of the list because of missing accounts: thousands of rows without a key
// must not read it thousands of times. A key that was just added may be missing that long.
const apart = 10 * time.Second

// Accounts caches a signer's list of accounts, each with what is needed to sign with it, and reads the list again when
// an account is missing. It may be used by many goroutines; those that wait share one read.
type Accounts[T any] struct {
	load func(context.Context) (map[common.Address]T, error)
	now  func() time.Time
	turn chan struct{} // holds one token while the list is being read

	mu    sync.Mutex // guards what follows
	known map[common.Address]T
	asked time.Time // when known was asked for
	tries int       // reads that ended, also with an error, unless the caller's context had ended
	err   error     // how the last of them ended
}

// NewAccounts returns an Accounts that has read nothing yet. load returns a new map each time. A nil now is time.Now.
func NewAccounts[T any](
	load func(context.Context) (map[common.Address]T, error), now func() time.Time,
) *Accounts[T] {
	if now == nil {
		now = time.Now
	}
	return &Accounts[T]{load: load, now: now, turn: make(chan struct{}, 1)}
}

// Find returns what is needed to sign with account, and whether the signer has it. For an account that is not in the
// list, the list is read again if it is older than ten seconds.
func (a *Accounts[T]) Find(ctx context.Context, account common.Address) (T, bool, error) {
	if err := ctx.Err(); err != nil {
		var none T
		return none, false, err
	}
	a.mu.Lock()
	value, ok := a.known[account]
	tries := a.tries
	age := a.now().Sub(a.asked)
	fresh := a.known != nil && age >= 0 && age < apart
	a.mu.Unlock()
	if ok || fresh {
		return value, ok, nil
	}
	if err := a.read(ctx, tries); err != nil {
		return value, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	value, ok = a.known[account]
	return value, ok, nil
}

// Read reads the list whatever its age, and returns the number of accounts in it.
func (a *Accounts[T]) Read(ctx context.Context) (int, error) {
	a.mu.Lock()
	tries := a.tries
	a.mu.Unlock()
	if err := a.read(ctx, tries); err != nil {
		return 0, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.known), nil
}

// Forget removes an account that the signer no longer has from the list.
func (a *Accounts[T]) Forget(account common.Address) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.known, account)
}

// read reads the list, unless another caller has done so since tries was seen; then it returns that caller's error.
func (a *Accounts[T]) read(ctx context.Context, seen int) error {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for the list of accounts: %w", ctx.Err())
	}
	a.mu.Lock()
	if a.tries > seen {
		defer a.mu.Unlock()
		return a.err
	}
	a.mu.Unlock()
	asked := a.now()
	known, err := a.load(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		return err // concerns this caller only
	}
	a.tries, a.err = a.tries+1, err
	if err == nil {
		a.known, a.asked = known, asked
	}
	return err
}
