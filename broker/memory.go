package broker

import (
	"context"
	"errors"
	"net"
	"sync"
)

// embeddedAddr is the embedded broker's address in its metadata. It is not resolved: the Cluster's dial function
// connects to the listener, whatever the address.
const embeddedAddr = "embedded:9092"

// memoryListener is a net.Listener whose connections are pipes inside the process, and those that a socket delivers.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It may be called more than once.
func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *memoryListener) Addr() net.Addr { return memoryAddr{} }

func (l *memoryListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	if err := l.deliver(ctx, theirs); err != nil {
		return nil, err
	}
	return ours, nil
}

// deliver has Accept return a connection.
func (l *memoryListener) deliver(ctx context.Context, c net.Conn) error {
	select {
	case l.conns <- c:
		return nil
	case <-l.done:
		return errClosedBroker
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosedBroker = errors.New("the embedded broker is closed")

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return embeddedAddr }
