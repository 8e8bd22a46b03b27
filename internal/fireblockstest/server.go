// Package fireblockstest is a stand-in for Fireblocks, for tests: transactions of the operation TYPED_MESSAGE, and the
// vault accounts that sign them. It checks what Fireblocks checks, and shares no code with the client: the token's
// signature and each of its claims, that its nonce is new, that the body is the one it was made for; the shape of a
// transaction; that its externalTxId was never used before. Whether a transaction is approved is decided by the test,
// or at once (AutoApprove).
//
// It can store transactions in a file, and so be restarted like the client.
package fireblockstest

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Config configures a Server.
type Config struct {
	APIKey    string         // the API user's id
	PublicKey *rsa.PublicKey // verifies its tokens
	Now       func() time.Time
	// AutoApprove approves every transaction when it is made. Otherwise each waits for Approve, Reject or SetStatus.
	AutoApprove bool
	// Reads is how often an approved transaction is still read as PENDING_SIGNATURE before it is COMPLETED.
	Reads int
	// Unsigned is how often a transaction is then read as COMPLETED without its signature, as a replica that lags behind
	// shows it.
	Unsigned int
	// File keeps the transactions across restarts; empty: they are forgotten.
	File string
	// PageSize is the most vault accounts or addresses of one page; 0: as many as are asked for.
	PageSize int
}

// Transaction is a stored transaction.
type Transaction struct {
	ID         string         `json:"id"`
	ExternalID string         `json:"externalTxId"`
	Account    string         `json:"vaultAccountId"`
	Asset      string         `json:"assetId"`
	Address    common.Address `json:"address"` // of the vault account
	Message    []byte         `json:"message"`
	Note       string         `json:"note"`
	Status     string         `json:"status"` // "PENDING_AUTHORIZATION"
	SubStatus  string         `json:"subStatus"`
	Approved   bool           `json:"approved"`
	CreatedAt  time.Time      `json:"createdAt"`
	Posts      int            `json:"posts"`      // how often its externalTxId was sent; all but the first got an error
	Reads      int            `json:"reads"`      // since it was approved
	Unsigned   int            `json:"unsigned"`   // how often it is still read without its signature
	Signature  []byte         `json:"signature"`  // r, s, and v of 0 or 1; nil until it is completed
	CancelSent bool           `json:"cancelSent"` // a client has requested its cancellation
}

// Server is the stand-in: an http.Handler for /v1. It may be used by many goroutines.
type Server struct {
	config Config
	mux    *http.ServeMux

	mu           sync.Mutex // guards what follows
	wallets      []wallet   // in the order in which they were added
	transactions []*Transaction
	byExternalID map[string]*Transaction
	nonces       map[string]time.Time // when they may be forgotten
	faults       []Fault
	calls        map[string]int
	denied       []string
}

type wallet struct {
	account, asset string
	key            *ecdsa.PrivateKey
}

// Fault is an answer that replaces the right one, after the token was verified.
type Fault struct {
	Method     string // empty: any
	Path       string // the path's beginning, "/v1/transactions"
	Times      int    // how often; 0: always
	Acted      bool   // the request is carried out, and only the answer replaced
	Drop       bool   // the connection is cut instead of an answer
	Status     int
	Code       int
	Message    string
	RetryAfter string
	Location   string
	Body       string // instead of code and message
}

// New returns a server without vault accounts, with the transactions of config.File if it exists.
func New(config Config) (*Server, error) {
	if config.Now == nil || config.PublicKey == nil || config.APIKey == "" {
		return nil, errors.New("fireblockstest: Now, PublicKey and APIKey are required")
	}
	s := &Server{
		config: config, mux: http.NewServeMux(), byExternalID: map[string]*Transaction{},
		nonces: map[string]time.Time{}, calls: map[string]int{},
	}
	s.route("POST /v1/transactions", s.create)
	s.route("GET /v1/transactions/{id}", s.readByID)
	s.route("GET /v1/transactions/external_tx_id/{id}", s.readByExternalID)
	s.route("POST /v1/transactions/{id}/cancel", s.cancel)
	s.route("GET /v1/vault/accounts_paged", s.accounts)
	s.route("GET /v1/vault/accounts/{account}/{asset}/addresses_paginated", s.addresses)
	return s, s.load()
}

// AddVault adds a wallet with key to a vault account.
func (s *Server) AddVault(account, asset string, key *ecdsa.PrivateKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wallets = append(s.wallets, wallet{account, asset, key})
}

// Approve lets a waiting transaction be signed.
func (s *Server) Approve(externalID string) error {
	return s.decide(externalID, func(t *Transaction) { t.Approved, t.Status = true, "PENDING_SIGNATURE" })
}

// Reject ends a transaction as if a person had declined it.
func (s *Server) Reject(externalID string) error {
	return s.SetStatus(externalID, "REJECTED", "REJECTED_BY_USER")
}

