package httpsig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// noon is the time of all signatures in these tests.
func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 500e6, time.UTC) }

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func productOptions() Options {
	return Options{
		KeyID: "key-1",
		Components: []string{"@method", "@target-uri", "authorization", "content-type", "content-digest",
			"idempotency-key"},
		Now: noon,
	}
}

func newSigner(t testing.TB, key *ecdsa.PrivateKey, change func(*Options)) *Signer {
	t.Helper()
	o := productOptions()
	if change != nil {
		change(&o)
	}
	s, err := NewSigner(key, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newVerifier(t testing.TB, key *ecdsa.PublicKey, change func(*VerifyOptions)) *Verifier {
	t.Helper()
	o := VerifyOptions{
		Key: func(keyid string) (*ecdsa.PublicKey, error) {
			if keyid != "key-1" {
				return nil, nil
			}
			return key, nil
		},
		Required: productOptions().Components,
		MaxAge:   time.Minute,
		Skew:     5 * time.Second,
		Now:      noon,
	}
	if change != nil {
		change(&o)
	}
	v, err := NewVerifier(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const (
	testBody   = `{"chainId":"eip155:300:0x43158f45b5EbD7b1179130130DF00393928C2691","externalId":"27c9aa3b"}`
	testSecret = "Bearer eyJ0b3Atc2VjcmV0Ijp0cnVlfQ"
)

func newRequest(t testing.TB) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example.com/v1/customers?dry=1",
		strings.NewReader(testBody))
	if err != nil {
		t.Fatal(err)
	}
	digest, err := ContentDigest("sha-256", []byte(testBody))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", testSecret)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Digest", digest)
	r.Header.Set("Idempotency-Key", "5f0c6ad2-8d5e-5a3c-9d2b-0c8f4bb7a111")
	return r
}

func TestSignThenVerify(t *testing.T) {
	key := newKey(t, elliptic.P384())
	tests := []struct {
		name    string
		options func(*Options)
		request func(*http.Request)
		input   string
		want    Verified
	}{{
		name: "the product's components",
		input: `sig1=("@method" "@target-uri" "authorization" "content-type" "content-digest" "idempotency-key")` +
			`;created=1772366400;keyid="key-1";alg="ecdsa-p384-sha384"`,
		want: Verified{Label: "sig1", KeyID: "key-1", Created: time.Unix(1772366400, 0), Components: []string{"@method",
			"@target-uri", "authorization", "content-type", "content-digest", "idempotency-key"}},
	}, {
		name: "absent fields are not covered",
		request: func(r *http.Request) {
			r.Header.Del("Content-Type")
			r.Header.Del("Content-Digest")
			r.Header["Idempotency-Key"] = nil
		},
		input: `sig1=("@method" "@target-uri" "authorization");created=1772366400;keyid="key-1";alg="ecdsa-p384-sha384"`,
		want: Verified{Label: "sig1", KeyID: "key-1", Created: time.Unix(1772366400, 0),
			Components: []string{"@method", "@target-uri", "authorization"}},
	}, {
		name: "every parameter",
		options: func(o *Options) {
			o.Components = []string{"@path", "@method", "@target-uri", "@authority", "@scheme", "@query", "@request-target",
				"authorization", "content-type", "content-digest", "idempotency-key", "content-length", "host"}
			o.Label, o.Expires, o.Tag = "purser-2", 90*time.Second, `say "hi" \o/`
			o.Nonce = func() string { return "n-0S6" }
		},
		input: `purser-2=("@path" "@method" "@target-uri" "@authority" "@scheme" "@query" "@request-target" ` +
			`"authorization" "content-type" "content-digest" "idempotency-key" "content-length" "host");created=1772366400` +
			`;expires=1772366490;keyid="key-1";alg="ecdsa-p384-sha384";nonce="n-0S6";tag="say \"hi\" \\o/"`,
		want: Verified{Label: "purser-2", KeyID: "key-1", Created: time.Unix(1772366400, 0),
			Expires: time.Unix(1772366490, 0), Nonce: "n-0S6", Tag: `say "hi" \o/`,
			Components: []string{"@path", "@method", "@target-uri", "@authority", "@scheme", "@query", "@request-target",
				"authorization", "content-type", "content-digest", "idempotency-key", "content-length", "host"}},
	}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRequest(t)
			if test.request != nil {
				test.request(r)
			}
			if err := newSigner(t, key, test.options).Sign(r); err != nil {
				t.Fatal(err)
			}
			if got := r.Header.Get(headerInput); got != test.input {
				t.Errorf("Signature-Input: got\n%s\nwant\n%s", got, test.input)
			}
			got, err := newVerifier(t, &key.PublicKey, nil).Verify(r)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("Verify: got %+v, want %+v", got, test.want)
			}
			if err := VerifyContentDigest(r.Header, []byte(testBody)); err != nil && r.Header.Get("Content-Digest") != "" {
				t.Errorf("VerifyContentDigest: got %v, want nil", err)
			}
		})
	}
}

