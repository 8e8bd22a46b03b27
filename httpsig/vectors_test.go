package httpsig

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// vectorSource is the product's source of request components with what the RFC's vectors need in addition: responses
// and "@query-param".
type vectorSource struct {
	request  request
	response *http.Response
}

func (s vectorSource) appendValue(dst []byte, c component) ([]byte, error) {
	switch {
	case s.response != nil && c.name == "@status":
		return strconv.AppendInt(dst, int64(s.response.StatusCode), 10), nil
	case s.response != nil:
		return request{Request: &http.Request{RequestURI: "/", Header: s.response.Header}}.appendValue(dst, c)
	case c.name == "@query-param":
		name, _ := c.params.Get("name")
		text, _ := name.(string)
		values := s.request.URL.Query()[text]
		if len(values) != 1 {
			return nil, componentError(c.name, ErrMissing, "")
		}
		return append(dst, strings.ReplaceAll(url.QueryEscape(values[0]), "+", "%20")...), nil
	}
	return s.request.appendValue(dst, c)
}

const (
	rfcRequest = `POST /foo?param=Value&Pet=dog HTTP/1.1
Host: example.com
Date: Tue, 20 Apr 2021 02:07:55 GMT
Content-Type: application/json
Content-Digest: ` + rfcRequestDigest + `
Content-Length: 18

{"hello": "world"}`

	rfcRequestDigest = `sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:`

	rfcResponse = `HTTP/1.1 200 OK
Date: Tue, 20 Apr 2021 02:07:56 GMT
Content-Type: application/json
Content-Digest: ` + rfcResponseDigest + `
Content-Length: 23

{"message": "good dog"}`

	rfcResponseDigest = `sha-512=` +
		`:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:`

	rfcClientCert = `:MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZ` +
		`BgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkw` +
		`EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcG` +
		`zkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMC` +
		`BsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHd` +
		`a/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:`

	rfcProxied = `POST /foo?param=Value&Pet=dog HTTP/1.1
Host: service.internal.example
Date: Tue, 20 Apr 2021 02:07:55 GMT
Content-Type: application/json
Content-Length: 18
Client-Cert: ` + rfcClientCert + `

{"hello": "world"}`
)

