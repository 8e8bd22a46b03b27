package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const token = "5ec2e7-t0ken"

// heard is a transport that writes down what it is asked, and answers by a function.
type heard struct {
	mu     sync.Mutex
	asked  []string // "POST /path?query body"
	answer func(n int, r *http.Request) (*http.Response, error)
}

func (h *heard) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.asked = append(h.asked, fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body))
	n := len(h.asked)
	h.mu.Unlock()
	return h.answer(n, r)
}

func status(code int, headers ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(token))}
}

// told is a Notifier for tests, and what it could not deliver.
type told struct {
	*Notifier
	mu       sync.Mutex
	failures []string
}

func newTold(t *testing.T, transport http.RoundTripper, ping, webhook string) *told {
	t.Helper()
	parsed := func(text string) *url.URL {
		if text == "" {
			return nil
		}
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	n := &told{}
	n.Notifier = New(Options{
		Ping: parsed(ping), Webhook: parsed(webhook), Run: "run-id", Transport: transport,
		OnFailure: func(setting string, err error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.failures = append(n.failures, setting+": "+err.Error())
		},
	})
	return n
}

func (n *told) failed() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.failures, "\n")
}

func ok(int, *http.Request) (*http.Response, error) { return status(200), nil }

func TestPingInTheMannerOfHealthchecks(t *testing.T) {
	for exit, path := range map[int]string{0: "", 1: "/1", 3: "/3"} {
		h := &heard{answer: ok}
		n := newTold(t, h, "https://hc.example/ping/"+token+"?create=1", "")
		n.Begin(t.Context(), Notice{Text: "begun"})
		n.End(t.Context(), Notice{Exit: exit, Text: "ended"})()
		want := []string{
			"POST /ping/" + token + "/start?create=1&rid=run-id begun",
			"POST /ping/" + token + path + "?create=1&rid=run-id ended",
		}
		if got := h.asked; len(got) != 2 || got[0] != want[0] || got[1] != want[1] || n.failed() != "" {
			t.Errorf("exit %d: got %q, failures %q; want %q, none", exit, got, n.failed(), want)
		}
	}
}

func TestWebhookGetsJSON(t *testing.T) {
	h := &heard{answer: func(_ int, r *http.Request) (*http.Response, error) {
		if got := r.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("got content type %q, want application/json", got)
		}
		return status(204), nil
	}}
	n := newTold(t, h, "", "https://chat.example/"+token)
	n.Begin(t.Context(), Notice{JSON: []byte(`{"a":1}`)})
	n.End(t.Context(), Notice{Exit: 3, JSON: []byte(`{"a":2}`)})()
	want := []string{"POST /" + token + ` {"a":1}`, "POST /" + token + ` {"a":2}`}
	if got := h.asked; len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRetries: what may pass is tried again, what does not is not, and no failure shows the token.
