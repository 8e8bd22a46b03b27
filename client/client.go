// Package client calls the partner's API: token, signed requests, typed errors, and the rate limiter of all workers.
//
// One call is one attempt. The caller decides by the [Error] whether and when it repeats a failed call, and under which
// idempotency key. In two cases this package itself sends the request once more, with a new token and a new signature
// but the same body, digest and idempotency key: after a 401, because the token may have expired early, and after an
// answer about the request's signature, because a clock may have been set. If that fails in the same way, the error is
// [Unauthorized] or [RequestSignature].
//
// No other request is sent twice. That includes net/http's own repetitions on stale connections, which would bypass the
// rate limiter and have an old signature (see guard).
package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/httpsig"
	"github.com/purser-onboard/purser/loopback"
)

// Defaults of Config.
const (
	defaultTimeout     = 30 * time.Second
	defaultListTimeout = 15 * time.Minute
	defaultMaxBody     = 1 << 20
	defaultConcurrency = 32
	defaultDigest      = "sha-256"
	defaultUserAgent   = "purser"
)

// RequestSigner signs a request just before it is sent; *httpsig.Signer implements it. Many goroutines call it at once.
type RequestSigner interface {
	Sign(*http.Request) error
}

// Config is how to reach the partner. APISecret is sent in POST /auth/token only.
type Config struct {
	// BaseURL is the URL below which the API is, "https://api.offblocks.xyz/v1", without query, fragment or
	// credentials. Plain http is an error except on loopback.
	BaseURL string

	APIKey    string // a UUID
	APISecret string
	// Secret reads the API secret again when it is no longer accepted, because it may have been replaced. If a token was
	// issued before, it is called once a second for up to 30 s. Nil: APISecret stays.
	Secret func() (string, error)

	Sign        RequestSigner // signs every attempt but those for a token; required
	RateLimiter *RateLimiter  // every attempt waits for it, those for a token too; required
	Digest      string        // algorithm of Content-Digest, "sha-256" (the default) or "sha-512"

	// Transport sends the requests. An *http.Transport is cloned and kept from repeating requests; another RoundTripper
	// must neither repeat requests nor follow redirects. Nil: a transport with TLS 1.2 or later, HTTP/2 if the server
	// has it, RootCAs and Proxy.
	Transport http.RoundTripper
	// Around wraps what sends the requests, for example to trace them. What it returns must neither repeat requests nor
	// follow redirects, and must return the same errors. Nil: nothing is wrapped.
	Around func(http.RoundTripper) http.RoundTripper
	// RootCAs verify the certificates of the API and of an https proxy when Transport is nil. Nil: the system's.
	RootCAs *x509.CertPool
	// Proxy chooses the proxy for a request when Transport is nil. Nil: http.ProxyFromEnvironment. An https API is
	// reached through CONNECT, so a proxy learns host and port only.
	Proxy func(*http.Request) (*url.URL, error)
	// Concurrency is how many requests may be in flight at once: as many idle connections are kept. Default 32.
	Concurrency int

	Timeout     time.Duration // of one attempt, from dialling to the last byte of the answer; default 30 s
	ListTimeout time.Duration // the same for the customer list, of which each read has Timeout; default 15 min
	MaxBody     int64         // most bytes of an answer, or of one element of the list, after decompression; default 1 MiB

	// Clock learns the partner's time from every answer. Sign should use it for the time at which a signature was
	// created. Default: a new Clock.
	Clock *Clock

	UserAgent string           // default "purser"
	Now       func() time.Time // default time.Now
	Rand      io.Reader        // for random ids; default crypto/rand
	Logger    *slog.Logger     // default: nothing is logged
	Observer  Observer         // default: nothing is observed
}

// LogValue is String, so that logs show no credentials.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String returns the API's URL without credentials.
func (c Config) String() string { return "partner API at " + c.BaseURL }

// GoString is String, so that %#v shows no credentials.
func (c Config) GoString() string { return c.String() }

// Client calls the partner's API. All methods may be called by many goroutines at once; they block until there is an
// answer or an error, or ctx ends. Errors are *Error, ErrStopped, or ctx's: the request may have been sent then, too.
type Client struct {
	config    Config
	base      string            // without a trailing slash
	transport http.RoundTripper // Close closes its idle connections
	around    http.RoundTripper // transport, with Config.Around
	logger    *slog.Logger
	tokens    *tokens
	rand      sync.Mutex // for Config.Rand

	sent, throttled, resent atomic.Int64
	answered                atomic.Bool // the partner, or a proxy, has answered a request
	clock                   *Clock
}

