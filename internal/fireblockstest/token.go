package fireblockstest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	// mostLife: "exp … must be less than iat+30sec" (Fireblocks, "JWT structure").
	mostLife = 30 * time.Second
	// ahead is how far a client's clock may be before ours.
	ahead = 5 * time.Second
)

// claims of a token. Pointers distinguish a missing claim from zero.
type claims struct {
	URI      string `json:"uri"`
	Nonce    any    `json:"nonce"` // "Unique number or string"
	IssuedAt *int64 `json:"iat"`
	Expires  *int64 `json:"exp"`
	Subject  string `json:"sub"`
	BodyHash string `json:"bodyHash"`
}

// authenticate checks a request's token as Fireblocks documents it; the codes are those of its table of API errors.
func (s *Server) authenticate(r *http.Request, body []byte) *failure {
	deny := func(code int, format string, a ...any) *failure {
		why := fmt.Sprintf(format, a...)
		s.denied = append(s.denied, fmt.Sprintf("%s %s: %d %s", r.Method, r.URL.Path, code, why))
		return &failure{status: http.StatusUnauthorized, code: code, message: "Unauthorized: " + why}
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return deny(-3, "JWT is missing")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return deny(-5, "Invalid token format")
	}
	var header struct {
		Algorithm string `json:"alg"`
		Type      string `json:"typ"`
	}
	var c claims
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !decodePart(parts[0], &header) || !decodePart(parts[1], &c) {
		return deny(-5, "Invalid token format")
	}
	if header.Algorithm != "RS256" || header.Type != "JWT" {
		return deny(-5, "algorithm %q, type %q", header.Algorithm, header.Type)
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(s.config.PublicKey, crypto.SHA256, digest[:], signature) != nil {
		return deny(-1, "Invalid signature")
	}
	if c.Subject == "" {
		return deny(-2, "Missing API Key in the JWT")
	}
	if c.Subject != s.config.APIKey || r.Header.Get("X-API-Key") != s.config.APIKey {
		return deny(-6, "Wrong User in the JWT")
	}
	if c.URI != r.RequestURI {
		return deny(-4, "Wrong URL in the JWT: %q, asked for %q", c.URI, r.RequestURI)
	}
	sum := sha256.Sum256(body)
	if c.BodyHash != hex.EncodeToString(sum[:]) {
		return deny(-7, "the bodyHash is not the body's")
	}
	return s.checkTime(c, deny)
}

// checkTime, and that the nonce is new.
func (s *Server) checkTime(c claims, deny func(int, string, ...any) *failure) *failure {
	if c.IssuedAt == nil || c.Expires == nil {
		return deny(-7, "iat or exp is missing")
	}
	now, iat, exp := s.config.Now(), time.Unix(*c.IssuedAt, 0), time.Unix(*c.Expires, 0)
	switch {
	case exp.Sub(iat) >= mostLife || !exp.After(iat):
		return deny(-7, "exp is not less than iat+30sec")
	case iat.After(now.Add(ahead)):
		return deny(-12, "The request is with a future issuance timestamp (iat)")
	case !now.Before(exp):
		return deny(-10, "The request has expired")
	}
	nonce := fmt.Sprint(c.Nonce)
	if c.Nonce == nil || nonce == "" || s.nonces[nonce].After(now) {
		return deny(-7, "the nonce is missing, or was there before")
	}
	for old, until := range s.nonces {
		if !until.After(now) {
			delete(s.nonces, old)
		}
	}
	s.nonces[nonce] = exp.Add(time.Second)
	return nil
}

func decodePart(part string, into any) bool {
	text, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(text, into) == nil
}
