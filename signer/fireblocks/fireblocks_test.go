package fireblocks

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/internal/fireblockstest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

const apiKey = "7a1c4f3e-9d52-4a8b-b1a0-5f6c7d8e9f00"

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func writeFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keyFile(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(rsaKey())
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// stand is a server, and what is needed to open backends for it. Both have the same clock.
type stand struct {
	insecure bool
	*fireblockstest.Server
	url   string
	uri   string
	clock func() time.Time
	key   *ecdsa.PrivateKey // of vault account 1
}

func newServer(t testing.TB, config fireblockstest.Config) *fireblockstest.Server {
	t.Helper()
	config.APIKey, config.PublicKey = apiKey, &rsaKey().PublicKey
	if config.Now == nil {
		config.Now = time.Now
	}
	server, err := fireblockstest.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// setUp has keys in vault accounts 1, 2, …, and a vault map that says so.
func setUp(t testing.TB, config fireblockstest.Config, keys ...*ecdsa.PrivateKey) *stand {
	t.Helper()
	s := &stand{Server: newServer(t, config), clock: time.Now, key: signertest.Key(0)}
	if keys == nil {
		keys = []*ecdsa.PrivateKey{s.key}
	}
	text := "address,vaultAccountId\n"
	for i, key := range keys {
		account := fmt.Sprint(i + 1)
		s.AddVault(account, "ETH", key)
		text += signertest.Address(key).Hex() + "," + account + "\n"
	}
	host := httptest.NewServer(s)
	t.Cleanup(host.Close)
	s.url = host.URL
	s.uri = "fireblocks://vault?api-key=" + apiKey + "&private-key-file=" + keyFile(t) + "&base-url=" + url.QueryEscape(s.url) +
		"&vault-map=" + writeFile(t, "vaults.csv", text)
	return s
}

func (s *stand) open(t testing.TB) *Vault {
	t.Helper()
	v, err := open(t.Context(), s.uri, signer.Environment{
		Now: func() time.Time { return s.clock() }, InsecurePermissions: s.insecure,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func (s *stand) account() common.Address { return signertest.Address(s.key) }

var hello = []byte("hello")

func custodian(v *Vault) signer.Custodian { return signer.Verified(v).(signer.Custodian) }

func want(t *testing.T, err, sentinel error) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Errorf("error %v, want %v", err, sentinel)
	}
}

func transient(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("no error")
	}
	for _, sentinel := range []error{
		signer.ErrNoKey, signer.ErrDeclined, signer.ErrMismatch, signer.ErrUnusable, signer.ErrPending, signer.ErrUnknownRequest,
	} {
		if errors.Is(err, sentinel) {
			t.Errorf("error %v, want a transient one", err)
		}
	}
}

func TestConformance(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		t.Helper()
		s := setUp(t, fireblockstest.Config{AutoApprove: true}, keys...)
		t.Cleanup(func() {
			if denied := s.Denied(); len(denied) > 0 {
				t.Errorf("tokens were refused: %v", denied)
			}
		})
		return s.open(t)
	})
}

// Without a vault map the same suite passes.
func TestConformanceBySearch(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		t.Helper()
		s := setUp(t, fireblockstest.Config{AutoApprove: true, PageSize: 3}, keys...)
		s.uri, _, _ = strings.Cut(s.uri, "&vault-map=")
		return s.open(t)
	})
}

