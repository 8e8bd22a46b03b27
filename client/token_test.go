package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// roundTripper answers without a network, as synctest needs it.
type roundTripper func(*http.Request) *canned

// canned is an answer in the tin.
type canned struct {
	status  int
	headers []string // names and values in turn
	body    io.Reader
}

func response(status int, body string, headers ...string) *canned {
	return &canned{status: status, headers: headers, body: strings.NewReader(body)}
}

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	if tin := f(r); tin != nil {
		header := http.Header{}
		for i := 0; i < len(tin.headers); i += 2 {
			header.Set(tin.headers[i], tin.headers[i+1])
		}
		return &http.Response{StatusCode: tin.status, Header: header, Body: io.NopCloser(tin.body)}, nil
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// issuer hands out tokens that live so long, and knows which is in force.
type issuer struct {
	mu       sync.Mutex
	issued   int
	lifetime time.Duration
	ends     time.Time
	delay    time.Duration
}

func (i *issuer) token() *canned {
	time.Sleep(i.delay)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.issued++
	i.ends = time.Now().Add(i.lifetime)
	return response(200, fmt.Sprintf(`{"token":"t%d","expiresAt":%q}`, i.issued, i.ends.Format(time.RFC3339Nano)))
}

func (i *issuer) good(r *http.Request) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return r.Header.Get("Authorization") == fmt.Sprintf("Bearer t%d", i.issued) && time.Now().Before(i.ends)
}

func (i *issuer) revoke() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ends = time.Time{}
}

func (i *issuer) answer(r *http.Request) *canned {
	switch {
	case strings.HasSuffix(r.URL.Path, "/auth/token"):
		return i.token()
	case i.good(r):
		return response(404, "")
	}
	return response(401, `{"message":"token expired"}`)
}

func bubbleClient(t *testing.T, rate float64, transport roundTripper) *Client {
	config := testConfig("https://api.example/v1")
	config.Transport = transport
	config.RateLimiter = NewRateLimiter(rate)
	return newClient(t, config)
}

func TestTokenIsFetchedOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour, delay: 200 * time.Millisecond}
		c := bubbleClient(t, 1000, i.answer)
		workers := func() {
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if _, err := c.Customer(t.Context(), testID); asError(t, err).Kind != NotFound {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		for round, step := range []time.Duration{0, 58 * time.Minute, 2 * time.Minute} {
			time.Sleep(step)
			workers()
			if want := 1 + round/2; i.issued != want { // the third comes within a minute of the end
				t.Errorf("round %d: %d tokens fetched, want %d", round, i.issued, want)
			}
		}
		if s := c.Stats(); s.Sent != 152 || s.Retried != 0 {
			t.Errorf("%+v, want 150 requests and 2 for tokens", s)
		}

		// Revoked: all 50 may be refused once, one token is fetched, each is sent again once.
		i.revoke()
		workers()
		if s := c.Stats(); i.issued != 3 || s.Retried < 1 || s.Retried > 50 || s.Sent != 152+50+1+s.Retried {
			t.Errorf("after 401: %d tokens, %+v", i.issued, s)
		}
	})
}

func TestResendAfter401IsTheSameButForItsSignature(t *testing.T) {
	var mu sync.Mutex
	var seen []*http.Request
	var bodies []string
	c, p := dial(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if seen = append(seen, r); len(seen) == 1 {
			replying(401, "")(w, r)
			return
		}
		replying(409, "")(w, r)
	})
	_, err := c.CreateCustomer(t.Context(), testIdem, CreateBody(testChain, testExtern))
	if asError(t, err).Kind != Conflicting {
		t.Error(err)
	}
	_, all := p.requests()
	bodies = []string{all[1], all[3]}
	a, b := seen[0], seen[1]
	for _, name := range []string{"Content-Digest", "Idempotency-Key", "Content-Type"} {
		if a.Header.Get(name) == "" || a.Header.Get(name) != b.Header.Get(name) {
			t.Errorf("%s: %q, then %q", name, a.Header.Get(name), b.Header.Get(name))
		}
	}
	if bodies[0] != bodies[1] || a.Header.Get("Signature") == b.Header.Get("Signature") ||
		b.Header.Get("Authorization") != "Bearer token-2" {
		t.Errorf("%s %v\n%s %v", bodies[0], a.Header, bodies[1], b.Header)
	}
}

