package client

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestStatuses(t *testing.T) {
	for _, tt := range []struct {
		status     int
		retryAfter string
		kind       Kind
		pause      time.Duration
	}{
		{101, "", Unexpected, 0},
		{302, "", Redirected, 0},
		{304, "", Redirected, 0},
		{400, "", Invalid, 0},
		{402, "", Unexpected, 0},
		{403, "", Forbidden, 0},
		{404, "", NotFound, 0},
		{405, "", Unexpected, 0},
		{408, "", NoAnswer, 0},
		{409, "", Conflicting, 0},
		{409, "2", Conflicting, 2 * time.Second},
		{410, "", Unexpected, 0},
		{413, "", Unexpected, 0},
		{415, "", Unexpected, 0},
		{421, "", NoAnswer, 0},
		{422, "", KeyReused, 0},
		{425, "", NoAnswer, 0},
		{429, "", Throttled, 0},
		{429, "7", Throttled, 7 * time.Second},
		{429, "soon", Throttled, 0},
		{500, "", ServerError, 0},
		{500, "3", ServerError, 3 * time.Second},
		{501, "", ServerError, 0},
		{502, "", ServerError, 0},
		{503, "", ServerError, 0},
		{503, "0", Throttled, 0},
		{503, "4", Throttled, 4 * time.Second},
		{503, "soon", ServerError, 0},
		{504, "", ServerError, 0},
		{520, "", ServerError, 0},
		{600, "", Unexpected, 0},
	} {
		t.Run(fmt.Sprint(tt.status, tt.retryAfter), func(t *testing.T) {
			config := testConfig("https://api.example/v1")
			config.Transport = roundTripper(func(r *http.Request) *canned {
				if strings.HasSuffix(r.URL.Path, "/auth/token") {
					return response(200, `{"token":"t"}`)
				}
				return response(tt.status, `{"code":"c","message":"m"}`, "Retry-After", tt.retryAfter, "X-Request-Id", "r-1")
			})
			c := newClient(t, config)
			_, err := c.CreateCustomer(t.Context(), testIdem, CreateBody("a", "b"))
			want := Error{Op: "POST /customers", Kind: tt.kind, Status: tt.status, Code: "c", Message: "m",
				RetryAfter: tt.pause, RequestID: "r-1"}
			e := asError(t, err)
			if *e != want {
				t.Errorf("got  %#v\nwant %#v", *e, want)
			}
			closed := config.RateLimiter.State().Closed > 0
			if throttled := tt.kind == Throttled; closed != throttled || c.Stats().Throttled == 1 != throttled {
				t.Errorf("got gate closed: %v, %+v; want both throttled: %v", closed, c.Stats(), throttled)
			}
		})
	}
}

