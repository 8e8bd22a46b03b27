package fireblockstest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/crypto"
)

// Codes in addition to the HTTP status. 1438 and 1004 are Fireblocks' own; the others are arbitrary.
const (
	codeRepeatedID   = 1438
	codeNoAccount    = 1004
	codeNotFound     = 1404
	codeInvalid      = 1427
	codeCannotCancel = 1408
)

// failure is an answer other than success.
type failure struct {
	status, code int
	message      string
}

func fail(status, code int, format string, a ...any) *failure {
	return &failure{status, code, fmt.Sprintf(format, a...)}
}

// route registers a handler that runs after the token's check and the faults, under the lock.
func (s *Server) route(pattern string, handle func(r *http.Request, body []byte) (any, *failure)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			return // the client has left
		}
		answer, failed, fault := s.answer(r, body, handle)
		if fault != nil {
			fault.write(w)
			return
		}
		if failed != nil {
			writeJSON(w, failed.status, map[string]any{"message": failed.message, "code": failed.code})
			return
		}
		writeJSON(w, http.StatusOK, answer)
	})
}

func (s *Server) answer(
	r *http.Request, body []byte, handle func(*http.Request, []byte) (any, *failure),
) (answer any, failed *failure, fault *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed := s.authenticate(r, body); failed != nil {
		return nil, failed, nil
	}
	s.calls[r.Method+" "+r.URL.Path]++
	for i := range s.faults {
		if f := &s.faults[i]; f.fits(r) {
			f.Times--
			if f.Acted {
				_, _ = handle(r, body) // the answer is lost
			}
			taken := *f
			return nil, nil, &taken
		}
	}
	answer, failed = handle(r, body)
	return answer, failed, nil
}

func (f *Fault) write(w http.ResponseWriter) {
	if f.Drop {
		panic(http.ErrAbortHandler) // net/http's way to cut a connection
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	if f.Location != "" {
		w.Header().Set("Location", f.Location)
	}
	if f.Body != "" {
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body) //nolint:gosec // the words of the test, which has no browser
		return
	}
	writeJSON(w, f.Status, map[string]any{"message": f.Message, "code": f.Code})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Request-ID", "req-1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may have left
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

type creation struct {
	Operation string `json:"operation"`
	AssetID   string `json:"assetId"`
	Source    struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	} `json:"source"`
	Note            string `json:"note"`
	ExternalTxID    string `json:"externalTxId"`
	ExtraParameters struct {
		RawMessageData struct {
			Messages []struct {
				Content string `json:"content"`
				Type    string `json:"type"`
			} `json:"messages"`
		} `json:"rawMessageData"`
	} `json:"extraParameters"`
}

func (s *Server) create(r *http.Request, body []byte) (any, *failure) {
	var c creation
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields() // although Fireblocks ignores them
	if err := d.Decode(&c); err != nil || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return nil, fail(http.StatusBadRequest, codeInvalid, "the body is not a transaction in JSON: %v", err)
	}
	if c.ExternalTxID == "" || len(c.ExternalTxID) > 255 {
		return nil, fail(http.StatusBadRequest, codeInvalid, "externalTxId is missing or too long")
	}
	if t := s.byExternalID[c.ExternalTxID]; t != nil {
		t.Posts++
		return nil, fail(http.StatusBadRequest, codeRepeatedID,
			"The external tx id that was provided in the request, already exists")
	}
	messages := c.ExtraParameters.RawMessageData.Messages
	switch {
	case c.Operation != "TYPED_MESSAGE" || c.Source.Type != "VAULT_ACCOUNT":
		return nil, fail(http.StatusBadRequest, codeInvalid, "operation %q from %q", c.Operation, c.Source.Type)
	case len(messages) != 1 || messages[0].Type != "EIP191":
		return nil, fail(http.StatusBadRequest, codeInvalid, "want one message of the type EIP191")
	}
	message, err := hex.DecodeString(messages[0].Content)
	if err != nil {
		return nil, fail(http.StatusBadRequest, codeInvalid, "the content is not hexadecimal")
	}
	w := s.wallet(c.Source.ID, c.AssetID)
	if w == nil {
		return nil, fail(http.StatusNotFound, codeNoAccount,
			"Vault account %s with %s was not found", c.Source.ID, c.AssetID)
	}
	n := len(s.transactions) + 1
	t := &Transaction{
		ID: fmt.Sprintf("%08x-0000-4000-8000-%012x", n, n), ExternalID: c.ExternalTxID, Account: w.account, Asset: w.asset,
		Address: crypto.PubkeyToAddress(w.key.PublicKey), Message: message, Note: c.Note, Status: "SUBMITTED",
		Approved: s.config.AutoApprove, CreatedAt: s.config.Now(), Posts: 1,
	}
	s.transactions = append(s.transactions, t)
	s.byExternalID[t.ExternalID] = t
	if err := s.store(); err != nil {
		return nil, fail(http.StatusInternalServerError, codeInvalid, "%v", err)
	}
	return map[string]string{"id": t.ID, "status": t.Status}, nil
}

