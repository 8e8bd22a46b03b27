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

	// A token that does not say when it ends, or says that it has ended already, is used this long.
	shortLifetime = time.Minute
	// A token is replaced this long before its end, or a tenth of its lifetime if that is shorter.
	tokenMargin = time.Minute
)

// Token is a bearer token. However it is printed, only "[redacted]" comes out.
type Token struct{ secret string }

func (t Token) reveal() string { return t.secret }

// Format serves every verb of package fmt.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String returns "[redacted]".
func (t Token) String() string { return redacted }

// GoString returns "[redacted]".
func (t Token) GoString() string { return redacted }

// LogValue returns "[redacted]".
func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]".
func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// tokens keeps the one token that all workers use. It is fetched by the worker at the head of the pace's line: the
// others stand behind, so it is fetched once, nobody waits holding a place in the rate, and one whose context ends
// leaves the line without disturbing the rest.
type tokens struct {
	mu       sync.Mutex
	token    Token
	previous Token     // a request may still be in flight with it
	until    time.Time // when token is to be replaced
	failures uint64    // fetches that failed
	failure  error     // of the latest

	accepted bool     // a token was issued
	secrets  []string // credentials that this client has used; the last is the API secret in force
	redact   *redactor
}

func newTokens(apiKey, secret string) *tokens {
	return &tokens{secrets: []string{apiKey, secret}, redact: newRedactor(apiKey, secret)}
}

// valid returns the token if it need not be replaced yet.
func (t *tokens) valid(now time.Time) (Token, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token, t.token.secret != "" && now.Before(t.until)
}

// refuse ends the token's use after a 401, unless it has been replaced since.
func (t *tokens) refuse(token Token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == token {
		t.until = time.Time{}
	}
}

func (t *tokens) set(token Token, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.previous, t.token, t.until, t.accepted = t.token, token, until, true
	t.rebuild()
}

// secret returns the API secret in force, and whether a token was ever issued.
func (t *tokens) secret() (secret string, accepted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.secrets[len(t.secrets)-1], t.accepted
}

// replaceSecret puts another API secret in force. It reports false if that is the one in force already.
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

// hide keeps a secret that is not in force out of errors and logs.
func (t *tokens) hide(secret string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.secrets = append([]string{secret}, t.secrets...)
	t.rebuild()
}

// rebuild makes the redactor of all secrets in use. The caller holds t.mu.
func (t *tokens) rebuild() {
	t.redact = newRedactor(append(slices.Clone(t.secrets), t.previous.reveal(), t.token.reveal())...)
}

// redactor returns what takes the credentials and tokens out of texts.
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

// place waits for a place in the rate and returns it with a token that is valid at that moment.
func (c *Client) place(ctx context.Context) (Token, uint64, error) {
	before, _ := c.tokens.failed()
	if err := c.config.RateLimiter.join(ctx); err != nil {
		return Token{}, 0, err
	}
	defer c.config.RateLimiter.leave()
	for fetched := false; ; fetched = true {
		if _, ok := c.tokens.valid(c.config.Now()); !ok {
			// Somebody ahead in the line asked while this one waited: the answer goes for all who did.
			if now, err := c.tokens.failed(); now != before {
				return Token{}, 0, err
			}
		}
		closings, err := c.config.RateLimiter.take(ctx)
		if err != nil {
			return Token{}, 0, err
		}
		token, ok := c.tokens.valid(c.config.Now())
		if ok || fetched && token.secret != "" {
			// A token whose whole life is shorter than the wait for a place is used all the same.
			return token, closings, nil
		}
		if err := c.fetch(ctx, closings); err != nil {
			if ctx.Err() == nil {
				c.tokens.fail(err)
			}
			return Token{}, 0, err
		}
	}
}

// Authenticate makes sure that there is a token: it fetches one unless the latest is still valid. An error is the
// *Error of POST /auth/token, or ctx's.
func (c *Client) Authenticate(ctx context.Context) error {
	_, _, err := c.place(ctx)
	return err
}

