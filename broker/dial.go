package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
)

// DialError reports that a broker could not be connected.
type DialError struct {
	Addr       string // host:port
	Advertised bool   // not in Options.Brokers: the brokers advertise the address
	Err        error
}

func (e *DialError) Error() string {
	if e.Advertised && !outOfFiles(e.Err) {
		return fmt.Sprintf("cannot reach %s, which the brokers advertise: %v: check that broker, its advertised.listeners, "+
			"DNS and firewalls", e.Addr, e.Err)
	}
	return e.Err.Error()
}

func (e *DialError) Unwrap() error { return e.Err }

// outOfFiles reports that this process, or the machine, has no file descriptor left. Retrying does not free any.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// unknownHost reports that DNS knows no such name (NXDOMAIN).
func unknownHost(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// wrapDial makes every failure of dial a *DialError, and remembers that file descriptors ran out: where the library
// merges several responses, it reports only "unknown".
func (c *Cluster) wrapDial(dial dialFunc) dialFunc {
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

// causeOf returns the cause of a failure where we know more about it than the library reports.
func (c *Cluster) causeOf(err error) error {
	if cause := c.exhausted.Load(); cause != nil && (retriable(err) || isUnknown(err)) {
		return *cause
	}
	return c.explain(err)
}