func TestErrorBodies(t *testing.T) {
	c := newClient(t, testConfig("https://api.example/v1"))
	c.tokens.set(bearerToken{secret: "opaque-token-1"}, time.Now().Add(time.Hour))
	long := strings.Repeat("a ü ", 200)
	for _, tt := range []struct{ body, code, message string }{
		{``, "", ""},
		{`{}`, "", "{}"},
		{`[]`, "", "[]"},
		{`{"type":"https://api.example/exists","title":"Conflict","status":409,"detail":"customer exists"}`,
			"https://api.example/exists", "Conflict: customer exists"},
		{`{"type":"about:blank","title":"Conflict"}`, "", "Conflict"},
		{`{"code":"customer_exists","message":"customer already exists"}`, "customer_exists", "customer already exists"},
		{`{"code":4091,"message":"x"}`, "4091", "x"},
		{`{"error":{"code":"customer_exists","message":"taken"}}`, "customer_exists", "taken"},
		{`{"error":"invalid_request","error_description":"apiKey is missing"}`, "invalid_request", "apiKey is missing"},
		{`{"error":"Idempotency-Key Concurrency Conflict"}`, "", "Idempotency-Key Concurrency Conflict"},
		{`{"statusCode":400,"message":["chainId must be CAIP-10","externalId should not be empty"],"error":"Bad Request"}`,
			"", "chainId must be CAIP-10; externalId should not be empty: Bad Request"},
		{`{"errors":[{"code":"e1","message":"one"},{"code":"e2","message":"two"}]}`, "e1", "one; two"},
		{`{ "weird": {"a":1234567890123456789} }`, "", `{"weird":{"a":1234567890123456789}}`},
		{`"just a text"`, "", "just a text"},
		{`null`, "", "null"},
		{`not json {`, "", "not json {"},
		{"two\r\nlines\x00\x1b[31m and\ttabs\u202e", "", `two lines\x00\x1b[31m and tabs\u202e`},
		{"\xff\xfe bad bytes \xc3", "", `\xff\xfe bad bytes \xc3`},
		{`<html><head><title>502 Bad Gateway</title><style>p{}</style></head><body><h1>502 Bad Gateway</h1>` +
			`<script>alert("x")</script><hr>nginx&nbsp;&amp; co<!-- pad --></body></html>`,
			"", "502 Bad Gateway nginx & co"},
		{`<!DOCTYPE html><title>Log in</title><p>Corporate proxy`, "", "Log in Corporate proxy"},
		{`bad secret ` + testSecret + ` of key ` + testKey, "", "bad secret [redacted] of key [redacted]"},
		{`{"message":"token opaque-token-1 ended"}`, "", "token [redacted] ended"},
		{`{"code":"` + testSecret + `"}`, "[redacted]", ""},
		{`{"message":"s3cr3t-of\u002dthe-test"}`, "", "[redacted]"},
		{`got Authorization: Bearer abcdefgh.ijkl-mn`, "", "got Authorization: [redacted]"},
		{"Bearer\u00a0abcdefgh.ijkl-mn", "", "[redacted]"},
		{"bearer\x00\u202eabcdefgh.ijkl-mn", "", "[redacted]"},
		{`jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln ended`, "", "jwt [redacted] ended"},
		{long, "", long[:mostMessage-5] + "…"},
		{strings.Repeat("x", 290) + " " + testSecret, "", strings.Repeat("x", 290) + " [redac…"},
	} {
		code, message := c.words([]byte(tt.body))
		if code != tt.code || message != tt.message && !(tt.body == long && strings.HasSuffix(message, "…")) {
			t.Errorf("%s\ngot  %q %q\nwant %q %q", tt.body, code, message, tt.code, tt.message)
		}
		if problem := unfit(code, message); problem != "" {
			t.Errorf("%s: got words that are %s, want them fit to be shown", tt.body, problem)
		}
	}
}

// unfit returns why the words must not be shown.
func unfit(code, message string) string {
	for _, s := range []string{code, message} {
		switch {
		case len(s) > mostMessage || len(code) > mostCode:
			return fmt.Sprintf("too long: %d bytes", len(s))
		case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
			return fmt.Sprintf("not printable: %q", s)
		case strings.Contains(s, testSecret) || strings.Contains(s, testKey):
			return fmt.Sprintf("showing a secret: %q", s)
		}
	}
	return ""
}

