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
	"testing/iotest"
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

// issuer issues tokens with a lifetime, and knows which is in force.
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
					_, err := c.Customer(t.Context(), testID)
					wantKind(t, err, NotFound)
				})
			}
			all.Wait()
		}
		for round, step := range []time.Duration{0, 58 * time.Minute, 2 * time.Minute} {
			time.Sleep(step)
			workers()
			if want := 1 + round/2; i.issued != want { // the third round is within a minute of the expiry
				t.Errorf("round %d: got %d tokens, want %d", round, i.issued, want)
			}
		}
		if s := c.Stats(); s.Sent != 152 || s.Retried != 0 {
			t.Errorf("got %+v, want 150 requests and 2 for tokens", s)
		}

		// Revoked: each of the 50 may be answered 401, then a token is fetched, and each is sent once more.
		i.revoke()
		workers()
		if s := c.Stats(); i.issued != 3 || s.Retried < 1 || s.Retried > 50 || s.Sent != 152+50+1+s.Retried {
			t.Errorf("after 401: got %d tokens, %+v; want 3 tokens, and each request sent at most twice", i.issued, s)
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
	wantKind(t, err, Conflicting)
	_, all := p.requests()
	bodies = []string{all[1], all[3]}
	a, b := seen[0], seen[1]
	for _, name := range []string{"Content-Digest", "Idempotency-Key", "Content-Type"} {
		if a.Header.Get(name) == "" || a.Header.Get(name) != b.Header.Get(name) {
			t.Errorf("%s: got %q, then %q; want the same", name, a.Header.Get(name), b.Header.Get(name))
		}
	}
	if bodies[0] != bodies[1] || a.Header.Get("Signature") == b.Header.Get("Signature") ||
		b.Header.Get("Authorization") != "Bearer token-2" {
		t.Errorf("got %s %v, then %s %v; want the same body, another signature and token-2", bodies[0], a.Header, bodies[1],
			b.Header)
	}
}

func TestSecond401IsUnauthorized(t *testing.T) {
	c, p := dial(t, replying(401, `{"code":"no_session","message":"for token-2 and `+testSecret+`"}`))
	_, err := c.Customer(t.Context(), testID)
	e := asError(t, err)
	if e.Kind != Unauthorized || e.Code != "no_session" || e.Hint() == "" {
		t.Errorf("got %v, want kind %s, code no_session and a hint", e, Unauthorized)
	}
	if strings.Contains(e.Error(), "token-2") || strings.Contains(e.Error(), testSecret) {
		t.Errorf("got %v, want it without the token and the secret", e)
	}
	if requests, _ := p.requests(); len(requests) != 4 || p.tokens != 2 {
		t.Errorf("got %d requests, %d tokens, want 4 and 2", len(requests), p.tokens)
	}
}

// TestTokenShorterThanTheQueue: with many workers at a low rate, a token may expire before a worker's turn.
func TestTokenShorterThanTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Second}
		c := bubbleClient(t, 20, i.answer)
		var all sync.WaitGroup
		begin := time.Now()
		for range 100 {
			all.Go(func() {
				_, err := c.Customer(t.Context(), testID)
				wantKind(t, err, NotFound)
			})
		}
		all.Wait()
		if s := c.Stats(); s.Retried != 0 || s.Sent != int64(100+i.issued) || i.issued > 8 {
			t.Errorf("got %+v, %d tokens; want no 401, and at most 8 tokens", s, i.issued)
		}
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("got the last answer after %v, want at most 6s", took)
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
					_, err := c.Customer(t.Context(), testID)
					wantKind(t, err, NotFound)
				}
			})
		}
		all.Wait()
		wantRate(t, at, 50, 2)
	})
}

