package consumecmd

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/purser-onboard/purser/client"
)

// TestCheckClock: before the clock of this machine is called wrong, the partner is asked once more. What was known of
// its clock is as wrong after this machine was suspended as after the partner's clock was set, as here.
func TestCheckClock(t *testing.T) {
	var ahead, requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Duration(ahead.Load())).UTC().Format(http.TimeFormat))
		if strings.HasSuffix(r.URL.Path, "/auth/token") {
			_, _ = io.WriteString(w, `{"token":"t"}`)
			return
		}
		requests.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	api, err := client.New(client.Config{
		BaseURL: server.URL, APIKey: "key", APISecret: "secret", Sign: unsigned{}, RateLimiter: client.NewRateLimiter(1000),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	p := &partner{client: api}
	ahead.Store(int64(time.Hour))
	if err := p.probe(t.Context()); err == nil || !strings.Contains(err.Error(), "1h0m0s behind") {
		t.Errorf("probe with the partner's clock an hour ahead: got %v, want the difference", err)
	}
	if err := p.checkClock(t.Context()); err == nil || !strings.Contains(err.Error(), "1h0m0s behind") {
		t.Errorf("the clocks still differ: got %v, want the difference", err)
	}
	ahead.Store(0)
	if err := p.checkClock(t.Context()); err != nil {
		t.Errorf("the clocks agree again: got %v, want no error", err)
	}
	asked := requests.Load()
	if err := p.checkClock(t.Context()); err != nil || requests.Load() != asked {
		t.Errorf("the clocks agree: got %v and %d requests more, want neither", err, requests.Load()-asked)
	}
}
