package httpsig_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/purser-onboard/purser/httpsig"
)

// A client signs a request and a server verifies it; then the path is changed in transit.
func Example() {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader) // or ParsePrivateKey of a PEM file
	if err != nil {
		log.Fatal(err)
	}
	now := func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }
	components := []string{"@method", "@target-uri", "content-type", "content-digest"}

	signer, err := httpsig.NewSigner(key, httpsig.Options{KeyID: "key-1", Components: components, Now: now})
	if err != nil {
		log.Fatal(err)
	}
	body := `{"hello": "world"}`
	r, err := http.NewRequest(http.MethodPost, "https://api.example.com/v1/customers", strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	digest, err := httpsig.ContentDigest("sha-256", []byte(body))
	if err != nil {
		log.Fatal(err)
	}
	r.Header.Set("Content-Digest", digest)
	if err := signer.Sign(r); err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Header.Get("Content-Digest"))
	fmt.Println(r.Header.Get("Signature-Input"))

	verifier, err := httpsig.NewVerifier(httpsig.VerifyOptions{
		Key:      func(string) (*ecdsa.PublicKey, error) { return &key.PublicKey, nil },
		Required: components,
		MaxAge:   time.Minute,
		Skew:     5 * time.Second,
		Now:      now,
	})
	if err != nil {
		log.Fatal(err)
	}
	verified, err := verifier.Verify(r)
	fmt.Println(verified.KeyID, verified.Components, err)
	fmt.Println(httpsig.VerifyContentDigest(r.Header, []byte(body)))

	r.URL.Path = "/v1/other"
	_, err = verifier.Verify(r)
	fmt.Println(errors.Is(err, httpsig.ErrBadSignature), err)

	// Output:
	// sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:
	// sig1=("@method" "@target-uri" "content-digest");created=1772366400;keyid="key-1";alg="ecdsa-p384-sha384"
	// key-1 [@method @target-uri content-digest] <nil>
	// <nil>
	// true httpsig: signature "sig1": signature does not verify
}