// fetch asks for a token; the place in the rate is the caller's. When the API secret is refused, it may have been
// replaced: if Config.Secret reads another one, the token is asked for with that, once.
func (c *Client) fetch(ctx context.Context, closings uint64) error {
	err := c.fetchOnce(ctx, closings)
	var refused *Error
	if c.config.Secret == nil || !errors.As(err, &refused) {
		return err
	}
	switch refused.Kind {
	case Invalid, Unauthorized, Forbidden:
	default:
		return err
	}
	if replaced, e := c.readSecret(ctx); e != nil {
		return e
	} else if !replaced {
		return err
	}
	c.logger.InfoContext(ctx, "the API secret was replaced; fetching a token with the new one")
	if closings, err = c.config.RateLimiter.take(ctx); err != nil {
		return err
	}
	return c.fetchOnce(ctx, closings)
}

// A client whose secret was accepted before waits this long for the new one: who replaces a secret at the partner has
// it in the file only afterwards.
const (
	secretPatience = 30 * time.Second
	secretInterval = time.Second
)

// readSecret reports whether Config.Secret has another secret than the one in force, and puts it in force. The error is
// ctx's, or ErrStopped.
func (c *Client) readSecret(ctx context.Context) (replaced bool, err error) {
	_, accepted := c.tokens.secret()
	for waited := time.Duration(0); ; waited += secretInterval {
		secret, err := c.config.Secret()
		switch {
		case err == nil && c.tokens.replaceSecret(secret):
			return true, nil
		case accepted && waited == 0:
			c.logger.WarnContext(ctx, "the API secret is no longer accepted; waiting for a new one", "at_most", secretPatience)
		case !accepted || waited >= secretPatience:
			if err != nil {
				c.logger.WarnContext(ctx, "the API secret cannot be read again", "error", err)
			}
			return false, nil
		}
		if err := c.config.RateLimiter.rest(ctx, secretInterval); err != nil {
			return false, err
		}
	}
}

// fetchOnce asks for a token with the secret in force.
func (c *Client) fetchOnce(ctx context.Context, closings uint64) error {
	key, err := c.newID()
	if err != nil {
		return &Error{Op: opToken, Kind: Unsendable, Err: err}
	}
	// The API asks for an Idempotency-Key on every POST; a new one each time never meets a stored answer.
	secret, _ := c.tokens.secret()
	k := call{op: opToken, method: http.MethodPost, path: "/auth/token", key: key, token: true,
		body: tokenBody(c.config.APIKey, secret)}
	sent := c.config.Now()
	r, err := c.send(ctx, k, Token{}, closings)
	if err != nil {
		return err
	}
	if r.StatusCode < 200 || r.StatusCode > 299 {
		return c.refusal(k, r)
	}
	a := c.read(r)
	if a.broken != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		return c.malformed(opToken, a, a.broken)
	}
	token, expires, err := parseToken(a.body)
	if err != nil {
		return c.malformed(opToken, a, err)
	}
	c.tokens.set(token, sent.Add(usable(expires, a.header, sent)))
	return nil
}

// usable says how long after it was asked for a token is used. Its end is the partner's time, so its lifetime is
// measured by the partner's clock (the Date header, if there is one) and counted on ours: a wrong clock here neither
// makes every token look ended nor keeps one too long.
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
func parseToken(body []byte) (Token, time.Time, error) {
	var wire struct {
		Token     string          `json:"token"`
		TokenType string          `json:"tokenType"`
		ExpiresAt json.RawMessage `json:"expiresAt"`
	}
	err := decodeOne(body, &wire)
	if json.Valid(body) && (err != nil || wire.Token == "") {
		return Token{}, time.Time{}, &ShapeError{Endpoint: opToken, Want: "token", Have: memberNames(body)}
	}
	const most = 16 << 10
	switch {
	case err != nil:
		return Token{}, time.Time{}, err
	case len(wire.Token) > most:
		return Token{}, time.Time{}, fmt.Errorf("the token is longer than %d bytes", most)
	case strings.ContainsFunc(wire.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return Token{}, time.Time{}, errors.New("the token has characters that no header can carry") // RFC 6750 §2.1
	case wire.TokenType != "" && !strings.EqualFold(wire.TokenType, "Bearer"):
		return Token{}, time.Time{}, errors.New("the token is not of type Bearer")
	}
	return Token{wire.Token}, parseExpiry(wire.ExpiresAt), nil
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

// noToken tells the request that was not sent why.
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

// newID makes a random UUID (RFC 9562 §5.4).
func (c *Client) newID() (uuid.UUID, error) {
	c.rand.Lock()
	defer c.rand.Unlock()
	return uuid.NewRandomFromReader(c.config.Rand)
}
