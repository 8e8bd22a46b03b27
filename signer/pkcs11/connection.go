package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
)

// mostVague is how many vague errors in a row make a token count as gone although it is healthy.
const mostVague = 10

// errStaleKey: the token is healthy, but does not know the key handle.
var errStaleKey = errors.New("the token no longer knows the key by its handle")

// connection is a token from a login until that is lost. Each session belongs to one goroutine. The anchor session
// lists the keys, and keeps the login when all others have ended.
type connection struct {
	where   location
	module  *module
	epoch   uint64
	slot    uint
	info    p11.TokenInfo
	now     func() time.Time
	timing  timing
	signing sync.WaitGroup // the goroutines of the sessions that sign
	anchor  sync.WaitGroup // and that of the anchor, which ends last
	granted int            // sessions, not counting the anchor

	tasks  chan task
	wanted chan struct{} // a list of keys is requested
	ended  chan struct{} // closed when reason is set

	mu       sync.Mutex // guards what follows
	reason   error
	endedAt  time.Time
	vague    int // failures in a row
	list     *keyList
	listErr  error         // of the last attempt
	relisted chan struct{} // closed at the next attempt's end, and replaced
}

// task is done by the next free session. Its caller may have stopped waiting by then.
type task struct {
	do   func(s *session) error
	done chan error // has room for the answer
}

// start starts the goroutines of the sessions.
func (c *connection) start(anchor *session, sessions []*session) {
	c.granted = len(sessions)
	for _, s := range sessions {
		c.signing.Go(func() { c.serve(s) })
	}
	c.anchor.Go(func() { c.keepList(anchor) })
}

// end ends the connection for the first reason given.
func (c *connection) end(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == nil {
		c.reason, c.endedAt = reason, c.now()
		close(c.ended)
	}
}

// away returns the error of calls on an ended connection.
func (c *connection) away() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.reason, errClosed) {
		return errClosed
	}
	return &AwayError{Token: c.info.Label, Since: c.endedAt, Err: c.reason}
}

// ask runs do in a free session and returns its error, or ctx's as soon as ctx ends; do continues until the device
// answers.
func (c *connection) ask(ctx context.Context, do func(s *session) error) error {
	k := task{do: do, done: make(chan error, 1)}
	select {
	case c.tasks <- k:
	case <-c.ended:
		return c.away()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-k.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve does tasks with s until the connection ends.
func (c *connection) serve(s *session) {
	for {
		select {
		case <-c.ended:
			_ = s.close() // an error when the epoch has ended, and the session with it
			return
		case k := <-c.tasks:
			k.done <- c.interpret(s, k.do(s))
		}
	}
}

// interpret returns the error for the caller of a task that failed with err, and ends the connection if the token is
// gone.
func (c *connection) interpret(s *session, err error) error {
	if err == nil {
		c.mu.Lock()
		c.vague = 0
		c.mu.Unlock()
		return nil
	}
	means := judge(err)
	if means == gone {
		c.end(err)
		return c.away()
	}
	if health := s.health(); health != nil {
		c.end(err)
		return c.away()
	}
	if means == stale {
		return errStaleKey
	}
	// An operation may still be active in the session.
	_ = s.close()
	if opening := s.open(); opening != nil {
		c.end(opening)
		return c.away()
	}
	switch means {
	case unlicensed:
		return fmt.Errorf("%w: PKCS #11 token %q requires the PIN for every signature with this key "+
			"(CKA_ALWAYS_AUTHENTICATE), which Purser does not give", signer.ErrDeclined, c.info.Label)
	case badPIN:
		return fmt.Errorf("%w: PKCS #11 token %q: %w", signer.ErrUnusable, c.info.Label, err)
	case declined:
		return fmt.Errorf("%w: PKCS #11 token %q: %w", signer.ErrDeclined, c.info.Label, err)
	case unfit:
		return fmt.Errorf("%w: PKCS #11 token %q cannot make ECDSA signatures with secp256k1 keys "+
			"(is it in FIPS mode?): %w", signer.ErrUnusable, c.info.Label, err)
	}
	c.mu.Lock()
	c.vague++
	tooMany := c.vague >= mostVague
	c.mu.Unlock()
	if tooMany {
		c.end(err)
		return c.away()
	}
	return fmt.Errorf("PKCS #11 token %q: %w", c.info.Label, err)
}

// keepList lists the keys with the anchor session on request. When the connection ends, it logs out, unless another
// backend may use the same token: a login belongs to the process.
func (c *connection) keepList(anchor *session) {
	for {
		select {
		case <-c.ended:
			c.signing.Wait()
			if c.module.alone() {
				_ = anchor.do("C_Logout", func(lib cryptoki) error { return lib.Logout(anchor.handle) })
			}
			_ = anchor.close()
			return
		case <-c.wanted:
			begun := c.now()
			list, err := anchor.listKeys(c.where)
			if err != nil {
				c.end(err) // a failed search is only ended with its session
			}
			c.publish(list, err, begun)
		}
	}
}

func (c *connection) publish(list *keyList, err error, begun time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		list.at = c.now()
		list.took = list.at.Sub(begun)
		c.list = list
	}
	c.listErr = err
	close(c.relisted)
	c.relisted = make(chan struct{})
}

func (c *connection) keys() *keyList {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list
}

// refresh returns a newer list of keys than seen; concurrent callers share it.
func (c *connection) refresh(ctx context.Context, seen *keyList) (*keyList, error) {
	c.mu.Lock()
	list, done := c.list, c.relisted
	c.mu.Unlock()
	if list != seen {
		return list, nil
	}
	select {
	case c.wanted <- struct{}{}:
	default: // it is already requested
	}
	select {
	case <-done:
	case <-c.ended:
		return nil, c.away()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	list, err := c.list, c.listErr
	c.mu.Unlock()
	if err != nil {
		return nil, c.away()
	}
	return list, nil
}

// key looks account up. A missing key may be newer than the list, which is therefore read again, but not for every row
// of a file without keys.
func (c *connection) key(ctx context.Context, account [20]byte) (p11.ObjectHandle, *keyList, error) {
	list := c.keys()
	handle, ok := list.handles[account]
	if ok || c.now().Sub(list.at) < max(c.timing.relist, 10*list.took) {
		return handle, list, nil
	}
	list, err := c.refresh(ctx, list)
	if err != nil {
		return 0, nil, err
	}
	return list.handles[account], list, nil
}
