package fireblocks

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// The completed transaction that Fireblocks' guide "Typed Message Signing" shows, with what matters here.
const documented = `{
	"id": "<your_transaction_id>", "assetId": "ETH", "status": "COMPLETED", "subStatus": "", "operation": "TYPED_MESSAGE",
	"signedMessages": [{
		"derivationPath": [44, 60, 0, 0, 0], "algorithm": "MPC_ECDSA_SECP256K1",
		"publicKey": "03af66c4551559d54bfbfd14c84870a337b06bf2738ed6427480ec56ee551c7458",
		"signature": {
			"r": "c8ab06c7c3447ac8f594a643d5942ceb2451b9434bb29c4b1a40da5cf3240300",
			"s": "2bfba73d825b240f2e2949df139c2f3e26e6cdd36579eb1a0cbd4abc4e6e348a",
			"v": 0,
			"fullSig": "c8ab06c7c3447ac8f594a643d5942ceb2451b9434bb29c4b1a40da5cf32403002bfba73d825b240f2e2949df139c2f3e26e6cdd36579eb1a0cbd4abc4e6e348a"
		},
		"content": "90089ed244695164981f5f54e78bea15387a2bdda0dca6a81e1fe79cd30075db"
	}],
	"extraParameters": {"rawMessageData": {"messages": [
		{"type": "ETH_MESSAGE", "index": 0, "content": "494e53455254205445585420484552452121"}
	]}}
}`

var (
	documentedMessage = []byte("INSERT TEXT HERE!!")
	account           = signertest.Address(signertest.Key(0))
)

func documentedTransaction(t testing.TB) *transaction {
	t.Helper()
	var tx transaction
	if err := json.Unmarshal([]byte(documented), &tx); err != nil {
		t.Fatal(err)
	}
	return &tx
}

// The content is the hash that we would have had signed. The signature is only of the right form: as printed, it does
// not verify with its public key.
func TestDocumentedTransaction(t *testing.T) {
	tx := documentedTransaction(t)
	if err := tx.belongs("row-1", account, documentedMessage); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	if hash := signer.MessageHash(documentedMessage); !isHexOf(tx.SignedMessages[0].Content, hash[:]) {
		t.Errorf("got hash %v, want the documented one, %s", hash, tx.SignedMessages[0].Content)
	}
	sig, err := tx.signature(account, documentedMessage)
	if err != nil || hex.EncodeToString(sig[:]) != tx.SignedMessages[0].Signature.FullSig+"00" {
		t.Errorf("signature = %x, %v; want the documented fullSig and v of 0", sig, err)
	}
}

func TestTransactionOfAnother(t *testing.T) {
	for name, change := range map[string]func(*transaction){
		"another id":        func(tx *transaction) { tx.ExternalTxID = "row-2" },
		"another operation": func(tx *transaction) { tx.Operation = "TRANSFER" },
		"another message":   func(tx *transaction) { tx.ExtraParameters = parametersOf("00") },
		"two messages":      func(tx *transaction) { tx.ExtraParameters = parametersOf("494e53455254205445585420484552452121", "00") },
	} {
		t.Run(name, func(t *testing.T) {
			tx := documentedTransaction(t)
			change(tx)
			want(t, tx.belongs("row-1", account, documentedMessage), signer.ErrMismatch)
		})
	}
	tx := documentedTransaction(t)
	tx.ExtraParameters = nil
	if err := tx.belongs("row-1", account, documentedMessage); err != nil {
		t.Errorf("what is not shown is held against it: got error %v, want none", err)
	}
}

func parametersOf(contents ...string) json.RawMessage {
	var p parameters
	for _, content := range contents {
		p.RawMessageData.Messages = append(p.RawMessageData.Messages, rawMessage{content, messageType})
	}
	text, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return text
}

func TestBadSignatures(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*transaction)
		want   string
	}{
		"none":              {func(tx *transaction) { tx.SignedMessages = nil }, "has 0 signatures"},
		"two":               {func(tx *transaction) { tx.SignedMessages = append(tx.SignedMessages, tx.SignedMessages...) }, "has 2"},
		"of something else": {func(tx *transaction) { tx.SignedMessages[0].Content = strings.Repeat("00", 32) }, "does not sign the message"},
		"short r":           {func(tx *transaction) { tx.SignedMessages[0].Signature.R = "c8ab" }, "64 hex digits"},
		"s is no hex":       {func(tx *transaction) { tx.SignedMessages[0].Signature.S = strings.Repeat("xy", 32) }, "64 hex digits"},
		"another fullSig":   {func(tx *transaction) { tx.SignedMessages[0].Signature.FullSig = strings.Repeat("00", 64) }, "fullSig"},
	} {
		t.Run(name, func(t *testing.T) {
			tx := documentedTransaction(t)
			c.change(tx)
			sig, err := tx.signature(account, documentedMessage)
			if !errors.Is(err, signer.ErrMismatch) || !strings.Contains(err.Error(), c.want) || sig != (signer.Signature{}) {
				t.Errorf("%x, %v; want ErrMismatch with %q", sig, err, c.want)
			}
		})
	}
	for name, change := range map[string]func(*transaction){
		"0x":          func(tx *transaction) { tx.SignedMessages[0].Signature.R = "0x" + tx.SignedMessages[0].Signature.R },
		"the message": func(tx *transaction) { tx.SignedMessages[0].Content = "494E53455254205445585420484552452121" },
		"no content":  func(tx *transaction) { tx.SignedMessages[0].Content = "" },
		"no fullSig":  func(tx *transaction) { tx.SignedMessages[0].Signature.FullSig = "" },
		"EIP-155's v": func(tx *transaction) { tx.SignedMessages[0].Signature.V = 37 },
	} {
		tx := documentedTransaction(t)
		change(tx)
		sig, err := tx.signature(account, documentedMessage)
		if err != nil || sig[0] != 0xc8 || sig[63] != 0x8a {
			t.Errorf("with %s: signature = %x, %v; want the documented r and s", name, sig, err)
		}
	}
}

// What is made of any answer is a signature or an error, and no error holds more than a line.
func FuzzTransaction(f *testing.F) {
	f.Add([]byte(documented))
	f.Add([]byte(`{"id":"1","status":"COMPLETED","signedMessages":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var tx transaction
		if json.Unmarshal(text, &tx) != nil {
			return
		}
		err := tx.belongs("row-1", account, documentedMessage)
		if err == nil {
			_, err = tx.signature(account, documentedMessage)
		}
		if err != nil && (strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 1000) {
			t.Errorf("got error %q, want one line of at most 1000 bytes", err)
		}
	})
}
