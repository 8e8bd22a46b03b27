package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/httpsig"
)

const (
	testKey    = "7f6c0b6e-4b0e-4d7e-9f58-6a1f8f1d2f10"
	testSecret = "s3cr3t-of-the-test"
	testID     = "0b8f2c1e-6d3a-4b57-8a55-2f0f0c3f9d11"
	testChain  = "eip155:300:0x43158f45b5EbD7b1179130130DF00393928C2691"
	testExtern = "27c9aa3b-1"
)

var testIdem = uuid.MustParse("c2a9c9d6-30d5-4c69-8f4f-7f7a3b1f0a77")

// countingSigner signs with a number, so that two attempts never look alike.
type countingSigner struct{ n atomic.Int64 }

func (s *countingSigner) Sign(r *http.Request) error {
	r.Header.Set("Signature", fmt.Sprintf("sig1=:%d:", s.n.Add(1)))
	return nil
}

// partner is a server that issues tokens "token-1", "token-2", … and lets the test answer the rest.
type partner struct {
	*httptest.Server
	mu     sync.Mutex
	seen   []*http.Request // with Body replaced by what was read
	bodies []string
	tokens int
}

func newPartner(t testing.TB, answer http.HandlerFunc) *partner {
	p := &partner{}
	p.Server = httptest.NewServer(p.handler(t, answer))
	t.Cleanup(p.Close)
	return p
}

func (p *partner) handler(t testing.TB, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("body of %s %s: got %v, want no error", r.Method, r.URL, err)
		}
		p.mu.Lock()
		p.seen = append(p.seen, r)
		p.bodies = append(p.bodies, string(body))
		issue := r.URL.Path == "/v1/auth/token"
		if issue {
			p.tokens++
		}
		n := p.tokens
		p.mu.Unlock()
		if issue {
			_, _ = fmt.Fprintf(w, `{"token":"token-%d","expiresAt":%d,"tokenType":"Bearer"}`, n,
				time.Now().Add(time.Hour).Unix())
			return
		}
		answer(w, r)
	}
}

func (p *partner) requests() ([]*http.Request, []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*http.Request(nil), p.seen...), append([]string(nil), p.bodies...)
}

func testConfig(base string) Config {
	return Config{BaseURL: base, APIKey: testKey, APISecret: testSecret, Sign: &countingSigner{},
		RateLimiter: NewRateLimiter(math.Inf(1))}
}