func TestRetries(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for name, test := range map[string]struct {
		answer func(n int, r *http.Request) (*http.Response, error)
		asked  int
		failed string
	}{
		"500, then well": {func(n int, _ *http.Request) (*http.Response, error) {
			return status([]int{500, 429, 200}[n-1]), nil
		}, 3, ""},
		"500 each time": {func(int, *http.Request) (*http.Response, error) { return status(500), nil },
			1 + retries, "the response is 500 Internal Server Error"},
		"404": {func(int, *http.Request) (*http.Response, error) { return status(404), nil },
			1, "the response is 404 Not Found"},
		"nothing there": {func(int, *http.Request) (*http.Response, error) { return nil, refused },
			1 + retries, "connection refused"},
		"odd answer": {func(_ int, r *http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("malformed HTTP response %q", r.URL.Path)
		}, 1 + retries, "the connection failed"},
		"another host": {func(int, *http.Request) (*http.Response, error) {
			return status(307, "Location", "https://other.example/"+token), nil
		}, 1, "redirect to another host or to GET"},
		"another scheme": {func(int, *http.Request) (*http.Response, error) {
			return status(308, "Location", "http://hc.example/"+token), nil
		}, 1, "redirect to another host or to GET"},
		"to GET": {func(int, *http.Request) (*http.Response, error) {
			return status(302, "Location", "/elsewhere"), nil
		}, 1, "redirect to another host or to GET"},
		"same host": {func(n int, _ *http.Request) (*http.Response, error) {
			if n == 1 {
				return status(307, "Location", "/elsewhere"), nil
			}
			return status(200), nil
		}, 2, ""},
		"for ever": {func(int, *http.Request) (*http.Response, error) {
			return status(307, "Location", "/elsewhere"), nil
		}, 4, "redirect to another host or to GET"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &heard{answer: test.answer}
			n := newTold(t, h, "https://hc.example/"+token, "")
			n.End(t.Context(), Notice{Text: "ended"})()
			failed := n.failed()
			if len(h.asked) != test.asked || (failed == "") != (test.failed == "") || !strings.Contains(failed, test.failed) ||
				strings.Contains(failed, token) || strings.Contains(failed, "retryable") {
				t.Errorf("%s: got %d requests and %q; want %d and %q, without the token", name, len(h.asked), failed,
					test.asked, test.failed)
			}
			for _, request := range h.asked {
				if !strings.HasSuffix(request, " ended") {
					t.Errorf("%s: got %q, want the body in each request", name, request)
				}
			}
		})
	}
}

// hangs answers nothing until the request's context ends.
func hangs(_ int, r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestPatienceEnds: receivers that hang cost a run no more than Patience, together; a hard stop ends the wait at once,
// and one that came before leaves a second.
func TestPatienceEnds(t *testing.T) {
	for name, test := range map[string]struct {
		stop time.Duration // of the hard stop, after the end; negative: before it
		want time.Duration
	}{
		"no stop": {time.Hour, Patience}, "stop meanwhile": {3 * time.Second, 3 * time.Second},
		"stop before": {-1, stoppedGrace},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &heard{answer: hangs}
			n := newTold(t, h, "https://hc.example/"+token, "https://chat.example/"+token)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			n.Begin(ctx, Notice{})
			synctest.Wait()
			if test.stop < 0 {
				stop()
			} else {
				timer := time.AfterFunc(test.stop, stop)
				defer timer.Stop()
			}
			begun := time.Now()
			wait := n.End(ctx, Notice{})
			if took := time.Since(begun); took != 0 {
				t.Errorf("%s: End blocked for %v, want it to return at once", name, took)
			}
			wait()
			if took := time.Since(begun); took != test.want {
				t.Errorf("%s: got %v, want %v", name, took, test.want)
			}
			if failed := n.failed(); strings.Count(failed, "\n") != 3 || strings.Contains(failed, token) {
				t.Errorf("%s: got failures %q, want four without the token", name, failed)
			}
		})
	}
}

// TestRealEndpoints: one that answers, one that is dead and one that closes connections; after a hard stop, which is soon
// over.
func TestRealEndpoints(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/closes" {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + listener.Addr().String() + "/" + token
	listener.Close()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for name, test := range map[string]struct{ url, failed string }{
		"answers": {server.URL + "/answers", ""}, "dead": {dead, "connection refused"},
		"closes": {server.URL + "/closes", "connection failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTold(t, nil, test.url, "")
			n.End(stopped, Notice{})()
			failed := n.failed()
			if (failed == "") != (test.failed == "") || !strings.Contains(failed, test.failed) ||
				strings.Contains(failed, token) {
				t.Errorf("got %q, want %q without the token", failed, test.failed)
			}
		})
	}
}

func TestNobodyToTell(t *testing.T) {
	n := New(Options{})
	n.Begin(t.Context(), Notice{})
	n.End(t.Context(), Notice{})()
	if n != nil {
		t.Errorf("got %v, want nil", n)
	}
}