// TestSignAgain signs a request again for a second attempt and keeps a signature under another key.
func TestSignAgain(t *testing.T) {
	ours, theirs := newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	at := noon()
	first := newSigner(t, ours, func(o *Options) { o.Now = func() time.Time { return at } })
	other := newSigner(t, theirs, func(o *Options) { o.Label, o.KeyID, o.Tag = "proxy", "key-2", "proxy" })
	r := newRequest(t)
	for _, s := range []*Signer{first, first, other} {
		if err := s.Sign(r); err != nil {
			t.Fatal(err)
		}
	}
	at = at.Add(2 * time.Minute)
	r.Header.Set("Authorization", "Bearer another")
	if err := first.Sign(r); err != nil {
		t.Fatal(err)
	}
	if n := len(r.Header[headerInput]); n != 1 {
		t.Fatalf("got %d lines of Signature-Input, want 1", n)
	}
	names, _, _, err := labels(r.Header[headerInput], r.Header[headerSignature])
	if want := []string{"proxy", "sig1"}; err != nil || !reflect.DeepEqual(names, want) {
		t.Fatalf("got labels %v, %v; want %v", names, err, want)
	}
	now := func(o *VerifyOptions) { o.Now = func() time.Time { return at } }
	got, err := newVerifier(t, &ours.PublicKey, now).Verify(r)
	if err != nil || got.Label != "sig1" || !got.Created.Equal(at.Truncate(time.Second)) {
		t.Errorf("Verify: got %+v, %v; want the new signature sig1", got, err)
	}
	// The signature proxy covered the old Authorization. Selecting it by label or tag must not fall back on sig1.
	for name, choose := range map[string]func(*VerifyOptions){
		"label": func(o *VerifyOptions) { o.Label = "proxy" },
		"tag":   func(o *VerifyOptions) { o.Tag = "proxy" },
	} {
		v := newVerifier(t, nil, func(o *VerifyOptions) {
			choose(o)
			o.Key = func(string) (*ecdsa.PublicKey, error) { return &theirs.PublicKey, nil }
		})
		var e *Error
		if _, err := v.Verify(r); !errors.Is(err, ErrBadSignature) || !errors.As(err, &e) || e.Label != "proxy" {
			t.Errorf("by %s: got %v, want ErrBadSignature with label proxy", name, err)
		}
	}
	r.Header.Set(headerSignature, "sig1=:AAAA")
	before := r.Header.Clone()
	if err := first.Sign(r); !errors.Is(err, ErrMalformed) {
		t.Errorf("Sign with a malformed signature: got %v, want ErrMalformed", err)
	}
	if !reflect.DeepEqual(r.Header, before) {
		t.Errorf("failed Sign: got header %v, want it unchanged, %v", r.Header, before)
	}
}

func TestSignWithoutHeader(t *testing.T) {
	key := newKey(t, elliptic.P384())
	r := newRequest(t)
	r.Header = nil
	if err := newSigner(t, key, nil).Sign(r); err != nil {
		t.Fatal(err)
	}
	if _, err := newVerifier(t, &key.PublicKey, nil).Verify(r); err != nil {
		t.Errorf("Verify: got %v, want nil", err)
	}
}

func TestSignErrors(t *testing.T) {
	key := newKey(t, elliptic.P384())
	r := newRequest(t)
	r.Header.Set("Authorization", testSecret+"\x00")
	err := newSigner(t, key, nil).Sign(r)
	if !errors.Is(err, ErrRequest) || strings.Contains(err.Error(), testSecret[7:]) {
		t.Errorf("unprintable Authorization: got %v, want ErrRequest without the value", err)
	}
	bad := newSigner(t, key, func(o *Options) { o.Nonce = func() string { return "ä" } })
	if err := bad.Sign(newRequest(t)); !errors.Is(err, ErrConfig) {
		t.Errorf("nonce not ASCII: got %v, want ErrConfig", err)
	}
	r = newRequest(t)
	r.URL.Host, r.Host = "", ""
	if err := newSigner(t, key, nil).Sign(r); !errors.Is(err, ErrRequest) {
		t.Errorf("no host: got %v, want ErrRequest", err)
	}
	if r.Header.Get(headerInput) != "" || r.Header.Get(headerSignature) != "" {
		t.Errorf("failed Sign: got header %v, want no signature", r.Header)
	}
}

