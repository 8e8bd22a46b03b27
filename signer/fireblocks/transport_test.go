package fireblocks

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/purser-onboard/purser/internal/fireblockstest"
	"github.com/purser-onboard/purser/signer"
)

// A kept connection that turns out to be dead is not a reason to send a nonce twice.
func TestNotResent(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	var served atomic.Int32
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(host.Close)
	s.uri = strings.Replace(s.uri, url.QueryEscape(s.url), url.QueryEscape(host.URL), 1)
	v := s.open(t)
	_, err := v.Poll(t.Context(), "row-1", s.account(), hello)
	want(t, err, signer.ErrUnknownRequest)
	_, err = v.Poll(t.Context(), "row-1", s.account(), hello)
	transient(t, err)
	want(t, err, errNotResent)
	if n := served.Load(); n != 2 {
		t.Errorf("%d requests arrived, want 2", n)
	}
	_, err = v.Poll(t.Context(), "row-1", s.account(), hello)
	want(t, err, signer.ErrUnknownRequest)
}

func TestTooMuch(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	s.Fail(fireblockstest.Fault{Status: 200, Body: `{"id":"` + strings.Repeat("x", mostBody) + `"}`})
	_, err := s.open(t).Poll(t.Context(), "row-1", s.account(), hello)
	transient(t, err)
	if len(err.Error()) > 1000 {
		t.Errorf("got an error of %d bytes, want at most 1000", len(err.Error()))
	}
}