func newClient(t testing.TB, config Config) *Client {
	t.Helper()
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// dial returns a partner with this answer, and its client.
func dial(t testing.TB, answer http.HandlerFunc) (*Client, *partner) {
	p := newPartner(t, answer)
	return newClient(t, testConfig(p.URL+"/v1")), p
}

func reply200(body string) http.HandlerFunc { return replying(http.StatusOK, body) }

func replying(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func wantKind(t *testing.T, err error, want Kind) {
	t.Helper()
	if e := asError(t, err); e.Kind != want {
		t.Errorf("got %v, want kind %s", e, want)
	}
}

func asError(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want *Error", err, err)
	}
	return e
}

func TestRequestsAsTheyLeave(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := httpsig.NewSigner(key, httpsig.Options{KeyID: "k1", Now: time.Now, Components: []string{
		"@method", "@target-uri", "authorization", "content-type", "content-digest", "idempotency-key"}})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := httpsig.NewVerifier(httpsig.VerifyOptions{
		Key:      func(string) (*ecdsa.PublicKey, error) { return &key.PublicKey, nil },
		Required: []string{"@method", "@target-uri", "authorization", "content-digest", "idempotency-key"},
		MaxAge:   time.Minute, Skew: time.Minute, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	create := CreateBody(testChain, testExtern)
	submit := SubmitBody(testChain, "0xabcd", EncodingHex)
	p := newPartner(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := verifier.Verify(r); err != nil {
			t.Errorf("signature of %s %s: got %v, want it to verify", r.Method, r.URL, err)
		}
		switch r.Method + " " + r.URL.Path {
		case "POST /v1/customers":
			if err := httpsig.VerifyContentDigest(r.Header, create); err != nil {
				t.Errorf("Content-Digest of %s: got %v, want it to verify", r.URL, err)
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = fmt.Fprintf(w, `{"id":%q,"status":"initiating","challenge":"aGk="}`, testID)
		case "POST /v1/customers/" + testID + "/challenge/sign":
			if err := httpsig.VerifyContentDigest(r.Header, submit); err != nil {
				t.Errorf("Content-Digest of %s: got %v, want it to verify", r.URL, err)
			}
			w.WriteHeader(http.StatusNoContent)
		case "GET /v1/customers/" + testID:
			_, _ = fmt.Fprintf(w, `{"id":%q,"status":"screening"}`, testID)
		case "GET /v1/customers/" + testID + "/challenge":
			_, _ = fmt.Fprint(w, `{"challenge":"aGk="}`)
		case "GET /v1/customers":
			_, _ = fmt.Fprintf(w, `[{"id":%q}]`, testID)
		default:
			t.Errorf("got a request %s %s, want none of these", r.Method, r.URL)
		}
	})
	config := testConfig(p.URL + "/v1/")
	config.Sign = signer
	c := newClient(t, config)
	ctx := t.Context()

	if got, err := c.CreateCustomer(ctx, testIdem, create); err != nil || got.ID != testID || got.Challenge != "aGk=" {
		t.Errorf("CreateCustomer: got %+v, %v; want %s with a challenge", got, err, testID)
	}
	if got, err := c.Customer(ctx, testID); err != nil || got.Status != StatusScreening {
		t.Errorf("Customer: got %+v, %v; want status %s", got, err, StatusScreening)
	}
	if got, err := c.Challenge(ctx, testID); err != nil || got != "aGk=" {
		t.Errorf("Challenge: got %q, %v; want aGk=", got, err)
	}
	if err := c.SubmitSignature(ctx, testID, testIdem, submit); err != nil {
		t.Errorf("SubmitSignature: got %v, want no error", err)
	}
	if err := customersOf(ctx, c, func(Customer) error { return nil }); err != nil {
		t.Errorf("Customers: got %v, want no error", err)
	}

	requests, bodies := p.requests()
	if len(requests) != 6 || c.Stats().Sent != 6 {
		t.Fatalf("got %d requests, %d counted; want 6: one token and five calls", len(requests), c.Stats().Sent)
	}
	for i, r := range requests {
		if r.Header.Get("User-Agent") != "purser" || !strings.Contains(r.Header.Get("Accept"), "application/json") {
			t.Errorf("headers of %s: got %v, want User-Agent purser and Accept application/json", r.URL, r.Header)
		}
		if want := r.Method == http.MethodPost; (r.Header.Get("Idempotency-Key") != "") != want {
			t.Errorf("Idempotency-Key of %s %s: got %q, want one: %v", r.Method, r.URL, r.Header.Get("Idempotency-Key"), want)
		}
		if i == 0 {
			if r.Header.Get("Authorization") != "" || r.Header.Get("Signature") != "" {
				t.Errorf("headers of the token request: got %v, want no Authorization and no Signature", r.Header)
			}
			if want := `{"apiKey":"` + testKey + `","apiSecret":"` + testSecret + `"}`; bodies[0] != want {
				t.Errorf("body of the token request: got %s, want %s", bodies[0], want)
			}
			continue
		}
		if r.Header.Get("Authorization") != "Bearer token-1" {
			t.Errorf("Authorization of %s: got %q, want Bearer token-1", r.URL, r.Header.Get("Authorization"))
		}
		if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("Content-Type of %s: got %q, want application/json", r.URL, r.Header.Get("Content-Type"))
		}
	}
}

func TestUnsendable(t *testing.T) {
	c, p := dial(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("got a request to %s, want none", r.URL) })
	ctx := t.Context()
	body := CreateBody("a", "b")
	for name, call := range map[string]func() error{
		"id with a path": func() error { _, err := c.Customer(ctx, "../auth/token"); return err },
		"empty id":       func() error { _, err := c.Challenge(ctx, ""); return err },
		"id in braces":   func() error { return c.SubmitSignature(ctx, "{"+testID+"}", testIdem, body) },
		"no key":         func() error { _, err := c.CreateCustomer(ctx, uuid.Nil, body); return err },
		"no body": func() error {
			return c.SubmitSignature(ctx, testID, testIdem, SubmitBody("a", "zz", EncodingRaw))
		},
		"create, no body":   func() error { _, err := c.CreateCustomer(ctx, testIdem, nil); return err },
		"submit without id": func() error { return c.SubmitSignature(ctx, "", testIdem, body) },
	} {
		if e := asError(t, call()); e.Kind != Unsendable {
			t.Errorf("%s: got %v, want kind %s", name, e, Unsendable)
		}
	}
	if requests, _ := p.requests(); len(requests) != 0 {
		t.Errorf("got %d requests, want 0", len(requests))
	}

	config := testConfig(p.URL)
	config.Sign = signerFunc(func(*http.Request) error { return errors.New("no key") })
	config.BaseURL += "/v1"
	_, err := newClient(t, config).Customer(ctx, testID)
	if e := asError(t, err); e.Kind != Unsendable || !strings.Contains(e.Error(), "no key") || e.Hint() == "" {
		t.Errorf("a failing signer: got %v, want kind %s, its error and a hint", err, Unsendable)
	}
}

type signerFunc func(*http.Request) error

func (f signerFunc) Sign(r *http.Request) error { return f(r) }

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"absolute URL":     func(c *Config) { c.BaseURL = "api.example/v1" },
		"scheme":           func(c *Config) { c.BaseURL = "ftp://api.example/v1" },
		"credentials":      func(c *Config) { c.BaseURL = "https://u:hunter2@api.example/v1" },
		"query":            func(c *Config) { c.BaseURL = "https://api.example/v1?x=1" },
		"not this machine": func(c *Config) { c.BaseURL = "http://api.example/v1" },
		"API key":          func(c *Config) { c.APIKey = "" },
		"API secret":       func(c *Config) { c.APISecret = "" },
		"signer":           func(c *Config) { c.Sign = nil },
		"rate limiter":     func(c *Config) { c.RateLimiter = nil },
		"digest":           func(c *Config) { c.Digest = "md5" },
		"negative":         func(c *Config) { c.Timeout = -1 },
	} {
		config := testConfig("https://api.example/v1")
		change(&config)
		_, err := New(config)
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want an error that names it and no password", name, err)
		}
	}
	for _, base := range []string{"http://127.0.0.1:8080/v1", "http://[::1]:1/v1", "http://localhost/v1",
		"https://api.example/v1/"} {
		if _, err := New(testConfig(base)); err != nil {
			t.Errorf("%s: got %v, want no error", base, err)
		}
	}
}

