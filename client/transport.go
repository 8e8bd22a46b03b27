package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// errNotResent replaces the error after which net/http would have sent the request again.
var errNotResent = errors.New("the connection was lost after the request was sent")

// guard keeps net/http from sending an attempt twice. Transport repeats a request on a new connection when a reused
// one turns out to be dead: GET always, and POST with an Idempotency-Key (Request.isReplayable). Its HTTP/2 part also
// does so after GOAWAY and REFUSED_STREAM. Such a repetition bypasses the rate limiter, and its signature may be too
// old for the partner. So once the header is written, the next try is stopped:
//
//   - HTTP/1 asks Transport.Proxy before each try, and an error from there ends the request.
//   - HTTP/2 reports GotConn before each try, and does not write the header of a request whose context has ended.
//
// A repetition before anything was written (on a connection that was just closed for being idle) stays allowed. Bodies
// have no GetBody, so that no other path can rewind them.
type guard struct {
	wrote atomic.Bool
	stop  context.CancelCauseFunc
}

type guardKey struct{}

// watch returns the context for one attempt.
func watch(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, stop := context.WithCancelCause(ctx)
	g := &guard{stop: stop}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			if g.wrote.Load() {
				g.stop(errNotResent)
			}
		},
		WroteHeaders: func() { g.wrote.Store(true) },
	})
	return context.WithValue(ctx, guardKey{}, g), stop
}

// guardedTransport returns the default transport, or Config.Transport, with the guard.
func guardedTransport(config Config) http.RoundTripper {
	var t *http.Transport
	switch given := config.Transport.(type) {
	case nil:
		t = newTransport(config)
	case *http.Transport:
		t = given.Clone()
	default:
		return given
	}
	proxy := t.Proxy
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		if g, ok := r.Context().Value(guardKey{}).(*guard); ok && g.wrote.Load() {
			return nil, errNotResent
		}
		if proxy == nil {
			return nil, nil
		}
		return proxy(r)
	}
	return t
}

func newTransport(config Config) *http.Transport {
	dialer := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	patience := min(15*time.Second, max(time.Second, config.Timeout/2))
	return &http.Transport{
		Proxy: config.Proxy,
		OnProxyConnectResponse: func(_ context.Context, proxy *url.URL, _ *http.Request, r *http.Response) error {
			if r.StatusCode != http.StatusOK {
				return &proxyError{proxy: proxy.Host, status: r.StatusCode}
			}
			return nil
		},
		DialContext:         dialer.DialContext,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: config.RootCAs},
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		// Without pings a connection that was lost in silence would be used again after its requests have timed out.
		HTTP2:               &http.HTTP2Config{SendPingTimeout: patience, PingTimeout: patience},
		MaxIdleConns:        config.Concurrency,
		MaxIdleConnsPerHost: config.Concurrency,
		// Below the 60 s after which common load balancers close an idle connection, so that this end closes first.
		IdleConnTimeout:        45 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// proxyError is a proxy's answer to CONNECT other than 200.
type proxyError struct {
	proxy  string // host and port
	status int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy %s answered CONNECT with %d %s", e.proxy, e.status, http.StatusText(e.status))
}