func TestApproval(t *testing.T) {
	s := setUp(t, fireblockstest.Config{Reads: 2, Unsigned: 2})
	asks, polls := custodian(s.open(t)), custodian(s.open(t)) // as after a restart
	ctx, account := t.Context(), s.account()
	if err := asks.Request(ctx, "row-1", account, hello); err != nil {
		t.Fatal(err)
	}
	for range 3 { // asked again, by anybody, it is the same one
		if err := polls.Request(ctx, "row-1", account, hello); err != nil {
			t.Fatal(err)
		}
		_, err := polls.Poll(ctx, "row-1", account, hello)
		want(t, err, signer.ErrPending)
	}
	all := s.Transactions()
	if len(all) != 1 || all[0].Posts != 4 || all[0].Status != "PENDING_AUTHORIZATION" || string(all[0].Message) != "hello" ||
		all[0].Account != "1" || all[0].Note != "Sign-in of "+account.Hex()+", asked for by Purser" {
		t.Fatalf("transactions %+v", all)
	}
	if err := s.Approve("row-1"); err != nil {
		t.Fatal(err)
	}
	for i := range 4 { // twice on the way, twice completed without the signature
		_, err := polls.Poll(ctx, "row-1", account, hello)
		want(t, err, signer.ErrPending)
		if late := strings.Contains(err.Error(), "COMPLETED, without a signature yet"); late != (i >= 2) {
			t.Errorf("poll %d: got %v, want COMPLETED: %v", i+1, err, i >= 2)
		}
	}
	sig, err := polls.Poll(ctx, "row-1", account, hello)
	if err != nil || sig[64] < 27 {
		t.Fatalf("%x, %v", sig, err)
	}
	if again, err := asks.Poll(ctx, "row-1", account, hello); err != nil || again != sig {
		t.Errorf("another signature the second time: %x, %v", again, err)
	}
	if err := asks.Cancel(ctx, "row-1"); err != nil {
		t.Errorf("Cancel of what is decided: %v", err)
	}
}

func TestDecidedAgainst(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	c := custodian(s.open(t))
	ctx, account := t.Context(), s.account()
	for i, status := range []string{"REJECTED", "BLOCKED", "FAILED", "CANCELLED", "TIMEOUT"} {
		id := fmt.Sprintf("row-%d", i)
		if err := c.Request(ctx, id, account, hello); err != nil {
			t.Fatal(err)
		}
		if err := s.Settle(id, status, "BECAUSE"); err != nil {
			t.Fatal(err)
		}
		_, err := c.Poll(ctx, id, account, hello)
		if !errors.Is(err, signer.ErrDeclined) || !strings.Contains(err.Error(), status+", BECAUSE") {
			t.Errorf("%s: error %v", status, err)
		}
		if err := c.Request(ctx, id, account, hello); err != nil {
			t.Errorf("Request of what is decided: %v", err)
		}
		if err := c.Cancel(ctx, id); err != nil {
			t.Errorf("Cancel of what is decided: %v", err)
		}
	}
	// A status that was not there when this was written leads on.
	if err := c.Request(ctx, "row-9", account, hello); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle("row-9", "PENDING_SOMETHING_NEW", ""); err != nil {
		t.Fatal(err)
	}
	_, err := c.Poll(ctx, "row-9", account, hello)
	want(t, err, signer.ErrPending)
}

func TestCancel(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	c := custodian(s.open(t))
	ctx, account := t.Context(), s.account()
	want(t, c.Cancel(ctx, "row-1"), signer.ErrUnknownRequest)
	if err := c.Request(ctx, "row-1", account, hello); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Cancel(ctx, "row-1"); err != nil {
			t.Fatal(err)
		}
	}
	if all := s.Transactions(); all[0].Status != "CANCELLED" || !all[0].CancelSent {
		t.Errorf("%+v", all)
	}
	if n := s.Calls("POST /v1/transactions/" + s.Transactions()[0].ID + "/cancel"); n != 1 {
		t.Errorf("cancelled %d times", n)
	}
	_, err := c.Poll(ctx, "row-1", account, hello)
	want(t, err, signer.ErrDeclined)
	// Decided while it is cancelled: the answer to the first cancellation is lost.
	if err := c.Request(ctx, "row-2", account, hello); err != nil {
		t.Fatal(err)
	}
	s.Fail(fireblockstest.Fault{Method: "POST", Path: "/v1/transactions/", Acted: true, Status: 500})
	if err := c.Cancel(ctx, "row-2"); err != nil {
		t.Errorf("Cancel whose answer was lost: %v", err)
	}
	if err := c.Request(ctx, "row-3", account, hello); err != nil {
		t.Fatal(err)
	}
	s.Mend()
	s.Fail(fireblockstest.Fault{Method: "POST", Path: "/v1/transactions/", Status: 500})
	transient(t, c.Cancel(ctx, "row-3"))
}

