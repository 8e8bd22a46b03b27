package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRegisterKey(t *testing.T) {
	for body, want := range map[string]string{
		`{"keyId":"k-1"}`:          "k-1",
		`{"keyid":"k-1","id":"x"}`: "k-1",
		`{"key_id":"k-1"}`:         "k-1",
		`{"id":"k-1"}`:             "k-1",
		`{"id":17}`:                "17",
		`{"data":{"keyId":"k-1"}}`: "k-1",
		`{"id":"of the programme","key":{"keyId":"k"}}`: "k",
		`{"signing":{"id":"k-1"},"other":null}`:         "k-1",
	} {
		c, p := dial(t, reply200(body))
		got, err := c.RegisterKey(t.Context(), []byte("PEM"))
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", body, got, err, want)
		}
		seen, bodies := p.requests()
		r := seen[len(seen)-1]
		if r.Method != http.MethodPut || r.URL.Path != "/v1/auth/signing" ||
			bodies[len(bodies)-1] != `{"publicKey":"UEVN"}` ||
			r.Header.Get("Idempotency-Key") == "" || r.Header.Get("Content-Digest") == "" || r.Header.Get("Signature") == "" {
			t.Errorf("got %s %s %v %s, want a signed PUT of the key", r.Method, r.URL.Path, r.Header, bodies[len(bodies)-1])
		}
	}
	for body, names := range map[string][]string{
		`{"fingerprint":"s3cr3t-value","data":{"x":1}}`: {"data", "fingerprint", "data.x"},
		`{"keyId":{"x":1}}`:                             {"keyId", "keyId.x"},
		`{"keyId":""}`:                                  {"keyId"},
		`{"keyId":"a\nb"}`:                              {"keyId"},
		`["k-1"]`:                                       nil,
		``:                                              nil,
	} {
		c, _ := dial(t, reply200(body))
		_, err := c.RegisterKey(t.Context(), []byte("PEM"))
		var shape *shapeError
		if !errors.As(err, &shape) || !slices.Equal(shape.Have, names) || asError(t, err).Kind != Unrecognized {
			t.Errorf("%s: got %v, want a shapeError with %q", body, err, names)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t-value") {
			t.Errorf("got %v, want it without values", err)
		}
	}
}

func TestDeleteKey(t *testing.T) {
	c, p := dial(t, replying(http.StatusNoContent, ""))
	if err := c.DeleteKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen, bodies := p.requests()
	r := seen[len(seen)-1]
	if r.Method != http.MethodDelete || r.URL.Path != "/v1/auth/signing" || bodies[len(bodies)-1] != "" ||
		r.Header.Get("Idempotency-Key") == "" || r.Header.Get("Signature") == "" {
		t.Errorf("got %s %s %v %q, want a signed DELETE without a body", r.Method, r.URL.Path, r.Header,
			bodies[len(bodies)-1])
	}
}

