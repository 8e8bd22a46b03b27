package sandbox

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/purser-onboard/purser/httpsig"
)

// BenchmarkCreate measures a creation in the sandbox, without the network and the client's signature.
func BenchmarkCreate(b *testing.B) {
	p := open(b, nil)
	p.login()
	requests := make([]*http.Request, b.N)
	for i := range requests {
		body := createBody(fmt.Sprintf("eip155:300:0x%040x", i+1), fmt.Sprint("ext-", i))
		r := httptest.NewRequest(http.MethodPost, p.api.URL+"/v1/customers", strings.NewReader(body))
		digest, err := httpsig.ContentDigest("sha-256", []byte(body))
		if err != nil {
			b.Fatal(err)
		}
		for name, value := range map[string]string{
			"Authorization": "Bearer " + p.token, "Content-Type": "application/json", "Content-Digest": digest,
			"Idempotency-Key": testKey(i),
		} {
			r.Header.Set(name, value)
		}
		if err := p.signer.Sign(r); err != nil {
			b.Fatal(err)
		}
		requests[i] = r
	}
	api := p.s.API()
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w := httptest.NewRecorder()
			api.ServeHTTP(w, requests[next.Add(1)-1])
			if w.Code != http.StatusCreated {
				b.Errorf("got %d %s, want %d", w.Code, w.Body, http.StatusCreated)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}