// SetStatus sets the status of a transaction that is not signed yet, to a final one ("BLOCKED") or a pending one.
func (s *Server) SetStatus(externalID, status, subStatus string) error {
	return s.decide(externalID, func(t *Transaction) { t.Status, t.SubStatus, t.Approved = status, subStatus, false })
}

func (s *Server) decide(externalID string, change func(t *Transaction)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byExternalID[externalID]
	if t == nil {
		return fmt.Errorf("no transaction %s", externalID)
	}
	if t.final() {
		return fmt.Errorf("transaction %s is %s already", externalID, t.Status)
	}
	change(t)
	return s.store()
}

// Transactions returns copies of all transactions, in the order of their creation.
func (s *Server) Transactions() []Transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Transaction, len(s.transactions))
	for i, t := range s.transactions {
		all[i] = *t
	}
	return all
}

// Fail adds a fault; of several that match a request, the first one added is used.
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

// Calls returns the number of requests with a valid token by method and path, "POST /v1/transactions".
func (s *Server) Calls(methodAndPath string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[methodAndPath]
}

// Denied returns the reasons of the requests that were answered 401 for their token.
func (s *Server) Denied() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.denied)
}

func (t *Transaction) final() bool {
	switch t.Status {
	case "COMPLETED", "FAILED", "REJECTED", "CANCELLED", "BLOCKED", "TIMEOUT":
		return true
	}
	return false
}

// advance moves a transaction on when it is read.
func (s *Server) advance(t *Transaction) error {
	switch {
	case t.Unsigned > 0:
		t.Unsigned--
		return s.store()
	case t.final():
		return nil
	case !t.Approved:
		if t.Status == "SUBMITTED" {
			t.Status = "PENDING_AUTHORIZATION"
			return s.store()
		}
		return nil
	case t.Reads < s.config.Reads:
		t.Reads++
		t.Status = "PENDING_SIGNATURE"
		return s.store()
	}
	w := s.wallet(t.Account, t.Asset)
	if w == nil {
		t.Status, t.SubStatus = "FAILED", "SIGNING_ERROR"
		return s.store()
	}
	sig, err := crypto.Sign(hashOf(t.Message), w.key)
	if err != nil {
		return err
	}
	t.Signature, t.Status, t.Unsigned = sig, "COMPLETED", s.config.Unsigned
	return s.store()
}

func (s *Server) wallet(account, asset string) *wallet {
	for i := range s.wallets {
		if s.wallets[i].account == account && s.wallets[i].asset == asset {
			return &s.wallets[i]
		}
	}
	return nil
}

// hashOf is EIP-191's, written out apart from the client's.
func hashOf(message []byte) []byte {
	return crypto.Keccak256(fmt.Appendf(nil, "\x19Ethereum Signed Message:\n%d%s", len(message), message))
}

// shown is a transaction as Fireblocks answers it.
func (s *Server) shown(t *Transaction) map[string]any {
	out := map[string]any{
		"id": t.ID, "externalTxId": t.ExternalID, "status": t.Status, "subStatus": t.SubStatus,
		"operation": "TYPED_MESSAGE", "assetId": t.Asset, "note": t.Note, "createdAt": t.CreatedAt.UnixMilli(),
		"createdBy": s.config.APIKey, "amount": nil, "netAmount": -1, "txHash": "", "signedBy": []string{},
		"source": map[string]string{"id": t.Account, "type": "VAULT_ACCOUNT", "name": "customer " + t.Account, "subType": ""},
		"extraParameters": map[string]any{"rawMessageData": map[string]any{"messages": []any{
			map[string]any{"type": "EIP191", "index": 0, "content": hex.EncodeToString(t.Message)},
		}}},
		"signedMessages": []any{},
	}
	if t.Status != "COMPLETED" || t.Unsigned > 0 {
		return out
	}
	r, sv := hex.EncodeToString(t.Signature[:32]), hex.EncodeToString(t.Signature[32:64])
	signed := map[string]any{
		"derivationPath": []int{44, 60, 0, 0, 0}, "algorithm": "MPC_ECDSA_SECP256K1",
		"content":   hex.EncodeToString(hashOf(t.Message)),
		"signature": map[string]any{"r": r, "s": sv, "v": t.Signature[64], "fullSig": r + sv},
	}
	if w := s.wallet(t.Account, t.Asset); w != nil {
		signed["publicKey"] = hex.EncodeToString(crypto.CompressPubkey(&w.key.PublicKey))
	}
	out["signedMessages"] = []any{signed}
	return out
}

func (f *Fault) fits(r *http.Request) bool {
	return f.Times != 0 && (f.Method == "" || f.Method == r.Method) && strings.HasPrefix(r.URL.Path, f.Path)
}