func TestConfigKeepsItsSecrets(t *testing.T) {
	config := testConfig("https://api.example/v1")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", config, "token", bearerToken{secret: "tok3n"})
	for _, text := range []string{log.String(), fmt.Sprintf("%v %+v %#v %s", config, config, config, config),
		fmt.Sprintf("%v %+[1]v %#[1]v %[1]s %[1]q %[1]x %[1]d", bearerToken{secret: "tok3n"})} {
		for _, secret := range []string{testSecret, testKey, "tok3n", "746f6b336e"} {
			if strings.Contains(text, secret) {
				t.Errorf("got %q, want it without %q", text, secret)
			}
		}
	}
}

func TestCancelledCallsReturnTheirContextsError(t *testing.T) {
	arrived := make(chan struct{})
	c, _ := dial(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := c.Customer(ctx, testID); !errors.Is(err, context.Canceled) {
		t.Errorf("in flight: got %v, want %v", err, context.Canceled)
	}
	if _, err := c.Customer(ctx, testID); !errors.Is(err, context.Canceled) {
		t.Errorf("before it was sent: got %v, want %v", err, context.Canceled)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	c, p := dial(t, func(w http.ResponseWriter, r *http.Request) {
		// An answer that is not read to its end would cost the connection.
		replying(http.StatusConflict, strings.Repeat("taken ", 10_000))(w, r)
	})
	for range 10 {
		if _, err := c.Customer(t.Context(), testID); asError(t, err).Kind != Conflicting {
			t.Fatal(err)
		}
	}
	requests, _ := p.requests()
	for _, r := range requests[1:] {
		if r.RemoteAddr != requests[0].RemoteAddr {
			t.Errorf("got a request from %s, want %s, the first connection", r.RemoteAddr, requests[0].RemoteAddr)
		}
	}
}