func TestUnknownRequest(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	v := s.open(t)
	_, err := v.Poll(t.Context(), "row-1", s.account(), hello)
	want(t, err, signer.ErrUnknownRequest)
	// Not every 404 says so.
	s.Fail(fireblockstest.Fault{Status: 404, Body: "<html>no such page</html>"})
	_, err = v.Poll(t.Context(), "row-1", s.account(), hello)
	transient(t, err)
}

// Whatever happens to the answer, there is one transaction.
func TestOutcomeUnknown(t *testing.T) {
	const path = "/v1/transactions"
	for name, c := range map[string]struct {
		fault fireblockstest.Fault
		taken bool // and found to be, by the same call
	}{
		"cut after it was taken":    {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Drop: true}, true},
		"502 after it was taken":    {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Status: 502, Body: "Bad Gateway"}, true},
		"half an answer":            {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Status: 200, Body: `{"id":"0`}, true},
		"an answer of nothing":      {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Status: 200, Body: `{}`}, true},
		"refused after it was made": {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Status: 400, Code: 1, Message: "no"}, true},
		"cut before":                {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Drop: true}, false},
		"502 before":                {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Status: 502, Body: "Bad Gateway"}, false},
		"a repeated id of none":     {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Status: 400, Code: 1438, Message: "exists"}, false},
		"a proxy's 400":             {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Status: 400, Body: "<html>"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, fireblockstest.Config{AutoApprove: true})
			v := custodian(s.open(t))
			s.Fail(c.fault)
			err := v.Request(t.Context(), "row-1", s.account(), hello)
			if c.taken && err != nil {
				t.Errorf("error %v, want none: it was taken", err)
			}
			if !c.taken {
				transient(t, err)
				if err := v.Request(t.Context(), "row-1", s.account(), hello); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := v.Poll(t.Context(), "row-1", s.account(), hello); err != nil {
				t.Error(err)
			}
			if n := len(s.Transactions()); n != 1 {
				t.Errorf("%d transactions", n)
			}
		})
	}
	t.Run("and no way to ask", func(t *testing.T) {
		s := setUp(t, fireblockstest.Config{})
		s.Fail(fireblockstest.Fault{Status: 500})
		transient(t, s.open(t).Request(t.Context(), "row-1", s.account(), hello))
	})
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		fault fireblockstest.Fault
		want  error // nil: transient
	}{
		"400":                {fireblockstest.Fault{Status: 400, Code: 1427, Message: "no"}, signer.ErrDeclined},
		"401":                {fireblockstest.Fault{Status: 401, Code: -1, Message: "Invalid signature"}, signer.ErrUnusable},
		"403":                {fireblockstest.Fault{Status: 403, Body: "<html>Forbidden</html>"}, signer.ErrUnusable},
		"no vault account":   {fireblockstest.Fault{Status: 404, Code: 1004, Message: "Vault account 1 was not found"}, signer.ErrNoKey},
		"a page of a 404":    {fireblockstest.Fault{Status: 404, Body: "<html>"}, nil},
		"a redirect":         {fireblockstest.Fault{Status: 307, Location: "/elsewhere", Body: "gone"}, signer.ErrUnusable},
		"busy":               {fireblockstest.Fault{Status: 503, RetryAfter: "7", Body: "busy"}, nil},
		"a time-out of ours": {fireblockstest.Fault{Status: 408, Code: 3, Message: "slow"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, fireblockstest.Config{})
			c.fault.Method, c.fault.Path = "POST", "/v1/transactions"
			s.Fail(c.fault)
			err := s.open(t).Request(t.Context(), "row-1", s.account(), hello)
			if c.want == nil {
				transient(t, err)
			} else {
				want(t, err, c.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.Status != c.fault.Status || e.Code != c.fault.Code || e.Method != http.MethodPost {
				t.Errorf("error %#v", err)
			}
			if n := s.Calls("POST /elsewhere") + s.Calls("GET /elsewhere"); n != 0 {
				t.Error("the redirect was followed")
			}
		})
	}
}

