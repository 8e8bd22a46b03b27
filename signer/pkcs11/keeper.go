package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/signer"
)

// keep is the goroutine that owns the login: it connects, connects again when the token was lost, and cleans up at
// Close. It sends the error of the first attempt, or nil, to opened.
func (t *Token) keep(opened chan<- error) {
	defer close(t.done)
	defer func() { clear(t.pin) }()
	epoch, err := t.module.acquire()
	if err != nil {
		opened <- fmt.Errorf("%w: PKCS #11 module %s: %w", signer.ErrUnusable, t.module.path, err)
		return
	}
	defer func() { t.closeErr = t.module.release() }()
	c, err := t.connect(epoch)
	if err != nil {
		if !errors.Is(err, signer.ErrUnusable) {
			err = fmt.Errorf("%w: PKCS #11 token%s: %w", signer.ErrUnusable, t.where.named(), err)
		}
		opened <- err
		return
	}
	for first := true; c != nil; first = false {
		t.mu.Lock()
		t.conn, t.last = c, nil
		t.mu.Unlock()
		if first {
			opened <- nil
		}
		select {
		case <-t.closing:
			c.end(errClosed)
			c.anchor.Wait()
			return
		case <-c.ended:
			// Also when Close was called meanwhile, the sessions are closed first.
			c.anchor.Wait()
			c = t.reconnect(c)
		}
	}
	<-t.closing
}

// reconnect looks for the token until it is found. It returns nil when the token was away too long, or at Close.
func (t *Token) reconnect(lost *connection) *connection {
	epoch, wait := lost.epoch, t.timing.firstWait
	for {
		var c *connection
		var err error
		if epoch, err = t.module.restart(epoch); err == nil {
			c, err = t.connect(epoch)
		}
		switch {
		case err == nil:
			return c
		case errors.Is(err, signer.ErrUnusable):
			t.halt(err)
			return nil
		case t.now().Sub(lost.endedAt) >= t.timing.patience:
			t.halt(&AwayError{Token: lost.info.Label, Since: lost.endedAt, Err: err, Given: true})
			return nil
		}
		t.mu.Lock()
		t.last = err
		t.mu.Unlock()
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-t.closing:
			pause.Stop()
			return nil
		}
		wait = min(2*wait, t.timing.mostWait)
	}
}

func (t *Token) halt(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.halted = err
}

// connection returns the current connection. It does not wait for a lost one: the row is tried again later.
func (t *Token) connection(ctx context.Context) (*connection, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-t.closing:
		return nil, errClosed
	default:
	}
	t.mu.Lock()
	c, halted, last := t.conn, t.halted, t.last
	t.mu.Unlock()
	if halted != nil {
		return nil, halted
	}
	select {
	case <-c.ended:
	default:
		return c, nil
	}
	err := c.away()
	var away *AwayError
	if errors.As(err, &away) {
		if last != nil {
			away.Err = last
		}
		// The keeper may be stuck in a call; the clock is not.
		away.Given = t.now().Sub(away.Since) >= t.timing.patience
	}
	return nil, err
}
