//go:build external

package httpsig

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nodeProgram installs the pinned npm package http-message-signatures and testdata/node/interop.mjs in a temporary
// directory. Without Node the test fails: its build tag asked for it.
func nodeProgram(t *testing.T) (node, dir string) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("got %v, want Node.js for the tests with tag external", err)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Fatalf("got %v, want npm for the tests with tag external", err)
	}
	dir = t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "interop.mjs"} {
		text, err := os.ReadFile(filepath.Join("testdata", "node", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, name, text)
	}
	install := exec.CommandContext(t.Context(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: got %v, want success\n%s", err, out)
	}
	return node, dir
}

func write(t *testing.T, dir, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNodeVerifies: http-message-signatures accepts our requests, but not if they were tampered with.
func TestNodeVerifies(t *testing.T) {
	node, dir := nodeProgram(t)
	key := newKey(t, elliptic.P384())
	public := write(t, dir, "public.pem", block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&key.PublicKey))(t)))
	base := serveNode(t, node, dir, public)

	every := func(o *Options) {
		o.Components = append(o.Components, "@authority", "@scheme", "@path", "@query", "@request-target", "x-list",
			"content-length", "host")
		o.Expires, o.Tag, o.Label = time.Minute, `in "quotes" \`, "purser"
		o.Nonce = func() string { return "nonce-1" }
	}
	tests := []struct {
		name           string
		method, target string
		body, digest   string
		options        func(*Options)
		tamper         func(*http.Request)
		want           int
	}{
		{name: "GET", method: "GET", target: "/v1/customers/a%2Fb?x=%20&y=z", want: 200},
		{name: "GET without query", method: "GET", target: "/", options: every, want: 200},
		{name: "sha-256", method: "POST", target: "/v1/customers", body: testBody, digest: "sha-256", want: 200},
		{name: "sha-512", method: "POST", target: "/v1/customers", body: testBody, digest: "sha-512", want: 200},
		{name: "everything", method: "PATCH", target: "/v1/x?a=b&a=c", body: testBody, digest: "sha-512", options: every,
			want: 200},
		{name: "field changed", method: "GET", target: "/", want: 401,
			tamper: func(r *http.Request) { r.Header.Set("Authorization", "Bearer other") }},
		{name: "method changed", method: "GET", target: "/", want: 401,
			tamper: func(r *http.Request) { r.Method = "DELETE" }},
		{name: "query changed", method: "GET", target: "/?a=b", want: 401,
			tamper: func(r *http.Request) { r.URL.RawQuery = "a=c" }},
		{name: "digest of another body", method: "POST", target: "/", body: testBody + " ", digest: "sha-256", want: 401},
		{name: "too old", method: "GET", target: "/", want: 401,
			options: func(o *Options) { o.Now = func() time.Time { return time.Now().Add(-2 * time.Minute) } }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), test.method, base+test.target, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", testSecret)
			r.Header["X-List"] = []string{" a ", "b,  c"}
			if test.digest != "" {
				value, err := ContentDigest(test.digest, []byte(testBody))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Digest", value)
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Idempotency-Key", "27c9aa3b")
			}
			signer := newSigner(t, key, func(o *Options) {
				o.Now = time.Now
				if test.options != nil {
					test.options(o)
				}
			})
			if err := signer.Sign(r); err != nil {
				t.Fatal(err)
			}
			if test.tamper != nil {
				test.tamper(r)
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			said, _ := io.ReadAll(res.Body)
			if res.StatusCode != test.want {
				t.Errorf("got status %d, want %d; body %q for\n%s", res.StatusCode, test.want, said, r.Header.Get(headerInput))
			}
		})
	}
}

// serveNode starts the verifying server and returns its base URL; it ends with the test.
func serveNode(t *testing.T, node, dir, public string) string {
	t.Helper()
	cmd := exec.Command(node, "interop.mjs", "serve", public)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("node: got %v, want success\n%s", err, &stderr)
		}
	})
	var hello struct{ Port int }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &hello)
	}
	if err != nil {
		t.Fatalf("got %v, want a line with node's port", err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", hello.Port)
}

// TestNodeSigns: our verifier accepts the requests of http-message-signatures, but not those that it tampers with.
func TestNodeSigns(t *testing.T) {
	node, dir := nodeProgram(t)
	key := newKey(t, elliptic.P384())
	private := write(t, dir, "private.pem", block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t)))
	verifier := newVerifier(t, nil, func(o *VerifyOptions) {
		o.Key = func(string) (*ecdsa.PublicKey, error) { return &key.PublicKey, nil }
		o.Required = []string{"@method", "@target-uri", "authorization", "content-type", "content-digest", "idempotency-key"}
		o.Now = time.Now
	})
	said := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		verified := Verified{}
		if err == nil {
			verified, err = verifier.Verify(r)
		}
		if err == nil && len(body) > 0 {
			err = VerifyContentDigest(r.Header, body)
		}
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
		}
		said <- fmt.Sprintf("%+v, %v; Signature-Input: %s", verified, err, r.Header.Get(headerInput))
	}))
	defer server.Close()

	cmd := exec.CommandContext(t.Context(), node, "interop.mjs", "send", server.URL, private)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var result struct {
			Name   string
			Status int
		}
		if err := json.Unmarshal(lines.Bytes(), &result); err != nil {
			t.Errorf("got line %q of node, %v; want JSON", lines.Bytes(), err)
			continue
		}
		want := http.StatusOK
		if strings.HasPrefix(result.Name, "tampered: ") {
			want = http.StatusUnauthorized
			bad++
		} else {
			good++
		}
		if why := <-said; result.Status != want {
			t.Errorf("%s: got status %d, want %d: %s", result.Name, result.Status, want, why)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("node: got %v, want success\n%s", err, &stderr)
	}
	if good != 5 || bad != 5 {
		t.Errorf("got %d requests and %d tampered requests, want 5 and 5", good, bad)
	}
}
