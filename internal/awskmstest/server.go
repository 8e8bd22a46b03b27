// Package awskmstest is a stand-in for AWS KMS, and for the one call of STS that Purser makes, for tests. It checks
// what AWS checks, and shares no code with the client: the SigV4 signature, recomputed from the request, with its
// scope, date and signed headers; the target header and the JSON protocol; key specs, usages, algorithms, digests and
// key states. It pages its lists, and answers with faults on request.
package awskmstest

import (
	"crypto/ecdsa"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
)

// The account that all keys belong to.
const accountID = "111122223333"

// Config configures a Server.
type Config struct {
	Region          string // "eu-west-1"
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string           // empty: none is required
	Now             func() time.Time // the server's clock; required
	PageSize        int              // most aliases of one page; 0: 100, AWS's own bound
}

// State is a key's (API_KeyMetadata).
type State string

// The states that matter here.
const (
	Enabled         State = "Enabled"
	Disabled        State = "Disabled"
	PendingDeletion State = "PendingDeletion"
	Unavailable     State = "Unavailable" // its custom key store is disconnected
)

// Server is the stand-in: an http.Handler at whose root both services are. It may be used by many goroutines.
type Server struct {
	config Config

	mu      sync.Mutex // guards what follows
	keys    map[string]*key
	aliases []alias // sorted by name
	faults  []Fault
	counts  map[string]int
	signed  int // signatures made
	serial  int // of the last key
}

type key struct {
	id, arn string
	private *ecdsa.PrivateKey
	spec    string // "ECC_SECG_P256K1"
	usage   string // "SIGN_VERIFY"
	state   State
}

type alias struct{ name, keyID string }

// Fault is an answer that replaces the right one, after the request's signature was verified.
type Fault struct {
	Op     string // "Sign"; empty: any
	Times  int    // how often; 0: always
	Code   string // "ThrottlingException"
	Status int    // of HTTP; 0: 400
	Header http.Header
	Body   []byte // instead of the usual one for Code
}

// New makes a server with no keys.
func New(config Config) *Server {
	if config.PageSize <= 0 || config.PageSize > 100 {
		config.PageSize = 100
	}
	return &Server{config: config, keys: map[string]*key{}, counts: map[string]int{}}
}

// AddKey adds private, of secp256k1 or P-256, as a key with the usage SIGN_VERIFY, and returns its id.
func (s *Server) AddKey(private *ecdsa.PrivateKey) string {
	spec := "ECC_SECG_P256K1"
	if private.Curve != crypto.S256() {
		spec = "ECC_NIST_P256"
	}
	return s.add(private, spec, "SIGN_VERIFY")
}

// AddAgreementKey adds a key of the spec ECC_SECG_P256K1 with the usage KEY_AGREEMENT, and returns its id.
func (s *Server) AddAgreementKey(private *ecdsa.PrivateKey) string {
	return s.add(private, "ECC_SECG_P256K1", "KEY_AGREEMENT")
}

func (s *Server) add(private *ecdsa.PrivateKey, spec, usage string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	id := fmt.Sprintf("%08x-0000-4000-8000-%012x", s.serial, s.serial)
	s.keys[id] = &key{
		id: id, arn: fmt.Sprintf("arn:aws:kms:%s:%s:key/%s", s.config.Region, accountID, id),
		private: private, spec: spec, usage: usage, state: Enabled,
	}
	return id
}

// SetState sets a key's state. An unknown id does nothing.
func (s *Server) SetState(keyID string, state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.keys[keyID]; k != nil {
		k.state = state
	}
}

// DeleteKey deletes a key, but not its aliases.
func (s *Server) DeleteKey(keyID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, keyID)
}

// SetAlias points the alias name ("alias/purser/0x…") to a key.
func (s *Server) SetAlias(name, keyID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.position(name)
	if i < len(s.aliases) && s.aliases[i].name == name {
		s.aliases[i].keyID = keyID
		return
	}
	s.aliases = append(s.aliases, alias{})
	copy(s.aliases[i+1:], s.aliases[i:])
	s.aliases[i] = alias{name, keyID}
}

// DeleteAlias deletes an alias.
func (s *Server) DeleteAlias(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.position(name); i < len(s.aliases) && s.aliases[i].name == name {
		s.aliases = append(s.aliases[:i], s.aliases[i+1:]...)
	}
}

// Fail adds a fault; of several that match a call, the first one added is used.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Times == 0 {
		f.Times = -1
	}
	s.faults = append(s.faults, f)
}

// ClearFaults removes all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Calls returns the number of calls of an operation with a valid signature, whatever the answer.
func (s *Server) Calls(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[op]
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return // the client has left
	}
	action := queryAction(r, body)
	s.mu.Lock() // requests are answered one after the other
	op, result, failed := s.answer(r, action, body)
	s.mu.Unlock()
	if action != "" {
		answerXML(w, op, failed)
		return
	}
	answerJSON(w, result, failed)
}

func (s *Server) answer(r *http.Request, action string, body []byte) (op string, result any, failed *failure) {
	service := "kms"
	if action != "" {
		service = "sts"
	}
	if failed := s.authenticate(r, service, body); failed != nil {
		return "", nil, failed
	}
	if op = action; op == "" {
		if op, failed = target(r); failed != nil {
			return "", nil, failed
		}
	}
	s.counts[op]++
	for i := range s.faults {
		f := &s.faults[i]
		if f.Times == 0 || f.Op != "" && f.Op != op {
			continue
		}
		f.Times--
		return op, nil, &failure{f.Code, "as the test wished", f.Status, f.Header, f.Body}
	}
	switch op {
	case "Sign":
		result, failed = handle(body, s.sign)
	case "GetPublicKey":
		result, failed = handle(body, s.publicKey)
	case "ListAliases":
		result, failed = handle(body, s.list)
	case "GetCallerIdentity":
	default:
		failed = fail("UnknownOperationException", "no operation %s", op)
	}
	return op, result, failed
}