// TestFirstWorkerLeaves: the context of the worker that fetches the token ends; another worker fetches it.
func TestFirstWorkerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		i := &issuer{lifetime: time.Hour}
		c := bubbleClient(t, 100, func(r *http.Request) *canned {
			if strings.HasSuffix(r.URL.Path, "/auth/token") && asked.Add(1) == 1 {
				return nil // hangs until its context ends
			}
			return i.answer(r)
		})
		first, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := c.Customer(first, testID); !errors.Is(err, context.Canceled) {
				t.Errorf("the first worker: got %v, want %v", err, context.Canceled)
			}
		})
		synctest.Wait() // until it waits for the rate limiter
		time.Sleep(time.Second)
		for range 5 {
			all.Go(func() {
				_, err := c.Customer(t.Context(), testID)
				wantKind(t, err, NotFound)
			})
		}
		impatient, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := c.Customer(impatient, testID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a worker with a deadline: got %v, want %v", err, context.DeadlineExceeded)
		}
		cancel()
		all.Wait()
		if asked.Load() != 2 {
			t.Errorf("got %d token requests, want 2", asked.Load())
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
		asked  int64 // requests for a token, before all workers fail
	}{
		"refused":     {tin(401, `{"message":"no such key `+testKey+`"}`), Unauthorized, 0, 1},
		"bad request": {tin(400, ""), Invalid, 0, 1},
		"throttled":   {tin(429, "", "Retry-After", "7"), Throttled, 7 * time.Second, 1},
		"busy":        {tin(503, "", "Retry-After", "9"), Throttled, 9 * time.Second, 1},
		"broken":      {tin(500, "x"), ServerError, 0, 2},
		"elsewhere":   {tin(302, "", "Location", "https://login.example/"), Redirected, 0, 1},
		"no token":    {tin(200, `{"expiresAt":1}`), Unrecognized, 0, 1},
		"cut off":     {tin(200, `{"token":"abc`), Malformed, 0, 2},
		"a page":      {tin(200, `<html>please log in</html>`), Unrecognized, 0, 1},
		"not bearer":  {tin(200, `{"token":"abc","tokenType":"MAC"}`), Unrecognized, 0, 1},
		"line break":  {tin(200, `{"token":"abc\r\nX: y"}`), Unrecognized, 0, 1},
		"too long":    {tin(200, `{"token":"`+strings.Repeat("x", 20<<10)+`"}`), Unrecognized, 0, 1},
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
							t.Fatalf("got %v, want kind %s of the call, with an *Error inside", err, NoToken)
						}
						if inner.Kind != tt.kind || inner.Op != "POST /auth/token" || outer.RetryAfter != tt.closed {
							t.Errorf("got %v, want kind %s of POST /auth/token, Retry-After %v", err, tt.kind, tt.closed)
						}
						if strings.Contains(err.Error(), testKey) {
							t.Errorf("got %v, want it without the API key", err)
						}
					})
				}
				all.Wait()
				if asked.Load() != tt.asked {
					t.Errorf("got %d token requests, want %d for all workers that waited", asked.Load(), tt.asked)
				}
				if s := c.config.RateLimiter.State(); s.Closed != tt.closed {
					t.Errorf("got the gate closed for %v, want %v", s.Closed, tt.closed)
				}
				// Later calls request a token again.
				_, _ = c.Customer(t.Context(), testID)
				if asked.Load() != 2*tt.asked {
					t.Errorf("got %d token requests, want %d", asked.Load(), 2*tt.asked)
				}
			})
		})
	}
}

// TestTokenIsRequestedAgain: an answer that is lost or unusable is repeated once, at once; a timeout is not.
func TestTokenIsRequestedAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		first func() *canned
		asked int64
		kind  Kind
	}{
		"lost":      {func() *canned { return &canned{status: 200, body: iotest.ErrReader(io.ErrUnexpectedEOF)} }, 2, NotFound},
		"gateway":   {func() *canned { return response(502, "<html>") }, 2, NotFound},
		"no answer": {func() *canned { return nil }, 1, NoToken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &issuer{lifetime: time.Hour}
				var asked atomic.Int64
				c := bubbleClient(t, 100, func(r *http.Request) *canned {
					if strings.HasSuffix(r.URL.Path, "/auth/token") && asked.Add(1) == 1 {
						return tt.first()
					}
					return i.answer(r)
				})
				begin := time.Now()
				_, err := c.Customer(t.Context(), testID)
				wantKind(t, err, tt.kind)
				if asked.Load() != tt.asked {
					t.Errorf("got %d token requests, want %d", asked.Load(), tt.asked)
				}
				if took := time.Since(begin); tt.kind == NotFound && took > 31*time.Millisecond {
					t.Errorf("got the answer after %v, want it in the third place of the rate, after 30ms", took)
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
		// Our clock is two hours off: the lifetime is the difference of the partner's two times.
		{fmt.Sprint(now.Add(3 * time.Hour).Unix()), now.Add(2 * time.Hour), 59 * time.Minute},
		{fmt.Sprint(now.Add(-time.Hour).Unix()), now.Add(-2 * time.Hour), 59 * time.Minute},
		// Without a valid expiry the lifetime is short.
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
			t.Errorf("%s: got %v, want no error", body, err)
			continue
		}
		header := http.Header{}
		if !tt.date.IsZero() {
			header.Set("Date", tt.date.Format(http.TimeFormat))
		}
		if got := usable(expires, header, now); got != tt.want {
			t.Errorf("%s at %v: got %v, want %v", body, tt.date, got, tt.want)
		}
	}
}

// TestTokenShorterThanAPlace: at a request every two seconds, a token of one second has expired when it is used.
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
			t.Errorf("got %v after %d tokens, want kind %s after 1", err, i.issued, NotFound)
		}
	})
}
