package fireblockstest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/purser-onboard/purser/signer/signertest"
)

var clock = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

type stand struct {
	*Server
	key *rsa.PrivateKey
	n   int
}

func setUp(t *testing.T) *stand {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(Config{APIKey: "id-1", PublicKey: &key.PublicKey, Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	server.AddVault("7", "ETH", signertest.Key(0))
	return &stand{Server: server, key: key}
}

// claims are those of a good token.
func (s *stand) claims(target, body string) jwt.MapClaims {
	s.n++
	sum := sha256.Sum256([]byte(body))
	return jwt.MapClaims{
		"uri": target, "nonce": fmt.Sprint("nonce ", s.n), "iat": clock.Unix(), "exp": clock.Unix() + 29, "sub": "id-1",
		"bodyHash": hex.EncodeToString(sum[:]),
	}
}

// send sends a request whose token has claims; a nil key is the right one.
func (s *stand) send(t *testing.T, method, target, body string, c jwt.MapClaims, key any) (int, string) {
	t.Helper()
	signing, with := jwt.SigningMethod(jwt.SigningMethodRS256), any(s.key)
	if key != nil {
		with = key
	}
	if _, secret := with.([]byte); secret {
		signing = jwt.SigningMethodHS256
	}
	token, err := jwt.NewWithClaims(signing, c).SignedString(with)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("X-API-Key", "id-1")
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func (s *stand) post(t *testing.T, body string) (int, string) {
	t.Helper()
	return s.send(t, "POST", "/v1/transactions", body, s.claims("/v1/transactions", body), nil)
}

const good = `{"operation":"TYPED_MESSAGE","assetId":"ETH","source":{"type":"VAULT_ACCOUNT","id":"7"},"note":"",` +
	`"externalTxId":"row-1","extraParameters":{"rawMessageData":{"messages":[{"content":"68656c6c6f","type":"EIP191"}]}}}`

func TestTokens(t *testing.T) {
	s := setUp(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	const target = "/v1/vault/accounts_paged?limit=1"
	if status, answer := s.send(t, "GET", target, "", s.claims(target, ""), nil); status != 200 {
		t.Fatalf("first use of the token: got %d %s, want 200", status, answer)
	}
	used := s.claims(target, "")
	if status, answer := s.send(t, "GET", target, "", used, nil); status != 200 {
		t.Fatalf("second token: got %d %s, want 200", status, answer)
	}
	for name, c := range map[string]struct {
		change map[string]any // nil takes the claim away
		key    any
		code   int
	}{
		"another key":            {nil, other, -1},
		"a secret":               {nil, []byte("public key"), -5},
		"no subject":             {map[string]any{"sub": nil}, nil, -2},
		"another subject":        {map[string]any{"sub": "id-2"}, nil, -6},
		"no query in the uri":    {map[string]any{"uri": "/v1/vault/accounts_paged"}, nil, -4},
		"no /v1 in the uri":      {map[string]any{"uri": "/vault/accounts_paged?limit=1"}, nil, -4},
		"the whole URL":          {map[string]any{"uri": "https://api.fireblocks.io" + target}, nil, -4},
		"another body":           {map[string]any{"bodyHash": strings.Repeat("0", 64)}, nil, -7},
		"no hash of the body":    {map[string]any{"bodyHash": nil}, nil, -7},
		"no iat":                 {map[string]any{"iat": nil}, nil, -7},
		"no exp":                 {map[string]any{"exp": nil}, nil, -7},
		"exp at iat+30":          {map[string]any{"exp": clock.Unix() + 30}, nil, -7},
		"exp before iat":         {map[string]any{"exp": clock.Unix() - 1}, nil, -7},
		"expired":                {map[string]any{"iat": clock.Unix() - 29, "exp": clock.Unix()}, nil, -10},
		"of the future":          {map[string]any{"iat": clock.Unix() + 6}, nil, -12},
		"no nonce":               {map[string]any{"nonce": nil}, nil, -7},
		"a nonce that was there": {map[string]any{"nonce": used["nonce"]}, nil, -7},
	} {
		t.Run(name, func(t *testing.T) {
			claims := s.claims(target, "")
			for claim, value := range c.change {
				claims[claim] = value
				if value == nil {
					delete(claims, claim)
				}
			}
			status, answer := s.send(t, "GET", target, "", maps.Clone(claims), c.key)
			if status != 401 || !strings.Contains(answer, fmt.Sprintf(`"code":%d,`, c.code)) {
				t.Errorf("%d %s, want 401 with code %d", status, answer, c.code)
			}
		})
	}
	if n := len(s.Denied()); n != 17 {
		t.Errorf("%d were turned away, want 17", n)
	}
	r := httptest.NewRequest(http.MethodGet, target, nil)
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != 401 {
		t.Errorf("without a token: got %d, want 401", w.Code)
	}
}

func TestCreate(t *testing.T) {
	s := setUp(t)
	if status, answer := s.post(t, good); status != 200 || !strings.Contains(answer, `"status":"SUBMITTED"`) {
		t.Fatalf("create: got %d %s, want 200 and SUBMITTED", status, answer)
	}
	for range 2 { // for ever, whatever else is in it
		status, answer := s.post(t, strings.Replace(good, "68656c6c6f", "00", 1))
		if status != 400 || !strings.Contains(answer, "1438") {
			t.Errorf("the same id again: got %d %s, want 400 and code 1438", status, answer)
		}
	}
	for name, change := range map[string][2]string{
		"no id":         {`"row-2"`, `""`},
		"operation":     {"TYPED_MESSAGE", "RAW"},
		"source":        {"VAULT_ACCOUNT", "EXCHANGE_ACCOUNT"},
		"type":          {"EIP191", "EIP712"},
		"content":       {"68656c6c6f", "hello"},
		"vault account": {`"7"`, `"8"`},
		"asset":         {`"ETH"`, `"BTC"`},
		"unknown":       {`"note"`, `"memo"`},
	} {
		body := strings.Replace(strings.Replace(good, "row-1", "row-2", 1), change[0], change[1], 1)
		if status, answer := s.post(t, body); status < 400 || status > 404 {
			t.Errorf("%s: got %d %s, want 400 to 404", name, status, answer)
		}
	}
	if all := s.Transactions(); len(all) != 1 || all[0].Posts != 3 {
		t.Errorf("got transactions %+v, want one that was posted 3 times", all)
	}
}

func TestDecisions(t *testing.T) {
	s := setUp(t)
	if status, answer := s.post(t, good); status != 200 {
		t.Fatalf("create: got %d %s, want 200", status, answer)
	}
	if err := s.Approve("row-1"); err != nil {
		t.Errorf("approve: got error %v, want none", err)
	}
	target := "/v1/transactions/external_tx_id/row-1"
	if status, answer := s.send(t, "GET", target, "", s.claims(target, ""), nil); status != 200 ||
		!strings.Contains(answer, `"status":"COMPLETED"`) {
		t.Errorf("read: got %d %s, want 200 and COMPLETED", status, answer)
	}
	if err := s.Reject("row-1"); err == nil || !strings.Contains(err.Error(), "COMPLETED already") {
		t.Errorf("reject when completed: got error %v, want COMPLETED already", err)
	}
	if err := s.Approve("row-9"); err == nil || !strings.Contains(err.Error(), "no transaction") {
		t.Errorf("approve of an unknown id: got error %v, want no transaction", err)
	}
	s.Fail(Fault{Method: "POST", Status: 503, Times: 1})
	for _, want := range []int{503, 200} {
		if status, answer := s.post(t, strings.Replace(good, "row-1", "row-2", 1)); status != want {
			t.Errorf("create with one fault: got %d %s, want %d", status, answer, want)
		}
	}
	if err := s.SetStatus("row-2", "BLOCKED", "BLOCKED_BY_POLICY"); err != nil {
		t.Errorf("set status: got error %v, want none", err)
	}
	if denied := s.Denied(); len(denied) > 0 {
		t.Errorf("denied: got %q, want none", denied)
	}
}
