package sandbox_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/purser-onboard/purser/httpsig"
	"github.com/purser-onboard/purser/sandbox"
)

// A client creates a customer and gets an error, although the sandbox has created the customer. The error is not stored
// under the key, so the same request gets a 409.
func Example() {
	now := func() time.Time { return time.Date(2025, 1, 17, 18, 21, 53, 0, time.UTC) }
	faults, err := sandbox.ParseFaults("unstored-5xx-after=1,limit=1,on=create")
	if err != nil {
		panic(err)
	}
	server, err := sandbox.New(sandbox.Config{Now: now, Seed: 1, Domain: "sandbox.example", Faults: faults})
	if err != nil {
		panic(err)
	}
	cred, err := sandbox.NewCredentials(nil)
	if err != nil {
		panic(err)
	}
	if err := server.RegisterCredentials(cred); err != nil {
		panic(err)
	}
	key, err := httpsig.ParsePrivateKey(cred.PrivateKeyPEM)
	if err != nil {
		panic(err)
	}
	signer, err := httpsig.NewSigner(key, httpsig.Options{
		KeyID: cred.KeyID, Now: now,
		Components: []string{
			"@method", "@authority", "@path", "authorization", "content-type", "content-digest", "idempotency-key",
		},
	})
	if err != nil {
		panic(err)
	}

	post := func(path, body string, headers map[string]string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "http://sandbox.example"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		if err := signer.Sign(r); err != nil {
			panic(err)
		}
		w := httptest.NewRecorder()
		server.API().ServeHTTP(w, r)
		return w
	}
	token := post("/v1/auth/token", `{"apiKey":"`+cred.APIKey+`","apiSecret":"`+cred.APISecret+`"}`, nil).Body.String()
	token = strings.Split(token, `"`)[3]

	body := `{"chainId":"eip155:300:0x43158f45b5EbD7b1179130130DF00393928C2691","externalId":"27c9aa3b"}`
	digest, err := httpsig.ContentDigest("sha-256", []byte(body))
	if err != nil {
		panic(err)
	}
	for range 2 {
		w := post("/v1/customers", body, map[string]string{
			"Authorization":   "Bearer " + token,
			"Content-Digest":  digest,
			"Idempotency-Key": "b5b1d1b2-6f0e-4d86-9f43-5f7a3a3a4b01",
		})
		fmt.Println(w.Code, w.Header().Get("Content-Type"))
	}
	c := server.Customers()[0]
	fmt.Println(c.Status, strings.SplitN(c.Challenges[0].Text, "\n", 2)[0])
	fmt.Println("violations:", len(server.Judge(nil).Violations))
	// Output:
	// 504 application/problem+json
	// 409 application/problem+json
	// initiating sandbox.example wants you to sign in with your Ethereum account:
	// violations: 0
}