// New returns a Client; it sends nothing. An error names the setting that is wrong.
func New(config Config) (*Client, error) {
	base, err := parseBase(config.BaseURL)
	if err != nil {
		return nil, err
	}
	switch {
	case config.APIKey == "":
		return nil, errors.New("client: the API key is missing")
	case config.APISecret == "":
		return nil, errors.New("client: the API secret is missing")
	case config.Sign == nil:
		return nil, errors.New("client: no request signer")
	case config.RateLimiter == nil:
		return nil, errors.New("client: no rate limiter")
	case config.Timeout < 0, config.ListTimeout < 0, config.MaxBody < 0, config.Concurrency < 0:
		return nil, errors.New("client: timeouts, body size and concurrency cannot be negative")
	}
	setDefault(&config.Digest, defaultDigest)
	setDefault(&config.Timeout, defaultTimeout)
	setDefault(&config.ListTimeout, defaultListTimeout)
	setDefault(&config.MaxBody, defaultMaxBody)
	setDefault(&config.Concurrency, defaultConcurrency)
	setDefault(&config.UserAgent, defaultUserAgent)
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the documented default of a field through which it is passed in
	}
	if config.Clock == nil {
		config.Clock = NewClock(config.Now, createdMargin)
	}
	config.Rand = cmp.Or(config.Rand, rand.Reader)
	if config.Observer == nil {
		config.Observer = unobserved{}
	}
	if config.Proxy == nil {
		config.Proxy = http.ProxyFromEnvironment
	}
	if _, err := httpsig.ContentDigest(config.Digest, nil); err != nil {
		return nil, fmt.Errorf("client: digest algorithm: %w", err)
	}
	c := &Client{
		config: config, base: base, clock: config.Clock, transport: guardedTransport(config), logger: config.Logger,
		tokens: newTokens(config.APIKey, config.APISecret),
	}
	if c.around = c.transport; config.Around != nil {
		c.around = config.Around(c.transport)
	}
	c.logger = cmp.Or(c.logger, slog.New(slog.DiscardHandler))
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func parseBase(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		// The error of url.Parse quotes its input, which may hold a password.
		return "", errors.New("client: the API URL is not an absolute URL like https://host/v1")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return "", fmt.Errorf("client: the API URL's scheme is %q, want https", u.Scheme)
	case u.User != nil:
		return "", errors.New("client: the API URL must not contain credentials")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("client: the API URL must not have a query or a fragment")
	case u.Scheme == "http" && !loopback.Is(u.Hostname()):
		return "", fmt.Errorf("client: the API URL is not https and %s is not this machine: "+
			"the API secret would be sent in clear text", u.Hostname())
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// pathSign is the end of the path to which a signature is submitted.
const pathSign = "/challenge/sign"

// CreateCustomer sends POST /customers with body, from CreateBody, under the idempotency key. The answer must have a
// UUID and, if it has chainId and externalId, the body's (chainId in any case); any other 2xx is Unrecognized, or
// Malformed when it is cut off. The customer's Challenge is empty when the answer has none.
func (c *Client) CreateCustomer(ctx context.Context, key uuid.UUID, body []byte) (Customer, error) {
	k := call{op: "POST /customers", name: Create, method: http.MethodPost, path: "/customers", key: key, body: body}
	if err := k.check(); err != nil {
		return Customer{}, err
	}
	customer, err := ask(ctx, c, k, func(a answer) (Customer, error) { return created(body, a) })
	return c.shown(customer), err
}

// Customer sends GET /customers/{id}. The answer must have that id and a status.
func (c *Client) Customer(ctx context.Context, id string) (Customer, error) {
	k := call{op: "GET /customers/{id}", name: Find, method: http.MethodGet, path: "/customers/" + id}
	if err := checkID(k.op, id); err != nil {
		return Customer{}, err
	}
	customer, err := ask(ctx, c, k, func(a answer) (Customer, error) { return found(id, a) })
	return c.shown(customer), err
}

// Challenge sends GET /customers/{id}/challenge and returns the challenge in base64 as it was received; DecodeChallenge
// gives its text. The body may be an object with "challenge", a JSON string, or the base64 alone.
func (c *Client) Challenge(ctx context.Context, id string) (string, error) {
	k := call{op: "GET /customers/{id}/challenge", name: Challenge, method: http.MethodGet,
		path: "/customers/" + id + "/challenge"}
	if err := checkID(k.op, id); err != nil {
		return "", err
	}
	return ask(ctx, c, k, challengeIn)
}

// ask sends a request and reads its answer.
func ask[T any](ctx context.Context, c *Client, k call, read func(answer) (T, error)) (T, error) {
	var none T
	a, err := c.do(ctx, k)
	if err != nil {
		return none, err
	}
	value, err := read(a)
	if err != nil {
		return none, c.malformed(k.op, a, err)
	}
	return value, nil
}

// SubmitSignature sends POST /customers/{id}/challenge/sign with body, from SubmitBody, under the idempotency key.
//
// Only a 204 without a body is success. Any other 2xx is Malformed and wraps ErrUnproven: the customer's status says
// whether the signature was accepted.
func (c *Client) SubmitSignature(ctx context.Context, id string, key uuid.UUID, body []byte) error {
	k := call{op: "POST /customers/{id}/challenge/sign", name: Submit, method: http.MethodPost,
		path: "/customers/" + id + pathSign, key: key, body: body}
	if err := checkID(k.op, id); err != nil {
		return err
	}
	if err := k.check(); err != nil {
		return err
	}
	a, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	if err := submitted(id, a); err != nil {
		return c.malformed(k.op, a, err)
	}
	return nil
}

// Stats are counts since New, and the clock.
type Stats struct {
	Sent      int64 // attempts, those for a token included
	Throttled int64 // answers 429, and 503 with Retry-After
	Retried   int64 // requests sent again after a 401 or an answer about the request's signature

	// ClockSkew is how far this machine's clock is ahead of the partner's (behind when negative), by the latest Date
	// header. It is 0 while it is below a second and the resolution of Date (half a second and half a round trip).
	ClockSkew time.Duration
}

// Stats returns the counts so far.
func (c *Client) Stats() Stats {
	return Stats{Sent: c.sent.Load(), Throttled: c.throttled.Load(), Retried: c.resent.Load(), ClockSkew: c.clock.Skew()}
}

// Close closes idle connections. Calls in flight continue; it may be called twice.
func (c *Client) Close() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
