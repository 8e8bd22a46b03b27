package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// socket speaks JSON over a Unix socket as go-ethereum's IPC does: a value for each request and one for each answer, on
// a stream without frames. A connection carries one exchange at a time, so that each answer belongs to the last
// request.
type socket struct {
	dial func(ctx context.Context) (net.Conn, error)

	mu     sync.Mutex // guards what follows
	free   []*line
	closed bool
}

// line is one connection.
type line struct {
	net.Conn
	bound *io.LimitedReader // what may still be read of the current answer
	in    *json.Decoder     // reads from bound
	used  bool              // has carried an exchange before
}

func newSocket(path string) *socket {
	dialer := &net.Dialer{Timeout: dialing}
	return &socket{dial: func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }}
}

var errStale = errors.New("the connection was closed while it was idle")

func (s *socket) exchange(ctx context.Context, request []byte, limit int64) ([]byte, error) {
	for {
		l, err := s.take(ctx)
		if err != nil {
			return nil, err
		}
		answer, err := l.exchange(ctx, request, limit)
		if err == nil {
			s.put(l)
			return answer, nil
		}
		_ = l.Close()
		if !errors.Is(err, errStale) || ctx.Err() != nil {
			return nil, err
		}
	}
}

// take returns a kept connection or makes one.
func (s *socket) take(ctx context.Context) (*line, error) {
	s.mu.Lock()
	if n := len(s.free); n > 0 {
		l := s.free[n-1]
		s.free = s.free[:n-1]
		s.mu.Unlock()
		return l, nil
	}
	s.mu.Unlock()
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	l := &line{Conn: conn, bound: &io.LimitedReader{R: conn}}
	l.in = json.NewDecoder(l.bound)
	return l, nil
}

func (s *socket) put(l *line) {
	l.used = true
	// Anything after the answer was not requested, and would be taken for the next answer.
	if rest, _ := io.ReadAll(l.in.Buffered()); strings.TrimSpace(string(rest)) != "" {
		_ = l.Close()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.free) >= mostIdle {
		_ = l.Close()
		return
	}
	s.free = append(s.free, l)
}

func (l *line) exchange(ctx context.Context, request []byte, limit int64) (answer []byte, err error) {
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err() // the deadline may still be set: the connection cannot be used again
		}
	}()
	if _, err := l.Write(request); err != nil {
		return nil, l.because(err, l.used)
	}
	l.bound.N = limit
	var value json.RawMessage
	if err := l.in.Decode(&value); err != nil {
		if l.bound.N <= 0 {
			return nil, fmt.Errorf("the response has more than %d bytes", limit)
		}
		return nil, l.because(err, l.used && l.bound.N == limit)
	}
	return value, nil
}

func (l *line) because(err error, stale bool) error {
	if stale {
		return fmt.Errorf("%w: %w", errStale, err)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the connection was closed without a response: %w", io.ErrUnexpectedEOF)
	}
	return err
}

func (s *socket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, l := range s.free {
		_ = l.Close()
	}
	s.free = nil
}
