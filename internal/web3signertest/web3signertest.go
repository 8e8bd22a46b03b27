// Package web3signertest stands in for Consensys Web3Signer in its eth1 mode, for tests. It answers as Web3Signer's
// OpenAPI description (eth1/web3signer.yaml) and its handlers do, also with errors for a Host that is not allowed,
// another method, another content type, a malformed body, and an unknown public key.
package web3signertest

import (
	"crypto/ecdsa"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/ethereum/go-ethereum/crypto"
)

// mostBody is Vert.x's default bound of a request's body.
const mostBody = 10 << 20

// Server is the stand-in; it implements http.Handler and may be used by many goroutines.
type Server struct {
	mux *http.ServeMux

	mu     sync.Mutex
	hosts  []string
	keys   map[string]*ecdsa.PrivateKey // by identifier
	failed []string                     // ids of health checks that are down
	status int                          // what the next requests are answered with
	times  int
	counts map[string]int
}

// New returns a Server that has loaded keys. It allows the Hosts that Web3Signer allows by default, localhost and
// 127.0.0.1, on any port.
func New(keys []*ecdsa.PrivateKey) *Server {
	s := &Server{
		mux:    http.NewServeMux(),
		hosts:  []string{"localhost", "127.0.0.1"},
		keys:   map[string]*ecdsa.PrivateKey{},
		counts: map[string]int{},
	}
	for _, key := range keys {
		s.Add(key)
	}
	s.mux.HandleFunc("POST /api/v1/eth1/sign/{identifier}", s.sign)
	s.mux.HandleFunc("GET /api/v1/eth1/publicKeys", s.list)
	s.mux.HandleFunc("GET /upcheck", func(w http.ResponseWriter, _ *http.Request) { text(w, "OK") })
	s.mux.HandleFunc("GET /healthcheck", s.health)
	return s
}

// Identifier is Web3Signer's name for key: 0x and the 128 hex digits of the uncompressed public key without its first
// byte, 04.
func Identifier(key *ecdsa.PrivateKey) string {
	return "0x" + hex.EncodeToString(crypto.FromECDSAPub(&key.PublicKey)[1:])
}

// Add loads one more key, as a new file and a POST /reload do.
func (s *Server) Add(key *ecdsa.PrivateKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[Identifier(key)] = key
}

// Remove removes a key.
func (s *Server) Remove(key *ecdsa.PrivateKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, Identifier(key))
}

// AllowHosts replaces the allow-list (--http-host-allowlist); "*" allows every Host.
func (s *Server) AllowHosts(hosts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts = hosts
}

// Fail answers the next times requests with status.
func (s *Server) Fail(status, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.times = status, times
}

// Unhealthy sets the health checks that are down, such as "keys-check/unexpected".
func (s *Server) Unhealthy(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = ids
}

// Signed counts the signatures made.
func (s *Server) Signed() int { return s.count("sign") }

// Listed counts the lists of keys given.
func (s *Server) Listed() int { return s.count("list") }

func (s *Server) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[what]
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	allowed := slices.Contains(s.hosts, "*") ||
		slices.ContainsFunc(s.hosts, func(h string) bool { return strings.EqualFold(h, host) })
	status := 0
	if allowed && s.times > 0 {
		s.times--
		status = s.status
	}
	s.mu.Unlock()
	switch {
	case !allowed:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"message":"Host not authorized."}`) // the client may have left
	case status != 0:
		fail(w, status)
	default:
		s.mux.ServeHTTP(w, r)
	}
}

func (s *Server) sign(w http.ResponseWriter, r *http.Request) {
	data, err := dataToSign(w, r)
	if err != nil {
		fail(w, http.StatusBadRequest)
		return
	}
	// IdentifierUtils.normaliseIdentifier
	identifier := "0x" + strings.TrimPrefix(strings.ToLower(r.PathValue("identifier")), "0x")
	s.mu.Lock()
	key := s.keys[identifier]
	s.mu.Unlock()
	if key == nil {
		fail(w, http.StatusNotFound)
		return
	}
	signature, err := crypto.Sign(crypto.Keccak256(data), key) // no prefix
	if err != nil {
		fail(w, http.StatusInternalServerError)
		return
	}
	signature[64] += 27
	s.mu.Lock()
	s.counts["sign"]++
	s.mu.Unlock()
	text(w, "0x"+hex.EncodeToString(signature))
}

// dataToSign reads {"data": "0x…"}; other properties may be there if they are strings.
func dataToSign(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	contentType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(contentType), "application/json") {
		return nil, fmt.Errorf("content type %q", contentType)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
	if err != nil {
		return nil, err
	}
	var properties map[string]string
	if err := json.Unmarshal(body, &properties); err != nil {
		return nil, err
	}
	digits := strings.TrimPrefix(properties["data"], "0x")
	if digits == "" {
		return nil, fmt.Errorf("no data")
	}
	return hex.DecodeString(digits)
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	identifiers := make([]string, 0, len(s.keys))
	for identifier := range s.keys {
		identifiers = append(identifiers, identifier)
	}
	s.counts["list"]++
	s.mu.Unlock()
	slices.Sort(identifiers) // the vendor's order is that of a hash table
	object(w, http.StatusOK, identifiers)
}

type check struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	checks := []check{{"default-check", "UP"}}
	for _, id := range s.failed {
		checks = append(checks, check{id, "DOWN"})
	}
	s.mu.Unlock()
	status, outcome := http.StatusOK, "UP"
	if len(checks) > 1 {
		status, outcome = http.StatusServiceUnavailable, "DOWN"
	}
	object(w, status, map[string]any{"status": outcome, "checks": checks, "outcome": outcome})
}

func text(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, s) // the client may have left
}

func object(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client may have left
}

// fail answers as Vert.x Web does when a handler fails.
func fail(w http.ResponseWriter, status int) {
	if status == http.StatusNotFound {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "<html><body><h1>Resource not found</h1></body></html>") // the client may have left
		return
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, http.StatusText(status)) // the client may have left
}
