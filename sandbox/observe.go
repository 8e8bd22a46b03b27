package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

// observe notes what the judge examines, before any check and any fault: a signature over a hostile challenge counts
// even if its request is refused or cut off.
func (x *exchange) observe() {
	if len(x.body) > 0 {
		sum := sha256.Sum256(x.body)
		x.entry.Digest = hex.EncodeToString(sum[:])
	}
	if sig := x.r.Header["Signature"]; len(sig) > 0 {
		sum := sha256.Sum256([]byte(strings.Join(x.r.Header["Signature-Input"], ",") + "\n" + strings.Join(sig, ",")))
		x.entry.SigHash = hex.EncodeToString(sum[:12])
	}
	switch x.op {
	case OpCreate:
		var f struct {
			ChainID    string `json:"chainId"`
			ExternalID string `json:"externalId"`
		}
		_ = json.Unmarshal(x.body, &f) // checked later
		x.entry.Account, x.entry.ExternalID = cut(strings.ToLower(f.ChainID), 256), cut(f.ExternalID, 256)
	case OpSign:
		x.observeSigned()
	}
}

func (x *exchange) observeSigned() {
	var f struct {
		Signature string `json:"signature"`
	}
	_ = json.Unmarshal(x.body, &f)
	c := x.st.customers.find(x.id)
	sig, ok := anySignature(f.Signature)
	if c == nil || !ok {
		return
	}
	x.over = x.s.signedOver(c, sig)
	switch {
	case x.over.number == 0:
		x.entry.Signed = signedOther
	case x.over.hostile != "":
		x.entry.Signed, x.entry.HostileAs = signedHostile, x.over.hostile
	default:
		x.entry.Signed = signedOwn
	}
}

// anySignature reads a signature in any of its forms: raw or hex, in base64 or not.
func anySignature(text string) ([65]byte, bool) {
	var sig [65]byte
	inner, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		inner = []byte(text)
	}
	inner = bytes.TrimPrefix(inner, []byte("0x"))
	switch len(inner) {
	case 65:
		copy(sig[:], inner)
	case 130:
		if _, err := hex.Decode(sig[:], inner); err != nil {
			return sig, false
		}
	default:
		return sig, false
	}
	return sig, true
}

// canaryPath is the target of the fault redirect.
const canaryPath = "/canary/"

// leak is a request that followed a redirect.
type leak struct {
	Time    time.Time `json:"time"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	Carried []string  `json:"carried,omitempty"` // the header fields with credentials, and "body"
}

type leaks struct {
	mu   sync.Mutex
	seen []leak // at most leaksKept
}

const leaksKept = 1000

func (l *leaks) all() []leak {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]leak(nil), l.seen...)
}

func (s *Server) serveCanary(w http.ResponseWriter, r *http.Request) {
	leak := leak{Time: s.now(), Method: r.Method, Path: cut(r.URL.EscapedPath(), 200)}
	for _, name := range []string{"Authorization", "Cookie", "Signature", "Signature-Input", "Idempotency-Key"} {
		if r.Header.Get(name) != "" {
			leak.Carried = append(leak.Carried, name)
		}
	}
	if n, _ := r.Body.Read(make([]byte, 1)); n > 0 {
		leak.Carried = append(leak.Carried, "body")
	}
	l := &s.state.Load().leaks
	l.mu.Lock()
	if len(l.seen) < leaksKept {
		l.seen = append(l.seen, leak)
	}
	l.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}
