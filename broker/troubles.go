package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// DialError says that no connection to a broker could be made.
type DialError struct {
	Addr       string
	Advertised bool // not one of Options.Brokers: the brokers gave the address
	Err        error
}

func (e *DialError) Error() string {
	if e.Advertised && !outOfFiles(e.Err) {
		return fmt.Sprintf("cannot reach %s, which the brokers advertise: %v: check that broker, its advertised.listeners, "+
			"and DNS and firewalls on the way to it", e.Addr, e.Err)
	}
	return e.Err.Error()
}

func (e *DialError) Unwrap() error { return e.Err }

// outOfFiles reports that the process, or the machine, has no file descriptor left. Waiting does not help: what holds
// them is ours.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// unknownHost reports that DNS knows no such name (NXDOMAIN).
func unknownHost(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dials makes every failure of dial a *DialError, and remembers that file descriptors ran out: where the library puts
// several answers together, it says only "unknown".
func (c *Cluster) dials(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil {
			c.exhausted.Store(nil)
		}
		if err == nil || errors.Is(err, errClosedBroker) {
			return conn, err
		}
		err = &DialError{Addr: address, Advertised: !slices.Contains(c.brokers, address), Err: err}
		if outOfFiles(err) {
			c.exhausted.Store(&err)
		}
		return nil, err
	}
}

// why returns the cause of a failure where it is known better than the library says.
func (c *Cluster) why(err error) error {
	if cause := c.exhausted.Load(); cause != nil && (retriable(err) || isUnknown(err)) {
		return *cause
	}
	return c.explain(err)
}

// troubles are the operations that fail now and are tried again. However many there are and however long it lasts, the
// log has one warning when it begins, and one when all of them go on.
type troubles struct {
	log  *slog.Logger
	wait time.Duration // how long they are tried, for the log; 0: not said

	mu      sync.Mutex
	failing map[string]int // by operation: failures in a row
	told    bool
	began   time.Time // when the first of the present failures was noted; zero: nothing fails
}

// failed notes a failure of an operation that is about to be tried again. A single dropped connection, and a leader
// that has just moved, are ordinary: they are told of only when they last.
func (t *troubles) failed(operation string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failing == nil {
		t.failing = make(map[string]int)
	}
	t.failing[operation]++
	if t.began.IsZero() {
		t.began = time.Now() //nolint:forbidigo // only its monotonic reading is used
	}
	n, enough := t.failing[operation], 2
	switch {
	case errors.As(err, new(*DialError)), errors.As(err, new(*UnreachableError)):
		enough = 1
	case answered(err):
		enough = 4
	}
	if t.told || n < enough {
		t.log.Debug("a request to Kafka failed, trying again", "operation", operation, "tries", n, "error", err)
		return
	}
	t.told = true
	attrs := []any{"operation", operation, "error", err}
	if t.wait > 0 {
		attrs = append(attrs, "gives_up_after", t.wait)
	}
	t.log.Warn("Kafka cannot be reached or does not answer; trying again", attrs...)
}

// passed notes that an operation succeeded.
func (t *troubles) passed(operation string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failing, operation)
	if len(t.failing) > 0 {
		return
	}
	t.began = time.Time{}
	if t.told {
		t.told = false
		t.log.Warn("Kafka answers again; the run goes on")
	}
}

// lasting is how long something has been failing; 0: nothing is.
func (t *troubles) lasting() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.began.IsZero() {
		return 0
	}
	return time.Since(t.began) //nolint:forbidigo // only the monotonic reading is used
}

// dropped notes that an operation is not tried again. That says nothing of the broker.
func (t *troubles) dropped(operation string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failing, operation)
}
