package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/purser-onboard/purser/signer"
)

// pipes makes a socket whose other ends are given to serve, one by one.
func pipes(serve func(net.Conn)) *socket {
	return &socket{dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go serve(theirs)
		return ours, nil
	}}
}

// replies answers the requests on a connection with answers and then closes it.
func replies(answers ...string) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		buffer := make([]byte, 1024)
		for _, answer := range answers {
			if _, err := c.Read(buffer); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

func TestSocketAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		answers []string // of each connection
		limit   int64
		want    string // of each exchange
		err     string
	}{
		"one":              {[]string{"{\"a\": 1}\n"}, 9, `{"a": 1}`, ""},
		"no line end":      {[]string{`{"a":1}`}, 7, `{"a":1}`, ""},
		"several":          {[]string{"{}\n", "{}\n", "{}"}, 9, `{}`, ""},
		"too long":         {[]string{`{"a":1}`}, 6, ``, "more than 6 bytes"},
		"too long, spaces": {[]string{"         {}"}, 6, ``, "more than 6 bytes"},
		"no JSON":          {[]string{`hello`}, 100, ``, "invalid character"},
		"broken off":       {[]string{`{"a":`}, 100, ``, "unexpected EOF"},
		"nothing":          {[]string{``}, 100, ``, "closed without a response"},
	} {
		t.Run(name, func(t *testing.T) {
			s := pipes(replies(test.answers...))
			defer s.close()
			for range 3 {
				answer, err := s.exchange(t.Context(), []byte("{}"), test.limit)
				if test.err == "" && (err != nil || string(answer) != test.want) ||
					test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
					t.Errorf("%q, %v; want %q, %q", answer, err, test.want, test.err)
				}
			}
		})
	}
}

// What was not asked for must not be the answer to the next request.
func TestSocketSurplus(t *testing.T) {
	dialed := 0
	s := pipes(replies(`{"a":1} {"a":2}`, `{"a":3}`))
	dial := s.dial
	s.dial = func(ctx context.Context) (net.Conn, error) { dialed++; return dial(ctx) }
	for range 3 {
		answer, err := s.exchange(t.Context(), []byte("{}"), 100)
		if err != nil || string(answer) != `{"a":1}` {
			t.Errorf("got answer %q, %v; want {\"a\":1}", answer, err)
		}
	}
	if dialed != 3 {
		t.Errorf("%d connections, want a new one each time", dialed)
	}
}

func TestSocketEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		defer close(hold)
		r := &RPC{at: address{socket: "s"}, socket: pipes(func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			<-hold
		})}
		var result string
		err := r.Call(t.Context(), 100, &result, "m")
		if err == nil || err.Error() != "unix:s: no response within 1m0s" || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want \"unix:s: no response within 1m0s\"", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if err := r.Call(ctx, 100, &result, "m"); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
		if n := len(r.socket.free); n != 0 {
			t.Errorf("got %d kept connections, want 0", n)
		}
	})
}

func TestSocketKeepsNoMoreThanItMay(t *testing.T) {
	s := pipes(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	var taken []*line
	for range mostIdle + 3 {
		l, err := s.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, l)
	}
	for _, l := range taken {
		s.put(l)
	}
	if len(s.free) != mostIdle {
		t.Errorf("%d kept, want %d", len(s.free), mostIdle)
	}
	s.close()
	late, err := s.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.put(late)
	if len(s.free) != 0 {
		t.Errorf("got %d kept connections after the close, want 0", len(s.free))
	}
}

func TestCloseSocket(t *testing.T) {
	r, err := OpenRPC("some+unix:x", "some", shape, true, false)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	}
	var result string
	if err := r.Call(t.Context(), 100, &result, "m"); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("after Close: got error %v, want ErrUnusable", err)
	}
}
