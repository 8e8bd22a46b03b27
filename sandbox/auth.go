package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/httpsig"
	"github.com/purser-onboard/purser/printable"
)

// Credentials are those of an integration of the partner. The server keeps the public key and a hash of the secret.
type Credentials struct {
	APIKey        string // a UUID
	APISecret     string
	KeyID         string // a UUID, the keyid of request signatures
	PrivateKeyPEM []byte // SEC1 "EC PRIVATE KEY", P-384, as the vendor's openssl command writes it [doc]
}

// NewCredentials returns credentials made from random; nil means crypto/rand.Reader. The private key always comes from
// crypto/rand.
func NewCredentials(random io.Reader) (Credentials, error) {
	if random == nil {
		random = rand.Reader
	}
	apiKey, err := uuid.NewRandomFromReader(random)
	if err != nil {
		return Credentials{}, fmt.Errorf("sandbox: API key: %w", err)
	}
	keyID, err := uuid.NewRandomFromReader(random)
	if err != nil {
		return Credentials{}, fmt.Errorf("sandbox: key id: %w", err)
	}
	var secret [20]byte // as long as the vendor's example [doc]
	if _, err := io.ReadFull(random, secret[:]); err != nil {
		return Credentials{}, fmt.Errorf("sandbox: API secret: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return Credentials{}, fmt.Errorf("sandbox: signing key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return Credentials{}, fmt.Errorf("sandbox: signing key: %w", err)
	}
	return Credentials{
		APIKey:        apiKey.String(),
		APISecret:     hex.EncodeToString(secret[:]),
		KeyID:         keyID.String(),
		PrivateKeyPEM: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}, nil
}

// String returns the API key and no secrets.
func (c Credentials) String() string { return "credentials of API key " + c.APIKey }

// GoString returns String, so that %#v shows no secrets either.
func (c Credentials) GoString() string { return c.String() }

// LogValue returns String, for logs.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// RegisterCredentials calls Register with the result of NewCredentials.
func (s *Server) RegisterCredentials(c Credentials) error {
	key, err := httpsig.ParsePrivateKey(c.PrivateKeyPEM)
	if err != nil {
		return fmt.Errorf("sandbox: signing key: %w", err)
	}
	s.Register(c.APIKey, c.APISecret, c.KeyID, &key.PublicKey)
	return nil
}

// Register adds an API key, or replaces it. All API keys belong to one programme and see the same customers. With a nil
// pub there is no signing key yet: PUT /auth/signing can register it without a signature.
func (s *Server) Register(apiKey, apiSecret, keyID string, pub *ecdsa.PublicKey) {
	s.programs.put(apiKey, sha256.Sum256([]byte(apiSecret)))
	if pub != nil {
		s.programs.setKey(apiKey, keyID, pub)
	}
}

// registry holds the API keys and their signing keys, one each: PUT replaces it. [doc]
type registry struct {
	mu       sync.RWMutex
	byAPIKey map[string]*program
	byKeyID  map[string]signingKey
}

type program struct {
	secret     [sha256.Size]byte
	generation uint64 // how often PUT /auth/credentials has replaced the secret: only tokens of the latest are good
	keyID      string
}

type signingKey struct {
	apiKey string
	public *ecdsa.PublicKey
}

func (g *registry) put(apiKey string, secret [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byAPIKey == nil {
		g.byAPIKey, g.byKeyID = make(map[string]*program), make(map[string]signingKey)
	}
	if old := g.byAPIKey[apiKey]; old != nil {
		delete(g.byKeyID, old.keyID)
	}
	g.byAPIKey[apiKey] = &program{secret: secret}
}

// setKey replaces the signing key of an API key; a nil key removes it. It reports whether there was one.
func (g *registry) setKey(apiKey, keyID string, public *ecdsa.PublicKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.byAPIKey[apiKey]
	if p == nil {
		return false
	}
	had := p.keyID != ""
	delete(g.byKeyID, p.keyID)
	p.keyID = ""
	if public != nil {
		p.keyID = keyID
		g.byKeyID[keyID] = signingKey{apiKey, public}
	}
	return had
}

// rename replaces the secret of an API key, and the API key by next if that is another; the signing key stays. It
// reports false when next is taken.
func (g *registry) rename(apiKey, next string, secret [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.byAPIKey[apiKey]
	if p == nil || next != apiKey && g.byAPIKey[next] != nil {
		return false
	}
	delete(g.byAPIKey, apiKey)
	g.byAPIKey[next] = p
	p.secret = secret
	p.generation++
	if k, ok := g.byKeyID[p.keyID]; ok {
		g.byKeyID[p.keyID] = signingKey{next, k.public}
	}
	return true
}

// generation returns the generation of the API key's secret; ok reports whether the API key is known.
func (g *registry) generation(apiKey string) (n uint64, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if p := g.byAPIKey[apiKey]; p != nil {
		return p.generation, true
	}
	return 0, false
}

// secretMatches reports whether the secret is the API key's, and returns its generation.
func (g *registry) secretMatches(apiKey, secret string) (generation uint64, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	p := g.byAPIKey[apiKey]
	sum := sha256.Sum256([]byte(secret))
	if p == nil || subtle.ConstantTimeCompare(p.secret[:], sum[:]) != 1 {
		return 0, false
	}
	return p.generation, true
}

// signingKey returns the API key's signing key, nil when none is registered.
func (g *registry) signingKey(apiKey string) (keyID string, public *ecdsa.PublicKey) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if p := g.byAPIKey[apiKey]; p != nil {
		return p.keyID, g.byKeyID[p.keyID].public
	}
	return "", nil
}

func (g *registry) owner(keyID string) string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.byKeyID[keyID].apiKey
}

func (g *registry) publicKey(keyID string) (*ecdsa.PublicKey, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	k, ok := g.byKeyID[keyID]
	if !ok {
		return nil, fmt.Errorf("keyid %s is not registered", printable.Quote(keyID, mostQuoted))
	}
	return k.public, nil
}

// tokenMint issues and checks tokens: JSON Web Tokens under HS256. Each reset changes the secret, which makes earlier
// tokens invalid.
type tokenMint struct {
	epoch  uint64
	secret [sha256.Size]byte
	issued atomic.Uint64
}

type claims struct {
	Subject    string `json:"sub"` // the API key
	Issued     int64  `json:"iat"`
	Expires    int64  `json:"exp"`
	ID         string `json:"jti"`
	Generation uint64 `json:"gen"` // of the secret
}

func (m *tokenMint) init(seed seeded, epoch uint64) {
	m.epoch = epoch
	m.secret = seed.sum("token-secret", fmt.Sprint(epoch))
}

func (m *tokenMint) issue(apiKey string, generation uint64, now time.Time, ttl time.Duration) (string, int64) {
	id := fmt.Sprintf("%d-%d", m.epoch, m.issued.Add(1))
	c := claims{apiKey, now.Unix(), now.Add(ttl).Unix(), id, generation}
	body := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(mustJSON(c))
	return body + "." + base64.RawURLEncoding.EncodeToString(m.mac(body)), c.Expires
}

func (m *tokenMint) mac(body string) []byte {
	h := hmac.New(sha256.New, m.secret[:])
	h.Write([]byte(body))
	return h.Sum(nil)
}

// check returns the claims of a token that was issued here, expired or not, and the refusal of one that is not valid.
func (m *tokenMint) check(authorization []string, now time.Time) (claims, *refusal) {
	var c claims
	if len(authorization) != 1 {
		return c, unauthorized("want one Authorization header, got %d", len(authorization))
	}
	token, ok := strings.CutPrefix(authorization[0], "Bearer ")
	if !ok {
		return c, unauthorized("Authorization is not of the form Bearer <token>")
	}
	cut := strings.LastIndexByte(token, '.')
	if cut < 0 {
		return c, unauthorized("token is not a JWT")
	}
	mac, err := base64.RawURLEncoding.DecodeString(token[cut+1:])
	if err != nil || !hmac.Equal(mac, m.mac(token[:cut])) {
		return c, unauthorized("token was not issued here, or was altered, or is from before a reset")
	}
	_, payload, _ := strings.Cut(token[:cut], ".")
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(raw, &c) != nil {
		return claims{}, unauthorized("token is not a JWT")
	}
	if now.Unix() >= c.Expires {
		return c, unauthorized("token expired %s ago", now.Sub(time.Unix(c.Expires, 0)).Round(time.Second))
	}
	return c, nil
}
