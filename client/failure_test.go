package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestStopBeforeASignatureIsConfirmed: a stop that ends the GET which is to confirm a refused signature leaves open
// what the answer was about. It is no failure of the set-up.
func TestStopBeforeASignatureIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := testConfig("https://api.example/v1")
		config.Transport = roundTripper(func(r *http.Request) *canned {
			switch {
			case strings.HasSuffix(r.URL.Path, "/auth/token"):
				return response(200, `{"token":"t"}`)
			case r.Method == http.MethodGet:
				config.RateLimiter.Stop()
				return nil
			}
			return response(400, "invalid required signature")
		})
		err := newClient(t, config).SubmitSignature(t.Context(), testID, testIdem, []byte(`{}`))
		if !errors.Is(err, ErrStopped) {
			t.Errorf("got %v, want %v", err, ErrStopped)
		}
	})
}

// TestRefusedRequestSignature: an answer about the request's signature is one kind of failure, whatever its status
// and text. The request is sent once more, with a new token and a new signature; then a GET with such a signature
// checks that the text was about it.
func TestRefusedRequestSignature(t *testing.T) {
	const vendor = "invalid required signature"
	for name, tt := range map[string]struct {
		status   int
		body     string
		submit   bool // to a submission, else to a creation
		accepted bool // the GET is
		kind     Kind
		sends    int // of the request
	}{
		"the vendor's":           {400, vendor, false, false, RequestSignature, 2},
		"the guide's":            {400, `{"error":"Invalid request signature."}`, false, false, RequestSignature, 2},
		"401":                    {401, `{"detail":"request signature: too old"}`, false, false, RequestSignature, 2},
		"403":                    {403, `{"message":"Missing Signature-Input"}`, false, false, RequestSignature, 2},
		"422":                    {422, vendor, false, false, RequestSignature, 2},
		"other words":            {400, `{"error":"signature created in the future"}`, false, false, RequestSignature, 2},
		"a code":                 {400, `{"code":"SIGNATURE_EXPIRED"}`, false, false, RequestSignature, 2},
		"to a submission":        {400, vendor, true, false, RequestSignature, 2},
		"a GET is accepted":      {400, vendor, false, true, Invalid, 2},
		"a GET is accepted, 422": {422, vendor, false, true, KeyReused, 2},
		"a wallet's":             {400, `{"error":"message signature is not the owner's"}`, true, false, Invalid, 1},
		"a wallet's code":        {400, `{"code":"invalid_signature","message":"refused"}`, true, false, Invalid, 1},
		"a body's":               {400, `{"error":"externalId is too long"}`, false, false, Invalid, 1},
		"no words":               {400, "", false, false, Invalid, 1},
		"another status's":       {409, vendor, false, false, Conflicting, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var gets, tokens int
				var signatures, keys []string
				c := bubbleClient(t, 100, func(r *http.Request) *canned {
					switch {
					case strings.HasSuffix(r.URL.Path, "/auth/token"):
						tokens++
						return response(200, `{"token":"t`+fmt.Sprint(tokens)+`"}`)
					case r.Method == http.MethodGet:
						gets++
						if tt.accepted {
							return response(404, "")
						}
						return response(tt.status, tt.body)
					}
					signatures = append(signatures, r.Header.Get("Signature"))
					keys = append(keys, r.Header.Get("Idempotency-Key"))
					return response(tt.status, tt.body)
				})
				var err error
				if tt.submit {
					err = c.SubmitSignature(t.Context(), testID, testIdem, []byte(`{}`))
				} else {
					_, err = c.CreateCustomer(t.Context(), testIdem, CreateBody(testChain, testExtern))
				}
				if got := asError(t, err).Kind; got != tt.kind {
					t.Errorf("got kind %s, want %s", got, tt.kind)
				}
				if len(keys) != tt.sends || tokens != tt.sends || gets != tt.sends-1 {
					t.Errorf("got %d sends, %d tokens and %d GETs, want %d, %d and %d", len(keys), tokens, gets, tt.sends, tt.sends,
						tt.sends-1)
				}
				if len(keys) == 2 && (signatures[0] == signatures[1] || keys[0] != keys[1]) {
					t.Errorf("got signatures %q and keys %q, want two signatures under one key", signatures, keys)
				}
			})
		})
	}
}

// TestRefusedSignatureMeasuresTheClock: an answer about a signature corrects the clock for the next signature.
func TestRefusedSignatureMeasuresTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := 0 // seconds, of the partner's clock
		var c *Client
		c = bubbleClient(t, 100, func(r *http.Request) *canned {
			at := c.config.Now().Add(-secondsOf(ahead)).UTC().Format(http.TimeFormat)
			if strings.HasSuffix(r.URL.Path, "/auth/token") {
				return response(200, `{"token":"t"}`, "Date", at)
			}
			if ahead == 0 {
				ahead = 3600 // the partner's clock is set between the token and the request
				return response(400, "invalid required signature", "Date",
					c.config.Now().Add(-secondsOf(ahead)).UTC().Format(http.TimeFormat))
			}
			if got, want := c.clock.Created(), c.config.Now().Add(-secondsOf(ahead)); got.After(want) {
				t.Errorf("got a signature created at %v, want none after %v", got, want)
			}
			return response(404, "")
		})
		if _, err := c.Check(t.Context()); err != nil {
			t.Errorf("got %v, want the second attempt to pass", err)
		}
	})
}

