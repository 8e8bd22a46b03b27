package fireblocks

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

const (
	operation   = "TYPED_MESSAGE"
	messageType = "EIP191"
	// mostID is the longest id that signer.Custodian allows.
	mostID = 64
	// unknownV replaces a v that is neither 0 nor 1; signer.Verified finds the right v.
	unknownV = 0xff
)

// creation is the body of POST /v1/transactions.
type creation struct {
	Operation       string     `json:"operation"`
	AssetID         string     `json:"assetId"`
	Source          source     `json:"source"`
	Note            string     `json:"note"` // shown to the person who approves
	ExternalTxID    string     `json:"externalTxId"`
	ExtraParameters parameters `json:"extraParameters"`
}

type source struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

type parameters struct {
	RawMessageData struct {
		Messages []rawMessage `json:"messages"`
	} `json:"rawMessageData"`
}

type rawMessage struct {
	Content string `json:"content"` // hex of the message, without EIP-191's prefix, which Fireblocks adds
	Type    string `json:"type"`
}

// transaction is the part of a transaction that we read.
type transaction struct {
	ID              string          `json:"id"`
	ExternalTxID    string          `json:"externalTxId"`
	Status          string          `json:"status"`
	SubStatus       string          `json:"subStatus"`
	Operation       string          `json:"operation"`
	SignedMessages  []signedMessage `json:"signedMessages"`
	ExtraParameters json.RawMessage `json:"extraParameters"`
}

type signedMessage struct {
	Content   string `json:"content"` // hex of the signed hash (EIP-191)
	Signature struct {
		R       string `json:"r"`
		S       string `json:"s"`
		V       int    `json:"v"`
		FullSig string `json:"fullSig"`
	} `json:"signature"`
}

// ended reports whether the status is final without a signature. COMPLETED is final with one; unknown statuses count as
// pending.
func (t *transaction) ended() bool {
	switch t.Status {
	case "FAILED", "REJECTED", "CANCELLED", "BLOCKED", "TIMEOUT":
		return true
	}
	return false
}

// signed reports whether the transaction has a signature; it may lack one for a moment after completion.
func (t *transaction) signed() bool {
	return slices.ContainsFunc(t.SignedMessages, func(m signedMessage) bool {
		return m.Signature.R != "" || m.Signature.S != "" || m.Signature.FullSig != ""
	})
}

func (t *transaction) state() string {
	s := printable.Line(t.Status, mostWords)
	if t.SubStatus != "" {
		s += ", " + printable.Line(t.SubStatus, mostWords)
	}
	return fmt.Sprintf("Fireblocks transaction %s is %s", printable.Line(t.ID, mostWords), s)
}

// Request implements signer.Custodian.
func (v *Vault) Request(ctx context.Context, externalID string, account common.Address, message []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !only(externalID, "-") || len(externalID) > mostID {
		return fmt.Errorf("%w: the external id is not 1 to %d letters, digits and -", signer.ErrDeclined, mostID)
	}
	at, err := v.locate(ctx, account)
	if err != nil {
		return err
	}
	body := creation{
		Operation: operation, AssetID: at.asset, Source: source{Type: "VAULT_ACCOUNT", ID: at.account},
		Note: "Sign-in of " + account.Hex() + ", asked for by Purser", ExternalTxID: externalID,
	}
	body.ExtraParameters.RawMessageData.Messages = []rawMessage{{hex.EncodeToString(message), messageType}}
	var made struct {
		ID string `json:"id"`
	}
	err = v.call(ctx, http.MethodPost, "/v1/transactions", body, &made)
	if err == nil && made.ID != "" {
		return nil
	}
	if err == nil {
		err = errors.New("fireblocks POST /v1/transactions: the response names no transaction")
	}
	var e *Error
	answered := errors.As(err, &e)
	if ctx.Err() != nil || errors.Is(err, signer.ErrUnusable) {
		return err
	}
	if answered && e.Status == http.StatusTooManyRequests {
		return err
	}
	// Whatever the error: only reading the transaction shows whether it exists.
	found, lookErr := v.read(ctx, externalID)
	switch {
	case lookErr == nil:
		return found.belongs(externalID, account, message)
	case !errors.Is(lookErr, signer.ErrUnknownRequest):
		return fmt.Errorf("%w (and whether the request was accepted is not known: %w)", err, lookErr)
	case answered && e.Code == codeNoVaultAccount:
		return fmt.Errorf("%w: %v: %w", signer.ErrNoKey, account, err)
	case answered && e.final() && e.Code != codeRepeatedID:
		return fmt.Errorf("%w: %w", signer.ErrDeclined, err)
	}
	return err
}