func TestErrorText(t *testing.T) {
	for want, e := range map[string]*Error{
		"POST /customers: HTTP 409 (exists): taken [request r-1]": {Op: "POST /customers", Kind: Conflicting, Status: 409,
			Code: "exists", Message: "taken", RequestID: "r-1"},
		"POST /customers: no-answer: EOF": {Op: "POST /customers", Kind: NoAnswer, Err: io.EOF},
		"POST /customers: HTTP 201 with an unusable body: EOF": {Op: "POST /customers", Kind: Malformed,
			Status: 201, Err: io.EOF},
		"GET /customers: no-token: POST /auth/token: HTTP 401: refused": {Op: "GET /customers", Kind: NoToken,
			Err: &Error{Op: opToken, Kind: Unauthorized, Status: 401, Message: "refused"}},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	e := &Error{Kind: NoToken, Err: &Error{Op: opToken, Kind: Unauthorized}}
	if !strings.Contains(e.Hint(), "--api-secret-file") {
		t.Errorf("hint of a refused secret: got %q, want it to name --api-secret-file", e.Hint())
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, tt := range []struct {
		value, date string
		want        time.Duration
		stated      bool
	}{
		{"", "", 0, false},
		{"0", "", 0, true},
		{"7", "", 7 * time.Second, true},
		{" 7 ", "", 7 * time.Second, true},
		{"1.5", "", 1500 * time.Millisecond, true},
		{"300", "", MaxRetryAfter, true},
		{"301", "", MaxRetryAfter, true},
		{"99999999999999999999", "", MaxRetryAfter, true},
		{"1e400", "", MaxRetryAfter, true},
		{"-1", "", 0, false},
		{"7s", "", 0, false},
		{"soon", "", 0, false},
		{"NaN", "", 0, false},
		{at(time.Minute), "", time.Minute, true},
		{at(time.Minute), at(30 * time.Second), 30 * time.Second, true},
		{at(time.Minute), "yesterday", time.Minute, true},
		{at(time.Hour), "", MaxRetryAfter, true},
		{at(-time.Hour), "", 0, true},
		{now.Add(time.Minute).Format(time.RFC850), "", time.Minute, true},
	} {
		got, stated := parseRetryAfter(tt.value, tt.date, now)
		if got != tt.want || stated != tt.stated {
			t.Errorf("%q (Date %q): got %v, %v, want %v, %v", tt.value, tt.date, got, stated, tt.want, tt.stated)
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	bomb := func(w http.ResponseWriter, status int) {
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(status)
		z := gzip.NewWriter(w)
		spaces := []byte(strings.Repeat(" ", 1<<20))
		for range 64 {
			if _, err := z.Write(spaces); err != nil {
				return // the client has closed the connection
			}
		}
		z.Close()
	}
	for _, status := range []int{200, 500} {
		c, _ := dial(t, func(w http.ResponseWriter, _ *http.Request) { bomb(w, status) })
		_, err := c.Customer(t.Context(), testID)
		e := asError(t, err)
		if want := map[int]Kind{200: Malformed, 500: ServerError}[status]; e.Kind != want {
			t.Errorf("%d: got %v, want kind %s", status, e, want)
		}
		if status == 200 && !strings.Contains(e.Error(), "larger than 1048576 bytes") {
			t.Errorf("%d: got %v, want it to name the limit", status, e)
		}
	}
	c, _ := dial(t, func(w http.ResponseWriter, _ *http.Request) { bomb(w, 200) })
	wantKind(t, customersOf(t.Context(), c, nil), Malformed)
}

// TestPeerTextIsCleaned: net/http quotes an answer that is not HTTP.
func TestPeerTextIsCleaned(t *testing.T) {
	c := newClient(t, testConfig("https://api.example/v1"))
	cause := errors.New("malformed HTTP response \"\x1b[31m" + testSecret + strings.Repeat("x", 500))
	err := c.clean(cause)
	if problem := unfit("", err.Error()); problem != "" || !errors.Is(err, cause) {
		t.Errorf("got %v, which is %s; want it fit to be shown, and the cause wrapped", err, problem)
	}
	if plain := errors.New("connection refused"); c.clean(plain) != plain { //nolint:errorlint // the same one
		t.Errorf("got %v, want the plain error unchanged", c.clean(plain))
	}
}

func FuzzErrorBody(f *testing.F) {
	for _, seed := range []string{"", `{"code":1,"error":{"message":["a"]}}`, "<p>x</p>", "<", testSecret,
		"Bearer " + testKey,
		`{"error":"a","error_description":"b"}`, "\xff", `{"errors":[[[[[["x"]]]]]]}`, "s3cr3t-of\x01-the-test"} {
		f.Add([]byte(seed))
	}
	config := testConfig("https://api.example/v1")
	config.RateLimiter = NewRateLimiter(math.Inf(1))
	c := newClient(f, config)
	f.Fuzz(func(t *testing.T, body []byte) {
		code, message := c.words(body)
		if problem := unfit(code, message); problem != "" {
			t.Errorf("got words that are %s, want them fit to be shown", problem)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "1", "1e9", "-5", "0x10", "Sun, 06 Nov 1994 08:49:37 GMT", "Infinity"} {
		f.Add(seed, "Sun, 06 Nov 1994 08:49:30 GMT")
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value, date string) {
		pause, stated := parseRetryAfter(value, date, now)
		if pause < 0 || pause > MaxRetryAfter || pause > 0 && !stated {
			t.Errorf("%q, %q: got %v, %v; want 0 to %v, and 0 unless stated", value, date, pause, stated, MaxRetryAfter)
		}
	})
}
