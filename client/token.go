package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	opToken = "POST /auth/token" //nolint:gosec // G101: a path, no credential

	shortLifetime = time.Minute // of a token without an expiry, or with one in the past
	tokenMargin   = time.Minute // before its expiry a token is replaced, or a tenth of its lifetime if that is shorter
)

// bearerToken is a bearer token. It is always printed as "[redacted]".
type bearerToken struct {
	secret string
	number int // of the fetch: the partner may issue the same characters twice
}

func (t bearerToken) reveal() string { return t.secret }

// The methods of package fmt, slog and the encoders write "[redacted]".

func (t bearerToken) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (t bearerToken) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (t bearerToken) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// tokens keeps the token of all workers. The first worker in the rate limiter's queue fetches it while the others
// wait in the queue. So it is fetched once, no worker takes a place in the rate before there is a token, and a worker
// whose context ends leaves without an effect on the others.
//
// A single 401 may be a mistake of the partner: the worker that got it renews the token, and the others continue to use
// the old one meanwhile, except those that get a 401, too. After a second 401 in a row, without a 2xx in between, all
// wait for the new token.
type tokens struct {
	mu       sync.Mutex
	token    bearerToken
	previous bearerToken   // a request may still be in flight with it
	until    time.Time     // when token is to be replaced
	refused  bool          // a request with token was answered 401, and none 2xx since
	renewal  chan struct{} // closed when the renewal of a refused token has ended; nil: there is none
	failures uint64        // fetches that failed
	failure  error         // of the latest

	accepted bool     // a token was issued
	secrets  []string // credentials that this client has used; the last is the API secret in force
	redact   *redactor
}

func newTokens(apiKey, secret string) *tokens {
	return &tokens{secrets: []string{apiKey, secret}, redact: newRedactor(apiKey, secret)}
}

// valid returns the token, and whether a request that was refused with another token may be sent with it.
func (t *tokens) valid(now time.Time, refused bearerToken) (bearerToken, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token, t.usable(now) && t.token != refused
}

// usable reports whether the token need not be replaced yet. The caller holds t.mu.
func (t *tokens) usable(now time.Time) bool { return t.token.secret != "" && now.Before(t.until) }

// refuse records that a request with the token was answered 401, unless the token has been replaced since.
func (t *tokens) refuse(token bearerToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token != token {
		return
	}
	if t.refused {
		t.until = time.Time{}
	}
	t.refused = true
}

// confirm records that a request with the token was answered 2xx.
func (t *tokens) confirm(token bearerToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == token {
		t.refused = false
	}
}

// nextStep is a worker's next step.
type nextStep int

const (
	sendRequest  nextStep = iota // it has a valid token and a place in the rate
	fetchToken                   // it fetches a token while the others wait in the queue
	renewToken                   // it leaves the queue and fetches a token; endRenewal must follow
	awaitRenewal                 // it leaves the queue and waits for another worker's renewal
	lookAgain                    // there is a token, or another worker renews it
)

// step decides the next step of a worker that has a place in the rate but no valid token. The worker is the first in
// the queue, so that no two workers fetch.
func (t *tokens) step(now time.Time, refused bearerToken) nextStep {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.renewal != nil, t.usable(now) && t.token != refused:
		return lookAgain
	case t.usable(now): // by the others
		t.renewal = make(chan struct{})
		return renewToken
	}
	return fetchToken
}

// endRenewal ends a renewal. If it failed, all wait for the next fetch.
func (t *tokens) endRenewal(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.until = time.Time{}
	}
	close(t.renewal)
	t.renewal = nil
}

// renewing reports whether the token is being renewed.
func (t *tokens) renewing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.renewal != nil
}

// awaitRenewal waits until the present renewal has ended, if there is one. The error is ctx's.
func (t *tokens) awaitRenewal(ctx context.Context) error {
	t.mu.Lock()
	end := t.renewal
	t.mu.Unlock()
	if end == nil {
		return nil
	}
	select {
	case <-end:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *tokens) set(token bearerToken, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	token.number = t.token.number + 1
	t.previous, t.token, t.until, t.refused, t.accepted = t.token, token, until, false, true
	t.rebuild()
}

// secret returns the API secret in force, and whether a token was ever issued.
func (t *tokens) secret() (secret string, accepted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.secrets[len(t.secrets)-1], t.accepted
}

// replaceSecret puts another API secret in force. It reports false if secret is empty or in force already.
func (t *tokens) replaceSecret(secret string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if secret == "" || t.secrets[len(t.secrets)-1] == secret {
		return false
	}
	t.secrets = append(t.secrets, secret)
	t.rebuild()
	return true
}

// hide redacts a secret that is not in force.
func (t *tokens) hide(secret string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.secrets = append([]string{secret}, t.secrets...)
	t.rebuild()
}

// rebuild makes the redactor of all secrets. The caller holds t.mu.
func (t *tokens) rebuild() {
	t.redact = newRedactor(append(slices.Clone(t.secrets), t.previous.reveal(), t.token.reveal())...)
}

// redactor returns the redactor of all secrets.
func (t *tokens) redactor() *redactor {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.redact
}

func (t *tokens) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures++
	t.failure = err
}

