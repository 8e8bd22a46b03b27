package contracts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/sandbox"
)

// traffic is a handler in front of the partner that validates requests and answers against docs/openapi.yaml.
type traffic struct {
	partner http.Handler
	router  routers.Router

	mu       sync.Mutex
	problems []error
	seen     map[string]int // by operation and status: "createCustomer 201"
}

func newTraffic(t testing.TB, partner http.Handler) *traffic {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatalf("docs/openapi.yaml: got %v, want a valid document", err)
	}
	doc.Servers = openapi3.Servers{{URL: "/v1"}}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &traffic{partner: partner, router: router, seen: map[string]int{}}
}

func (c *traffic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation, input, err := c.request(r)
	answer := httptest.NewRecorder()
	c.partner.ServeHTTP(answer, r)
	if input != nil {
		err = errors.Join(err, openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: input, Status: answer.Code, Header: answer.Header(),
			Body: io.NopCloser(bytes.NewReader(answer.Body.Bytes())), Options: input.Options,
		}))
	}
	c.mu.Lock()
	c.seen[fmt.Sprint(operation, " ", answer.Code)]++
	if err != nil {
		c.problems = append(c.problems, fmt.Errorf("%s %s, answered %d: %w", r.Method, r.URL, answer.Code, err))
	}
	c.mu.Unlock()
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the client may have gone
}

// request validates a request. input is nil if there is no such operation.
func (c *traffic) request(r *http.Request) (operation string, input *openapi3filter.RequestValidationInput, err error) {
	route, parameters, err := c.router.FindRoute(r)
	if err != nil {
		return "none", nil, err
	}
	input = &openapi3filter.RequestValidationInput{
		Request: r, Route: route, PathParams: parameters,
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true, AuthenticationFunc: bearer,
			RejectWhenRequestBodyNotSpecified: true,
		},
	}
	return route.Operation.OperationID, input, openapi3filter.ValidateRequest(r.Context(), input)
}

// bearer checks that a request has a token; the partner checks which.
func bearer(_ context.Context, input *openapi3filter.AuthenticationInput) error {
	authorization := input.RequestValidationInput.Request.Header.Get("Authorization")
	if !strings.HasPrefix(authorization, "Bearer ") {
		return input.NewError(errors.New("no token"))
	}
	return nil
}

// operations are the ids of all operations in docs/openapi.yaml.
func operations(t *testing.T) (ids []string) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range doc.Paths.Map() {
		for _, operation := range item.Operations() {
			ids = append(ids, operation.OperationID)
		}
	}
	return ids
}