func TestThrottled(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	v := s.open(t)
	for header, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "999999": 5 * time.Minute, "soon": 0} {
		s.Mend()
		s.Fail(fireblockstest.Fault{Status: 429, RetryAfter: header, Message: "slow down"})
		for _, err := range []error{
			v.Request(t.Context(), "row-1", s.account(), hello),
			func() error { _, err := v.Poll(t.Context(), "row-1", s.account(), hello); return err }(),
			v.Cancel(t.Context(), "row-1"),
		} {
			transient(t, err)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v", err)
			}
			if after, yes := e.Throttled(); !yes || after != want {
				t.Errorf("Retry-After %q: %v, %v", header, after, yes)
			}
		}
	}
	if n := s.Calls("GET /v1/transactions/external_tx_id/row-1"); n != 8 { // Poll and Cancel; none to look after a 429
		t.Errorf("%d reads, want 8", n)
	}
}

// An id that was used for something else does not count as ours.
func TestAnothersTransaction(t *testing.T) {
	s := setUp(t, fireblockstest.Config{AutoApprove: true})
	v := s.open(t)
	if err := v.Request(t.Context(), "row-1", s.account(), hello); err != nil {
		t.Fatal(err)
	}
	want(t, v.Request(t.Context(), "row-1", s.account(), []byte("another message")), signer.ErrMismatch)
	_, err := v.Poll(t.Context(), "row-1", s.account(), []byte("another message"))
	want(t, err, signer.ErrMismatch)
}

// A vault map with the wrong account is found before anything is believed.
func TestWrongVaultAccount(t *testing.T) {
	s := setUp(t, fireblockstest.Config{AutoApprove: true}, signertest.Key(0), signertest.Key(1))
	other := signertest.Address(signertest.Key(5))
	head, _, _ := strings.Cut(s.uri, "&vault-map=")
	s.uri = head + "&vault-map=" + writeFile(t, "wrong.csv", "address,vaultAccountId\n"+other.Hex()+",2\n")
	v := s.open(t)
	_, err := signer.Verified(v).SignMessage(t.Context(), other, hello)
	if !errors.Is(err, signer.ErrMismatch) || !strings.Contains(err.Error(), signertest.Address(signertest.Key(1)).Hex()) {
		t.Errorf("error %v, want ErrMismatch that names the signer", err)
	}
	if line, err := v.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "does not hold") {
		t.Errorf("Check = %q, %v", line, err)
	}
	s.uri = head + "&vault-map=" + writeFile(t, "missing.csv", "address,vaultAccountId\n"+other.Hex()+",77\n")
	if line, err := s.open(t).Check(t.Context()); !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "account 77") {
		t.Errorf("Check = %q, %v", line, err)
	}
	want(t, s.open(t).Request(t.Context(), "row-1", other, hello), signer.ErrNoKey)
}

func TestBadID(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	v := s.open(t)
	for _, id := range []string{"", "a/b", "a b", strings.Repeat("a", 65)} {
		want(t, v.Request(t.Context(), id, s.account(), hello), signer.ErrDeclined)
	}
	if n := len(s.Transactions()); n != 0 {
		t.Errorf("%d transactions", n)
	}
}

