package httpsig

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"net/http"

	"github.com/dunglas/httpsfv"
)

const headerDigest = "Content-Digest"

// ContentDigest returns the value of the field Content-Digest (RFC 9530 §2) for the body as it is sent, after any
// content coding. The algorithm must be "sha-256" or "sha-512"; any other is an *Error with Kind ErrUnsupported.
func ContentDigest(algorithm string, body []byte) (string, error) {
	sum := digest(algorithm, body)
	if sum == nil {
		return "", &Error{Part: "option", Name: algorithm, Kind: ErrUnsupported,
			Problem: "is not a supported digest algorithm (sha-256, sha-512)"}
	}
	b := make([]byte, 0, len(algorithm)+3+base64.StdEncoding.EncodedLen(len(sum)))
	b = append(b, algorithm...)
	b = append(b, "=:"...)
	b = base64.StdEncoding.AppendEncode(b, sum)
	return string(append(b, ':')), nil
}

// VerifyContentDigest checks the body against the field Content-Digest (RFC 9530 §2). The field must have a digest of a
// supported algorithm (sha-256, sha-512), and all of those must match. Digests of other algorithms are ignored, among
// them the deprecated algorithms (RFC 9530 §5).
//
// Errors are *Error: ErrMissing without the field, ErrMalformed, ErrUnsupported without a supported algorithm,
// ErrDigestMismatch.
func VerifyContentDigest(h http.Header, body []byte) error {
	d, err := parseDictionary(headerDigest, h[headerDigest])
	if err != nil {
		return err
	}
	known := false
	for _, algorithm := range d.Names() {
		sum := digest(algorithm, body)
		if sum == nil {
			continue
		}
		known = true
		member, _ := d.Get(algorithm)
		item, _ := member.(httpsfv.Item)
		got, ok := item.Value.([]byte)
		if !ok || len(got) != len(sum) {
			return digestError(ErrMalformed, algorithm+" is not a byte sequence of the algorithm's length")
		}
		if !bytes.Equal(got, sum) {
			return digestError(ErrDigestMismatch, algorithm+" does not match the body")
		}
	}
	if !known {
		return digestError(ErrUnsupported, "has no digest of a supported algorithm (sha-256, sha-512)")
	}
	return nil
}

func digest(algorithm string, body []byte) []byte {
	switch algorithm {
	case "sha-256":
		sum := sha256.Sum256(body)
		return sum[:]
	case "sha-512":
		sum := sha512.Sum512(body)
		return sum[:]
	}
	return nil
}

func digestError(kind error, problem string) error {
	return &Error{Part: "field", Name: headerDigest, Kind: kind, Problem: problem}
}
