package httpsig

import (
	"crypto/elliptic"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/dunglas/httpsfv"
)

// FuzzSignatureFields reads any two fields. What is accepted must be the same when its serialization is read again,
// because the serialization is signed.
func FuzzSignatureFields(f *testing.F) {
	for _, input := range []string{
		`sig1=("@method" "@target-uri" "content-type");created=1618884473;keyid="k";alg="ecdsa-p384-sha384"`,
		`sig1=()`, `a=(), b=("x";sf;key="y" "@query-param";name="Pet";req);expires=1;nonce="\"\\";tag="t"`,
		`sig1=("a" "a")`, `sig1=(), sig1=()`, `sig1=();x;x`, `sig1=("@signature-params")`, `sig1`, `sig1=(`, ``,
		`sig1=("a";x=%"f%c3%bc\");d=@1659578233;e=1.5;f=?0;g=tok/en;h=:AAAA:`, "sig1=()\t, b=()", `sig1=("a,b;c");x=",;"`,
	} {
		f.Add(input, `sig1=:AAAA:`)
		f.Add(input, `a=:AAAA:, b=:AAAA:`)
	}
	f.Fuzz(func(t *testing.T, input, value string) {
		names, inputs, values, err := labels([]string{input}, []string{value})
		if err != nil {
			mustBeTyped(t, err)
			return
		}
		for _, label := range names {
			in, _ := inputs.Get(label)
			val, _ := values.Get(label)
			s, err := readSignature(label, in, val)
			if err != nil {
				mustBeTyped(t, err)
				continue
			}
			again, err := httpsfv.UnmarshalDictionary([]string{label + "=" + s.params})
			if err != nil {
				t.Fatalf("reading the serialized %q: got %v, want nil", s.params, err)
			}
			in, _ = again.Get(label)
			s2, err := readSignature(label, in, val)
			if err != nil || s2.params != s.params {
				t.Fatalf("serialized again: got %q, %v; want %q", s2.params, err, s.params)
			}
			ids := func(s signature) (all []string) {
				for _, c := range s.components {
					all = append(all, c.id)
				}
				return all
			}
			if !slices.Equal(ids(s), ids(s2)) {
				t.Fatalf("read again: got components %q, want %q", ids(s2), ids(s))
			}
		}
	})
}

// FuzzVerify gives the Verifier any fields: only the signature made here may verify.
func FuzzVerify(f *testing.F) {
	key := newKey(f, elliptic.P384())
	r := newRequest(f)
	if err := newSigner(f, key, nil).Sign(r); err != nil {
		f.Fatal(err)
	}
	input, value := r.Header.Get(headerInput), r.Header.Get(headerSignature)
	v := newVerifier(f, &key.PublicKey, func(o *VerifyOptions) { o.Scheme = "https" })
	f.Add(input, value, "POST", "/v1/customers?dry=1")
	f.Add(input+", x=()", value+", x=:AAAA:", "POST", "/v1/customers?dry=1")
	f.Add(`sig1=()`, `sig1=:AAAA:`, "GET", "*")
	f.Add(`sig1=("@method" "x";sf);created=1772366400;keyid="key-1"`, `sig1=:AAAA:`, "CONNECT", "a.example:443")
	f.Fuzz(func(t *testing.T, gotInput, gotValue, method, target string) {
		r := newRequest(t)
		r.Method, r.RequestURI, r.Host = method, target, "api.example.com"
		r.Header[headerInput], r.Header[headerSignature] = []string{gotInput}, []string{gotValue}
		if _, err := v.Verify(r); err != nil {
			mustBeTyped(t, err)
			return
		}
		s := readOne(t, input, value)
		path, query, err := request{Request: r}.target()
		if err != nil || method != "POST" || path+query != "/v1/customers?dry=1" {
			t.Fatalf("got %s %s verified, want only POST /v1/customers?dry=1", method, target)
		}
		names, inputs, values, err := labels([]string{gotInput}, []string{gotValue})
		if err != nil {
			t.Fatal(err)
		}
		for _, label := range names {
			in, _ := inputs.Get(label)
			val, _ := values.Get(label)
			if got, err := readSignature(label, in, val); err == nil && got.params == s.params {
				return
			}
		}
		t.Fatalf("got %q verified, want only %q", gotInput, input)
	})
}

// FuzzContentDigest: a digest verifies only for its own body.
func FuzzContentDigest(f *testing.F) {
	for _, value := range []string{helloSHA256, helloSHA512, helloSHA256 + ", " + helloSHA512, "md5=:AAAA:", "", "sha-256",
		helloSHA256 + ";x=\";,\"", "sha-256=(:AAAA:)", brotliSHA256 + "," + helloSHA256, `x=%"a\"` + ", " + helloSHA256} {
		f.Add(value, []byte(helloWorld))
	}
	f.Fuzz(func(t *testing.T, value string, body []byte) {
		if err := VerifyContentDigest(http.Header{"Content-Digest": {value}}, body); err != nil {
			mustBeTyped(t, err)
			return
		}
		if err := VerifyContentDigest(http.Header{"Content-Digest": {value}}, append(body, 'x')); err == nil {
			t.Fatalf("%q on a second body: got no error, want one", value)
		}
	})
}

func mustBeTyped(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind == nil || !errors.Is(err, e.Kind) {
		t.Fatalf("got %v, want an *Error with a kind", err)
	}
}
