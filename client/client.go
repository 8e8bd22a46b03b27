// Package client speaks the partner's API: token, signed requests, typed errors, and the pace that all workers share.
//
// One call is one attempt. Whether a failed one is repeated, when, and under which idempotency key, is decided by the
// reader of the [Error]; this package only says what happened. There are two exceptions, in which the request is sent
// once more, with a new token and a new signature but the same body, digest and idempotency key: a 401 may mean no more
// than that the token ended early, and a refused request signature that a clock was set. The second time the answer is
// [Unauthorized] or [RequestSignature].
//
// Nothing else is sent twice, net/http's own repetitions on stale connections included: each of those would leave
// without a place in the rate and under an old signature (see guard).
package client

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/httpsig"
)

// Defaults of Config.
const (
	DefaultTimeout     = 30 * time.Second
	DefaultListTimeout = 15 * time.Minute
	DefaultMaxBody     = 1 << 20
	DefaultConcurrency = 32
	DefaultDigest      = "sha-256"
	DefaultUserAgent   = "purser"
)

// RequestSigner signs a request as it is about to leave; *httpsig.Signer is one. It is called by many goroutines.
type RequestSigner interface {
	Sign(*http.Request) error
}

// Config says how to reach the partner. APISecret goes nowhere but into POST /auth/token.
type Config struct {
	// BaseURL is where the API begins, "https://api.offblocks.xyz/v1", without query, fragment or credentials. Plain
	// http is refused beyond loopback, unless AllowPlaintext.
	BaseURL        string
	AllowPlaintext bool

	APIKey    string // a UUID
	APISecret string
	// Secret reads the API secret again when POST /auth/token was refused: it may have been replaced. If a token was
	// issued before, it is called for up to 30 s, once a second. Nil: APISecret stays.
	Secret func() (string, error)

	Sign        RequestSigner // signs every attempt but those for a token; required
	RateLimiter *RateLimiter  // every attempt waits for it, those for a token too; required
	Digest      string        // algorithm of Content-Digest, "sha-256" (the default) or "sha-512"

	// Transport replaces the one this package makes. An *http.Transport is cloned, to keep it from repeating requests;
	// another RoundTripper must neither repeat requests nor follow redirects. Nil: TLS 1.2 or better, HTTP/2 where the
	// server has it, proxies as Proxy says.
	Transport http.RoundTripper
	// RootCAs are the authorities that the API's certificate, and that of an https proxy, is checked against when
	// Transport is nil; nil is the system's.
	RootCAs *x509.CertPool
	// Proxy chooses the proxy for a request when Transport is nil; nil is http.ProxyFromEnvironment, because banks
	// reach the internet that way. An https API is reached through CONNECT, so a proxy learns the host and no more.
	Proxy func(*http.Request) (*url.URL, error)
	// Concurrency is how many requests may be under way at once: so many idle connections are kept. Default 32.
	Concurrency int

	Timeout     time.Duration // of one attempt, from dialling to the last byte of the answer; default 30 s
	ListTimeout time.Duration // the same for the customer list, whose progress is watched by Timeout; default 15 min
	MaxBody     int64         // most bytes of an answer, or of one element of the list, after decompression; default 1 MiB

	// Clock is told the partner's time by every answer. It should be the one by which Sign knows when a signature was
	// created. Default: one of the Client's own.
	Clock *Clock

	UserAgent string           // default "purser"
	Now       func() time.Time // default time.Now
	Rand      io.Reader        // for the ids this package makes up; default crypto/rand
	Logger    *slog.Logger     // default: none
}

// LogValue keeps the credentials out of logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String names the API and no credentials.
func (c Config) String() string { return "partner API at " + c.BaseURL }

// GoString is String, for %#v.
func (c Config) GoString() string { return c.String() }

// Client is the partner's API. All methods may be called by many goroutines at once; they block until there is an
// answer, an error, or ctx ends. Errors are *Error, or ctx's own when ctx ended: the request may have been sent then,
// too.
type Client struct {
	config    Config
	base      string // without a trailing slash
	transport http.RoundTripper
	logger    *slog.Logger
	tokens    *tokens
	rand      sync.Mutex // readers need not be safe for many goroutines

	sent, throttled, resent atomic.Int64
	answered                atomic.Bool // the partner, or a proxy, has answered a request
	clock                   *Clock
}