func TestSecond401IsUnauthorized(t *testing.T) {
	c, p := dial(t, replying(401, `{"code":"no_session","message":"for token-2 and `+testSecret+`"}`))
	_, err := c.Customer(t.Context(), testID)
	e := asError(t, err)
	if e.Kind != Unauthorized || e.Code != "no_session" || e.Hint() == "" {
		t.Errorf("%v", e)
	}
	if strings.Contains(e.Error(), "token-2") || strings.Contains(e.Error(), testSecret) {
		t.Errorf("%v shows a secret", e)
	}
	if requests, _ := p.requests(); len(requests) != 4 || p.tokens != 2 {
		t.Errorf("%d requests, %d tokens, want 4 and 2", len(requests), p.tokens)
	}
}

// TestTokenShorterThanTheLine: with many workers at a low rate, a token may end before its bearer's turn comes.
func TestTokenShorterThanTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Second}
		c := bubbleClient(t, 20, i.answer)
		var all sync.WaitGroup
		begin := time.Now()
		for range 100 {
			all.Go(func() {
				if _, err := c.Customer(t.Context(), testID); asError(t, err).Kind != NotFound {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if s := c.Stats(); s.Retried != 0 || s.Sent != int64(100+i.issued) || i.issued > 8 {
			t.Errorf("%+v, %d tokens", s, i.issued)
		}
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestRateIsHeldWhileTokensAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Duration
		begin := time.Now()
		i := &issuer{lifetime: 5 * time.Second, delay: 2 * time.Second}
		c := bubbleClient(t, 50, func(r *http.Request) *canned {
			mu.Lock()
			at = append(at, time.Since(begin))
			mu.Unlock()
			return i.answer(r)
		})
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				for range 20 {
					if _, err := c.Customer(t.Context(), testID); asError(t, err).Kind != NotFound {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		wantRate(t, at, 50, 2)
	})
}

func TestLeaderLeavesOthersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		i := &issuer{lifetime: time.Hour}
		c := bubbleClient(t, 100, func(r *http.Request) *canned {
			if strings.HasSuffix(r.URL.Path, "/auth/token") && asked.Add(1) == 1 {
				return nil // hangs until its context ends
			}
			return i.answer(r)
		})
		leader, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := c.Customer(leader, testID); !errors.Is(err, context.Canceled) {
				t.Errorf("leader: %v", err)
			}
		})
		synctest.Wait() // it waits for its place
		time.Sleep(time.Second)
		for range 5 {
			all.Go(func() {
				if _, err := c.Customer(t.Context(), testID); asError(t, err).Kind != NotFound {
					t.Errorf("follower: %v", err)
				}
			})
		}
		impatient, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := c.Customer(impatient, testID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %v", err)
		}
		cancel()
		all.Wait()
		if asked.Load() != 2 {
			t.Errorf("asked for a token %d times, want 2", asked.Load())
		}
	})
}

func TestTokenFailures(t *testing.T) {
	tin := func(status int, body string, headers ...string) func() *canned {
		return func() *canned { return response(status, body, headers...) }
	}
	for name, tt := range map[string]struct {
		answer func() *canned
		kind   Kind
		closed time.Duration
	}{
		"refused":     {tin(401, `{"message":"no such key `+testKey+`"}`), Unauthorized, 0},
		"bad request": {tin(400, ""), Invalid, 0},
		"throttled":   {tin(429, "", "Retry-After", "7"), Throttled, 7 * time.Second},
		"busy":        {tin(503, "", "Retry-After", "9"), Throttled, 9 * time.Second},
		"broken":      {tin(500, "x"), ServerError, 0},
		"elsewhere":   {tin(302, "", "Location", "https://login.example/"), Redirected, 0},
		"no token":    {tin(200, `{"expiresAt":1}`), Unrecognized, 0},
		"cut off":     {tin(200, `{"token":"abc`), Malformed, 0},
		"a page":      {tin(200, `<html>please log in</html>`), Unrecognized, 0},
		"not bearer":  {tin(200, `{"token":"abc","tokenType":"MAC"}`), Unrecognized, 0},
		"line break":  {tin(200, `{"token":"abc\r\nX: y"}`), Unrecognized, 0},
		"too long":    {tin(200, `{"token":"`+strings.Repeat("x", 20<<10)+`"}`), Unrecognized, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int64
				c := bubbleClient(t, 100, func(r *http.Request) *canned {
					asked.Add(1)
					time.Sleep(time.Second)
					return tt.answer()
				})
				var all sync.WaitGroup
				for range 10 {
					all.Go(func() {
						_, err := c.Customer(t.Context(), testID)
						outer := asError(t, err)
						var inner *Error
						if outer.Kind != NoToken || outer.Op != "GET /customers/{id}" || !errors.As(outer.Err, &inner) {
							t.Fatalf("%v", err)
						}
						if inner.Kind != tt.kind || inner.Op != "POST /auth/token" || outer.RetryAfter != tt.closed {
							t.Errorf("%v", err)
						}
						if strings.Contains(err.Error(), testKey) {
							t.Errorf("%v shows the API key", err)
						}
					})
				}
				all.Wait()
				if asked.Load() != 1 {
					t.Errorf("asked %d times, want once for all who waited", asked.Load())
				}
				if s := c.config.RateLimiter.State(); s.Closed != tt.closed {
					t.Errorf("gate closed for %v, want %v", s.Closed, tt.closed)
				}
				// It is not remembered for those who come later.
				_, _ = c.Customer(t.Context(), testID)
				if asked.Load() != 2 {
					t.Errorf("asked %d times, want 2", asked.Load())
				}
			})
		})
	}
}

