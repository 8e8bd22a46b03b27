package cmd

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// network is a proxy between consumers and a broker. It can be cut for one client, as by a firewall that drops packets:
// connections stay open and are accepted, but carry no bytes. Bytes that were in flight when it was cut arrive when it
// is healed, as retransmitted ones do.
type network struct {
	net.Listener
	to string

	mu      sync.Mutex
	cuts    map[string]chan struct{} // by client id; closed when the network is healed
	conns   map[net.Conn]struct{}
	ended   bool
	running sync.WaitGroup
}

// newNetwork listens on one address and forwards to the broker at the other, which advertises the first as its own.
func newNetwork(t *testing.T, on, to string) *network {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", on)
	if err != nil {
		t.Fatal(err)
	}
	n := &network{Listener: ln, to: to, cuts: map[string]chan struct{}{}, conns: map[net.Conn]struct{}{}}
	n.running.Go(n.accept)
	t.Cleanup(n.end)
	return n
}

// cut holds all bytes to and from a client until heal.
func (n *network) cut(client string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[client] = make(chan struct{})
}

func (n *network) heal(client string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if healed := n.cuts[client]; healed != nil {
		close(healed)
		delete(n.cuts, client)
	}
}

// pass waits while the network is cut for the client.
func (n *network) pass(client string) {
	n.mu.Lock()
	healed := n.cuts[client]
	n.mu.Unlock()
	if healed != nil {
		<-healed
	}
}

func (n *network) accept() {
	for {
		conn, err := n.Accept()
		if err != nil {
			return // closed
		}
		n.running.Go(func() { n.forward(conn) })
	}
}

// forward carries one connection until either side closes it.
func (n *network) forward(from net.Conn) {
	if !n.keep(from) {
		return
	}
	defer n.drop(from)
	requests := bufio.NewReader(from)
	client, err := clientID(requests)
	if err != nil {
		return // closed without a request
	}
	n.pass(client)
	to, err := net.Dial("tcp", n.to)
	if err != nil || !n.keep(to) {
		return
	}
	defer n.drop(to)
	var answers sync.WaitGroup
	answers.Go(func() {
		n.carry(client, from, to)
		_ = from.Close() // ends the other direction
	})
	n.carry(client, to, requests)
	to.Close()
	answers.Wait()
}

// carry copies until either end is closed. While the network is cut, a closed end is not noticed either.
func (n *network) carry(client string, to io.Writer, from io.Reader) {
	buffer := make([]byte, 64<<10)
	for {
		read, err := from.Read(buffer)
		n.pass(client)
		if err != nil {
			return
		}
		if _, err := to.Write(buffer[:read]); err != nil {
			return
		}
	}
}

// clientID reads the client id from the header of a connection's first request, behind its length, kind, version and
// number.
func clientID(requests *bufio.Reader) (string, error) {
	const at = 4 + 2 + 2 + 4
	head, err := requests.Peek(at + 2)
	if err != nil {
		return "", err
	}
	n := int(int16(binary.BigEndian.Uint16(head[at:])))
	head, err = requests.Peek(at + 2 + max(n, 0))
	if err != nil {
		return "", err
	}
	return string(head[at+2:]), nil
}

// keep notes a connection that end has to close. After end it closes the connection and returns false.
func (n *network) keep(conn net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		conn.Close()
		return false
	}
	n.conns[conn] = struct{}{}
	return true
}

func (n *network) drop(conn net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, conn)
	conn.Close()
}

// end closes all connections and waits for their goroutines.
func (n *network) end() {
	n.Close()
	n.mu.Lock()
	n.ended = true
	for client, healed := range n.cuts {
		close(healed)
		delete(n.cuts, client)
	}
	for conn := range n.conns {
		conn.Close()
	}
	n.mu.Unlock()
	n.running.Wait()
}
