package client

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

func TestCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		answer *canned
		kind   Kind // empty: no error
		advice string
	}{
		"as it should be": {response(404, `{"code":"not_found"}`), "", ""},
		"refused":         {response(401, `{"message":"token"}`), Unauthorized, "--signing-key"},
		"forbidden":       {response(403, ""), Forbidden, "ask the partner"},
		"found":           {response(200, `{"id":"x"}`), Unexpected, "may come from a proxy"},
		"redirected":      {response(307, "", "Location", "https://b.example/v2/x?y=z"), Redirected, "redirects"},
		"not modified":    {response(304, "", "ETag", `"x"`), Redirected, "a cache answered"},
		"broken":          {response(500, ""), ServerError, ""},
		"throttled":       {response(429, "", "Retry-After", "1"), Throttled, ""},
		"silent":          {nil, NoAnswer, "network"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := map[string]bool{}
				c := bubbleClient(t, 10, func(r *http.Request) *canned {
					time.Sleep(30 * time.Millisecond)
					if strings.HasSuffix(r.URL.Path, "/auth/token") {
						return response(200, `{"token":"t"}`)
					}
					id, ok := strings.CutPrefix(r.URL.Path, "/v1/customers/")
					if !ok || uuid.Validate(id) != nil || r.Method != http.MethodGet || r.Header.Get("Signature") == "" {
						t.Errorf("got %s %s %v, want a signed GET of a random id", r.Method, r.URL, r.Header)
					}
					asked[id] = true
					return tt.answer
				})
				result, err := c.Check(t.Context())
				if tt.kind == "" {
					if want := (CheckResult{Latency: 30 * time.Millisecond}); err != nil || result != want {
						t.Errorf("got %+v, %v; want %+v, no error", result, err, want)
					}
					_, _ = c.Check(t.Context())
					if len(asked) != 2 {
						t.Errorf("two checks: got the ids %v, want two", asked)
					}
					return
				}
				if e := asError(t, err); e.Kind != tt.kind || !strings.Contains(result.Advice, tt.advice) ||
					tt.advice == "" != (result.Advice == "") {
					t.Errorf("got %v, advice %q; want kind %s, advice with %q", err, result.Advice, tt.kind, tt.advice)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := bubbleClient(t, 10, func(*http.Request) *canned { return response(404, "no such page") })
		result, err := c.Check(t.Context())
		if e := asError(t, err); e.Kind != NoToken || !strings.Contains(result.Advice, "/v1") {
			t.Errorf("a wrong base URL: got %v, advice %q; want kind %s, advice with /v1", err, result.Advice, NoToken)
		}
	})
}

func TestClockSkew(t *testing.T) {
	for _, tt := range []struct {
		ahead time.Duration // of our clock
		took  time.Duration
		age   string
		noted bool
	}{
		{0, 0, "", false},
		{time.Second, 0, "", false},
		{-time.Second, 0, "", false},
		{0, 20 * time.Second, "", false}, // a slow answer is no skew
		{5 * time.Second, 20 * time.Second, "", false},
		{3 * time.Second, 0, "", true},
		{-3 * time.Second, 0, "", true},
		{2 * time.Hour, time.Second, "", true},
		{2 * time.Hour, 0, "7200", false}, // out of a cache
	} {
		synctest.Test(t, func(t *testing.T) {
			var log strings.Builder
			config := testConfig("https://api.example/v1")
			config.Logger = slog.New(slog.NewTextHandler(&log, nil))
			config.Transport = roundTripper(func(r *http.Request) *canned {
				date := time.Now().Add(tt.took / 2).Add(-tt.ahead).UTC().Format(http.TimeFormat)
				time.Sleep(tt.took)
				if strings.HasSuffix(r.URL.Path, "/auth/token") {
					return response(200, `{"token":"t"}`, "Date", date, "Age", tt.age)
				}
				return response(404, "", "Date", date, "Age", tt.age)
			})
			c := newClient(t, config)
			result, err := c.Check(context.WithoutCancel(t.Context()))
			if err != nil {
				t.Errorf("%+v: got %v, want no error", tt, err)
			}
			s := c.Stats()
			if tt.noted {
				if off := s.ClockSkew - tt.ahead; off.Abs() > time.Second || result.ClockSkew != s.ClockSkew ||
					!strings.Contains(result.Advice, "NTP") {
					t.Errorf("%+v: got %+v, %+v; want about that skew, and advice", tt, s, result)
				}
			} else if s.ClockSkew != 0 || result.Advice != "" {
				t.Errorf("%+v: got %+v, %+v; want no skew", tt, s, result)
			}
			if n := strings.Count(log.String(), "clock differs"); n == 1 != tt.noted || n > 1 {
				t.Errorf("%+v: got %d warnings, want one: %v", tt, n, tt.noted)
			}
		})
	}
}
