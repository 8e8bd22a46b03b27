package broker

import (
	"context"
	"net"
	"sync"
	"time"
)

// farewell is how long a connection may last once a line is in a hurry: enough to leave the group.
const farewell = 2 * time.Second

// line dials the connections of one group membership and can cut them. The library waits for the answer to a JoinGroup
// as long as the group takes to agree, up to the rebalance timeout; who was told to stop cannot wait for that.
type line struct {
	dial func(context.Context, string, string) (net.Conn, error)

	mu      sync.Mutex
	conns   map[*lineConn]struct{}
	hurried bool
}

func newLine(dial func(context.Context, string, string) (net.Conn, error)) *line {
	return &line{dial: dial, conns: make(map[*lineConn]struct{})}
}

func (l *line) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &lineConn{Conn: conn, line: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = struct{}{}
	if l.hurried {
		c.timer = time.AfterFunc(farewell, c.cut)
	}
	return c, nil
}

// hurry cuts what is connected and gives later connections only time to say farewell.
func (l *line) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hurried = true
	for c := range l.conns {
		c.cut()
	}
}

type lineConn struct {
	net.Conn
	line  *line
	timer *time.Timer // set before the connection is handed out
}

// cut ends whatever waits for the connection; its owner learns of it there and closes it.
func (c *lineConn) cut() { _ = c.Conn.Close() }

// Close implements net.Conn.
func (c *lineConn) Close() error {
	c.line.mu.Lock()
	delete(c.line.conns, c)
	if c.timer != nil {
		c.timer.Stop()
	}
	c.line.mu.Unlock()
	return c.Conn.Close()
}
