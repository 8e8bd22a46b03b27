package httpsig

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func valueOf(r *http.Request, outer, name string) (string, error) {
	c, err := newComponent(name)
	if err != nil {
		return "", err
	}
	value, err := request{Request: r, outer: outer}.appendValue(nil, c)
	return string(value), err
}

// TestFields is the example of RFC 9421 §2.1, the empty field and the line folding included.
func TestFields(t *testing.T) {
	r := &http.Request{RequestURI: "/", Host: "www.example.com", Header: http.Header{
		"Date":              {"Tue, 20 Apr 2021 02:07:56 GMT"},
		"X-Ows-Header":      {"   Leading and trailing whitespace.   \t"},
		"X-Obs-Fold-Header": {"Obsolete\r\n    line folding."},
		"X-Twice-Folded":    {"a \t\r\n\tb\n c"},
		"Cache-Control":     {"max-age=60", "   must-revalidate"},
		"Example-Dict":      {" a=1,    b=2;x=1;y=2,   c=(a   b   c)"},
		"X-Empty-Header":    {""},
		"X-Empty-Lines":     {"", ""},
	}}
	for name, want := range map[string]string{
		"host":              "www.example.com",
		"date":              "Tue, 20 Apr 2021 02:07:56 GMT",
		"x-ows-header":      "Leading and trailing whitespace.",
		"x-obs-fold-header": "Obsolete line folding.",
		"x-twice-folded":    "a b c",
		"cache-control":     "max-age=60, must-revalidate",
		"example-dict":      "a=1,    b=2;x=1;y=2,   c=(a   b   c)",
		"x-empty-header":    "",
		"x-empty-lines":     ", ",
	} {
		got, err := valueOf(r, "", name)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := valueOf(r, "", "x-absent"); !errors.Is(err, ErrMissing) {
		t.Errorf("absent field: got %v, want ErrMissing", err)
	}
}

// TestReceived derives components of received requests: the examples of RFC 9421 §2.2, and more.
func TestReceived(t *testing.T) {
	tests := []struct {
		line, host, outer string
		tls               bool
		want              map[string]string // "" as a value: an error
	}{
		{line: "POST /path?param=value", host: "www.example.com", tls: true, want: map[string]string{
			"@method": "POST", "@target-uri": "https://www.example.com/path?param=value", "@authority": "www.example.com",
			"@scheme": "https", "@request-target": "/path?param=value", "@path": "/path", "@query": "?param=value",
			"host": "www.example.com",
		}},
		{line: "GET https://www.example.com/path?param=value", host: "www.example.com", want: map[string]string{
			"@request-target": "https://www.example.com/path?param=value", "@path": "/path", "@query": "?param=value",
			"@target-uri": "https://www.example.com/path?param=value", "@scheme": "https",
		}},
		{line: "GET http://WWW.example.com:80", host: "ignored.example", want: map[string]string{
			"@target-uri": "http://www.example.com/", "@authority": "www.example.com", "@path": "/", "@query": "?",
		}},
		{line: "GET http://www.example.com?q=/", host: "www.example.com", want: map[string]string{
			"@target-uri": "http://www.example.com/?q=/", "@path": "/", "@query": "?q=/",
		}},
		{line: "CONNECT www.example.com:80", host: "www.example.com:80", want: map[string]string{
			"@request-target": "www.example.com:80", "@authority": "www.example.com",
			"@path": "", "@target-uri": "", "@query": "",
		}},
		{line: "OPTIONS *", host: "server.example.com", want: map[string]string{
			"@request-target": "*", "@authority": "server.example.com", "@path": "", "@target-uri": "",
		}},
		{line: "GET /path?param=value&foo=bar&baz=batman", host: "www.example.com", want: map[string]string{
			"@query": "?param=value&foo=bar&baz=batman",
		}},
		{line: "GET /path?queryString", host: "www.example.com", want: map[string]string{"@query": "?queryString"}},
		{line: "GET /path", host: "www.example.com", want: map[string]string{
			"@query": "?", "@target-uri": "http://www.example.com/path",
		}},
		{line: "GET /path?", host: "www.example.com", want: map[string]string{
			"@query": "?", "@target-uri": "http://www.example.com/path?",
		}},
		{line: "GET /a%2Fb/%C3%A4/..//?x=%20+y?z", host: "EXAMPLE.com:8443", want: map[string]string{
			"@path": "/a%2Fb/%C3%A4/..//", "@query": "?x=%20+y?z", "@authority": "example.com:8443", "host": "EXAMPLE.com:8443",
		}},
		{line: "GET /", host: "example.com:443", outer: "https", want: map[string]string{
			"@scheme": "https", "@authority": "example.com", "@target-uri": "https://example.com/",
		}},
		{line: "GET /", host: "example.com:443", want: map[string]string{"@authority": "example.com:443"}},
		{line: "GET /", host: "[::1]:80", want: map[string]string{"@authority": "[::1]"}},
		{line: "GET /", host: "[::80]", want: map[string]string{"@authority": "[::80]"}},
		{line: "GET /", host: "example.com:", want: map[string]string{"@authority": "example.com"}},
		{line: "GET /", host: "", want: map[string]string{"@authority": "", "@target-uri": "", "host": ""}},
		{line: "GET /", host: "user@example.com", want: map[string]string{"@authority": ""}},
	}
	for _, test := range tests {
		t.Run(test.line+" "+test.host, func(t *testing.T) {
			r := wire(t, test.line+" HTTP/1.1\nHost: "+test.host+"\n\n")
			if test.tls {
				r.TLS = new(tls.ConnectionState)
			}
			for name, want := range test.want {
				got, err := valueOf(r, test.outer, name)
				switch {
				case want == "" && err == nil:
					t.Errorf("%s: got %q, want an error", name, got)
				case want != "" && (err != nil || got != want):
					t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
				}
			}
		})
	}
}

// TestSent derives components of requests to be sent and of the same requests at the server: they must be equal.
func TestSent(t *testing.T) {
	names := []string{"@method", "@target-uri", "@authority", "@scheme", "@path", "@query", "@request-target", "host",
		"content-length"}
	type seen map[string]string
	values := func(r *http.Request) seen {
		got := make(seen)
		for _, name := range names {
			got[name], _ = valueOf(r, "", name)
		}
		return got
	}
	arrived := make(chan seen, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- values(r) }))
	defer server.Close()

	tests := []struct {
		method, target, host string
		body                 string
		raw                  *url.URL
	}{
		{method: "GET", target: "/"},
		{method: "", target: ""},
		{method: "GET", target: "?a=b"},
		{method: "GET", target: "/v1/customers?"},
		{method: "POST", target: "/v1/customers?a=b&c=%20#fragment", body: `{"a":1}`},
		{method: "POST", target: "/empty"},
		{method: "PUT", target: "/a%2fb/ä/c d", body: "x"},
		{method: "DELETE", target: "/x", host: "API.Example.com"},
		{method: "GET", target: "/x", host: "api.example.com:80"},
	}
	for _, test := range tests {
		t.Run(test.method+" "+test.target, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.target,
				strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if test.body == "" {
				r.Body = nil
			}
			r.Host, r.Method = test.host, test.method
			before := values(r)
			res, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			after := <-arrived
			for _, name := range names {
				if before[name] != after[name] {
					t.Errorf("%s at the server: got %q, want %q as at the client", name, after[name], before[name])
				}
			}
		})
	}
}

