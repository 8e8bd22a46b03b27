package client

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hangUp is a server that keeps several connections idle. Any other request than those for warmID it reads, and
// closes the connection without an answer: then net/http takes the connection for stale and sends the request once
// more, on the next idle connection.
type hangUp struct {
	*httptest.Server
	requests atomic.Int64
	arrived  sync.WaitGroup
}

const (
	warmID  = "11111111-2222-4333-8444-555555555555"
	idle    = 4
	warming = idle + 1 // a token and so many requests
)

func newHangUp(t *testing.T) *hangUp {
	h := &hangUp{}
	h.arrived.Add(idle)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		h.requests.Add(1)
		switch {
		case strings.HasSuffix(r.URL.Path, "/auth/token"):
			_, _ = io.WriteString(w, `{"token":"t","tokenType":"Bearer"}`)
		case strings.HasSuffix(r.URL.Path, warmID):
			h.arrived.Done()
			h.arrived.Wait() // so that each has a connection of its own
			w.WriteHeader(http.StatusNotFound)
		default:
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// warm makes the idle connections with get.
func (h *hangUp) warm(get func()) {
	var all sync.WaitGroup
	for range idle {
		all.Go(get)
	}
	all.Wait()
}

func TestNoAttemptIsSentTwice(t *testing.T) {
	t.Run("control: net/http does", func(t *testing.T) {
		h := newHangUp(t)
		transport := &http.Transport{MaxIdleConnsPerHost: idle}
		defer transport.CloseIdleConnections()
		send := func(method, path string) {
			r, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, strings.NewReader("{}"))
			if err != nil {
				t.Errorf("NewRequest: got %v, want no error", err)
				return
			}
			r.Header.Set("Idempotency-Key", testIdem.String())
			if response, err := transport.RoundTrip(r); err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		}
		h.warm(func() { send(http.MethodGet, "/"+warmID) })
		send(http.MethodPost, "/")
		if n := h.requests.Load(); n < idle+2 {
			t.Fatalf("got %d requests, want %d or more: if net/http no longer repeats requests, delete guard", n, idle+2)
		}
	})
	for name, call := range map[string]func(context.Context, *Client) error{
		"GET": func(ctx context.Context, c *Client) error { _, err := c.Customer(ctx, testID); return err },
		"POST": func(ctx context.Context, c *Client) error {
			_, err := c.CreateCustomer(ctx, testIdem, CreateBody(testChain, testExtern))
			return err
		},
		"list": func(ctx context.Context, c *Client) error {
			return customersOf(ctx, c, func(Customer) error { return nil })
		},
	} {
		for _, given := range []http.RoundTripper{nil, &http.Transport{MaxIdleConnsPerHost: idle}} {
			t.Run(fmt.Sprintf("%s over %T", name, given), func(t *testing.T) {
				h := newHangUp(t)
				config := testConfig(h.URL)
				config.Transport = given
				c := newClient(t, config)
				h.warm(func() {
					_, err := c.Customer(t.Context(), warmID)
					wantKind(t, err, NotFound)
				})
				wantKind(t, call(t.Context(), c), NoAnswer)
				if sent, seen := c.Stats().Sent, h.requests.Load(); sent != warming+1 || seen != warming+1 {
					t.Errorf("got %d attempts counted, %d seen, want %d", sent, seen, warming+1)
				}
			})
		}
	}
}

// TestGuardBeforeHTTP1Tries: ending the context in GotConn is not enough for HTTP/1, because net/http does not check it
// before it writes.
func TestGuardBeforeHTTP1Tries(t *testing.T) {
	transport, ok := guardedTransport(testConfig("")).(*http.Transport)
	if !ok {
		t.Fatalf("got %T, want an *http.Transport", guardedTransport(testConfig("")))
	}
	ctx, stop := watch(t.Context())
	defer stop(nil)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transport.Proxy(r); err != nil {
		t.Errorf("first try: got %v, want no error", err)
	}
	httptrace.ContextClientTrace(ctx).WroteHeaders()
	if _, err := transport.Proxy(r); !errors.Is(err, errNotResent) {
		t.Errorf("second try: got %v, want %v", err, errNotResent)
	}
}

// refuseStreams is a minimal HTTP/2 server. It answers the first stream of a connection with a token, and every other
// with REFUSED_STREAM (RFC 9113 §8.7), after which net/http sends the request again.
func refuseStreams(t *testing.T, requests *atomic.Int64) (base string, transport *http.Transport) {
	server := httptest.NewUnstartedServer(nil)
	server.EnableHTTP2 = true
	done := make(chan struct{})
	server.StartTLS()
	transport = server.Client().Transport.(*http.Transport).Clone()
	// This server is only needed for its certificate.
	tlsConfig := server.TLS.Clone()
	server.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// The client closes only connections without open streams, so this end closes them, too.
	var open sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		l.Close()
		cancel()
		<-done
	})
	go func() {
		defer close(done)
		defer open.Wait()
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { _ = raw.Close() })
			open.Go(func() {
				serveRefusals(tls.Server(raw, tlsConfig), requests)
				raw.Close()
			})
		}
	}()
	return "https://" + l.Addr().String(), transport
}

