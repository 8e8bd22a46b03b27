package httpsig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

// rawSignature returns r || s of the request's signature; withRaw replaces it.
func rawSignature(t *testing.T, r *http.Request) []byte {
	t.Helper()
	text := strings.TrimSuffix(strings.TrimPrefix(r.Header.Get(headerSignature), "sig1=:"), ":")
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func withRaw(r *http.Request, raw []byte) {
	r.Header.Set(headerSignature, "sig1=:"+base64.StdEncoding.EncodeToString(raw)+":")
}

func asn1Signature(t *testing.T, raw []byte) []byte {
	t.Helper()
	der, err := asn1.Marshal([]*big.Int{new(big.Int).SetBytes(raw[:48]), new(big.Int).SetBytes(raw[48:])})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func replace(r *http.Request, field, old, with string) {
	r.Header.Set(field, strings.Replace(r.Header.Get(field), old, with, 1))
}

// TestTampered changes a signed request in a single respect; each change must give the right error.
func TestTampered(t *testing.T) {
	key := newKey(t, elliptic.P384())
	order := elliptic.P384().Params().N
	signer := newSigner(t, key, func(o *Options) {
		o.Components = append(o.Components, "@authority", "@scheme", "@path", "@query", "@request-target", "x-list")
		o.Expires, o.Tag = time.Minute, "purser"
		o.Nonce = func() string { return "n1" }
	})
	verifier := newVerifier(t, &key.PublicKey, nil)
	signed := func(t *testing.T) *http.Request {
		r := newRequest(t)
		r.Header["X-List"] = []string{"a", "b"}
		if err := signer.Sign(r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, err := verifier.Verify(signed(t)); err != nil {
		t.Fatal(err)
	}

	// With changed parameters and components the text of Signature-Input changes, which the signature covers.
	input := func(old, with string) func(*testing.T, *http.Request) {
		return func(_ *testing.T, r *http.Request) { replace(r, headerInput, old, with) }
	}
	header := func(name, value string) func(*testing.T, *http.Request) {
		return func(_ *testing.T, r *http.Request) { r.Header.Set(name, value) }
	}
	raw := func(change func([]byte) []byte) func(*testing.T, *http.Request) {
		return func(t *testing.T, r *http.Request) { withRaw(r, change(rawSignature(t, r))) }
	}
	half := func(scalar int, value *big.Int) func(*testing.T, *http.Request) {
		return raw(func(b []byte) []byte {
			value.FillBytes(b[scalar*48 : scalar*48+48])
			return b
		})
	}
	tests := []struct {
		name   string
		change func(*testing.T, *http.Request)
		want   error
		part   string // Name in the error
	}{
		{"method", func(_ *testing.T, r *http.Request) { r.Method = "PUT" }, ErrBadSignature, ""},
		{"method in lower case", func(_ *testing.T, r *http.Request) { r.Method = "post" }, ErrBadSignature, ""},
		{"path", func(_ *testing.T, r *http.Request) { r.URL.Path += "/" }, ErrBadSignature, ""},
		{"path encoded otherwise", func(_ *testing.T, r *http.Request) { r.URL.RawPath = "/v1/custome%72s" },
			ErrBadSignature, ""},
		{"query", func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "dry=0" }, ErrBadSignature, ""},
		{"query gone", func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "" }, ErrBadSignature, ""},
		{"authority", func(_ *testing.T, r *http.Request) { r.Host = "api.example.org" }, ErrBadSignature, ""},
		{"port", func(_ *testing.T, r *http.Request) { r.Host = "api.example.com:8443" }, ErrBadSignature, ""},
		{"scheme", func(_ *testing.T, r *http.Request) { r.URL.Scheme = "http" }, ErrBadSignature, ""},

		{"authorization", header("Authorization", testSecret+"x"), ErrBadSignature, ""},
		{"content-type", header("Content-Type", "application/xml"), ErrBadSignature, ""},
		{"content-digest", header("Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
			ErrBadSignature, ""},
		{"idempotency-key", header("Idempotency-Key", "0"), ErrBadSignature, ""},
		{"line added", func(_ *testing.T, r *http.Request) { r.Header.Add("Content-Type", "text/plain") },
			ErrBadSignature, ""},
		{"lines reordered", func(_ *testing.T, r *http.Request) { r.Header["X-List"] = []string{"b", "a"} },
			ErrBadSignature, ""},
		{"covered field removed", func(_ *testing.T, r *http.Request) { r.Header.Del("X-List") }, ErrMissing, "x-list"},

		{"created", input(";created=1772366400", ";created=1772366399"), ErrBadSignature, ""},
		{"created removed", input(";created=1772366400", ""), ErrMissing, "created"},
		{"created a string", input(";created=1772366400", `;created="1772366400"`), ErrMalformed, "created"},
		{"created a decimal", input(";created=1772366400", `;created=1772366400.0`), ErrMalformed, "created"},
		{"created a date", input(";created=1772366400", `;created=@1772366400`), ErrMalformed, "created"},
		{"created negative", input(";created=1772366400", `;created=-1`), ErrMalformed, "created"},
		{"created ahead", input(";created=1772366400", ";created=1772366406"), ErrFuture, "created"},
		{"created long ago", input(";created=1772366400", ";created=1772366340"), ErrTooOld, "created"},
		{"expires", input(";expires=1772366460", ";expires=1772366461"), ErrBadSignature, ""},
		{"expires removed", input(";expires=1772366460", ""), ErrBadSignature, ""},
		{"expired", input(";expires=1772366460", ";expires=1772366400"), ErrExpired, "expires"},
		{"expires before created", input(";expires=1772366460", ";expires=1772366399"), ErrMalformed, "expires"},
		{"expires not a time", input(";expires=1772366460", ";expires"), ErrMalformed, "expires"},
		{"keyid", input(`keyid="key-1"`, `keyid="key-2"`), ErrUnknownKey, "keyid"},
		{"keyid removed", input(`;keyid="key-1"`, ``), ErrMissing, "keyid"},
		{"keyid a token", input(`keyid="key-1"`, `keyid=key-1`), ErrMalformed, "keyid"},
		{"alg of another key", input(Algorithm, "hmac-sha256"), ErrUnsupported, "alg"},
		{"alg unknown", input(Algorithm, "none"), ErrUnsupported, "alg"},
		{"alg empty", input(Algorithm, ""), ErrUnsupported, "alg"},
		{"alg removed", input(`;alg="`+Algorithm+`"`, ""), ErrBadSignature, ""},
		{"nonce", input(`nonce="n1"`, `nonce="n2"`), ErrBadSignature, ""},
		{"nonce a number", input(`nonce="n1"`, `nonce=1`), ErrMalformed, "nonce"},
		{"tag", input(`tag="purser"`, `tag="other"`), ErrBadSignature, ""},
		{"parameter added", input(`;tag="purser"`, `;tag="purser";x`), ErrBadSignature, ""},
		{"parameters reordered", input(`;nonce="n1";tag="purser"`, `;tag="purser";nonce="n1"`), ErrBadSignature, ""},
		{"parameter twice", input(`;nonce="n1"`, `;nonce="n1";nonce="n1"`), ErrMalformed, headerInput},

		{"components reordered", input(`"@method" "@target-uri"`, `"@target-uri" "@method"`), ErrBadSignature, ""},
		{"component added", input(`"x-list"`, `"x-list" "content-length"`), ErrBadSignature, ""},
		{"optional component removed", input(` "x-list"`, ``), ErrBadSignature, ""},
		{"required derived component removed", input(`"@target-uri" `, ``), ErrNotCovered, "@target-uri"},
		{"required field removed", input(`"authorization" `, ``), ErrNotCovered, "authorization"},
		{"required field with a parameter", input(`"authorization"`, `"authorization";bs`), ErrNotCovered, "authorization"},
		{"component with a parameter", input(`"x-list"`, `"x-list";bs`), ErrUnsupported, "x-list"},
		{"component of the request", input(`"x-list"`, `"@method";req`), ErrUnsupported, "@method"},
		{"component twice", input(`"x-list"`, `"x-list" "x-list"`), ErrMalformed, "x-list"},
		{"component twice, parameters reordered", input(`"x-list"`, `"x-list";sf;bs "x-list";bs;sf`), ErrMalformed, "x-list"},
		{"component in upper case", input(`"x-list"`, `"X-List"`), ErrMalformed, "X-List"},
		{"component unknown", input(`"@query"`, `"@query-params"`), ErrUnsupported, "@query-params"},
		{"component of responses", input(`"@query"`, `"@status"`), ErrUnsupported, "@status"},
		{"component of signatures", input(`"@query"`, `"@signature-params"`), ErrMalformed, "@signature-params"},
		{"component not a string", input(`"@query"`, `query`), ErrMalformed, headerInput},
		{"component with a quote", input(`"@query"`, `"a\"b"`), ErrMalformed, `a"b`},
		{"no components", func(_ *testing.T, r *http.Request) {
			r.Header.Set(headerInput, `sig1=();created=1772366400;keyid="key-1"`)
		}, ErrNotCovered, "@method"},
		{"too many components", input(`"x-list"`, `"x"`+strings.Repeat(` "y"`, 64)), ErrMalformed, headerInput},

		{"a bit of the signature", raw(func(b []byte) []byte { b[95] ^= 1; return b }), ErrBadSignature, ""},
		{"another bit of it", raw(func(b []byte) []byte { b[0] ^= 128; return b }), ErrBadSignature, ""},
		{"truncated", raw(func(b []byte) []byte { return b[:95] }), ErrBadSignature, ""},
		{"half", raw(func(b []byte) []byte { return b[:48] }), ErrBadSignature, ""},
		{"empty", raw(func([]byte) []byte { return nil }), ErrBadSignature, ""},
		{"a byte more", raw(func(b []byte) []byte { return append(b, 0) }), ErrBadSignature, ""},
		{"a byte before", raw(func(b []byte) []byte { return append([]byte{0}, b...) }), ErrBadSignature, ""},
		{"a zero between r and s", raw(func(b []byte) []byte {
			return append(append(b[:48:48], 0), b[48:]...)
		}), ErrBadSignature, ""},
		{"s before r", raw(func(b []byte) []byte { return append(b[48:96:96], b[:48]...) }), ErrBadSignature, ""},
		{"ASN.1", func(t *testing.T, r *http.Request) { withRaw(r, asn1Signature(t, rawSignature(t, r))) },
			ErrBadSignature, ""},
		{"all zero", raw(func(b []byte) []byte { return make([]byte, 96) }), ErrBadSignature, ""},
		{"r zero", half(0, new(big.Int)), ErrBadSignature, ""},
		{"s zero", half(1, new(big.Int)), ErrBadSignature, ""},
		{"r the order", half(0, order), ErrBadSignature, ""},
		{"s the order", half(1, order), ErrBadSignature, ""},
		{"r as high as it goes", raw(func(b []byte) []byte {
			return append([]byte(strings.Repeat("\xff", 48)), b[48:]...)
		}), ErrBadSignature, ""},
		{"s as high as it goes", raw(func(b []byte) []byte {
			return append(b[:48:48], strings.Repeat("\xff", 48)...)
		}), ErrBadSignature, ""},
		{"signature of another request", func(t *testing.T, r *http.Request) {
			other := signed(t)
			other.Method = "GET"
			if err := signer.Sign(other); err != nil {
				t.Fatal(err)
			}
			r.Header[headerSignature] = other.Header[headerSignature]
		}, ErrBadSignature, ""},

		{"no signature", func(_ *testing.T, r *http.Request) {
			r.Header.Del(headerInput)
			r.Header.Del(headerSignature)
		}, ErrNoSignature, ""},
		{"no Signature", func(_ *testing.T, r *http.Request) { r.Header.Del(headerSignature) }, ErrMissing, headerSignature},
		{"no Signature-Input", func(_ *testing.T, r *http.Request) { r.Header.Del(headerInput) }, ErrMissing, headerInput},
		{"empty Signature", header(headerSignature, ""), ErrMalformed, headerSignature},
		{"empty Signature-Input", header(headerInput, ""), ErrMalformed, headerInput},
		{"label changed", input("sig1=", "sig2="), ErrMissing, headerSignature},
		{"label only in Signature-Input", func(_ *testing.T, r *http.Request) {
			r.Header.Add(headerInput, `sig2=("@method")`)
		}, ErrMissing, headerSignature},
		{"label only in Signature", func(_ *testing.T, r *http.Request) { r.Header.Add(headerSignature, "sig2=:AAAA:") },
			ErrMissing, headerInput},
		{"label twice in Signature-Input", func(_ *testing.T, r *http.Request) {
			r.Header.Add(headerInput, r.Header.Get(headerInput))
		}, ErrMalformed, headerInput},
		{"label twice in Signature", func(_ *testing.T, r *http.Request) {
			r.Header.Add(headerSignature, r.Header.Get(headerSignature))
		}, ErrMalformed, headerSignature},
		{"Signature not bytes", header(headerSignature, "sig1=abc"), ErrMalformed, headerSignature},
		{"Signature an inner list", header(headerSignature, "sig1=(:AAAA:)"), ErrMalformed, headerSignature},
		{"Signature not base64", header(headerSignature, "sig1=:a:"), ErrMalformed, headerSignature},
		{"Signature-Input not a list", header(headerInput, `sig1="@method"`), ErrMalformed, headerInput},
		{"Signature-Input broken off", header(headerInput, `sig1=("@method"`), ErrMalformed, headerInput},
		{"Signature-Input endless", header(headerInput, `sig1=("`+strings.Repeat("x", 17<<10)+`")`),
			ErrMalformed, headerInput},
		{"too many signatures", func(_ *testing.T, r *http.Request) {
			for label := range strings.SplitSeq("abcdefgh", "") {
				r.Header.Add(headerInput, label+"=()")
				r.Header.Add(headerSignature, label+"=:AAAA:")
			}
		}, ErrMalformed, headerInput},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := signed(t)
			test.change(t, r)
			got, err := verifier.Verify(r)
			if err == nil {
				t.Fatalf("got %+v verified, want %v", got, test.want)
			}
			var e *Error
			if !errors.Is(err, test.want) || !errors.As(err, &e) || e.Name != test.part {
				t.Errorf("got %v, want %v about %q", err, test.want, test.part)
			}
			if text := err.Error(); strings.Contains(text, testSecret[7:]) || strings.Contains(text, "\n") {
				t.Errorf("got %s, want a single line without the secret", text)
			}
		})
	}
}

// TestComplement: (r, n-s) verifies as (r, s) does, as documented.
func TestComplement(t *testing.T) {
	key := newKey(t, elliptic.P384())
	r := newRequest(t)
	if err := newSigner(t, key, nil).Sign(r); err != nil {
		t.Fatal(err)
	}
	raw := rawSignature(t, r)
	s := new(big.Int).SetBytes(raw[48:])
	s.Sub(elliptic.P384().Params().N, s).FillBytes(raw[48:])
	withRaw(r, raw)
	if _, err := newVerifier(t, &key.PublicKey, nil).Verify(r); err != nil {
		t.Errorf("Verify: got %v, want nil", err)
	}
}

// TestShortScalars: an r or s that begins with a zero byte still has 48 bytes (RFC 9421 §3.3.5).
func TestShortScalars(t *testing.T) {
	key := newKey(t, elliptic.P384())
	signer, verifier := newSigner(t, key, nil), newVerifier(t, &key.PublicKey, nil)
	r := newRequest(t)
	var short [2]bool
	for range 10_000 { // each is short once in 256 signatures
		if err := signer.Sign(r); err != nil {
			t.Fatal(err)
		}
		raw := rawSignature(t, r)
		if raw[0] != 0 && raw[48] != 0 {
			continue
		}
		if _, err := verifier.Verify(r); err != nil {
			t.Fatalf("r || s = %x: got %v, want it verified", raw, err)
		}
		short[0], short[1] = short[0] || raw[0] == 0, short[1] || raw[48] == 0
		if short[0] && short[1] {
			return
		}
	}
	t.Errorf("got short r and s %t, want both", short)
}

// TestCreatedIsOptional: without MaxAge the parameter created is optional (RFC 9421 §2.3).
func TestCreatedIsOptional(t *testing.T) {
	key := newKey(t, elliptic.P384())
	r := newRequest(t)
	if err := newSigner(t, key, nil).Sign(r); err != nil {
		t.Fatal(err)
	}
	replace(r, headerInput, ";created=1772366400", "")
	_, err := newVerifier(t, &key.PublicKey, func(o *VerifyOptions) { o.MaxAge = 0 }).Verify(r)
	if !errors.Is(err, ErrBadSignature) {
		t.Errorf("got %v, want ErrBadSignature and no error about created", err)
	}
}

func TestTimes(t *testing.T) {
	key := newKey(t, elliptic.P384())
	created := noon().Truncate(time.Second)
	tests := []struct {
		name         string
		now          time.Duration // since created
		maxAge, skew time.Duration
		expires      time.Duration
		want         error
	}{
		{"at once", 0, time.Minute, 0, 0, nil},
		{"at the maximum age", time.Minute, time.Minute, 0, 0, nil},
		{"past the maximum age", time.Minute + 1, time.Minute, 0, 0, ErrTooOld},
		{"without a maximum age", 1000 * time.Hour, 0, 0, 0, nil},
		{"clock behind within the skew", -5 * time.Second, time.Minute, 5 * time.Second, 0, nil},
		{"clock behind beyond the skew", -5*time.Second - 1, time.Minute, 5 * time.Second, 0, ErrFuture},
		{"the future, without a maximum age", -1, 0, 0, 0, ErrFuture},
		{"at expiry", time.Minute, 0, 0, time.Minute, nil},
		{"past expiry", time.Minute + 1, 0, 0, time.Minute, ErrExpired},
		{"expiry has no skew", time.Minute + 1, 0, time.Hour, time.Minute, ErrExpired},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRequest(t)
			if err := newSigner(t, key, func(o *Options) { o.Expires = test.expires }).Sign(r); err != nil {
				t.Fatal(err)
			}
			_, err := newVerifier(t, &key.PublicKey, func(o *VerifyOptions) {
				o.MaxAge, o.Skew = test.maxAge, test.skew
				o.Now = func() time.Time { return created.Add(test.now) }
			}).Verify(r)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestKeyFunction(t *testing.T) {
	ours, other, p256 := newKey(t, elliptic.P384()), newKey(t, elliptic.P384()), newKey(t, elliptic.P256())
	down := errors.New("key store is down")
	tests := []struct {
		name string
		key  *ecdsa.PublicKey
		err  error
		want error
	}{
		{"the signer's", &ours.PublicKey, nil, nil},
		{"another", &other.PublicKey, nil, ErrBadSignature},
		{"none", nil, nil, ErrUnknownKey},
		{"an error", nil, down, down},
		{"another curve", &p256.PublicKey, nil, ErrUnknownKey},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRequest(t)
			if err := newSigner(t, ours, nil).Sign(r); err != nil {
				t.Fatal(err)
			}
			_, err := newVerifier(t, nil, func(o *VerifyOptions) {
				o.Key = func(string) (*ecdsa.PublicKey, error) { return test.key, test.err }
			}).Verify(r)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// TestSeveralSignatures: a single good signature is enough, in any position. Only without one are there errors.
func TestSeveralSignatures(t *testing.T) {
	ours, theirs := newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	other := newSigner(t, theirs, func(o *Options) {
		o.Label, o.KeyID, o.Components = "theirs", "key-2", []string{"@method"}
	})
	signer := newSigner(t, ours, nil)
	r := newRequest(t)
	for _, s := range []*Signer{other, signer} {
		if err := s.Sign(r); err != nil {
			t.Fatal(err)
		}
	}
	v := newVerifier(t, &ours.PublicKey, nil)
	if got, err := v.Verify(r); err != nil || got.Label != "sig1" {
		t.Errorf("Verify: got %+v, %v; want sig1", got, err)
	}
	r.Method = "GET"
	if _, err := v.Verify(r); !errors.Is(err, ErrNotCovered) || !errors.Is(err, ErrBadSignature) {
		t.Errorf("got %v, want ErrNotCovered and ErrBadSignature", err)
	}
	v = newVerifier(t, &ours.PublicKey, func(o *VerifyOptions) { o.Label = "sig3" })
	if _, err := v.Verify(r); !errors.Is(err, ErrNoSignature) {
		t.Errorf("got %v, want ErrNoSignature", err)
	}
}
