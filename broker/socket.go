package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/segmentio/kafka-go/protocol"
)

// socketName is the name of the socket in the embedded broker's directory.
const socketName = "broker.sock"

// longestSocketPath fits into sun_path on Linux (108 bytes with its end) and elsewhere (104).
const longestSocketPath = 103

// socket accepts connections of this user's other processes for the embedded broker. The directory has mode 0700 and
// the socket 0600, so no other user can connect.
type socket struct {
	ln     *net.UnixListener
	log    *slog.Logger
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	done   chan struct{} // closed when forward has returned; nil: it was not called
}

// listenSocket opens the socket in dir, which the caller has locked. Connections wait until forward is called.
func listenSocket(ctx context.Context, dir string, log *slog.Logger) (*socket, error) {
	path, release, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // by then its path may be another directory's
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	s := &socket{ln: ln, log: log}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return s, nil
}

// forward begins to hand connections to the broker's listener. A connection that cannot be accepted, because no file
// descriptor is left, is tried again.
func (s *socket) forward(to *memoryListener) {
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		delays := retryDelays()
		for {
			conn, err := s.ln.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
				s.log.Warn("the embedded broker cannot accept a connection; retrying", "error", err)
				sleepNext(s.ctx, delays)
				continue
			}
			delays = retryDelays()
			if err := to.deliver(s.ctx, &guardedConn{Conn: conn, log: s.log}); err != nil {
				_ = conn.Close()
			}
		}
	}()
}

// close accepts no more connections and waits for forward's goroutine.
func (s *socket) close() {
	s.cancel()
	_ = s.ln.Close()
	if s.done != nil {
		<-s.done
	}
}

// removeSocket removes the socket of this process, or of an earlier one that was killed, from a directory that the
// caller has locked. Anything but a socket stays.
func removeSocket(dir string) {
	path := filepath.Join(dir, socketName)
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		_ = os.Remove(path) // the next listenSocket reports what is still there
	}
}

// dialSocket connects to the process that has locked dir. *GoneError: no process accepts connections there.
func dialSocket(ctx context.Context, dir string, pid int) (net.Conn, error) {
	path, release, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
	for _, cause := range []error{fs.ErrNotExist, syscall.ECONNREFUSED, syscall.ENOTSOCK} {
		if errors.Is(err, cause) {
			return nil, &GoneError{Dir: dir, PID: pid, Err: err}
		}
	}
	return conn, err
}

// socketPath returns the path of the socket in dir, for a bind or connect before release is called. On Linux a path
// that is too long for a socket's address is replaced by one through a descriptor of the directory.
func socketPath(dir string) (path string, release func(), err error) {
	path = filepath.Join(dir, socketName)
	if len(path) <= longestSocketPath {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("the path %s is too long for a socket (maximum %d bytes)", path, longestSocketPath)
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), socketName), func() { _ = f.Close() }, nil
}

// mostOfRequest is the largest request that is read from the socket: the default of Kafka's socket.request.max.bytes.
const mostOfRequest = 100 << 20

// served reports whether requests of a kind are read from the socket: those of producers, topics and offsets. Group
// members are in the process of the broker.
func served(key protocol.ApiKey) bool {
	switch key {
	case protocol.Produce, protocol.Fetch, protocol.ListOffsets, protocol.Metadata, protocol.OffsetCommit,
		protocol.OffsetFetch, protocol.FindCoordinator, protocol.ApiVersions, protocol.CreateTopics,
		protocol.DescribeConfigs:
		return true
	}
	return false
}

// guardedConn lets only whole requests of a known kind and size through: the broker allocates whatever size it is told,
// and panics on a request that it does not know.
type guardedConn struct {
	net.Conn
	log     *slog.Logger
	header  [8]byte // size, API key, API version
	pending []byte  // what is left of header to be read
	left    int     // bytes of the request after header
}

// Read implements net.Conn.
func (c *guardedConn) Read(p []byte) (int, error) {
	if len(c.pending) == 0 && c.left == 0 {
		if _, err := io.ReadFull(c.Conn, c.header[:]); err != nil {
			return 0, err
		}
		size, key := binary.BigEndian.Uint32(c.header[:]), protocol.ApiKey(binary.BigEndian.Uint16(c.header[4:]))
		// Ten bytes are key, version, correlation id and the length of the client's id.
		if size < 10 || size > mostOfRequest || !served(key) {
			c.log.Warn("closed a connection to the embedded broker's socket: not a request of Purser")
			return 0, fmt.Errorf("request of %d bytes with API key %d", size, key)
		}
		c.pending, c.left = c.header[:], int(size)-4
	}
	if len(c.pending) > 0 {
		n := copy(p, c.pending)
		c.pending = c.pending[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}
