// Package httpsig signs and verifies HTTP requests as RFC 9421 (HTTP Message Signatures) says, with the one algorithm
// the partner takes, ecdsa-p384-sha384, and makes and checks Content-Digest fields (RFC 9530).
//
// A signature covers components: header fields by their lower-case name ("content-type") and values derived from the
// request ("@method", "@target-uri", "@authority", "@scheme", "@path", "@query", "@request-target"). Signer and
// verifier each write the covered components down as the signature base (RFC 9421 §2.5), and that text is what is
// signed. The body is covered through its Content-Digest: set that field, cover it, and have the receiver call both
// Verify and VerifyContentDigest.
//
// Both sides work from a *http.Request, whether it is about to be sent (URL absolute) or was received (RequestURI set,
// URL a mere path, TLS telling the scheme). Host and default port are normalised alike on both (RFC 9110 §4.2.3);
// path and query are taken byte for byte, never decoded. VerifyOptions.Vendor reads received requests in the other way
// that the partner's own server library has.
//
// Components with parameters (;sf, ;key, ;bs, ;req, ;tr, "@query-param") and signatures of responses are not
// supported: a signature that covers such a component is refused, not skipped over.
package httpsig

// Algorithm is the only signature algorithm of this package: ECDSA over P-384 with SHA-384, the signature being r || s
// of 48 bytes each (RFC 9421 §3.3.5).
const Algorithm = "ecdsa-p384-sha384"
