package cmd

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// road is the network between consumers and a broker. It can be cut for one client, as by a firewall that drops its
// packets: connections stay and are accepted, nothing is answered, nobody hangs up. What was on its way when the road
// was cut arrives when it is healed, as what TCP sends again does.
type road struct {
	net.Listener
	to string

	mu      sync.Mutex
	cuts    map[string]chan struct{} // by client id; closed when the road is healed
	conns   map[net.Conn]struct{}
	ended   bool
	running sync.WaitGroup
}

// newRoad listens on an address, which the broker at the other address advertises as its own.
func newRoad(t *testing.T, on, to string) *road {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", on)
	if err != nil {
		t.Fatal(err)
	}
	r := &road{Listener: ln, to: to, cuts: map[string]chan struct{}{}, conns: map[net.Conn]struct{}{}}
	r.running.Go(r.accept)
	t.Cleanup(r.end)
	return r
}

// cut stops everything that a client sends and is sent, until heal.
func (r *road) cut(client string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cuts[client] = make(chan struct{})
}

func (r *road) heal(client string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if healed := r.cuts[client]; healed != nil {
		close(healed)
		delete(r.cuts, client)
	}
}

// pass waits while the road is cut for the client.
func (r *road) pass(client string) {
	r.mu.Lock()
	healed := r.cuts[client]
	r.mu.Unlock()
	if healed != nil {
		<-healed
	}
}

func (r *road) accept() {
	for {
		conn, err := r.Accept()
		if err != nil {
			return // closed
		}
		r.running.Go(func() { r.forward(conn) })
	}
}

// forward carries one connection until either side hangs up.
func (r *road) forward(from net.Conn) {
	if !r.keep(from) {
		return
	}
	defer r.drop(from)
	requests := bufio.NewReader(from)
	client, err := clientID(requests)
	if err != nil {
		return // hung up without a word
	}
	r.pass(client)
	to, err := net.Dial("tcp", r.to)
	if err != nil || !r.keep(to) {
		return
	}
	defer r.drop(to)
	var answers sync.WaitGroup
	answers.Go(func() {
		r.carry(client, from, to)
		// Which ends the other direction.
		from.Close()
	})
	r.carry(client, to, requests)
	to.Close()
	answers.Wait()
}

// carry copies until either end is closed. While the road is cut, that is not noticed either.
func (r *road) carry(client string, to io.Writer, from io.Reader) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		r.pass(client)
		if err != nil {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// clientID looks at the header of a connection's first request: its length, kind, version and number, and the name of
// the client.
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

// keep remembers a connection for end; false: it has ended.
func (r *road) keep(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		conn.Close()
		return false
	}
	r.conns[conn] = struct{}{}
	return true
}

func (r *road) drop(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
	conn.Close()
}

// end closes everything and waits until nobody is on the road.
func (r *road) end() {
	r.Close()
	r.mu.Lock()
	r.ended = true
	for client, healed := range r.cuts {
		close(healed)
		delete(r.cuts, client)
	}
	for conn := range r.conns {
		conn.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
}
