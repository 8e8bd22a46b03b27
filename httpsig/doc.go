// Package httpsig signs and verifies HTTP requests according to RFC 9421 (HTTP Message Signatures) with the algorithm
// that the partner requires, ecdsa-p384-sha384, and computes and verifies Content-Digest fields (RFC 9530).
//
// A signature covers components: header fields by their lower-case name ("content-type") and values derived from the
// request ("@method", "@target-uri", "@authority", "@scheme", "@path", "@query", "@request-target"). Signer and
// Verifier each build the signature base (RFC 9421 §2.5) from the covered components; this text is signed. The body is
// covered through its Content-Digest: set that field, cover it, and have the receiver call both Verify and
// VerifyContentDigest.
//
// Both work on a *http.Request, either outgoing (URL absolute) or received (RequestURI set, URL only a path, scheme
// given by TLS). Host and default port are normalised in the same way for both (RFC 9110 §4.2.3); path and query are
// used byte for byte and never decoded. VerifyOptions.Vendor reads received requests as the partner's own server
// library does.
//
// Components with parameters (;sf, ;key, ;bs, ;req, ;tr, "@query-param") and signatures of responses are not
// supported: a signature that covers such a component does not verify.
package httpsig

// Algorithm is the only supported signature algorithm: ECDSA over P-384 with SHA-384. A signature is r || s, 48 bytes
// each (RFC 9421 §3.3.5).
const Algorithm = "ecdsa-p384-sha384"
