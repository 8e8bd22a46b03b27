package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/purser-onboard/purser/sandbox"
)

// BenchmarkSoak onboards many rows in one run of the consumer, as fast as the processors allow, and looks at the process
// at each eighth: memory, file descriptors and goroutines of the last one are not to be more than those of the second,
// when buffers and pools have grown. PURSER_SOAK is the number of rows.
func BenchmarkSoak(b *testing.B) {
	rows := 40_000
	if text := os.Getenv("PURSER_SOAK"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil || rows < 8 {
			b.Fatalf("PURSER_SOAK=%s: got %v, want at least 8", text, err)
		}
	}
	p := buildPrograms(b)
	for b.Loop() {
		_, env := partnerEnv(b, sandbox.Config{}) // for its credentials
		address := freeAddress(b)
		at := make([]vitals, 9)
		var created atomic.Int64
		partner := freePartner(b)
		free := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/customers") {
				if n := int(created.Add(1)); n%(rows/8) == 0 && n/(rows/8) <= 8 {
					var err error
					if at[n/(rows/8)], err = vitalsAt(r.Context(), address); err != nil {
						b.Error(err)
					}
				}
			}
			partner.ServeHTTP(w, r)
		}))
		env = append(env, "OFFBLOCKS_API_URL="+free.URL+"/v1", "PURSER_RATE=1000000",
			"PURSER_METRICS_LISTEN="+address, "PURSER_CHALLENGE_STATEMENT="+freeStatement)
		env = queued(b, p, env, rows)
		ran := p.run(b, env, p.consumer, "--drain")
		free.Close()
		if want := fmt.Sprintf("%[1]d received: %[1]d onboarded\n", rows); !strings.Contains(ran.said, want) {
			b.Fatalf("got output %q, want %q in it", ran.said, want)
		}
		for unit, of := range map[string]func(vitals) float64{
			"MiB":        func(v vitals) float64 { return v.memory / (1 << 20) },
			"files":      func(v vitals) float64 { return v.files },
			"goroutines": func(v vitals) float64 { return v.goroutines },
		} {
			b.ReportMetric(of(at[2]), unit+"-2/8")
			b.ReportMetric(of(at[8]), unit+"-8/8")
		}
		b.ReportMetric(ran.took.Seconds(), "s")
		b.ReportMetric(0, "ns/op")
	}
}

// vitals are what a process uses.
type vitals struct{ memory, files, goroutines float64 }

// vitalsAt reads the vitals of the consumer that serves its metrics at an address.
func vitalsAt(ctx context.Context, address string) (v vitals, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return v, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return v, err
	}
	defer response.Body.Close()
	found := 0
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		into := map[string]*float64{
			"process_resident_memory_bytes": &v.memory, "process_open_fds": &v.files, "go_goroutines": &v.goroutines,
		}[name]
		if into == nil {
			continue
		}
		if *into, err = strconv.ParseFloat(value, 64); err != nil {
			return v, err
		}
		found++
	}
	if found != 3 {
		return v, errors.New("the metrics lack memory, files or goroutines")
	}
	return v, nil
}

// freeAddress is an address on loopback on which nothing listens.
func freeAddress(b *testing.B) string {
	b.Helper()
	listener, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
