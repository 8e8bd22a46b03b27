package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func listID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

func element(i int) string {
	return `{"id":"` + listID(i) + `","chainId":"` + testChain + `","externalId":"e` + strconv.Itoa(i) +
		`","status":"active","createdAt":"2024-01-17T18:21:53Z","updatedAt":"2024-01-17T18:21:53Z"}`
}

func TestCustomers(t *testing.T) {
	two := element(0) + ` , ` + element(1)
	for name, tt := range map[string]struct {
		body    string
		yielded int
		problem string
	}{
		"array":             {`[` + two + `]`, 2, ""},
		"empty array":       {" [\n] ", 0, ""},
		"customers":         {`{"customers":[` + two + `]}`, 2, ""},
		"data, with others": {`{"total":2,"meta":{"a":[{}]},"data":[` + two + `],"next":null,"hasMore":false}`, 2, ""},
		"items":             {`{"items":[]}`, 0, ""},
		"empty":             {``, 0, "cut off"},
		"null":              {`null`, 0, "no list"},
		"a number":          {`7`, 0, "no list"},
		"no list":           {`{"a":[]}`, 0, "no list"},
		"object of object":  {`{"data":{"customers":[]}}`, 0, "not the one list"},
		"two lists":         {`{"data":[],"items":[]}`, 0, "not the one list"},
		"page":              {`{"data":[` + two + `],"next":"abc"}`, 2, "further pages"},
		"page announced":    {`{"hasMore":true,"data":[]}`, 0, "further pages"},
		"cut between":       {`[` + two, 2, "cut off"},
		"cut after comma":   {`[` + two + `,`, 2, "cut off"},
		"cut within":        {`[` + two[:len(two)-5], 1, "customer 1"},
		"object cut":        {`{"data":[` + two + `]`, 2, "cut off"},
		"more after it":     {`[` + two + `] []`, 2, "follows the list"},
		"wrong type":        {`[` + two + `,{"id":7}]`, 2, "customer 2"},
		"null within":       {`[` + two + `,null]`, 2, "customer 2"},
		"no id":             {`[` + two + `,{"externalId":"x"}]`, 2, "customer 2"},
		"no comma":          {`[` + element(0) + element(1) + `]`, 1, "customer 1"},
		"huge element":      {`[` + two + `,{"id":"` + strings.Repeat("x", 3<<20) + `"}]`, 2, "customer 2"},
		"huge space":        {`[` + two + strings.Repeat(" ", 3<<20) + `]`, 2, "too large"},
		"deep":              {`{"a":` + strings.Repeat("[", 20_000), 0, "depth"},
		"page of a proxy":   {`<html>`, 0, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := dial(t, reply200(tt.body))
			var got []Customer
			err := c.Customers(t.Context(), func(customer Customer) error {
				got = append(got, customer)
				return nil
			})
			if len(got) != tt.yielded {
				t.Errorf("%d customers, want %d", len(got), tt.yielded)
			}
			for i, customer := range got {
				if customer.ID != listID(i) || customer.ExternalID != "e"+strconv.Itoa(i) || customer.CreatedAt.Year() != 2024 {
					t.Errorf("customer %d: %+v", i, customer)
				}
			}
			if tt.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e := asError(t, err); e.Kind != Malformed || !strings.Contains(e.Error(), tt.problem) {
				t.Errorf("got %v, want %q", e, tt.problem)
			}
		})
	}
	t.Run("connection cut", func(t *testing.T) {
		c, _ := dial(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `[`+two+`,`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		if e := asError(t, c.Customers(t.Context(), func(Customer) error { return nil })); e.Kind != Malformed {
			t.Error(e)
		}
	})
	t.Run("stopped by yield", func(t *testing.T) {
		c, _ := dial(t, reply200(`[`+two+`]`))
		enough := errors.New("enough")
		err := c.Customers(t.Context(), func(Customer) error { return enough })
		if err != enough { //nolint:errorlint // as it is
			t.Error(err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c, _ := dial(t, replying(403, ""))
		if e := asError(t, c.Customers(t.Context(), nil)); e.Kind != Forbidden {
			t.Error(e)
		}
	})
}

// generated is a list of n customers that exists nowhere as a whole. It is slow, if asked to be.
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
	err := c.Customers(t.Context(), func(Customer) error {
		if count++; count%10_000 == 0 {
			runtime.ReadMemStats(&memory)
			most = max(most, memory.HeapAlloc)
		}
		return nil
	})
	if err != nil || count != n {
		t.Fatalf("%d customers, %v", count, err)
	}
	if grown := int64(most) - int64(before); grown > 16<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

func TestCustomersTakeTheirTime(t *testing.T) {
	list := func(t *testing.T, pause time.Duration, yield func(Customer) error) error {
		config := testConfig("https://api.example/v1")
		config.Transport = listing(60, pause)
		return newClient(t, config).Customers(t.Context(), yield)
	}
	nothing := func(Customer) error { return nil }
	synctest.Test(t, func(t *testing.T) {
		// Ten minutes are more than one attempt's timeout, but there is progress.
		if err := list(t, 10*time.Second, nothing); err != nil {
			t.Error(err)
		}
		begin := time.Now()
		if e := asError(t, list(t, 31*time.Second, nothing)); !errors.Is(e, errStuck) || e.Kind != Malformed {
			t.Error(e)
		}
		if took := time.Since(begin); took != DefaultTimeout {
			t.Errorf("noticed after %v", took)
		}
		// Trickling: always some progress, never an end.
		begin = time.Now()
		if e := asError(t, list(t, 20*time.Second, nothing)); !errors.Is(e, errTimeout) {
			t.Error(e)
		}
		if took := time.Since(begin); took != DefaultListTimeout {
			t.Errorf("ended after %v", took)
		}
		// The taker's time is not the partner's.
		if err := list(t, 0, func(Customer) error { time.Sleep(time.Second); return nil }); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkCustomers(b *testing.B) {
	config := testConfig("https://api.example/v1")
	config.Transport = listing(b.N, 0)
	c := newClient(b, config)
	b.ReportAllocs()
	b.SetBytes(int64(len(element(0))))
	if err := c.Customers(b.Context(), func(Customer) error { return nil }); err != nil {
		b.Fatal(err)
	}
}