func TestReplaceSecretNeverShowsIt(t *testing.T) {
	const fresh = "another-secret"
	c, p := dial(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"message":"%s is too weak, keep %s"}`, fresh, testSecret)
	})
	err := c.ReplaceSecret(t.Context(), fresh)
	if err == nil || strings.Contains(err.Error(), fresh) || strings.Contains(err.Error(), testSecret) ||
		!strings.Contains(err.Error(), "is too weak") {
		t.Errorf("got %v, want the partner's words without the secrets", err)
	}
	seen, bodies := p.requests()
	r, body := seen[len(seen)-1], bodies[len(bodies)-1]
	if r.Method != http.MethodPut || r.URL.Path != "/v1/auth/credentials" ||
		body != `{"apiKey":"`+testKey+`","apiSecret":"`+fresh+`"}` {
		t.Errorf("got %s %s %s, want a PUT of the new secret", r.Method, r.URL.Path, body)
	}
	// The secret in force is still the first one.
	if got, _ := c.tokens.secret(); got != testSecret {
		t.Errorf("the secret in force is %q, want %q", got, testSecret)
	}
}

// rotating is a partner that accepts one secret, and invalidates its tokens when that changes.
type rotating struct {
	secret atomic.Pointer[string]
	status int // for another secret
	asked  atomic.Int64
}

func (p *rotating) answer(r *http.Request) *canned {
	secret := *p.secret.Load()
	if strings.HasSuffix(r.URL.Path, "/auth/token") {
		p.asked.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil || !strings.Contains(string(body), fmt.Sprintf("%q", secret)) {
			return response(p.status, "")
		}
		return response(200, fmt.Sprintf(`{"token":"of-%s","tokenType":"Bearer"}`, secret))
	}
	if r.Header.Get("Authorization") != "Bearer of-"+secret {
		return response(401, "")
	}
	return response(404, "")
}

// TestReplacedSecretIsPickedUp: a client whose token was invalidated reads the new secret and goes on.
func TestReplacedSecretIsPickedUp(t *testing.T) {
	for _, status := range []int{400, 401, 403} {
		for _, delay := range []time.Duration{0, 10 * time.Second, 29 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				p := &rotating{status: status}
				first, second := "first-secret", "second-secret"
				p.secret.Store(&first)
				begun := time.Now()
				config := testConfig("https://api.example/v1")
				config.Transport, config.APISecret = roundTripper(p.answer), first
				config.Secret = func() (string, error) {
					if time.Since(begun) < time.Hour+delay {
						return first, nil
					}
					return second, nil
				}
				c := newClient(t, config)
				get := func() {
					if _, err := c.Customer(t.Context(), testID); asError(t, err).Kind != NotFound {
						t.Errorf("%d after %v: got %v, want not-found", status, delay, err)
					}
				}
				get()
				time.Sleep(time.Hour)
				p.secret.Store(&second)
				get()
				if took := time.Since(begun) - time.Hour; took < delay || took > delay+time.Second {
					t.Errorf("%d: got an answer after %v, want about %v", status, took, delay)
				}
				if n := p.asked.Load(); n != 3 {
					t.Errorf("%d: got %d token requests, want 3: the first, one not accepted, one with the new secret", status, n)
				}
			})
		}
	}
}

// TestRefusedSecretIsNotWaitedFor: a secret that was never accepted is wrong: the client does not wait for another.
func TestRefusedSecretIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &rotating{status: 401}
		right := "the-right-one"
		p.secret.Store(&right)
		begun := time.Now()
		config := testConfig("https://api.example/v1")
		config.Transport = roundTripper(p.answer)
		config.Secret = func() (string, error) { return testSecret, nil }
		err := newClient(t, config).Authenticate(t.Context())
		if asError(t, err).Kind != Unauthorized || p.asked.Load() != 1 || time.Since(begun) != 0 {
			t.Errorf("got %v after %v and %d requests, want unauthorized at once", err, time.Since(begun), p.asked.Load())
		}
	})
}

// TestSecretThatStaysRefused: the wait for a new secret ends after a time, or by Stop.
func TestSecretThatStaysRefused(t *testing.T) {
	for name, stop := range map[string]bool{"patience": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &rotating{status: 401}
				first, second := testSecret, "second-secret"
				p.secret.Store(&first)
				config := testConfig("https://api.example/v1")
				config.Transport = roundTripper(p.answer)
				config.Secret = func() (string, error) { return "", errors.New("no such file") }
				c := newClient(t, config)
				if err := c.Authenticate(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				p.secret.Store(&second)
				begun := time.Now()
				if stop {
					time.AfterFunc(5*time.Second, config.RateLimiter.Stop)
				}
				err := c.Authenticate(t.Context())
				took := time.Since(begun)
				if stop && (!errors.Is(err, ErrStopped) || took != 5*time.Second) {
					t.Errorf("got %v after %v, want ErrStopped after 5s", err, took)
				}
				if !stop && (asError(t, err).Kind != Unauthorized || took != secretPatience) {
					t.Errorf("got %v after %v, want unauthorized after %v", err, took, secretPatience)
				}
			})
		})
	}
}

func TestTokenOfAnotherShape(t *testing.T) {
	for body, want := range map[string]string{
		`{"expires_in":1,"accessToken":"eyJsecret"}`: `the response to POST /auth/token has no "token"; ` +
			`it has "accessToken", "expires_in"`,
		`{"data":{"token":"eyJsecret"}}`:  `has no "token"; it has "data", "data.token"`,
		`{"token":{"value":"eyJsecret"}}`: `has no usable "token"; it has "token", "token.value"`,
		`{"token":""}`:                    `has no usable "token"; it has "token"`,
		`["eyJsecret"]`:                   `has no "token"; it has no members`,
		`"eyJsecret"`:                     `has no "token"; it has no members`,
		`{}`:                              `has no "token"; it has no members`,
	} {
		_, _, err := parseToken([]byte(body))
		var shape *shapeError
		if !errors.As(err, &shape) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want a shapeError with %s", body, err, want)
		}
	}
	if _, _, err := parseToken([]byte(`<html>`)); errors.As(err, new(*shapeError)) || err == nil {
		t.Errorf("a page: got %v, want an error but no shapeError", err)
	}
	var many strings.Builder
	for i := range 40 {
		fmt.Fprintf(&many, `"m%02d%s":1,`, i, strings.Repeat("x", 100))
	}
	_, _, err := parseToken([]byte("{" + many.String() + `"a\u0000b\nc":1}`))
	var shape *shapeError
	if !errors.As(err, &shape) || len(shape.Have) != mostNames || shape.Have[0] != `a\x00b\nc` ||
		len(shape.Have[1]) > mostName {
		t.Errorf("got %v, want %d short printable names", err, mostNames)
	}
}

// TestPlaintextToThisMachineOnly: the name localhost is known in capitals, too.
func TestPlaintextToThisMachineOnly(t *testing.T) {
	if _, err := New(testConfig("http://LOCALHOST:1/v1")); err != nil {
		t.Errorf("LOCALHOST: got %v, want nil", err)
	}
	if _, err := New(testConfig("http://LOCALHOST.EXAMPLE/v1")); err == nil {
		t.Error("LOCALHOST.EXAMPLE: got nil, want an error")
	}
}
