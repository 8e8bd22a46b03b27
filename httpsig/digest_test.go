package httpsig

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

const (
	// The draft of RFC 9530 prints 8B 08 80 as the first bytes of this Brotli stream in B.4 and B.6; the digests there are
	// those of a stream that begins 0B 09 80.
	brotli = "\x0b\x09\x80" + helloWorld + "\n\x03"

	helloWorld   = `{"hello": "world"}`
	helloSHA256  = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
	helloSHA512  = rfcRequestDigest
	brotliSHA256 = "sha-256=:d435Qo+nKZ+gLcUHn7GQtQ72hiBVAgqoLsZnZPiTGPk=:"
	brotliSHA512 = "sha-512=" +
		":db7fdBbgZMgX1Wb2MjA8zZj+rSNgfmDCEEXM8qLWfpfoNY0sCpHAzZbj09X1/7HAb7Od5Qfto4QpuBsFbUO3dQ==:"
)

// TestDigestVectors are the examples of RFC 9530, appendices B and D, and of RFC 9421, appendix B.2. Repr-Digest is
// computed as Content-Digest is, over other bytes, so its examples serve as well.
func TestDigestVectors(t *testing.T) {
	tests := []struct {
		section string
		body    string
		value   string
	}{
		{"RFC 9530 B.1", helloWorld + "\n", "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"},
		{"RFC 9530 B.2, no content", "", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"},
		{"RFC 9530 B.3, bytes 10 to 18", (helloWorld + "\n")[10:],
			"sha-256=:jjcgBDWNAtbYUXI37CVG3gRuGOAjaaDRGpIUFsdyepQ=:"},
		{"RFC 9530 B.4, response", brotli, brotliSHA256},
		{"RFC 9530 B.6, response", brotli, brotliSHA512},
		{"RFC 9530 B.7, request", "{\"title\": \"New Title\"}\n", "sha-256=:mEkdbO7Srd9LIOegftO0aBX+VPTVz7/CSHes2Z27gc4=:"},
		{"RFC 9530 B.7, response", "{\n  \"id\": \"123\",\n  \"title\": \"New Title\"\n}\n",
			"sha-256=:uVSlinTTdQUwm2On4k8TJUikGN1bf/Ds8WPX4oe0h9I=:"},
		{"RFC 9530 B.8, response", "{\n  \"status\": \"created\",\n  \"id\": \"123\",\n  \"ts\": 1569327729,\n" +
			"  \"instance\": \"/books/123\"\n}\n", "sha-256=:yXIGDTN5VrfoyisKlXgRKUHHMs35SNtyC3szSz1dbO8=:"},
		{"RFC 9530 B.10, response", "{\n  \"title\": \"Not Found\",\n" +
			"  \"detail\": \"Cannot PATCH a non-existent resource\",\n  \"status\": 404\n}\n",
			"sha-256=:EXB0S2VF2H7ijkAVJkH1Sm0pBho0iDZcvVUHHXTTZSA=:"},
		{"RFC 9530 C.2", helloWorld + "\n",
			"sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:"},
		{"RFC 9530 D, sha-512", helloWorld, helloSHA512},
		{"RFC 9530 D, sha-256", helloWorld, helloSHA256},
		{"RFC 9421 B.2, response", `{"message": "good dog"}`, rfcResponseDigest},
	}
	for _, test := range tests {
		t.Run(test.section, func(t *testing.T) {
			algorithm, _, _ := strings.Cut(test.value, "=")
			if got, err := ContentDigest(algorithm, []byte(test.body)); err != nil || got != test.value {
				t.Errorf("ContentDigest: got %s, %v; want %s", got, err, test.value)
			}
			h := http.Header{"Content-Digest": {test.value}}
			if err := VerifyContentDigest(h, []byte(test.body)); err != nil {
				t.Errorf("VerifyContentDigest: got %v, want nil", err)
			}
			if err := VerifyContentDigest(h, []byte(test.body+" ")); !errors.Is(err, ErrDigestMismatch) {
				t.Errorf("another body: got %v, want ErrDigestMismatch", err)
			}
		})
	}
}

// TestDeprecatedDigests: the six deprecated digests among the samples of RFC 9530 D are ignored.
func TestDeprecatedDigests(t *testing.T) {
	const deprecated = "md5=:Sd/dVLAcvNLSq16eXua5uQ==:, sha=:07CavjDP4u3/TungoUHJO/Wzr4c=:, unixsum=:GQU=:, " +
		"unixcksum=:7zsHAA==:, adler=:OZkGFw==:, crc32c=:Q3lHIA==:"
	h := http.Header{"Content-Digest": {deprecated}}
	if err := VerifyContentDigest(h, []byte(helloWorld)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("deprecated only: got %v, want ErrUnsupported", err)
	}
	h.Add("Content-Digest", helloSHA256)
	if err := VerifyContentDigest(h, []byte(helloWorld)); err != nil {
		t.Errorf("with sha-256: got %v, want nil", err)
	}
	if _, err := ContentDigest("md5", nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("ContentDigest with md5: got %v, want ErrUnsupported", err)
	}
}

func TestDigestRefuses(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
		want  error
	}{
		{"absent", nil, ErrMissing},
		{"both", []string{helloSHA256 + ", " + helloSHA512}, nil},
		{"both, on two lines", []string{helloSHA256, helloSHA512}, nil},
		{"spaced", []string{"  " + helloSHA256 + " \t,   " + helloSHA512 + "  "}, nil},
		{"with a parameter", []string{helloSHA256 + ";x=1"}, nil},
		{"first wrong", []string{brotliSHA256 + ", " + helloSHA512}, ErrDigestMismatch},
		{"second wrong", []string{helloSHA256 + ", " + brotliSHA512}, ErrDigestMismatch},
		{"empty", []string{""}, ErrMalformed},
		{"twice", []string{helloSHA256 + ", " + helloSHA256}, ErrMalformed},
		{"twice, the wrong one first", []string{brotliSHA256, helloSHA256}, ErrMalformed},
		{"parameter twice", []string{helloSHA256 + ";x;x"}, ErrMalformed},
		{"a string", []string{`sha-256="X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="`}, ErrMalformed},
		{"a token, as before RFC 9530", []string{`sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=`}, ErrMalformed},
		{"a flag", []string{`sha-256`}, ErrMalformed},
		{"a list", []string{`sha-256=(:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:)`}, ErrMalformed},
		{"truncated", []string{`sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9D:`}, ErrMalformed},
		{"padded too much", []string{`sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg==:`}, ErrMalformed},
		{"upper-case name", []string{strings.ToUpper(helloSHA256[:7]) + helloSHA256[7:]}, ErrMalformed},
		{"endless", []string{helloSHA256 + `, x="` + strings.Repeat("x", 17<<10) + `"`}, ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := http.Header{}
			if test.lines != nil {
				h["Content-Digest"] = test.lines
			}
			if err := VerifyContentDigest(h, []byte(helloWorld)); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}