// testTraffic checks that every request that was sent, and every answer of a partner without faults of form, is as
// docs/openapi.yaml says, and that each of its operations was used.
func (n *night) testTraffic(t *testing.T) {
	secret := filepath.Join(n.dir, "next-secret")
	if err := os.WriteFile(secret, []byte("another secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.consumer(t, console.ExitWell, "check")
	n.consumer(t, console.ExitWell, "register-key")
	n.consumer(t, console.ExitWell, "rotate-secret", "--new-secret-file", secret)
	n.consumer(t, console.ExitWell, "register-key", "--delete", "--api-secret-file", secret)
	for _, problem := range n.traffic.problems {
		t.Errorf("got %v, want it as docs/openapi.yaml says", problem)
	}
	succeeded := map[string]int{}
	for answer, times := range n.traffic.seen {
		if operation, status, _ := strings.Cut(answer, " "); strings.HasPrefix(status, "2") {
			succeeded[operation] += times
		}
	}
	wantAll(t, "operations that succeeded", succeeded, operations(t)...)
	wantAll(t, "answers", n.traffic.seen,
		"createCustomer 409", "createCustomer 429", "readCustomer 404", "submitSignature 400", "submitSignature 401")
}

// TestOpenAPINoticesOtherAnswers: answers of another form than the document's are noticed.
func TestOpenAPINoticesOtherAnswers(t *testing.T) {
	t.Parallel()
	for faults, want := range map[string]string{
		"renamed=1,on=create":        `property "id" is missing`,
		"renamed=1,on=token":         `property "token" is missing`,
		"wrapped=1,on=create":        `is missing`,
		"status-unknown=1,on=create": "value is not one of the allowed values",
		"sign-2xx=1,on=sign":         "response", // 200, 201 or 202
		"html-error=1,on=sign":       "",         // a proxy's
	} {
		t.Run(faults, func(t *testing.T) {
			parsed, err := sandbox.ParseFaults(faults)
			if err != nil {
				t.Fatal(err)
			}
			parsed.Limit = 1
			n := newNight(t, sandbox.Config{Faults: parsed})
			n.importer(t, console.ExitWell, samples+"/customers.csv")
			n.drainAnyhow(t)
			got := errors.Join(n.traffic.problems...)
			if want == "" && got != nil || want != "" && (got == nil || !strings.Contains(got.Error(), want)) {
				t.Errorf("got problems %v, want one with %q (empty: none)", got, want)
			}
		})
	}
}

// TestOpenAPINoticesOtherRequests: requests that Purser does not send are noticed.
func TestOpenAPINoticesOtherRequests(t *testing.T) {
	t.Parallel()
	const (
		key    = "Idempotency-Key: 2d1a7f3c-6f0e-5b0a-9c55-0b0f2a0a7e11"
		token  = "Authorization: Bearer t"
		input  = `Signature-Input: sig=("@method");created=1764208800;keyid="k";alg="ecdsa-p384-sha384"`
		digest = "Content-Digest: sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
		body   = `{"chainId":"eip155:300:0xE66c9b8E74D0ece13e824f4987Aa568Bc3963C3f","externalId":"c1"}`
	)
	signature := "Signature: sig=:" + strings.Repeat("A", 128) + ":"
	all := []string{key, token, input, signature, digest, "Content-Type: application/json"}
	without := func(header string) (rest []string) {
		for _, h := range all {
			if h != header {
				rest = append(rest, h)
			}
		}
		return rest
	}
	for name, tt := range map[string]struct {
		method, target, body string
		headers              []string
		want                 string
	}{
		"as it is sent":         {"POST", "/v1/customers", body, all, ""},
		"no key":                {"POST", "/v1/customers", body, without(key), `"Idempotency-Key"`},
		"no token":              {"POST", "/v1/customers", body, without(token), "no token"},
		"no signature":          {"POST", "/v1/customers", body, without(signature), `"Signature"`},
		"no components":         {"POST", "/v1/customers", body, without(input), `"Signature-Input"`},
		"no digest":             {"POST", "/v1/customers", body, without(digest), `"Content-Digest"`},
		"unknown member":        {"POST", "/v1/customers", strings.Replace(body, "{", `{"name":"Ada",`, 1), all, `"name"`},
		"missing member":        {"POST", "/v1/customers", `{"externalId":"c1"}`, all, `"chainId" is missing`},
		"not an account":        {"POST", "/v1/customers", strings.Replace(body, "0xE", "E", 1), all, "chainId"},
		"body where none is":    {"GET", "/v1/customers", body, all, "body"},
		"query":                 {"GET", "/v1/customers/1", "", all, `parameter "id"`},
		"unknown path":          {"GET", "/v1/cards", "", all, "no matching operation"},
		"unknown method":        {"PATCH", "/v1/customers", body, all, "method not allowed"},
		"outside of the base":   {"GET", "/customers", "", all, "no matching operation"},
		"form instead of JSON":  {"POST", "/v1/customers", "chainId=1", []string{key, token, input, signature, digest}, "body"},
		"credentials in a GET":  {"GET", "/v1/auth/token", "", nil, "method not allowed"},
		"secret without a name": {"POST", "/v1/auth/token", `{"apiSecret":"s"}`, all, `"apiKey" is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTraffic(t, http.NotFoundHandler())
			r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.target, strings.NewReader(tt.body))
			if tt.body == "" {
				r.Body = http.NoBody
			}
			for _, h := range tt.headers {
				header, value, _ := strings.Cut(h, ": ")
				r.Header.Set(header, value)
			}
			_, _, err := c.request(r)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want an error with %q (empty: none)", err, tt.want)
			}
		})
	}
}