// TestUnderivable are requests to be sent from which a component cannot be derived, or only ambiguously.
func TestUnderivable(t *testing.T) {
	tests := []struct {
		name string
		r    *http.Request
		part string
	}{
		{"no URL", &http.Request{}, "@target-uri"},
		{"no URL, path", &http.Request{}, "@path"},
		{"no scheme", &http.Request{URL: &url.URL{Host: "a.example", Path: "/"}}, "@scheme"},
		{"no host", &http.Request{URL: &url.URL{Scheme: "https", Path: "/"}}, "@authority"},
		{"opaque", &http.Request{URL: &url.URL{Scheme: "https", Host: "a.example", Opaque: "x"}}, "@path"},
		{"relative path", &http.Request{URL: &url.URL{Scheme: "https", Host: "a.example", Path: "x"}}, "@target-uri"},
		{"host not ASCII", &http.Request{URL: &url.URL{Scheme: "https", Host: "ä.example", Path: "/"}}, "@authority"},
		{"target not ASCII", &http.Request{URL: &url.URL{Scheme: "https", Host: "a.example", Path: "/", RawQuery: "ä"}},
			"@query"},
		{"line break in a field", &http.Request{Header: http.Header{"X": {"a\n\"@method\": GET"}}}, "x"},
		{"carriage return in a field", &http.Request{Header: http.Header{"X": {"a\rb"}}}, "x"},
		{"method with a line break", &http.Request{Method: "GET\n"}, "@method"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := newComponent(test.part)
			if err != nil {
				t.Fatal(err)
			}
			base, err := appendBase(nil, []component{c}, "()", request{Request: test.r})
			if !errors.Is(err, ErrRequest) {
				t.Errorf("got base %q, error %v; want ErrRequest", base, err)
			}
		})
	}
}

// TestIgnoredHeaders: fields that net/http ignores in Header are not signed from there.
func TestIgnoredHeaders(t *testing.T) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a.example/",
		bytes.NewReader([]byte("body")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Host": {"b.example"}, "Content-Length": {"99"}, "Transfer-Encoding": {"chunked"}}
	for name, want := range map[string]string{"host": "a.example", "content-length": "4"} {
		if got, err := valueOf(r, "", name); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
	r.Method = http.MethodConnect
	if got, err := valueOf(r, "", "@request-target"); err != nil || got != "a.example" {
		t.Errorf("@request-target of CONNECT: got %q, %v; want a.example", got, err)
	}
	if got, err := valueOf(r, "", "transfer-encoding"); !errors.Is(err, ErrMissing) {
		t.Errorf("transfer-encoding: got %q, %v; want ErrMissing", got, err)
	}
}
