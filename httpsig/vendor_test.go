package httpsig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestServed derives components of received requests as the partner's library does.
func TestServed(t *testing.T) {
	for _, test := range []struct {
		line, host string
		want       map[string]string
	}{
		{"GET /v1/customers?a=b", "API.example:443", map[string]string{
			"@target-uri": "/v1/customers?a=b", "@scheme": "", "@authority": "api.example:443", "@path": "/v1/customers",
			"@query": "?a=b", "@request-target": "/v1/customers?a=b", "@method": "GET",
		}},
		{"post /a%2Fb", "[::1]:80", map[string]string{
			"@method": "POST", "@target-uri": "/a%2Fb", "@path": "/a%2Fb", "@authority": "[::1]:80", "@query": "?",
		}},
		{"GET /?", "example", map[string]string{"@target-uri": "/?", "@query": "?", "@authority": "example"}},
		{"GET http://Example:80", "ignored", map[string]string{
			"@scheme": "http", "@authority": "example", "@path": "/", "@target-uri": "http://Example:80",
		}},
	} {
		r := wire(t, test.line+" HTTP/1.1\nHost: "+test.host+"\n\n")
		for name, want := range test.want {
			c, err := newComponent(name)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := (served{r}).appendValue(nil, c); err != nil || string(got) != want {
				t.Errorf("%s, host %s, %s: got %q, %v; want %q", test.line, test.host, name, got, err, want)
			}
		}
	}
}

func TestServedFields(t *testing.T) {
	r := &http.Request{Host: "example", Header: http.Header{
		"X-A": {" a,b ,  c\t\td "}, "X-B": {"a", "b,c"}, "X-C": {""}, "X-D": {`"q,r"`}, "X-E": {"max-age=60, private"},
	}}
	for name, want := range map[string]string{
		"x-a": "a, b, c d", "x-b": "a, b, c", "x-c": "", "x-d": `"q, r"`, "x-e": "max-age=60, private",
	} {
		c, err := newComponent(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := (served{r}).appendValue(nil, c); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
	c, err := newComponent("host")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (served{r}).appendValue(nil, c); !errors.Is(err, ErrMissing) {
		t.Errorf("host: got %v, want ErrMissing", err)
	}
}

// TestTwoReadings sends signed requests to a server that verifies them by RFC 9421 and as the partner does.
func TestTwoReadings(t *testing.T) {
	key := newKey(t, elliptic.P384())
	authority := []string{"@method", "@authority", "@path", "authorization", "content-type"}
	uri := []string{"@method", "@target-uri", "authorization", "content-type"}
	extra := input(";created=1772366400", ";created=1772366400;x=1")
	bad := ErrBadSignature
	for name, test := range map[string]struct {
		components  []string
		options     func(*Options)
		host, query string
		header      func(http.Header)
		after       func(*http.Request)
		params      []string // VerifyOptions.RequiredParams
		rfc, vendor error
	}{
		"authority and path":     {components: authority},
		"host in capitals":       {components: authority, host: "API.Example:8443"},
		"default port sent":      {components: authority, host: "api.example:80", vendor: bad},
		"other scheme's port":    {components: authority, host: "api.example:443"},
		"absolute target URI":    {components: uri, vendor: bad},
		"scheme":                 {components: append([]string{"@scheme"}, authority...), vendor: bad},
		"query not covered":      {components: authority, query: "?a=b", rfc: ErrNotCovered, vendor: ErrNotCovered},
		"query":                  {components: append([]string{"@query"}, authority...), query: "?a=b"},
		"path not covered":       {components: []string{"@method", "@authority"}, rfc: ErrNotCovered, vendor: ErrNotCovered},
		"authority not covered":  {components: []string{"@method", "@path"}, rfc: ErrNotCovered, vendor: ErrNotCovered},
		"request target":         {components: append([]string{"@request-target"}, authority...)},
		"spaces within a value":  {components: authority, header: setHeader("Content-Type", "a  b"), vendor: bad},
		"comma without a space":  {components: authority, header: setHeader("Content-Type", "a,b"), vendor: bad},
		"comma and a space":      {components: authority, header: setHeader("Content-Type", "a, b")},
		"host as a field":        {components: append([]string{"host"}, authority...), vendor: ErrMissing},
		"nonce, expires and tag": {components: authority, options: allParams, params: []string{"nonce", "expires", "tag"}},
		"nonce required":         {components: authority, params: []string{"nonce"}, rfc: ErrMissing, vendor: ErrMissing},
		"created required":       {components: authority, params: []string{"created", "keyid", "alg"}},
		"unknown parameter":      {components: authority, after: extra, rfc: bad, vendor: ErrUnsupported},
		"another bad signature":  {components: authority, after: another(t), vendor: ErrUnknownKey},
		"created in the future":  {components: authority, options: createdAt(time.Second), rfc: ErrFuture, vendor: ErrFuture},
		"created in the past":    {components: authority, options: createdAt(-time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			verify := func(vendor bool, r *http.Request) error {
				_, err := newVerifier(t, &key.PublicKey, func(o *VerifyOptions) {
					o.Required, o.RequireTarget, o.RequiredParams = []string{"@method", "authorization"}, true, test.params
					o.Vendor, o.Skew = vendor, 0
				}).Verify(r)
				return err
			}
			var rfc, vendor error
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				rfc, vendor = verify(false, r), verify(true, r)
			}))
			defer server.Close()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/customers"+test.query, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Host = test.host; r.Host == "" {
				r.Host = "api.example:8443"
			}
			r.Header.Set("Authorization", testSecret)
			if test.header != nil {
				test.header(r.Header)
			}
			signer := newSigner(t, key, func(o *Options) {
				o.Components = test.components
				if test.options != nil {
					test.options(o)
				}
			})
			if err := signer.Sign(r); err != nil {
				t.Fatal(err)
			}
			if test.after != nil {
				test.after(r)
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if !errors.Is(rfc, test.rfc) {
				t.Errorf("RFC 9421: got %v, want %v", rfc, test.rfc)
			}
			if !errors.Is(vendor, test.vendor) {
				t.Errorf("vendor: got %v, want %v", vendor, test.vendor)
			}
		})
	}
}

func setHeader(name, value string) func(http.Header) {
	return func(h http.Header) { h.Set(name, value) }
}

func input(old, with string) func(*http.Request) {
	return func(r *http.Request) { replace(r, headerInput, old, with) }
}

func allParams(o *Options) {
	o.Expires, o.Tag, o.Nonce = time.Minute, "purser", func() string { return "n1" }
}

func createdAt(d time.Duration) func(*Options) {
	return func(o *Options) { o.Now = func() time.Time { return noon().Truncate(time.Second).Add(d) } }
}

// another adds a signature by a key that the verifier does not know.
func another(t *testing.T) func(*http.Request) {
	other := newSigner(t, newKey(t, elliptic.P384()), func(o *Options) { o.Label, o.KeyID = "sig2", "key-2" })
	return func(r *http.Request) {
		if err := other.Sign(r); err != nil {
			t.Errorf("Sign: got %v, want nil", err)
		}
	}
}

func TestRequiredParamsAreKnown(t *testing.T) {
	_, err := NewVerifier(VerifyOptions{
		Key: func(string) (*ecdsa.PublicKey, error) { return nil, nil }, Now: noon,
		Required: []string{"@method"}, RequiredParams: []string{"iat"},
	})
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "iat") {
		t.Errorf("got %v, want ErrConfig about iat", err)
	}
}
