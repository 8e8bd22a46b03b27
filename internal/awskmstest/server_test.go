package awskmstest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/purser-onboard/purser/signer/signertest"
)

var clock = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newServer() (*Server, string) {
	s := New(Config{Region: "eu-west-1", AccessKeyID: "AKID", SecretAccessKey: "secret", Now: func() time.Time { return clock }})
	return s, s.AddKey(signertest.Key(0))
}

// request is signed by AWS's own signer, as the SDK would.
func request(t *testing.T, op, body string, at time.Time) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://kms.example.com/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+op)
	sum := sha256.Sum256([]byte(body))
	err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"},
		r, hex.EncodeToString(sum[:]), "kms", "eu-west-1", at)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func exchange(s *Server, r *http.Request) (status int, body string) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// TestSignatureIsChecked changes one part of a signed request each; the error must be AWS's.
func TestSignatureIsChecked(t *testing.T) {
	s, id := newServer()
	body := `{"KeyId":"` + id + `"}`
	if status, answer := exchange(s, request(t, "GetPublicKey", body, clock)); status != 200 {
		t.Fatalf("GetPublicKey: got %d %s, want 200", status, answer)
	}
	for name, c := range map[string]struct {
		change func(r *http.Request)
		want   string
	}{
		"no signature":       {func(r *http.Request) { r.Header.Del("Authorization") }, "MissingAuthenticationTokenException"},
		"another scheme":     {func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, "IncompleteSignatureException"},
		"half a signature":   {func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a") }, "IncompleteSignatureException"},
		"another body":       {func(r *http.Request) { r.Body = io.NopCloser(bytes.NewReader([]byte(`{"KeyId": "` + id + `"}`))) }, "InvalidSignatureException"},
		"another target":     {func(r *http.Request) { r.Header.Set("X-Amz-Target", "TrentService.Sign") }, "InvalidSignatureException"},
		"another host":       {func(r *http.Request) { r.Host = "elsewhere.example.com" }, "InvalidSignatureException"},
		"another path":       {func(r *http.Request) { r.URL.Path = "/other" }, "InvalidSignatureException"},
		"a query":            {func(r *http.Request) { r.URL.RawQuery = "a=b" }, "InvalidSignatureException"},
		"another date":       {func(r *http.Request) { r.Header.Set("X-Amz-Date", "20261122T120001Z") }, "InvalidSignatureException"},
		"a header of AWS's":  {func(r *http.Request) { r.Header.Set("X-Amz-Extra", "1") }, "InvalidSignatureException"},
		"another region":     {replace("eu-west-1", "us-east-1"), "InvalidSignatureException"},
		"another service":    {replace("/kms/", "/sts/"), "InvalidSignatureException"},
		"another access key": {replace("AKID", "AKIX"), "UnrecognizedClientException"},
		"host is not signed": {replace("content-length;content-type;host;", "content-length;content-type;"), "InvalidSignatureException"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, "GetPublicKey", body, clock)
			c.change(r)
			if status, answer := exchange(s, r); status != 400 || !strings.Contains(answer, c.want) {
				t.Errorf("%d %s, want %s", status, answer, c.want)
			}
		})
	}
	for name, at := range map[string]time.Time{"old": clock.Add(-6 * time.Minute), "of the future": clock.Add(6 * time.Minute)} {
		if status, answer := exchange(s, request(t, "GetPublicKey", body, at)); status != 400 || !strings.Contains(answer, "InvalidSignature") {
			t.Errorf("a request that is %s: got %d %s, want 400 and InvalidSignature", name, status, answer)
		}
	}
	if n := s.Calls("GetPublicKey"); n != 1 {
		t.Errorf("%d calls were counted, want 1", n)
	}
}

func replace(from, to string) func(r *http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), from, to, 1))
	}
}

func TestErrors(t *testing.T) {
	s, id := newServer()
	digest := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, c := range map[string]struct{ op, body, want string }{
		"no digest":           {"Sign", `{"KeyId":"` + id + `","Message":"AAAA","MessageType":"DIGEST","SigningAlgorithm":"ECDSA_SHA_256"}`, "ValidationException"},
		"no message":          {"Sign", `{"KeyId":"` + id + `","MessageType":"RAW","SigningAlgorithm":"ECDSA_SHA_256"}`, "ValidationException"},
		"another algorithm":   {"Sign", `{"KeyId":"` + id + `","Message":"` + digest + `","MessageType":"DIGEST","SigningAlgorithm":"ECDSA_SHA_384"}`, "InvalidKeyUsageException"},
		"another type":        {"Sign", `{"KeyId":"` + id + `","Message":"` + digest + `","MessageType":"HASH","SigningAlgorithm":"ECDSA_SHA_256"}`, "ValidationException"},
		"unknown member":      {"Sign", `{"KeyId":"` + id + `","message":1}`, "SerializationException"},
		"unknown key":         {"GetPublicKey", `{"KeyId":"alias/purser/0x00"}`, "NotFoundException"},
		"no marker of ours":   {"ListAliases", `{"Marker":"x"}`, "InvalidMarkerException"},
		"too long a page":     {"ListAliases", `{"Limit":101}`, "ValidationException"},
		"not what Purser may": {"Encrypt", `{}`, "UnknownOperationException"},
	} {
		t.Run(name, func(t *testing.T) {
			if status, answer := exchange(s, request(t, c.op, c.body, clock)); status != 400 || !strings.Contains(answer, c.want) {
				t.Errorf("%d %s, want %s", status, answer, c.want)
			}
		})
	}
}
