package broker

import (
	"context"
	"net"
	"sync"
	"time"
)

// leaveTimeout is how long a connection that is made after a cut may last: long enough for a LeaveGroup request.
const leaveTimeout = 2 * time.Second

// groupConns dials the connections of one group membership and can close them all. The library waits for the response
// to a JoinGroup request for up to the rebalance timeout, and cannot be interrupted: closing its connections ends Run
// at once.
type groupConns struct {
	dial dialFunc

	mu    sync.Mutex
	conns map[*groupConn]struct{}
	isCut bool
}

func newGroupConns(dial dialFunc) *groupConns {
	return &groupConns{dial: dial, conns: make(map[*groupConn]struct{})}
}

func (g *groupConns) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := g.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &groupConn{Conn: conn, group: g}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = struct{}{}
	if g.isCut {
		c.timer = time.AfterFunc(leaveTimeout, c.cut)
	}
	return c, nil
}

// cut closes all connections, and each later one after leaveTimeout.
func (g *groupConns) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isCut = true
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
