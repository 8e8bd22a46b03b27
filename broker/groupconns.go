package broker

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// leaveTimeout is how long a connection that is made after a cut may last: long enough for a LeaveGroup request.
const leaveTimeout = 2 * time.Second

// groupConns dials the connections of one group membership and can close them all. The library waits for the response
// to a JoinGroup request for up to the rebalance timeout, and cannot be interrupted: closing its connections ends Run
// at once.
type groupConns struct {
	cluster *Cluster

	// probing: the latest attempt to join the group failed. The library asks the first broker of the list that accepts a
	// connection, again and again, even if it never answers. So while attempts fail, a broker has to answer a probe first.
	probing atomic.Bool
	isCut   context.Context // ends with cut
	end     context.CancelFunc

	mu    sync.Mutex
	conns map[*groupConn]struct{}
}

func newGroupConns(ctx context.Context, c *Cluster) *groupConns {
	isCut, end := context.WithCancel(context.WithoutCancel(ctx))
	return &groupConns{cluster: c, isCut: isCut, end: end, conns: make(map[*groupConn]struct{})}
}

func (g *groupConns) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if g.probing.Load() && g.isCut.Err() == nil {
		if err := g.probe(ctx, address); err != nil {
			return nil, err
		}
	}
	conn, err := g.cluster.dialer.DialFunc(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &groupConn{Conn: conn, group: g}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = struct{}{}
	if g.isCut.Err() != nil {
		c.timer = time.AfterFunc(leaveTimeout, c.cut)
	}
	return c, nil
}

// probe returns an error if a broker cannot be used. It is never one of the set-up, because another broker of the list
// may be usable.
func (g *groupConns) probe(ctx context.Context, broker string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.isCut, cancel)()
	_, err := g.cluster.probe(ctx, broker)
	switch {
	case err == nil:
		return nil
	case SetUp(err):
		err = errors.New(err.Error())
	}
	return &UnreachableError{Broker: broker, Err: err}
}

// cut closes all connections, and each later one after leaveTimeout.
func (g *groupConns) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.end()
	for c := range g.conns {
		c.cut()
	}
}

type groupConn struct {
	net.Conn
	group *groupConns
	timer *time.Timer // set before dialContext returns the connection
}

// cut closes the connection below. Reads and writes fail, and their caller calls Close.
func (c *groupConn) cut() { _ = c.Conn.Close() }

// Close implements net.Conn.
func (c *groupConn) Close() error {
	c.group.mu.Lock()
	delete(c.group.conns, c)
	if c.timer != nil {
		c.timer.Stop()
	}
	c.group.mu.Unlock()
	return c.Conn.Close()
}