func TestSignerIsSharedSafely(t *testing.T) {
	key := newKey(t, elliptic.P384())
	s, v := newSigner(t, key, nil), newVerifier(t, &key.PublicKey, nil)
	var all sync.WaitGroup
	for range 4 {
		r := newRequest(t)
		all.Go(func() {
			if err := s.Sign(r); err != nil {
				t.Errorf("Sign: got %v, want nil", err)
			}
			if _, err := v.Verify(r); err != nil {
				t.Errorf("Verify: got %v, want nil", err)
			}
		})
	}
	all.Wait()
}

func TestOptions(t *testing.T) {
	p384, p256 := newKey(t, elliptic.P384()), newKey(t, elliptic.P256())
	signers := []struct {
		name string
		key  *ecdsa.PrivateKey
		with func(*Options)
		want error
		part string
	}{
		{"no key", nil, nil, ErrKey, "private key"},
		{"other curve", p256, nil, ErrKey, "private key"},
		{"no keyid", p384, func(o *Options) { o.KeyID = "" }, ErrConfig, "KeyID"},
		{"keyid not ASCII", p384, func(o *Options) { o.KeyID = "schlüssel" }, ErrConfig, "KeyID"},
		{"no clock", p384, func(o *Options) { o.Now = nil }, ErrConfig, "Now"},
		{"negative expiry", p384, func(o *Options) { o.Expires = -1 }, ErrConfig, "Expires"},
		{"expiry below a second", p384, func(o *Options) { o.Expires = time.Millisecond }, ErrConfig, "Expires"},
		{"label", p384, func(o *Options) { o.Label = "Sig1" }, ErrConfig, "Label"},
		{"label begins with a digit", p384, func(o *Options) { o.Label = "1sig" }, ErrConfig, "Label"},
		{"tag", p384, func(o *Options) { o.Tag = "a\nb" }, ErrConfig, "Tag"},
		{"no components", p384, func(o *Options) { o.Components = nil }, ErrConfig, "Components"},
		{"too many components", p384, func(o *Options) { o.Components = make([]string, 65) }, ErrConfig, "Components"},
		{"upper case", p384, func(o *Options) { o.Components = []string{"Content-Type"} }, ErrConfig, "Content-Type"},
		{"empty name", p384, func(o *Options) { o.Components = []string{""} }, ErrConfig, ""},
		{"unknown derived", p384, func(o *Options) { o.Components = []string{"@status"} }, ErrConfig, "@status"},
		{"own parameters", p384, func(o *Options) { o.Components = []string{"@signature-params"} }, ErrConfig,
			"@signature-params"},
		{"own field", p384, func(o *Options) { o.Components = []string{"signature"} }, ErrConfig, "signature"},
		{"twice", p384, func(o *Options) { o.Components = []string{"@path", "@path"} }, ErrConfig, "@path"},
		{"with parameter", p384, func(o *Options) { o.Components = []string{`x";sf`} }, ErrConfig, `x";sf`},
	}
	for _, test := range signers {
		t.Run("signer "+test.name, func(t *testing.T) {
			o := productOptions()
			if test.with != nil {
				test.with(&o)
			}
			_, err := NewSigner(test.key, o)
			var e *Error
			if !errors.Is(err, test.want) || !errors.As(err, &e) || e.Name != test.part {
				t.Errorf("got %v, want %v about %q", err, test.want, test.part)
			}
		})
	}
	verifiers := []struct {
		name string
		with func(*VerifyOptions)
		part string
	}{
		{"no keys", func(o *VerifyOptions) { o.Key = nil }, "Key"},
		{"no clock", func(o *VerifyOptions) { o.Now = nil }, "Now"},
		{"negative age", func(o *VerifyOptions) { o.MaxAge = -1 }, "MaxAge"},
		{"negative skew", func(o *VerifyOptions) { o.Skew = -1 }, "Skew"},
		{"scheme", func(o *VerifyOptions) { o.Scheme = "HTTPS" }, "Scheme"},
		{"nothing required", func(o *VerifyOptions) { o.Required = nil }, "Required"},
		{"unknown component", func(o *VerifyOptions) { o.Required = []string{"@body"} }, "@body"},
	}
	for _, test := range verifiers {
		t.Run("verifier "+test.name, func(t *testing.T) {
			o := VerifyOptions{Key: func(string) (*ecdsa.PublicKey, error) { return nil, nil }, Now: noon,
				Required: []string{"@method"}}
			test.with(&o)
			_, err := NewVerifier(o)
			var e *Error
			if !errors.Is(err, ErrConfig) || !errors.As(err, &e) || e.Name != test.part {
				t.Errorf("got %v, want ErrConfig about %q", err, test.part)
			}
		})
	}
}