func TestTokenLifetime(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		expires string // the member's JSON
		date    time.Time
		want    time.Duration
	}{
		{fmt.Sprint(now.Add(time.Hour).Unix()), time.Time{}, 59 * time.Minute},
		{fmt.Sprintf(`"%d"`, now.Add(time.Hour).Unix()), now, 59 * time.Minute},
		{fmt.Sprint(now.Add(time.Hour).UnixMilli()), now, 59 * time.Minute},
		{fmt.Sprintf("%d.5", now.Add(time.Hour).Unix()), now, 59*time.Minute + 500*time.Millisecond},
		{`"` + now.Add(time.Hour).Format(time.RFC3339) + `"`, now, 59 * time.Minute},
		{fmt.Sprint(now.Add(5 * time.Minute).Unix()), now, 270 * time.Second}, // a tenth
		{fmt.Sprint(now.Add(time.Second).Unix()), now, 900 * time.Millisecond},
		// Our clock is two hours off: what counts is the time between the partner's two.
		{fmt.Sprint(now.Add(3 * time.Hour).Unix()), now.Add(2 * time.Hour), 59 * time.Minute},
		{fmt.Sprint(now.Add(-time.Hour).Unix()), now.Add(-2 * time.Hour), 59 * time.Minute},
		// Short-lived: nothing usable was said.
		{`null`, now, 54 * time.Second},
		{``, now, 54 * time.Second},
		{`"soon"`, now, 54 * time.Second},
		{`-1`, now, 54 * time.Second},
		{`1e300`, now, 54 * time.Second},
		{`{"seconds":1}`, now, 54 * time.Second},
		{fmt.Sprint(now.Add(-time.Hour).Unix()), now, 54 * time.Second},
	} {
		body := `{"token":"abc","tokenType":"bearer"}`
		if tt.expires != "" {
			body = `{"token":"abc","expiresAt":` + tt.expires + `}`
		}
		_, expires, err := parseToken([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		header := http.Header{}
		if !tt.date.IsZero() {
			header.Set("Date", tt.date.Format(http.TimeFormat))
		}
		if got := usable(expires, header, now); got != tt.want {
			t.Errorf("%s at %v: %v, want %v", body, tt.date, got, tt.want)
		}
	}
}

func TestRefuseSparesTheNextToken(t *testing.T) {
	var tokens tokens
	now := time.Now()
	tokens.set(Token{"old"}, now.Add(time.Hour))
	tokens.set(Token{"new"}, now.Add(time.Hour))
	tokens.refuse(Token{"old"}) // a late 401
	if token, ok := tokens.valid(now); !ok || token.reveal() != "new" {
		t.Error("the new token is gone")
	}
	tokens.refuse(Token{"new"})
	if _, ok := tokens.valid(now); ok {
		t.Error("a refused token is still valid")
	}
}

// TestTokenShorterThanAPlace: at one request every two seconds, a token of one second has ended when its turn comes.
func TestTokenShorterThanAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Second}
		c := bubbleClient(t, 0.5, func(r *http.Request) *canned {
			if strings.HasSuffix(r.URL.Path, "/auth/token") {
				return i.token()
			}
			return response(404, "")
		})
		if _, err := c.Customer(t.Context(), testID); asError(t, err).Kind != NotFound || i.issued != 1 {
			t.Errorf("%v after %d tokens", err, i.issued)
		}
	})
}
