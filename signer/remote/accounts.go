package remote

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// apart is the least time between two readings of a list for the sake of a missing account: thousands of rows without a
// key must not cost thousands of lists, and a key that was just added may wait that long.
const apart = 10 * time.Second

// Accounts remembers the accounts that a signer said it has, each with what is needed to ask for it, and reads the list
// again when one is missing. It may be used by many goroutines; one of them reads at a time, for all who wait.
type Accounts[T any] struct {
	load func(context.Context) (map[common.Address]T, error)
	now  func() time.Time
	turn chan struct{} // holds one token while the list is being read

	mu    sync.Mutex // guards what follows
	known map[common.Address]T
	asked time.Time // when known was asked for
	tries int       // readings that ended, well or badly, but for those whose caller left
	err   error     // how the last of them ended
}

// NewAccounts makes an Accounts that has read nothing yet. load gives a new map each time. A nil now is time.Now.
func NewAccounts[T any](
	load func(context.Context) (map[common.Address]T, error), now func() time.Time,
) *Accounts[T] {
	if now == nil {
		now = time.Now
	}
	return &Accounts[T]{load: load, now: now, turn: make(chan struct{}, 1)}
}

// Find gives what is known of account, and whether the signer has it. For an account that is not in the list, the list
// is read again if it is older than ten seconds.
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

// Read reads the list whatever its age, and gives the number of accounts in it.
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

// Forget drops one account from the list: the signer said that it does not have it any more.
func (a *Accounts[T]) Forget(account common.Address) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.known, account)
}

// read reads the list, unless somebody else has since the caller saw seen tries; then his outcome is the caller's too.
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
		return err // says nothing to the others
	}
	a.tries, a.err = a.tries+1, err
	if err == nil {
		a.known, a.asked = known, asked
	}
	return err
}
