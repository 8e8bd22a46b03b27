package fireblocks

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

func TestConformance(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		t.Helper()
		s := setUp(t, fireblockstest.Config{AutoApprove: true}, keys...)
		t.Cleanup(func() {
			if denied := s.Denied(); len(denied) > 0 {
				t.Errorf("got tokens that were not accepted: %v, want none", denied)
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
		t.Errorf("Check = %q, %v; want a warning that everybody can read the key", line, err)
	}
	s.uri, _, _ = strings.Cut(s.uri, "&vault-map=")
	if line, err := s.open(t).Check(t.Context()); err != nil || !strings.Contains(line, "2 addresses found in its vault accounts") {
		t.Errorf("Check = %q, %v; want 2 addresses found", line, err)
	}
	s.Fail(fireblockstest.Fault{Status: 401, Code: -8, Message: "Insufficient permissions"})
	_, err = v.Check(t.Context())
	want(t, err, signer.ErrUnusable)
	_, err = open(t.Context(), s.uri, signer.Environment{InsecurePermissions: true})
	want(t, err, signer.ErrUnusable)
	if n := len(s.Transactions()); n != 0 {
		t.Errorf("Check made %d transactions, want 0", n)
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
			t.Errorf("got %d polls in ten minutes, want 30 to 60", n)
		}
		s.Fail(fireblockstest.Fault{Method: "GET", Status: 429, RetryAfter: "120", Times: 1})
		time.Sleep(mostPause)
		if err := s.Approve(id); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("got error %v, want none", err)
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
			t.Errorf("got transactions %+v, want one that was posted once", all)
		}
		// A later call finds the same transaction, and its final status.
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