// New checks the configuration; it sends nothing.
func New(config Config) (*Client, error) {
	base, err := parseBase(config.BaseURL, config.AllowPlaintext)
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
	setDefault(&config.Digest, DefaultDigest)
	setDefault(&config.Timeout, DefaultTimeout)
	setDefault(&config.ListTimeout, DefaultListTimeout)
	setDefault(&config.MaxBody, DefaultMaxBody)
	setDefault(&config.Concurrency, DefaultConcurrency)
	setDefault(&config.UserAgent, DefaultUserAgent)
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the documented default of a field through which it is passed in
	}
	if config.Clock == nil {
		config.Clock = NewClock(config.Now, CreatedMargin)
	}
	if config.Rand == nil {
		config.Rand = rand.Reader
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
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func parseBase(raw string, plaintext bool) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		// url.Parse quotes its input, which may hold a password.
		return "", errors.New("client: the API URL is not an absolute URL like https://host/v1")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return "", fmt.Errorf("client: the API URL's scheme is %q, want https", u.Scheme)
	case u.User != nil:
		return "", errors.New("client: the API URL must not hold credentials")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("client: the API URL must not have a query or a fragment")
	case u.Scheme == "http" && !plaintext && !loopback(u.Hostname()):
		return "", fmt.Errorf("client: %s is not on this machine: without https the API secret would travel in the clear",
			u.Hostname())
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// pathSign ends the path to which a signature is submitted.
const pathSign = "/challenge/sign"

// CreateCustomer sends POST /customers with body, from CreateBody, under the idempotency key. The answer names a
// customer with a UUID, and with the body's chainId (in any case) and externalId where it repeats them; any other 2xx
// is Unrecognized, or Malformed when it broke off. Challenge is empty when the answer held none.
func (c *Client) CreateCustomer(ctx context.Context, key uuid.UUID, body []byte) (Customer, error) {
	k := call{op: "POST /customers", method: http.MethodPost, path: "/customers", key: key, body: body}
	if err := k.check(); err != nil {
		return Customer{}, err
	}
	a, err := c.do(ctx, k)
	if err != nil {
		return Customer{}, err
	}
	customer, err := created(body, a)
	if err != nil {
		return Customer{}, c.malformed(k.op, a, err)
	}
	return c.shown(customer), nil
}

// Customer sends GET /customers/{id}. The answer must have that id and a status.
func (c *Client) Customer(ctx context.Context, id string) (Customer, error) {
	k := call{op: "GET /customers/{id}", method: http.MethodGet, path: "/customers/" + id}
	if err := checkID(k.op, id); err != nil {
		return Customer{}, err
	}
	a, err := c.do(ctx, k)
	if err != nil {
		return Customer{}, err
	}
	customer, err := found(id, a)
	if err != nil {
		return Customer{}, c.malformed(k.op, a, err)
	}
	return c.shown(customer), nil
}

// Challenge sends GET /customers/{id}/challenge and returns the challenge in base64 as it was received; DecodeChallenge
// gives its text. The body may be an object with "challenge", a JSON string, or the base64 alone.
func (c *Client) Challenge(ctx context.Context, id string) (string, error) {
	k := call{op: "GET /customers/{id}/challenge", method: http.MethodGet, path: "/customers/" + id + "/challenge"}
	if err := checkID(k.op, id); err != nil {
		return "", err
	}
	a, err := c.do(ctx, k)
	if err != nil {
		return "", err
	}
	challenge, err := challengeIn(a)
	if err != nil {
		return "", c.malformed(k.op, a, err)
	}
	return challenge, nil
}

// SubmitSignature sends POST /customers/{id}/challenge/sign with body, from SubmitBody, under the idempotency key.
//
// Only a 204 without a body is success. Any other 2xx is Malformed and wraps ErrUnproven: whether the signature was
// accepted is for the customer's status to say.
func (c *Client) SubmitSignature(ctx context.Context, id string, key uuid.UUID, body []byte) error {
	k := call{op: "POST /customers/{id}/challenge/sign", method: http.MethodPost,
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

// Stats counts since New.
type Stats struct {
	Sent      int64 // attempts, those for a token included
	Throttled int64 // answers 429, and 503 with Retry-After
	Retried   int64 // attempts repeated with a new token after a 401 or a refused request signature

	// ClockSkew is how far this machine's clock is ahead of the partner's (behind when negative), as the latest Date
	// header shows it; 0 while it is within a second and what Date can tell (half a second and half a round trip).
	ClockSkew time.Duration
	FirstSeen time.Time // when a skew was first noticed, by this machine's clock; zero if never
}

// Stats says what has happened so far.
func (c *Client) Stats() Stats {
	skew, first := c.clock.Skew()
	return Stats{Sent: c.sent.Load(), Throttled: c.throttled.Load(), Retried: c.resent.Load(),
		ClockSkew: skew, FirstSeen: first}
}

// Close closes idle connections. Calls under way go on; it may be called twice.
func (c *Client) Close() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
