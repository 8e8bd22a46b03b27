package client

import (
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// generated is a list of n customers that is made while it is read, with a pause before each customer.
type generated struct {
	n, next int
	left    string
	pause   time.Duration
	gone    <-chan struct{}
}

func (g *generated) Read(p []byte) (int, error) {
	if g.left == "" {
		if g.pause > 0 {
			select {
			case <-time.After(g.pause):
			case <-g.gone:
				return 0, errors.New("request ended")
			}
		}
		switch {
		case g.next == 0:
			g.left = "[" + element(0)
		case g.next < g.n:
			g.left = "," + element(g.next)
		case g.next == g.n:
			g.left = "]"
		default:
			return 0, io.EOF
		}
		g.next++
	}
	n := copy(p, g.left)
	g.left = g.left[n:]
	return n, nil
}

func listing(n int, pause time.Duration) roundTripper {
	return func(r *http.Request) *canned {
		if strings.HasSuffix(r.URL.Path, "/auth/token") {
			return response(200, `{"token":"t"}`)
		}
		return &canned{status: http.StatusOK, body: &generated{n: n, pause: pause, gone: r.Context().Done()}}
	}
}

func TestCustomersInBoundedMemory(t *testing.T) {
	n := 1_000_000
	if raceEnabled || testing.Short() {
		n = 100_000
	}
	config := testConfig("https://api.example/v1")
	config.Transport = listing(n, 0)
	c := newClient(t, config)
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	before, most, count := memory.HeapAlloc, uint64(0), 0
	err := customersOf(t.Context(), c, func(Customer) error {
		if count++; count%10_000 == 0 {
			runtime.ReadMemStats(&memory)
			most = max(most, memory.HeapAlloc)
		}
		return nil
	})
	if err != nil || count != n {
		t.Fatalf("got %d customers, %v; want %d, no error", count, err, n)
	}
	if grown := int64(most) - int64(before); grown > 16<<20 {
		t.Errorf("heap: got %d MiB more, want at most 16", grown>>20)
	}
}

func TestCustomersTakeTheirTime(t *testing.T) {
	list := func(t *testing.T, pause time.Duration, yield func(Customer) error) error {
		config := testConfig("https://api.example/v1")
		config.Transport = listing(60, pause)
		return customersOf(t.Context(), newClient(t, config), yield)
	}
	nothing := func(Customer) error { return nil }
	synctest.Test(t, func(t *testing.T) {
		// Ten minutes are more than the timeout of an attempt, but each read makes progress.
		if err := list(t, 10*time.Second, nothing); err != nil {
			t.Errorf("a slow list: got %v, want no error", err)
		}
		for name, tt := range map[string]struct {
			pause time.Duration
			cause error
			after time.Duration
		}{
			"no progress":          {31 * time.Second, errStuck, defaultTimeout},
			"progress, but no end": {20 * time.Second, errTimeout, defaultListTimeout},
		} {
			begin := time.Now()
			e := asError(t, list(t, tt.pause, nothing))
			if took := time.Since(begin); !errors.Is(e, tt.cause) || e.Kind != Malformed || took != tt.after {
				t.Errorf("%s: got %v after %v, want kind %s with %v after %v", name, e, took, Malformed, tt.cause, tt.after)
			}
		}
		// The time that yield takes does not count.
		if err := list(t, 0, func(Customer) error { time.Sleep(time.Second); return nil }); err != nil {
			t.Errorf("a slow yield: got %v, want no error", err)
		}
	})
}

func BenchmarkCustomers(b *testing.B) {
	config := testConfig("https://api.example/v1")
	config.Transport = listing(b.N, 0)
	c := newClient(b, config)
	b.ReportAllocs()
	b.SetBytes(int64(len(element(0))))
	if err := customersOf(b.Context(), c, func(Customer) error { return nil }); err != nil {
		b.Fatal(err)
	}
}

// TestCustomersTook: the waits for the rate limiter are the client's, not the partner's.
func TestCustomersTook(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func() *canned
		kind   Kind // "": no error
	}{
		"a list":    {func() *canned { return response(200, `[]`) }, ""},
		"no answer": {func() *canned { return response(500, "") }, ServerError},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const latency = 50 * time.Millisecond
				i := &issuer{lifetime: time.Hour, delay: time.Minute}
				c := bubbleClient(t, 0.1, func(r *http.Request) *canned {
					if strings.HasSuffix(r.URL.Path, "/auth/token") {
						return i.token()
					}
					time.Sleep(latency)
					return tt.answer()
				})
				begin := time.Now()
				took, err := c.Customers(t.Context(), func(Customer) error { return nil })
				if tt.kind != "" {
					wantKind(t, err, tt.kind)
				} else if err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(begin); took != latency || waited < time.Minute {
					t.Errorf("got %v of %v, want %v of more than a minute", took, waited, latency)
				}
			})
		})
	}
}

// TestListOnALostConnection: whatever ends the connection in the middle of the list, the API is the expected one.
func TestListOnALostConnection(t *testing.T) {
	for _, broken := range []error{
		syscall.ECONNRESET, io.ErrUnexpectedEOF, errors.New("stream error: stream ID 3; INTERNAL_ERROR; received from peer"),
	} {
		for _, read := range []string{"", "[", "[" + element(0), "[" + element(0) + "]"} {
			config := testConfig("https://api.example/v1")
			config.Transport = roundTripper(func(r *http.Request) *canned {
				if strings.HasSuffix(r.URL.Path, "/auth/token") {
					return response(200, `{"token":"t"}`)
				}
				body := io.MultiReader(strings.NewReader(read), iotest.ErrReader(broken))
				return &canned{status: http.StatusOK, body: body}
			})
			err := customersOf(t.Context(), newClient(t, config), func(Customer) error { return nil })
			if e := asError(t, err); e.Kind != Malformed || !errors.Is(e, broken) {
				t.Errorf("%v after %q: got %s: %v, want %s", broken, read, e.Kind, e, Malformed)
			}
		}
	}
}