func (t *tokens) failed() (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failures, t.failure
}

// waitForToken waits for the rate limiter and returns a token that is valid then, other than refused.
func (c *Client) waitForToken(ctx context.Context, op Operation, refused bearerToken) (bearerToken, uint64, error) {
	for {
		token, closings, next, err := c.inQueue(ctx, op, refused)
		switch {
		case err != nil:
			return bearerToken{}, 0, err
		case next == renewToken:
			err := c.fetchOnce(ctx, closings)
			c.tokens.endRenewal(err)
			if err != nil {
				c.logger.DebugContext(ctx, "token renewal failed; fetching a new token", "error", err)
			}
		case next == awaitRenewal:
			if err := c.tokens.awaitRenewal(ctx); err != nil {
				return bearerToken{}, 0, err
			}
		default:
			return token, closings, nil
		}
	}
}

// inQueue waits for a place in the rate and returns a token for it: sendRequest. With renewToken the place is for the
// renewal of the token, and endRenewal must follow; with awaitRenewal there is none.
func (c *Client) inQueue(
	ctx context.Context, op Operation, refused bearerToken,
) (_ bearerToken, closings uint64, next nextStep, _ error) {
	before, _ := c.tokens.failed()
	since := c.config.Now()
	if err := c.config.RateLimiter.join(ctx, op == Create && refused == (bearerToken{})); err != nil {
		return bearerToken{}, 0, 0, err
	}
	defer c.config.RateLimiter.leave()
	for fetched := false; ; {
		if _, ok := c.tokens.valid(c.config.Now(), refused); !ok {
			if c.tokens.renewing() { // the others may still use the token, and must not wait behind this worker
				return bearerToken{}, 0, awaitRenewal, nil
			}
			// A worker ahead in the queue failed to get a token while this one waited. All who waited fail with it.
			if now, err := c.tokens.failed(); now != before {
				return bearerToken{}, 0, 0, err
			}
		}
		closings, err := c.config.RateLimiter.take(ctx)
		if err != nil {
			return bearerToken{}, 0, 0, err
		}
		now := c.config.Now()
		c.config.Observer.Waited(now.Sub(since))
		since = now
		token, ok := c.tokens.valid(now, refused)
		if ok || fetched && token.secret != "" {
			// A token that has just been fetched is used, even if its lifetime is shorter than the wait.
			return token, closings, sendRequest, nil
		}
		switch c.tokens.step(now, refused) {
		case renewToken:
			return bearerToken{}, closings, renewToken, nil
		case lookAgain: // the place is given up
			continue
		case fetchToken:
		}
		if err := c.fetch(ctx, closings); err != nil {
			if ctx.Err() == nil {
				c.tokens.fail(err)
			}
			return bearerToken{}, 0, 0, err
		}
		fetched, since = true, c.config.Now()
	}
}

// Authenticate fetches a token unless the latest is still valid. An error is the *Error of POST /auth/token,
// ErrStopped, or ctx's.
func (c *Client) Authenticate(ctx context.Context) error {
	_, _, err := c.waitForToken(ctx, Token, bearerToken{})
	return err
}

// fetch requests a token; the caller has waited for the rate limiter. A request whose answer is lost or unusable is
// repeated once, because all workers wait for the token. If the API secret is not accepted and Config.Secret returns
// another, the token is requested with that, once.
func (c *Client) fetch(ctx context.Context, closings uint64) error {
	err := c.fetchOnce(ctx, closings)
	var failure *Error
	if errors.As(err, &failure) && mayBeChance(failure) {
		c.logger.DebugContext(ctx, "token request failed; repeating it", "error", err)
		if closings, err = c.config.RateLimiter.take(ctx); err != nil {
			return err
		}
		err = c.fetchOnce(ctx, closings)
	}
	if c.config.Secret == nil || !errors.As(err, &failure) {
		return err
	}
	switch failure.Kind {
	case Invalid, Unauthorized, Forbidden:
	default:
		return err
	}
	if replaced, e := c.readSecret(ctx); e != nil {
		return e
	} else if !replaced {
		return err
	}
	c.logger.InfoContext(ctx, "the API secret was replaced; fetching a token with the new secret")
	if closings, err = c.config.RateLimiter.take(ctx); err != nil {
		return err
	}
	return c.fetchOnce(ctx, closings)
}

// mayBeChance reports whether the next request for a token may well succeed. After a timeout the workers have waited
// long enough.
func mayBeChance(e *Error) bool {
	return !errors.Is(e, errTimeout) && (e.Kind == NoAnswer || e.Kind == Malformed || e.Kind == ServerError)
}

// If a secret was accepted before, Config.Secret is called until it returns another: the new secret is valid at the
// partner before it is in the file.
const (
	secretPatience = 30 * time.Second
	secretInterval = time.Second
)