func wire(t testing.TB, text string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n"))))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestVectors compares the parsed fields and the signature base with the examples of RFC 9421: §2.5 with §3.2, B.2 and
// B.3. The RFC's signatures must verify over our bases.
func TestVectors(t *testing.T) {
	tests := []struct {
		section          string
		request          string
		response         bool
		input, signature string
		base             string // without its last line, which repeats input
	}{{
		section: "2.5", request: rfcRequest,
		input: `sig1=("@method" "@authority" "@path" "content-digest" "content-length" "content-type")` +
			`;created=1618884473;keyid="test-key-rsa-pss"`,
		signature: "sig1=:HIbjHC5rS0BYaa9v4QfD4193TORw7u9edguPh0AW3dMq9WImrlFrCGUDih47vAxi4L2YRZ3XMJc1uOKk/J0ZmZ" +
			"+wcta4nKIgBkKq0rM9hs3CQyxXGxHLMCy8uqK488o+9jrptQ+xFPHK7a9sRL1IXNaagCNN3ZxJsYapFj+JXbmaI5rtAdSfSvzPuB" +
			"Ch+ARHBmWuNo1UzVVdHXrl8ePL4cccqlazIJdC4QEjrF+Sn4IxBQzTZsL9y9TP5FsZYzHvDqbInkTNigBcE9cKOYNFCn4D/WM7F6" +
			"TNuZO9EgtzepLWcjTymlHzK7aXq6Am6sfOrpIC49yXjj3ae6HRalVc/g==:",
		base: `"@method": POST
"@authority": example.com
"@path": /foo
"content-digest": ` + rfcRequestDigest + `
"content-length": 18
"content-type": application/json
`,
	}, {
		section: "B.2.1", request: rfcRequest,
		input: `sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`,
		signature: "sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wg" +
			"GxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBq" +
			"JzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d" +
			"4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==:",
		base: ``,
	}, {
		section: "B.2.2", request: rfcRequest,
		input: `sig-b22=("@authority" "content-digest" "@query-param";name="Pet")` +
			`;created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`,
		signature: "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtj" +
			"vuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpT" +
			"laqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsUR" +
			"IjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:",
		base: `"@authority": example.com
"content-digest": ` + rfcRequestDigest + `
"@query-param";name="Pet": dog
`,
	}, {
		section: "B.2.3", request: rfcRequest,
		input: `sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length")` +
			`;created=1618884473;keyid="test-key-rsa-pss"`,
		signature: "sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt68" +
			"3+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/" +
			"aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61k" +
			"a39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:",
		base: `"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@query": ?param=Value&Pet=dog
"@authority": example.com
"content-type": application/json
"content-digest": ` + rfcRequestDigest + `
"content-length": 18
`,
	}, {
		section: "B.2.4", response: true,
		input: `sig-b24=("@status" "content-type" "content-digest" "content-length")` +
			`;created=1618884473;keyid="test-key-ecc-p256"`,
		signature: "sig-b24=:wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oi" +
			"asw==:",
		base: `"@status": 200
"content-type": application/json
"content-digest": ` + rfcResponseDigest + `
"content-length": 23
`,
	}, {
		section: "B.2.5", request: rfcRequest,
		input:     `sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`,
		signature: "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
		base: `"date": Tue, 20 Apr 2021 02:07:55 GMT
"@authority": example.com
"content-type": application/json
`,
	}, {
		section: "B.2.6", request: rfcRequest,
		input: `sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")` +
			`;created=1618884473;keyid="test-key-ed25519"`,
		signature: "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
		base: `"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
`,
	}, {
		section: "B.3", request: rfcProxied,
		input: `ttrp=("@path" "@query" "@method" "@authority" "client-cert")` +
			`;created=1618884473;keyid="test-key-ecc-p256"`,
		signature: "ttrp=:xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==:",
		base: `"@path": /foo
"@query": ?param=Value&Pet=dog
"@method": POST
"@authority": service.internal.example
"client-cert": ` + rfcClientCert + `
`,
	}}
	for _, test := range tests {
		t.Run(test.section, func(t *testing.T) {
			var from vectorSource
			if test.response {
				from.response = wireResponse(t, rfcResponse)
			} else {
				from.request = request{Request: wire(t, test.request)}
			}
			s := readOne(t, test.input, test.signature)
			base, err := appendBase(nil, s.components, s.params, from)
			if err != nil {
				t.Fatal(err)
			}
			_, params, _ := strings.Cut(test.input, "=")
			want := test.base + `"@signature-params": ` + params
			if string(base) != want {
				t.Errorf("signature base: got\n%s\nwant\n%s", base, want)
			}
			if !verifyRFC(t, *s.keyid, base, s.value) {
				t.Error("the RFC's signature under the RFC's key: got it not verified, want it verified")
			}
			base[len(base)-2] ^= 1
			if verifyRFC(t, *s.keyid, base, s.value) {
				t.Error("the signature over another base: got it verified, want it not verified")
			}
		})
	}
}

// TestDeterministicVectors makes the RFC's own signatures where the algorithm is deterministic.
func TestDeterministicVectors(t *testing.T) {
	seed, err := hex.DecodeString("9f8362f87a484a954e6e740c5b4c0e84229139a20aa8ab56ff66586f6a7d29c5")
	if err != nil {
		t.Fatal(err)
	}
	s := readOne(t, `sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")`+
		`;created=1618884473;keyid="test-key-ed25519"`, "sig-b26=:AA==:")
	base, err := appendBase(nil, s.components, s.params, request{Request: wire(t, rfcRequest)})
	if err != nil {
		t.Fatal(err)
	}
	got := base64.StdEncoding.EncodeToString(ed25519.Sign(ed25519.NewKeyFromSeed(seed), base))
	want := "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
	if got != want {
		t.Errorf("B.2.6: got signature %s, want %s", got, want)
	}
}

// TestTransformations is RFC 9421 B.4: changes to a message in transit that the signature survives, and others.
func TestTransformations(t *testing.T) {
	const (
		input     = `transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519"`
		signature = "transform=:ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==:"
		fields    = "Signature-Input: " + input + "\nSignature: " + signature + "\n\n"
	)
	tests := []struct {
		name    string
		message string
		good    bool
	}{
		{"as signed", "GET /demo?name1=Value1&Name2=value2 HTTP/1.1\nHost: example.org\n" +
			"Date: Fri, 15 Jul 2022 14:24:55 GMT\nAccept: application/json\nAccept: */*\n", true},
		{"query parameter and field added", "GET /demo?name1=Value1&Name2=value2&param=added HTTP/1.1\n" +
			"Host: example.org\nDate: Fri, 15 Jul 2022 14:24:55 GMT\nAccept: application/json\nAccept: */*\n" +
			"Accept-Language: en-US,en;q=0.5\n", true},
		{"field removed, field added, lines combined", "GET /demo?name1=Value1&Name2=value2 HTTP/1.1\n" +
			"Host: example.org\nReferer: https://developer.example.org/demo\nAccept: application/json, */*\n", true},
		{"different fields reordered", "GET /demo?name1=Value1&Name2=value2 HTTP/1.1\nAccept: application/json\n" +
			"Accept: */*\nDate: Fri, 15 Jul 2022 14:24:55 GMT\nHost: example.org\n", true},
		{"method and authority changed", "POST /demo?name1=Value1&Name2=value2 HTTP/1.1\nHost: example.com\n" +
			"Date: Fri, 15 Jul 2022 14:24:55 GMT\nAccept: application/json\nAccept: */*\n", false},
		{"lines of a covered field reordered", "GET /demo?name1=Value1&Name2=value2 HTTP/1.1\nHost: example.org\n" +
			"Date: Fri, 15 Jul 2022 14:24:55 GMT\nAccept: */*\nAccept: application/json\n", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := wire(t, test.message+fields)
			s := readOne(t, r.Header[headerInput][0], r.Header[headerSignature][0])
			base, err := appendBase(nil, s.components, s.params, request{Request: r})
			if err != nil {
				t.Fatal(err)
			}
			if good := verifyRFC(t, *s.keyid, base, s.value); good != test.good {
				t.Errorf("got verified %t, want %t; base\n%s", good, test.good, base)
			}
		})
	}
}