func serveRefusals(conn net.Conn, requests *atomic.Int64) {
	const data, headers, reset, settings = 0, 1, 3, 4
	frame := func(kind, flags byte, stream uint32, payload string) {
		head := []byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(head[5:], stream)
		_, _ = conn.Write(append(head, payload...))
	}
	preface := make([]byte, 24)
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	frame(settings, 0, 0, "")
	for first := true; ; {
		var head [9]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return
		}
		length := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
		if _, err := io.CopyN(io.Discard, conn, length); err != nil {
			return
		}
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		switch {
		case kind == settings && flags&1 == 0:
			frame(settings, 1, 0, "")
		case kind == headers && first:
			first = false
			requests.Add(1)
			frame(headers, 4, stream, "\x88") // END_HEADERS; :status 200 is entry 8 of HPACK's static table
			frame(data, 1, stream, `{"token":"t"}`)
		case kind == headers:
			requests.Add(1)
			frame(reset, 0, stream, "\x00\x00\x00\x07")
		}
	}
}

func TestNoAttemptIsSentTwiceOverHTTP2(t *testing.T) {
	t.Run("control: net/http does", func(t *testing.T) {
		var requests atomic.Int64
		base, transport := refuseStreams(t, &requests)
		defer transport.CloseIdleConnections()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 2 {
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, base, nil)
			if i == 1 {
				// The first repetition comes at once, the next a second later, which the test does not wait for.
				time.AfterFunc(100*time.Millisecond, cancel)
			}
			response, err := transport.RoundTrip(r)
			if err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		}
		if n := requests.Load(); n < 3 {
			t.Fatalf("got %d requests, want 3 or more: if net/http no longer repeats requests, delete guard", n)
		}
	})
	for _, name := range []string{"GET", "POST"} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int64
			base, transport := refuseStreams(t, &requests)
			config := testConfig(base)
			config.Transport = transport
			c := newClient(t, config)
			var err error
			if name == "GET" {
				_, err = c.Customer(t.Context(), testID)
			} else {
				_, err = c.CreateCustomer(t.Context(), testIdem, CreateBody("a", "b"))
			}
			wantKind(t, err, NoAnswer)
			if name == "POST" && !strings.Contains(err.Error(), "no-answer: stream error: stream ID 3; REFUSED_STREAM") {
				t.Errorf("got %v, want it to say what the server did, and nothing to a programmer", err)
			}
			if sent, seen := c.Stats().Sent, requests.Load(); sent != 2 || seen != 2 {
				t.Errorf("got %d attempts counted, %d seen, want 2", sent, seen)
			}
		})
	}
}

// TestLostConnectionIsFoundInTime: over HTTP/2 a connection that was lost in silence is given up when its requests time
// out, as over HTTP/1.1.
func TestLostConnectionIsFoundInTime(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		time.Second: time.Second, 5 * time.Second: 2500 * time.Millisecond, 30 * time.Second: 15 * time.Second,
		time.Hour: 15 * time.Second,
	} {
		got := newTransport(Config{Timeout: timeout}).HTTP2
		if got.SendPingTimeout != want || got.PingTimeout != want {
			t.Errorf("timeout %v: got a ping after %v, awaited for %v; want %v", timeout, got.SendPingTimeout,
				got.PingTimeout, want)
		}
	}
}

func TestHTTP2IsUsed(t *testing.T) {
	p := &partner{}
	p.Server = httptest.NewUnstartedServer(p.handler(t, replying(http.StatusNotFound, "")))
	p.EnableHTTP2 = true
	p.StartTLS()
	t.Cleanup(p.Close)
	config := testConfig(p.URL + "/v1")
	config.Transport = p.Client().Transport
	_, err := newClient(t, config).Customer(t.Context(), testID)
	wantKind(t, err, NotFound)
	requests, _ := p.requests()
	for _, r := range requests {
		if r.ProtoMajor != 2 {
			t.Errorf("%s: got %s, want HTTP/2", r.URL, r.Proto)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("got a request to %s with %v, want the redirect not followed", r.URL, r.Header)
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 304, 307, 308} {
		c, _ := dial(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", elsewhere.URL+"/v1/customers?token="+testSecret)
			w.WriteHeader(status)
		})
		_, err := c.CreateCustomer(t.Context(), testIdem, CreateBody("a", "b"))
		e := asError(t, err)
		if e.Kind != Redirected || e.Status != status || e.Message != "to "+elsewhere.URL+"/v1/customers" {
			t.Errorf("%d: got %v, want kind %s with the location without its query", status, e, Redirected)
		}
	}
}