func (s *Server) readByExternalID(r *http.Request, _ []byte) (any, *failure) {
	return s.read(s.byExternalID[r.PathValue("id")])
}

func (s *Server) readByID(r *http.Request, _ []byte) (any, *failure) {
	return s.read(s.byID(r.PathValue("id")))
}

func (s *Server) byID(id string) *Transaction {
	for _, t := range s.transactions {
		if t.ID == id {
			return t
		}
	}
	return nil
}

func (s *Server) read(t *Transaction) (any, *failure) {
	if t == nil {
		return nil, fail(http.StatusNotFound, codeNotFound, "The transaction was not found")
	}
	if err := s.advance(t); err != nil {
		return nil, fail(http.StatusInternalServerError, codeInvalid, "%v", err)
	}
	return s.shown(t), nil
}

func (s *Server) cancel(r *http.Request, _ []byte) (any, *failure) {
	t := s.byID(r.PathValue("id"))
	if t == nil {
		return nil, fail(http.StatusNotFound, codeNotFound, "The transaction was not found")
	}
	t.CancelSent = true
	if t.final() {
		return nil, fail(http.StatusBadRequest, codeCannotCancel, "The transaction is %s and cannot be cancelled", t.Status)
	}
	t.Status, t.SubStatus, t.Approved = "CANCELLED", "CANCELLED_BY_USER_REQUEST", false
	if err := s.store(); err != nil {
		return nil, fail(http.StatusInternalServerError, codeInvalid, "%v", err)
	}
	return map[string]bool{"success": true}, nil
}

func (s *Server) accounts(r *http.Request, _ []byte) (any, *failure) {
	asset := r.URL.Query().Get("assetId")
	var names []string
	for _, w := range s.wallets {
		if (asset == "" || w.asset == asset) && !slices.Contains(names, w.account) {
			names = append(names, w.account)
		}
	}
	names, after, failed := s.page(r, names, 500)
	if failed != nil {
		return nil, failed
	}
	accounts := []any{}
	for _, name := range names {
		accounts = append(accounts, map[string]any{"id": name, "name": "customer " + name, "assets": []any{}})
	}
	return map[string]any{"accounts": accounts, "paging": after}, nil
}

func (s *Server) addresses(r *http.Request, _ []byte) (any, *failure) {
	account, asset := r.PathValue("account"), r.PathValue("asset")
	var found []string
	for _, w := range s.wallets {
		if w.account == account && w.asset == asset {
			found = append(found, crypto.PubkeyToAddress(w.key.PublicKey).Hex())
		}
	}
	if found == nil {
		return nil, fail(http.StatusNotFound, codeNoAccount, "Vault account %s with %s was not found", account, asset)
	}
	found, after, failed := s.page(r, found, 1000)
	if failed != nil {
		return nil, failed
	}
	addresses := []any{}
	for i, address := range found {
		addresses = append(addresses, map[string]any{"assetId": asset, "address": address, "bip44AddressIndex": i, "tag": ""})
	}
	return map[string]any{"addresses": addresses, "paging": after}, nil
}

// page returns a page of all, and an opaque cursor for the next one.
func (s *Server) page(r *http.Request, all []string, most int) ([]string, map[string]string, *failure) {
	query := r.URL.Query()
	size := most
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > most {
			return nil, nil, fail(http.StatusBadRequest, codeInvalid, "limit %s, want 1 to %d", text, most)
		}
		size = n
	}
	if s.config.PageSize > 0 {
		size = min(size, s.config.PageSize)
	}
	from := 0
	if text := query.Get("after"); text != "" {
		number, ok := strings.CutPrefix(text, "page at ")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 0 || n > len(all) {
			return nil, nil, fail(http.StatusBadRequest, codeInvalid, "after %q is none of ours", text)
		}
		from = n
	}
	to := min(from+size, len(all))
	if to == len(all) {
		return all[from:to], map[string]string{}, nil
	}
	return all[from:to], map[string]string{"after": "page at " + strconv.Itoa(to)}, nil
}
