package client

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// connectProxy is a proxy that knows CONNECT only. It keeps the request lines and headers that it saw.
type connectProxy struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
}

func newConnectProxy(t *testing.T) *connectProxy {
	p := &connectProxy{}
	var tunnels sync.WaitGroup
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r)
		p.mu.Unlock()
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		browser, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: got %v, want no error", err)
			return
		}
		tunnels.Go(func() { defer func() { _ = server.Close() }(); _, _ = io.Copy(server, buffered) })
		tunnels.Go(func() { defer func() { _ = browser.Close() }(); _, _ = io.Copy(browser, server) })
	}))
	t.Cleanup(func() {
		p.Close()
		tunnels.Wait()
	})
	return p
}

// TestProxySeesTheHostOnly: an https API is reached through CONNECT, and its certificate is checked against RootCAs.
func TestProxySeesTheHostOnly(t *testing.T) {
	proxy := newConnectProxy(t)
	p := &partner{}
	p.Server = httptest.NewTLSServer(p.handler(t, replying(http.StatusNotFound, "")))
	t.Cleanup(p.Close)
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	config := testConfig(p.URL + "/v1")
	config.Proxy = http.ProxyURL(at)
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AddCert(p.Certificate())
	c := newClient(t, config)
	if _, err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	if len(proxy.seen) == 0 {
		t.Fatal("proxy: got no request, want CONNECT")
	}
	host := strings.TrimPrefix(p.URL, "https://")
	for _, r := range proxy.seen {
		if r.Method != http.MethodConnect || r.RequestURI != host || r.Header.Get("Authorization") != "" {
			t.Errorf("proxy: got %s %s with %v, want CONNECT %s and no credentials", r.Method, r.RequestURI, r.Header, host)
		}
	}
}

// TestRootCAsAloneCount: another authority's certificate does not verify, and no request is sent.
func TestRootCAsAloneCount(t *testing.T) {
	p := &partner{}
	p.Server = httptest.NewTLSServer(p.handler(t, replying(http.StatusNotFound, "")))
	t.Cleanup(p.Close)
	config := testConfig(p.URL + "/v1")
	config.RootCAs = x509.NewCertPool()
	_, err := newClient(t, config).Check(t.Context())
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		t.Errorf("got %v, want x509.UnknownAuthorityError", err)
	}
	if seen, _ := p.requests(); len(seen) != 0 {
		t.Errorf("got %d requests, want 0", len(seen))
	}
}
