package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/signer"
)

func openTest(t *testing.T, handler http.HandlerFunc) *HTTP {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	h, err := OpenHTTP("some+"+server.URL+"/s3cret", "some", shape, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func get(t *testing.T, h *HTTP, limit int64) ([]byte, error) {
	t.Helper()
	return h.Do(t.Context(), http.MethodGet, "", "", nil, limit)
}

func TestDoSends(t *testing.T) {
	h := openTest(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "body" || r.Method != http.MethodPost || r.URL.Path != "/s3cret/a/b" ||
			r.Header.Get("Content-Type") != "text/x" || r.ContentLength != 4 {
			t.Errorf("got %s %s %v, body %q, %v", r.Method, r.URL, r.Header, body, err)
		}
		for name := range r.Header {
			switch name {
			case "Content-Type", "Content-Length", "User-Agent":
			default:
				t.Errorf("got header %s, want only the expected ones", name)
			}
		}
	})
	if _, err := h.Do(t.Context(), http.MethodPost, "a/b", "text/x", []byte("body"), 0); err != nil {
		t.Errorf("got error %v, want none", err)
	}
}

func TestDoBoundsTheAnswer(t *testing.T) {
	h := openTest(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "0123456789")
	})
	if answer, err := get(t, h, 10); err != nil || string(answer) != "0123456789" {
		t.Errorf("an answer within the limit: got %q, %v; want all 10 bytes", answer, err)
	}
	if answer, err := get(t, h, 9); err == nil || len(answer) != 0 || !strings.Contains(err.Error(), "more than 9 bytes") {
		t.Errorf("an answer beyond the limit: got %q, %v; want an error for more than 9 bytes", answer, err)
	}
}

func TestDoFollowsNoRedirect(t *testing.T) {
	var followed atomic.Bool
	h := openTest(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			followed.Store(true)
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	_, err := get(t, h, 10)
	if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "not followed") || followed.Load() {
		t.Errorf("got error %v, followed %v; want ErrUnusable, false", err, followed.Load())
	}
}

func TestStatusError(t *testing.T) {
	h := openTest(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "a\r\nlong\x00\x1b[31m \u202e story"+strings.Repeat(" and more", 1000))
	})
	_, err := get(t, h, 10)
	var status *StatusError
	if !errors.As(err, &status) || status.Status != 500 || errors.Is(err, signer.ErrUnusable) {
		t.Fatalf("got error %v, want a *StatusError with 500, and not ErrUnusable", err)
	}
	if !strings.HasPrefix(status.Detail, `a\r\nlong\x00\x1b[31m \u202e story and more`) || len(status.Detail) > mostDetail+10 {
		t.Errorf("got detail %q, want an escaped line that is cut", status.Detail)
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got error %v, want one without the path", err)
	}
}

// TestAnotherSuccessIsNotQuoted: the body of a 2xx other than 200 may be a signature, which belongs in no log.
func TestAnotherSuccessIsNotQuoted(t *testing.T) {
	h := openTest(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "0x5161e1")
	})
	_, err := get(t, h, 100)
	if !errors.As(err, new(*StatusError)) || !strings.Contains(err.Error(), "202") || strings.Contains(err.Error(), "0x") {
		t.Errorf("got error %v, want a *StatusError with 202, and no body", err)
	}
}

// What the other side has closed meanwhile is replaced, also for a POST; a connection that breaks in mid-answer is an
// error.
func TestConnectionsThatClose(t *testing.T) {
	var requests atomic.Int64
	h := openTest(t, func(w http.ResponseWriter, _ *http.Request) {
		n := requests.Add(1)
		if n%2 == 0 {
			panic(http.ErrAbortHandler) // on the kept connection, before any answer
		}
		_, _ = io.WriteString(w, "ok")
	})
	for range 3 {
		if _, err := h.Do(t.Context(), http.MethodPost, "", "text/x", []byte("body"), 10); err != nil {
			t.Fatal(err)
		}
	}
	if n := requests.Load(); n != 5 {
		t.Errorf("%d requests, want 5: one, and twice one that broke and its repetition", n)
	}
	short := openTest(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "ok")
	})
	if _, err := get(t, short, 100); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want ErrUnexpectedEOF", err)
	}
}

// Our own patience is not the end of the caller's context.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := OpenHTTP("some+http://h/s3cret", "some", shape, false)
		if err != nil {
			t.Fatal(err)
		}
		h.client.Transport = silence{}
		_, err = get(t, h, 10)
		if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, signer.ErrUnusable) ||
			err.Error() != "http://h: no response within 1m0s" {
			t.Errorf("got error %v, want \"http://h: no response within 1m0s\"", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		_, err = h.Do(ctx, http.MethodGet, "", "", nil, 10)
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error %v, want context.Canceled", err)
		}
	})
}

type silence struct{}

func (silence) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestOpenHTTPRefusesFiles(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"ca-file=" + dir + "/none":                     "no such file",
		"ca-file=" + dir:                               "is a directory",
		"ca-file=" + text:                              "no PEM certificate",
		"cert-file=" + dir + "/none&key-file=" + text:  "no such file",
		"cert-file=" + text + "&key-file=" + dir + "/": "is a directory",
		"cert-file=" + text + "&key-file=" + text:      "not a PEM certificate and its key",
	} {
		_, err := OpenHTTP("some+https://h?"+query, "some", shape, false)
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: error %v, want %q", query, err, want)
		}
	}
}

func TestCloseHTTP(t *testing.T) {
	h := openTest(t, func(http.ResponseWriter, *http.Request) {})
	for range 2 {
		if err := h.Close(); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	}
	if _, err := get(t, h, 0); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("after Close: got error %v, want ErrUnusable", err)
	}
}

// TestStatusErrorThrottled: 429, and 503 with Retry-After, cost a row no attempt, and say how long to wait.
func TestStatusErrorThrottled(t *testing.T) {
	const date = "Mon, 02 Jan 2006 15:04:05 GMT"
	for _, tt := range []struct {
		status int
		after  string
		want   time.Duration
		yes    bool
	}{
		{429, "", 0, true},
		{429, "7", 7 * time.Second, true},
		{429, "Mon, 02 Jan 2006 15:04:35 GMT", 30 * time.Second, true},
		{429, "Mon, 02 Jan 2006 15:00:00 GMT", 0, true},
		{429, "99999999999999999999", 0, true},
		{429, "999999", 5 * time.Minute, true},
		{503, "2", 2 * time.Second, true},
		{503, "", 0, false},
		{500, "2", 2 * time.Second, false},
	} {
		h := openTest(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", date)
			if tt.after != "" {
				w.Header().Set("Retry-After", tt.after)
			}
			w.WriteHeader(tt.status)
		})
		_, err := get(t, h, 10)
		var busy interface{ Throttled() (time.Duration, bool) }
		if !errors.As(err, &busy) {
			t.Errorf("%d, Retry-After %q: got %v, want an error that may be throttling", tt.status, tt.after, err)
			continue
		}
		if after, yes := busy.Throttled(); after != tt.want || yes != tt.yes {
			t.Errorf("%d, Retry-After %q: got %v, %v; want %v, %v", tt.status, tt.after, after, yes, tt.want, tt.yes)
		}
	}
}
