package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/httpsig"
)

// BenchmarkCreateCustomer is a creation against a partner that costs nothing: "signed" with a real P-384 signature over
// all components, "unsigned" shows what the client itself takes.
func BenchmarkCreateCustomer(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	signer, err := httpsig.NewSigner(key, httpsig.Options{KeyID: "k1", Now: time.Now, Components: []string{
		"@method", "@target-uri", "authorization", "content-type", "content-digest", "idempotency-key"}})
	if err != nil {
		b.Fatal(err)
	}
	body := CreateBody(testChain, testExtern)
	free := roundTripper(func(r *http.Request) *canned {
		if strings.HasSuffix(r.URL.Path, "/auth/token") {
			return response(200, `{"token":"t","expiresAt":4102444800}`)
		}
		return response(201, `{"id":"`+testID+`","status":"initiating","challenge":"aGk="}`)
	})
	p := newPartner(b, replying(201, `{"id":"`+testID+`","status":"initiating","challenge":"aGk="}`))
	for _, bm := range []struct {
		name      string
		signer    RequestSigner
		transport http.RoundTripper
	}{
		{"signed", signer, free},
		{"unsigned", &countingSigner{}, free},
		{"loopback", &countingSigner{}, nil},
	} {
		b.Run(bm.name, func(b *testing.B) {
			config := testConfig(p.URL + "/v1")
			config.Sign, config.Transport = bm.signer, bm.transport
			c := newClient(b, config)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := c.CreateCustomer(b.Context(), testIdem, body); err != nil {
						b.Errorf("CreateCustomer: got %v, want no error", err)
						return
					}
				}
			})
		})
	}
}