// readOne reads the fields of a message with one signature.
func readOne(t testing.TB, input, value string) signature {
	t.Helper()
	names, inputs, values, err := labels([]string{input}, []string{value})
	if err != nil {
		t.Fatal(err)
	}
	in, _ := inputs.Get(names[0])
	val, _ := values.Get(names[0])
	s, err := readSignature(names[0], in, val)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wireResponse(t *testing.T, text string) *http.Response {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res
}

// verifyRFC verifies with the algorithms and keys of RFC 9421 §3.3 and B.1.
func verifyRFC(t *testing.T, keyid string, base, value []byte) bool {
	t.Helper()
	if keyid == "test-shared-secret" {
		secret, err := base64.StdEncoding.DecodeString("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbm" +
			"HhIDi6pcl8jsasjlTMtDQ==")
		if err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write(base)
		return hmac.Equal(mac.Sum(nil), value)
	}
	text, err := os.ReadFile(filepath.Join("testdata", "rfc9421", keyid+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	switch key := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, base, value)
	case *rsa.PublicKey:
		sum := sha512.Sum512(base)
		return rsa.VerifyPSS(key, crypto.SHA512, sum[:], value, &rsa.PSSOptions{SaltLength: 64}) == nil
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(base)
		r, s := new(big.Int).SetBytes(value[:32]), new(big.Int).SetBytes(value[32:])
		return ecdsa.Verify(key, sum[:], r, s)
	}
	t.Fatalf("got a key of type %T, want Ed25519, RSA or ECDSA", key)
	return false
}