// readSecret reports whether Config.Secret returned another secret than the one in force, and puts that in force. The
// error is ctx's, or ErrStopped.
func (c *Client) readSecret(ctx context.Context) (replaced bool, err error) {
	_, accepted := c.tokens.secret()
	for waited := time.Duration(0); ; waited += secretInterval {
		secret, err := c.config.Secret()
		switch {
		case err == nil && c.tokens.replaceSecret(secret):
			return true, nil
		case accepted && waited == 0:
			c.logger.WarnContext(ctx, "the API secret is no longer accepted; waiting for a new secret",
				"at_most", secretPatience)
		case !accepted || waited >= secretPatience:
			if err != nil {
				c.logger.WarnContext(ctx, "cannot reread the API secret", "error", err)
			}
			return false, nil
		}
		if err := c.config.RateLimiter.rest(ctx, secretInterval); err != nil {
			return false, err
		}
	}
}

// fetchOnce requests a token with the secret in force.
func (c *Client) fetchOnce(ctx context.Context, closings uint64) error {
	key, err := c.newID()
	if err != nil {
		return &Error{Op: opToken, Kind: Unsendable, Err: err}
	}
	// The API requires an Idempotency-Key on every POST; a new key never gets a stored answer.
	secret, _ := c.tokens.secret()
	k := call{op: opToken, name: Token, method: http.MethodPost, path: "/auth/token", key: key, token: true,
		body: tokenBody(c.config.APIKey, secret)}
	sent := c.config.Now()
	r, err := c.send(ctx, k, bearerToken{}, closings)
	if err != nil {
		return err
	}
	if r.StatusCode < 200 || r.StatusCode > 299 {
		return c.failed(k, r)
	}
	a := c.read(r)
	if a.broken != nil {
		return c.incomplete(ctx, opToken, a)
	}
	token, expires, err := parseToken(a.body)
	if err != nil {
		return c.malformed(opToken, a, err)
	}
	c.tokens.set(token, sent.Add(usable(expires, a.header, sent)))
	return nil
}

// usable returns how long a token is used, counted from its request. Its expiry is in the partner's time, so the
// lifetime is the difference from the partner's Date header, if there is one: a wrong clock here must neither make
// every token look expired nor keep one too long.
func usable(expires time.Time, header http.Header, sent time.Time) time.Duration {
	lifetime := shortLifetime
	if !expires.IsZero() {
		start := sent
		if date, err := http.ParseTime(header.Get("Date")); err == nil {
			start = date
		}
		if l := expires.Sub(start); l > 0 {
			lifetime = l
		}
	}
	return lifetime - min(tokenMargin, lifetime/10)
}

// parseToken reads {"token","expiresAt","tokenType"}. expiresAt may be seconds or milliseconds since 1970, as a number
// or a string, or an RFC 3339 time; a missing or unreadable one gives the zero time.
func parseToken(body []byte) (bearerToken, time.Time, error) {
	var wire struct {
		Token     string          `json:"token"`
		TokenType string          `json:"tokenType"`
		ExpiresAt json.RawMessage `json:"expiresAt"`
	}
	err := decodeOne(body, &wire)
	if json.Valid(body) && (err != nil || wire.Token == "") {
		return bearerToken{}, time.Time{}, &shapeError{Endpoint: opToken, Want: "token", Have: memberNames(body)}
	}
	const most = 16 << 10
	switch {
	case err != nil:
		return bearerToken{}, time.Time{}, err
	case len(wire.Token) > most:
		return bearerToken{}, time.Time{}, fmt.Errorf("the token is longer than %d bytes", most)
	case strings.ContainsFunc(wire.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return bearerToken{}, time.Time{}, errors.New("the token has characters that a header cannot have") // RFC 6750 §2.1
	case wire.TokenType != "" && !strings.EqualFold(wire.TokenType, "Bearer"):
		return bearerToken{}, time.Time{}, errors.New("the token is not of type Bearer")
	}
	return bearerToken{secret: wire.Token}, parseExpiry(wire.ExpiresAt), nil
}

func parseExpiry(raw json.RawMessage) time.Time {
	text := string(bytes.Trim(raw, `" `))
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t
	}
	seconds, err := strconv.ParseFloat(text, 64)
	// A count above 1e11 is milliseconds: as seconds it would be the year 5138.
	if seconds > 1e11 {
		seconds /= 1e3
	}
	if err != nil || !(seconds > 0 && seconds < 1e11) {
		return time.Time{}
	}
	return time.UnixMilli(int64(seconds * 1e3))
}

// noToken returns the error of a request that was not sent because err ended the wait for a token.
func noToken(ctx context.Context, op string, err error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var inner *Error
	if !errors.As(err, &inner) {
		return err
	}
	return &Error{Op: op, Kind: NoToken, RetryAfter: inner.RetryAfter, Err: inner}
}

// newID returns a random UUID (RFC 9562 §5.4).
func (c *Client) newID() (uuid.UUID, error) {
	c.rand.Lock()
	defer c.rand.Unlock()
	return uuid.NewRandomFromReader(c.config.Rand)
}