// TestRelativeRedirect: a Location may be relative; the message says where it leads.
func TestRelativeRedirect(t *testing.T) {
	c, _ := dial(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/v2/customers?token="+testSecret)
		w.WriteHeader(http.StatusSeeOther)
	})
	_, err := c.CreateCustomer(t.Context(), testIdem, CreateBody("a", "b"))
	want := "to " + strings.TrimSuffix(c.base, "/v1") + "/v2/customers"
	if e := asError(t, err); e.Kind != Redirected || e.Message != want {
		t.Errorf("got %v, want kind %s with the message %q", e, Redirected, want)
	}
}

func TestTimeoutsAreSilence(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for name, answer := range map[string]http.HandlerFunc{
		"before the header": func(http.ResponseWriter, *http.Request) { <-release },
		"in the body": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"id":`)
			w.(http.Flusher).Flush()
			<-release
		},
	} {
		p := newPartner(t, answer)
		config := testConfig(p.URL + "/v1")
		c := newClient(t, config)
		if _, _, err := c.waitForToken(t.Context(), Token, bearerToken{}); err != nil { // the token, before the timeout is short
			t.Fatal(err)
		}
		c.config.Timeout = 50 * time.Millisecond
		_, err := c.Customer(t.Context(), testID)
		e := asError(t, err)
		if want := map[bool]Kind{true: NoAnswer, false: Malformed}[name == "before the header"]; e.Kind != want {
			t.Errorf("%s: got %v, want kind %s", name, e, want)
		}
		if !errors.Is(e, errTimeout) || errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want the attempt's own timeout", name, e)
		}
		err = customersOf(t.Context(), c, func(Customer) error { return nil })
		if e := asError(t, err); e.Kind != NoAnswer && e.Kind != Malformed {
			t.Errorf("%s of the list: got %v, want kind %s or %s", name, e, NoAnswer, Malformed)
		}
	}
}

func TestNothingListens(t *testing.T) {
	p := newPartner(t, reply200(""))
	base := p.URL
	p.Close()
	_, err := newClient(t, testConfig(base)).Customer(t.Context(), testID)
	e := asError(t, err)
	var inner *Error
	if e.Kind != NoToken || !errors.As(e.Err, &inner) || inner.Kind != NoAnswer || e.Hint() == "" {
		t.Errorf("got %v, want kind %s with %s inside, and a hint", err, NoToken, NoAnswer)
	}
	if op := (*net.OpError)(nil); !errors.As(err, &op) {
		t.Errorf("got %v, want it to wrap a *net.OpError", err)
	}
}

func TestProxyIsAsked(t *testing.T) {
	p := newPartner(t, replying(http.StatusNotFound, ""))
	var asked atomic.Int64
	config := testConfig("http://localhost:1/v1")
	config.Proxy = func(*http.Request) (*url.URL, error) {
		asked.Add(1)
		return url.Parse(p.URL)
	}
	_, err := newClient(t, config).Customer(t.Context(), testID)
	wantKind(t, err, NotFound)
	if asked.Load() != 2 {
		t.Errorf("got %d calls of Config.Proxy, want 2", asked.Load())
	}
}

// countedWrites counts what is written to a connection.
type countedWrites struct {
	net.Conn
	n *atomic.Int64
}

func (c countedWrites) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(p)
}

// TestOneWrite: header and body of a request are sent in one write, and so in one packet if they fit.
func TestOneWrite(t *testing.T) {
	p := newPartner(t, replying(201, `{"id":"`+testID+`","status":"initiating","challenge":"aGk="}`))
	var writes atomic.Int64
	config := testConfig(p.URL + "/v1")
	config.Transport = &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return countedWrites{conn, &writes}, err
	}}
	c := newClient(t, config)
	for range 2 {
		writes.Store(0)
		if _, err := c.CreateCustomer(t.Context(), testIdem, CreateBody(testChain, testExtern)); err != nil {
			t.Fatal(err)
		}
	}
	if n := writes.Load(); n != 1 {
		t.Errorf("the second creation, for which there is a token: got %d writes, want 1", n)
	}
}