// Poll implements signer.Custodian.
func (v *Vault) Poll(
	ctx context.Context, externalID string, account common.Address, message []byte,
) (signer.Signature, error) {
	if err := ctx.Err(); err != nil {
		return signer.Signature{}, err
	}
	t, err := v.read(ctx, externalID)
	if err != nil {
		return signer.Signature{}, err
	}
	if err := t.belongs(externalID, account, message); err != nil {
		return signer.Signature{}, err
	}
	switch {
	case t.ended():
		return signer.Signature{}, fmt.Errorf("%w: %s", signer.ErrDeclined, t.state())
	case t.Status != "COMPLETED":
		return signer.Signature{}, fmt.Errorf("%w: %s", signer.ErrPending, t.state())
	case !t.signed():
		return signer.Signature{}, fmt.Errorf("%w: %s, without a signature yet", signer.ErrPending, t.state())
	}
	return t.signature(account, message)
}

// Cancel implements signer.Custodian. For an id that Fireblocks does not know the error wraps ErrUnknownRequest.
// Fireblocks can cancel until something is signed.
func (v *Vault) Cancel(ctx context.Context, externalID string) error {
	t, err := v.read(ctx, externalID)
	if err != nil {
		return err
	}
	if t.ended() || t.Status == "COMPLETED" || t.Status == "CANCELLING" {
		return nil
	}
	var done struct {
		Success bool `json:"success"`
	}
	err = v.call(ctx, http.MethodPost, "/v1/transactions/"+url.PathEscape(t.ID)+"/cancel", nil, &done)
	if err == nil && done.Success {
		return nil
	}
	// It may have been decided between the two requests.
	if now, readErr := v.read(ctx, externalID); readErr == nil && (now.ended() || now.Status == "COMPLETED") {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("fireblocks does not cancel: %s", t.state())
	}
	return err
}

// read reads the transaction of our id. ErrUnknownRequest: Fireblocks, and not a proxy, answers that there is none.
func (v *Vault) read(ctx context.Context, externalID string) (*transaction, error) {
	var t transaction
	err := v.call(ctx, http.MethodGet, "/v1/transactions/external_tx_id/"+url.PathEscape(externalID), nil, &t)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusNotFound && e.own {
		return nil, fmt.Errorf("%w: %w", signer.ErrUnknownRequest, err)
	}
	if err != nil {
		return nil, err
	}
	if t.ID == "" || t.Status == "" {
		return nil, fmt.Errorf("fireblocks returned a transaction without id or status for %s", externalID)
	}
	return &t, nil
}

// belongs verifies that the transaction is for our message, because another program may have used the id. What
// Fireblocks leaves out is not checked; the signature is verified in the end.
func (t *transaction) belongs(externalID string, account common.Address, message []byte) error {
	problem := ""
	switch {
	case t.ExternalTxID != "" && t.ExternalTxID != externalID:
		problem = "has another external id"
	case t.Operation != "" && t.Operation != operation:
		problem = "is of the operation " + printable.Line(t.Operation, mostWords)
	default:
		var p parameters
		if len(t.ExtraParameters) == 0 || json.Unmarshal(t.ExtraParameters, &p) != nil || p.RawMessageData.Messages == nil {
			return nil
		}
		if m := p.RawMessageData.Messages; len(m) != 1 || !isHexOf(m[0].Content, message) {
			problem = "is for another message"
		}
	}
	if problem == "" {
		return nil
	}
	return fmt.Errorf("%w: %v: Fireblocks transaction %s %s", signer.ErrMismatch, account,
		printable.Line(t.ID, mostWords), problem)
}

func isHexOf(text string, b []byte) bool {
	return strings.EqualFold(strings.TrimPrefix(text, "0x"), hex.EncodeToString(b))
}

// signature returns the signature of a completed transaction. signer.Verified checks whose it is.
func (t *transaction) signature(account common.Address, message []byte) (sig signer.Signature, err error) {
	fail := func(format string, a ...any) (signer.Signature, error) {
		return signer.Signature{}, fmt.Errorf("%w: %v: Fireblocks transaction %s %s",
			signer.ErrMismatch, account, printable.Line(t.ID, mostWords), fmt.Sprintf(format, a...))
	}
	if len(t.SignedMessages) != 1 {
		return fail("has %d signatures, want 1", len(t.SignedMessages))
	}
	signed := t.SignedMessages[0]
	hash := signer.MessageHash(message)
	if signed.Content != "" && !isHexOf(signed.Content, hash[:]) && !isHexOf(signed.Content, message) {
		return fail("does not sign the message")
	}
	r, rErr := hex.DecodeString(strings.TrimPrefix(signed.Signature.R, "0x"))
	s, sErr := hex.DecodeString(strings.TrimPrefix(signed.Signature.S, "0x"))
	if rErr != nil || sErr != nil || len(r) != 32 || len(s) != 32 {
		return fail("has an r or s that is not 64 hex digits")
	}
	if full := strings.TrimPrefix(signed.Signature.FullSig, "0x"); full != "" &&
		!strings.HasPrefix(strings.ToLower(full), hex.EncodeToString(r)+hex.EncodeToString(s)) {
		return fail("has a fullSig that is not its r and s")
	}
	copy(sig[:32], r)
	copy(sig[32:64], s)
	sig[64] = unknownV
	if v := signed.Signature.V; v == 0 || v == 1 {
		sig[64] = byte(v)
	}
	return sig, nil
}

var _ signer.Custodian = (*Vault)(nil)