// TestUnconnectable: a failure that no repetition can change is not the same kind as an unavailable partner.
func TestUnconnectable(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(new(bytes.Buffer), "", 0)
	secure.StartTLS()
	defer secure.Close()
	expired := expiredCertificate(t, secure)
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.Config.ErrorLog = log.New(new(bytes.Buffer), "", 0)
	old.StartTLS()
	defer old.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	proxy := func(status int) func(*http.Request) (*url.URL, error) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodConnect {
				t.Errorf("got a %s at the proxy, want CONNECT", r.Method)
			}
			w.WriteHeader(status)
		}))
		t.Cleanup(server.Close)
		u, err := url.Parse(server.URL)
		return func(*http.Request) (*url.URL, error) { return u, err }
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, tt := range map[string]struct {
		base  string
		proxy func(*http.Request) (*url.URL, error)
		kind  Kind
		hint  string
	}{
		"unknown authority":      {secure.URL, nil, Unconnectable, "--api-ca"},
		"expired certificate":    {expired.URL, nil, Unconnectable, "clock"},
		"no TLS there":           {strings.Replace(plain.URL, "http:", "https:", 1), nil, Unconnectable, "--api-url"},
		"too old a TLS":          {old.URL, nil, Unconnectable, "--api-url"},
		"proxy wants a login":    {"https://api.example", proxy(407), Unconnectable, "HTTPS_PROXY"},
		"proxy forbids":          {"https://api.example", proxy(403), Unconnectable, "HTTPS_PROXY"},
		"proxy wants another":    {"https://api.example", proxy(401), Unconnectable, "HTTPS_PROXY"},
		"proxy knows no CONNECT": {"https://api.example", proxy(405), Unconnectable, "HTTPS_PROXY"},
		"proxy has trouble":      {"https://api.example", proxy(502), NoAnswer, "network"},
		"no HTTP there":          {banner(t), nil, Unconnectable, "--api-url"},
		"TLS there":              {strings.Replace(secure.URL, "https:", "http:", 1), nil, Invalid, "--api-"},
		"nothing listens there":  {closed.URL, nil, NoAnswer, "network"},
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig(tt.base + "/v1")
			config.Proxy = tt.proxy
			if tt.base == expired.URL {
				config.RootCAs = x509.NewCertPool()
				config.RootCAs.AddCert(expired.Certificate())
			}
			c := newClient(t, config)
			result, err := c.Check(t.Context())
			failure := asError(t, err)
			for errors.As(failure.Err, new(*Error)) {
				failure = asError(t, failure.Err)
			}
			if failure.Kind != tt.kind || !strings.Contains(result.Advice, tt.hint) {
				t.Errorf("got kind %s of %v with advice %q, want %s naming %q", failure.Kind, err, result.Advice, tt.kind,
					tt.hint)
			}
		})
	}
}

// expiredCertificate returns a server whose certificate, which is its own authority, ended a minute ago.
func expiredCertificate(t *testing.T, like *httptest.Server) *httptest.Server {
	key := like.TLS.Certificates[0].PrivateKey
	template := *like.Certificate()
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, template.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(new(bytes.Buffer), "", 0)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12,
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// TestUnknownHost: before the first answer a host without an address is a wrong setting, afterwards a failure of the
// name service.
func TestUnknownHost(t *testing.T) {
	var answering atomic.Bool
	missing := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	server := httptest.NewServer(replying(http.StatusNotFound, ""))
	defer server.Close()
	config := testConfig(server.URL + "/v1")
	config.Transport = &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if !answering.Load() {
				return nil, missing
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
	config.RateLimiter = NewRateLimiter(math.Inf(1))
	c := newClient(t, config)
	kind := func() Kind {
		_, err := c.Check(t.Context())
		failure := asError(t, err)
		for errors.As(failure.Err, new(*Error)) {
			failure = asError(t, failure.Err)
		}
		return failure.Kind
	}
	if got := kind(); got != Unconnectable {
		t.Errorf("at first: got %s, want %s", got, Unconnectable)
	}
	answering.Store(true)
	kind()
	answering.Store(false)
	if got := kind(); got != NoAnswer {
		t.Errorf("after an answer: got %s, want %s", got, NoAnswer)
	}
}

func secondsOf(n int) time.Duration { return time.Duration(n) * time.Second }

// unusable returns the kind of a 2xx answer with this error: Malformed if it is truncated or reports an error,
// otherwise Unrecognized.
func unusable(err error) Kind {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errReported) || errors.Is(err, errTooLarge) ||
		errors.Is(err, errPart) {
		return Malformed
	}
	return Unrecognized
}

// banner returns the URL of a server that sends its first line before any request, as SSH does.
func banner(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.7\r\n")
			conn.Close()
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	return "http://" + listener.Addr().String()
}
