package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
)

// unsigned stands for an *httpsig.Signer.
type unsigned struct{}

func (unsigned) Sign(*http.Request) error { return nil }

// The first creation succeeds; the error of the second has the partner's code and message.
func Example() {
	partner := http.NewServeMux()
	partner.HandleFunc("POST /v1/auth/token", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"token":"secret","expiresAt":4102444800,"tokenType":"Bearer"}`)
	})
	created := false
	partner.HandleFunc("POST /v1/customers", func(w http.ResponseWriter, _ *http.Request) {
		if created {
			w.WriteHeader(http.StatusConflict)
			_, _ = fmt.Fprint(w, `{"code":"customer_exists","message":"the customer already exists"}`)
			return
		}
		created = true
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprint(w, `{"id":"0b8f2c1e-6d3a-4b57-8a55-2f0f0c3f9d11","status":"initiating","challenge":"aGVsbG8="}`)
	})
	server := httptest.NewServer(partner)
	defer server.Close()

	c, err := client.New(client.Config{
		BaseURL:     server.URL + "/v1",
		APIKey:      "7f6c0b6e-4b0e-4d7e-9f58-6a1f8f1d2f10",
		APISecret:   "secret",
		Sign:        unsigned{},
		RateLimiter: client.NewRateLimiter(100), // attempts a second, shared by all workers
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	ctx := context.Background()
	body := client.CreateBody("eip155:300:0x43158f45b5EbD7b1179130130DF00393928C2691", "27c9aa3b")
	for _, key := range []string{"c2a9c9d6-30d5-4c69-8f4f-7f7a3b1f0a77", "d7be5b3e-3e0c-4a53-9d50-6d3f2a0a8e01"} {
		customer, err := c.CreateCustomer(ctx, uuid.MustParse(key), body)
		var failure *client.Error
		if errors.As(err, &failure) {
			fmt.Println(failure.Kind, "-", failure)
			continue
		}
		challenge, err := client.DecodeChallenge(customer.Challenge)
		fmt.Println(customer.Status, challenge, err)
	}
	// Output:
	// initiating hello <nil>
	// conflict - POST /customers: HTTP 409 (customer_exists): the customer already exists
}
