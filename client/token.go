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

	redacted = "[redacted]"
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
	until    time.Time // when it is to be replaced
	failures uint64    // fetches that failed
	failure  error     // of the latest
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
	t.token, t.until = token, until
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

// slot waits for a place in the rate and returns it with a token that is valid at that moment.
func (c *Client) slot(ctx context.Context) (Token, uint64, error) {
	before, _ := c.tokens.failed()
	if err := c.config.Pace.enter(ctx); err != nil {
		return Token{}, 0, err
	}
	defer c.config.Pace.leave()
	for fetched := false; ; fetched = true {
		if _, ok := c.tokens.valid(c.config.Now()); !ok {
			// Somebody ahead in the line asked while this one waited: the answer goes for all who did.
			if now, err := c.tokens.failed(); now != before {
				return Token{}, 0, err
			}
		}
		period, err := c.config.Pace.take(ctx)
		if err != nil {
			return Token{}, 0, err
		}
		token, ok := c.tokens.valid(c.config.Now())
		if ok || fetched && token.secret != "" {
			// A token whose whole life is shorter than the wait for a place is used all the same.
			return token, period, nil
		}
		if err := c.fetch(ctx, period); err != nil {
			if ctx.Err() == nil {
				c.tokens.fail(err)
			}
			return Token{}, 0, err
		}
	}
}

// fetch asks for a token; the place in the rate is the caller's.
func (c *Client) fetch(ctx context.Context, period uint64) error {
	key, err := c.newID()
	if err != nil {
		return &Error{Op: opToken, Kind: Unsendable, Err: err}
	}
	// The API asks for an Idempotency-Key on every POST; a new one each time never meets a stored answer.
	k := call{op: opToken, method: http.MethodPost, path: "/auth/token", key: key, token: true,
		body: tokenBody(c.config.APIKey, c.config.APISecret)}
	sent := c.config.Now()
	r, err := c.send(ctx, k, Token{}, period)
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
	if err := decodeOne(body, &wire); err != nil {
		return Token{}, time.Time{}, err
	}
	const most = 16 << 10
	switch {
	case wire.Token == "":
		return Token{}, time.Time{}, errors.New(`the answer has no "token"`)
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