func TestCheck(t *testing.T) {
	s := setUp(t, fireblockstest.Config{}, signertest.Key(0), signertest.Key(1))
	v := s.open(t)
	line, err := v.Check(t.Context())
	if want := "Fireblocks " + s.url + ": 2 addresses in the vault map, the first one confirmed"; err != nil || line != want {
		t.Errorf("Check = %q, %v; want %q", line, err, want)
	}
	if err := os.Chmod(v.set.keyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = open(t.Context(), s.uri, signer.Environment{})
	want(t, err, signer.ErrUnusable)
	if !strings.Contains(fmt.Sprint(err), "chmod 600 '"+v.set.keyFile+"'") {
		t.Errorf("got %v, want the chmod", err)
	}
	s.insecure = true
	if line, err := s.open(t).Check(t.Context()); err != nil || !strings.Contains(line, "everybody on this machine can read") {
		t.Errorf("Check = %q, %v", line, err)
	}
	s.uri, _, _ = strings.Cut(s.uri, "&vault-map=")
	if line, err := s.open(t).Check(t.Context()); err != nil || !strings.Contains(line, "2 addresses found in its vault accounts") {
		t.Errorf("Check = %q, %v", line, err)
	}
	s.Fail(fireblockstest.Fault{Status: 401, Code: -8, Message: "Insufficient permissions"})
	_, err = v.Check(t.Context())
	want(t, err, signer.ErrUnusable)
	_, err = open(t.Context(), s.uri, signer.Environment{InsecurePermissions: true})
	want(t, err, signer.ErrUnusable)
	if n := len(s.Transactions()); n != 0 {
		t.Errorf("Check made %d transactions", n)
	}
}

// A clock that is off is named as a reason.
func TestClock(t *testing.T) {
	for name, c := range map[string]struct {
		by   time.Duration
		want string
	}{
		"ahead":  {time.Minute, "this machine's clock is 1m0s ahead of theirs"},
		"behind": {-time.Minute, "this machine's clock is 1m0s behind theirs"},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, fireblockstest.Config{})
			s.clock = func() time.Time { return time.Now().Add(c.by) }
			_, err := s.open(t).Check(t.Context())
			want(t, err, signer.ErrUnusable)
			if text := strings.ReplaceAll(fmt.Sprint(err), "59s", "1m0s"); !strings.Contains(text, c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestSearchFindsNewVaults(t *testing.T) {
	clock := time.Now()
	s := setUp(t, fireblockstest.Config{PageSize: 2, Now: func() time.Time { return clock }})
	for i := range uint64(6) {
		s.AddVault(fmt.Sprint(10+i), "ETH", signertest.Key(10+i))
	}
	s.AddVault("50", "BTC", signertest.Key(50))
	s.uri, _, _ = strings.Cut(s.uri, "&vault-map=")
	s.clock = func() time.Time { return clock }
	v := s.open(t)
	has := func(i uint64, has bool) {
		t.Helper()
		var want error
		if !has {
			want = signer.ErrNoKey
		}
		if err := v.HasKey(t.Context(), signertest.Address(signertest.Key(i))); !errors.Is(err, want) {
			t.Errorf("HasKey(%d) = %v, want %v", i, err, want)
		}
	}
	has(0, true)
	has(15, true)
	has(50, false) // of another chain
	pages := s.Calls("GET /v1/vault/accounts_paged")
	s.AddVault("20", "ETH", signertest.Key(20))
	has(20, false)
	if n := s.Calls("GET /v1/vault/accounts_paged"); n != pages || n != 4 {
		t.Errorf("%d pages, want 4", n)
	}
	clock = clock.Add(apart)
	has(20, true)
	if n := s.Calls("GET /v1/vault/accounts/10/ETH/addresses_paginated"); n != 1 {
		t.Errorf("a vault account that was known was asked for again: %d times", n)
	}
}

// A kept connection that turns out to be dead is not a reason to send a nonce twice.
func TestNotResent(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	var served atomic.Int32
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(host.Close)
	s.uri = strings.Replace(s.uri, url.QueryEscape(s.url), url.QueryEscape(host.URL), 1)
	v := s.open(t)
	_, err := v.Poll(t.Context(), "row-1", s.account(), hello)
	want(t, err, signer.ErrUnknownRequest)
	_, err = v.Poll(t.Context(), "row-1", s.account(), hello)
	transient(t, err)
	want(t, err, errNotResent)
	if n := served.Load(); n != 2 {
		t.Errorf("%d requests arrived, want 2", n)
	}
	_, err = v.Poll(t.Context(), "row-1", s.account(), hello)
	want(t, err, signer.ErrUnknownRequest)
}

func TestTooMuch(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	s.Fail(fireblockstest.Fault{Status: 200, Body: `{"id":"` + strings.Repeat("x", mostBody) + `"}`})
	_, err := s.open(t).Poll(t.Context(), "row-1", s.account(), hello)
	transient(t, err)
	if len(err.Error()) > 1000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

// The server and the client may both be restarted.
func TestRestarts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fireblocks.json")
	s := setUp(t, fireblockstest.Config{File: file})
	if err := s.open(t).Request(t.Context(), "row-1", s.account(), hello); err != nil {
		t.Fatal(err)
	}
	again := setUp(t, fireblockstest.Config{File: file})
	v := custodian(again.open(t))
	if err := v.Request(t.Context(), "row-1", s.account(), hello); err != nil {
		t.Fatal(err)
	}
	_, err := v.Poll(t.Context(), "row-1", s.account(), hello)
	want(t, err, signer.ErrPending)
	if err := again.Approve("row-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Poll(t.Context(), "row-1", s.account(), hello); err != nil {
		t.Error(err)
	}
	if all := again.Transactions(); len(all) != 1 || all[0].Posts != 2 {
		t.Errorf("%+v", all)
	}
}

// direct hands requests to the server without a network, so that the clock can be the bubble's.
type direct struct{ *fireblockstest.Server }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r = r.Clone(r.Context())
	r.RequestURI = r.URL.RequestURI()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

func openDirect(t *testing.T) (*stand, *Vault) {
	t.Helper()
	s := &stand{Server: newServer(t, fireblockstest.Config{}), key: signertest.Key(0)}
	s.AddVault("1", "ETH", s.key)
	s.uri = "fireblocks://vault?api-key=" + apiKey + "&private-key-file=" + keyFile(t) + "&vault-map=" +
		writeFile(t, "vaults.csv", "address,vaultAccountId\n"+s.account().Hex()+",1\n")
	v, err := open(t.Context(), s.uri, signer.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	v.client = &http.Client{Transport: direct{s.Server}}
	return s, v
}

func TestSignMessageWaits(t *testing.T) {
	rsaKey()
	synctest.Test(t, func(t *testing.T) {
		s, v := openDirect(t)
		begun := time.Now()
		done := make(chan error)
		go func() {
			_, err := signer.Verified(v).SignMessage(t.Context(), s.account(), hello)
			done <- err
		}()
		time.Sleep(10 * time.Minute)
		id := s.Transactions()[0].ExternalID
		if n := s.Calls("GET /v1/transactions/external_tx_id/" + id); n < 30 || n > 60 {
			t.Errorf("polled %d times in ten minutes", n)
		}
		s.Fail(fireblockstest.Fault{Method: "GET", Status: 429, RetryAfter: "120", Times: 1})
		time.Sleep(mostPause)
		if err := s.Approve(id); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took < 12*time.Minute || took > 13*time.Minute {
			t.Errorf("took %v, want the two minutes that were asked for", took)
		}
	})
}

func TestSignMessageGivesUp(t *testing.T) {
	rsaKey()
	synctest.Test(t, func(t *testing.T) {
		s, v := openDirect(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := v.SignMessage(ctx, s.account(), hello)
		want(t, err, context.DeadlineExceeded)
		if all := s.Transactions(); len(all) != 1 || all[0].Posts != 1 {
			t.Errorf("%+v", all)
		}
		// Whoever asks later finds the same transaction, and its end.
		if err := s.Reject(s.Transactions()[0].ExternalID); err != nil {
			t.Fatal(err)
		}
		_, err = v.SignMessage(t.Context(), s.account(), hello)
		want(t, err, signer.ErrDeclined)
	})
}

func BenchmarkSignMessage(b *testing.B) {
	s := setUp(b, fireblockstest.Config{AutoApprove: true})
	backend := signer.Verified(s.open(b))
	b.SetParallelism(16)
	var mu sync.Mutex
	n := 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			message := fmt.Appendf(nil, "message %d", n)
			mu.Unlock()
			if _, err := backend.SignMessage(b.Context(), s.account(), message); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
