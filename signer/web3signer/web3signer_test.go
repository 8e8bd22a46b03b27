package web3signer

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/internal/web3signertest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// open serves handler on loopback and opens it.
func open(t *testing.T, handler http.Handler, env signer.Environment) signer.Backend {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	backend, err := Open(t.Context(), "web3signer+"+server.URL, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = backend.Close() })
	return backend
}

func keys(n int) []*ecdsa.PrivateKey {
	var list []*ecdsa.PrivateKey
	for i := range n {
		list = append(list, signertest.Key(uint64(i)))
	}
	return list
}

func TestConformance(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		t.Helper()
		return open(t, web3signertest.New(keys), signer.Environment{})
	})
}

// A path in the URI is where a gateway has put Web3Signer.
func TestBehindPath(t *testing.T) {
	handler := http.StripPrefix("/signing/eth1", web3signertest.New(keys(1)))
	server := httptest.NewServer(handler)
	defer server.Close()
	for _, path := range []string{"/signing/eth1", "/signing/eth1/"} {
		backend, err := Open(t.Context(), "web3signer+"+server.URL+path, signer.Environment{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := backend.SignMessage(t.Context(), signertest.Address(keys(1)[0]), []byte("x")); err != nil {
			t.Errorf("got error %v, want none", err)
		}
		if err := backend.Close(); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	}
}

func TestKeyAddedLater(t *testing.T) {
	clock := time.Unix(1_800_000_000, 0)
	server := web3signertest.New(keys(1))
	backend := open(t, server, signer.Environment{Now: func() time.Time { return clock }})
	late := signertest.Key(7)
	account := signertest.Address(late)

	for range 1000 { // rows without a key
		if err := backend.HasKey(t.Context(), account); !errors.Is(err, signer.ErrNoKey) {
			t.Fatalf("HasKey = %v, want ErrNoKey", err)
		}
		if _, err := backend.SignMessage(t.Context(), account, nil); !errors.Is(err, signer.ErrNoKey) {
			t.Fatalf("error %v, want ErrNoKey", err)
		}
	}
	if n := server.Listed(); n != 1 {
		t.Errorf("the keys were listed %d times, want only at the opening", n)
	}
	server.Add(late)
	clock = clock.Add(11 * time.Second)
	if _, err := backend.SignMessage(t.Context(), account, []byte("x")); err != nil {
		t.Errorf("the key that was added is not found: got error %v, want none", err)
	}
	if n := server.Listed(); n != 2 {
		t.Errorf("the keys were listed %d times, want 2", n)
	}
	server.Remove(late)
	if _, err := backend.SignMessage(t.Context(), account, []byte("x")); !errors.Is(err, signer.ErrNoKey) {
		t.Errorf("error %v for a key that was removed, want ErrNoKey", err)
	}
	if err := backend.HasKey(t.Context(), account); !errors.Is(err, signer.ErrNoKey) {
		t.Errorf("HasKey of a key that was removed = %v, want ErrNoKey", err)
	}
}

func TestTrouble(t *testing.T) {
	account := signertest.Address(keys(1)[0])
	tests := map[string]struct {
		status   int
		unusable bool
	}{
		"bad request":       {400, false},
		"no certificate":    {401, true},
		"forbidden":         {403, true},
		"redirected":        {302, true},
		"throttled":         {429, false},
		"internal error":    {500, false},
		"nothing behind it": {502, false},
		"unavailable":       {503, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := web3signertest.New(keys(1))
			backend := open(t, server, signer.Environment{})
			server.Fail(test.status, 1)
			_, err := backend.SignMessage(t.Context(), account, []byte("x"))
			if err == nil || errors.Is(err, signer.ErrUnusable) != test.unusable || errors.Is(err, signer.ErrNoKey) {
				t.Errorf("got error %v, want one that is not ErrNoKey, ErrUnusable %v", err, test.unusable)
			}
			if _, err := backend.SignMessage(t.Context(), account, []byte("x")); err != nil {
				t.Errorf("after the trouble: got error %v, want none", err)
			}
			server.Fail(test.status, 1)
			if _, err := backend.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
				t.Errorf("Check: error %v, want ErrUnusable", err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	server := web3signertest.New(keys(3))
	backend := open(t, server, signer.Environment{})
	line, err := backend.Check(t.Context())
	if err != nil || !strings.HasPrefix(line, "web3signer http://127.0.0.1:") || !strings.HasSuffix(line, ": 3 keys") {
		t.Errorf("Check = %q, %v; want the address and 3 keys", line, err)
	}
	server.Unhealthy("keys-check/unexpected")
	if _, err := backend.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) ||
		!strings.Contains(err.Error(), "keys-check/unexpected") {
		t.Errorf("got error %v, want ErrUnusable with the health check", err)
	}
	server.Unhealthy()
	for _, key := range keys(3) {
		server.Remove(key)
	}
	if _, err := backend.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "no key") {
		t.Errorf("without keys: got error %v, want ErrUnusable with \"no key\"", err)
	}
	server.AllowHosts("signer.example")
	if _, err := backend.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) ||
		!strings.Contains(err.Error(), "Host not authorized") {
		t.Errorf("a Host that is not allowed: got error %v, want ErrUnusable with \"Host not authorized\"", err)
	}
}

// A gateway that lets only the signing through is no reason to fail.
func TestCheckWithoutHealth(t *testing.T) {
	server := web3signertest.New(keys(1))
	backend := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthcheck" {
			http.NotFound(w, r)
			return
		}
		server.ServeHTTP(w, r)
	}), signer.Environment{})
	if _, err := backend.Check(t.Context()); err != nil {
		t.Errorf("got error %v, want none", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<html>welcome</html>"))
	}))
	defer page.Close()
	for name, url := range map[string]string{"not there": gone.URL, "something else": page.URL} {
		_, err := Open(t.Context(), "web3signer+"+url, signer.Environment{})
		if !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("%s: error %v, want ErrUnusable", name, err)
		}
	}
	var bad *signer.URIError
	if _, err := Open(t.Context(), "web3signer:///x", signer.Environment{}); !errors.As(err, &bad) || bad.Shape != Shape {
		t.Errorf("error %v, want a URIError", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open(ctx, "web3signer+"+page.URL, signer.Environment{})
	if !errors.Is(err, context.Canceled) || errors.Is(err, signer.ErrUnusable) {
		t.Errorf("error %v, want context.Canceled alone", err)
	}
}

// Web3Signer's own way to know its clients: TLS with certificates on both sides.
func TestClientCertificate(t *testing.T) {
	dir := t.TempDir()
	certificates := newAuthority(t, dir)
	server := httptest.NewUnstartedServer(web3signertest.New(keys(1)))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{certificates.server},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    certificates.pool,
		MinVersion:   tls.VersionTLS12,
	}
	server.StartTLS()
	defer server.Close()
	base := "web3signer+" + server.URL

	backend, err := Open(t.Context(), base+"?ca-file="+dir+"/ca.pem&cert-file="+dir+"/client.pem&key-file="+dir+"/client.key",
		signer.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	if _, err := backend.SignMessage(t.Context(), signertest.Address(keys(1)[0]), []byte("x")); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	for name, query := range map[string]string{
		"no trust in the server":  "",
		"no certificate of ours":  "?ca-file=" + dir + "/ca.pem",
		"a certificate of others": "?ca-file=" + dir + "/ca.pem&cert-file=" + dir + "/other.pem&key-file=" + dir + "/other.key",
	} {
		_, err := Open(t.Context(), base+query, signer.Environment{})
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: error %v, want ErrUnusable for a certificate", name, err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "client.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	ours := base + "?ca-file=" + dir + "/ca.pem&cert-file=" + dir + "/client.pem&key-file=" + dir + "/client.key"
	_, err = Open(t.Context(), ours, signer.Environment{})
	if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "chmod 600 '"+dir+"/client.key'") {
		t.Errorf("got %v, want ErrUnusable with the chmod", err)
	}
	open, err := Open(t.Context(), ours, signer.Environment{InsecurePermissions: true})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if line, err := open.Check(t.Context()); err != nil || !strings.HasSuffix(line, "everybody on this machine can read "+dir+"/client.key") {
		t.Errorf("Check = %q, %v; want a word about the key's mode", line, err)
	}
}

func TestParseKeysRefuses(t *testing.T) {
	good := web3signertest.Identifier(signertest.Key(0))
	for name, answer := range map[string]string{
		"empty":        ``,
		"null":         `null`,
		"object":       `{"keys":[]}`,
		"numbers":      `[1]`,
		"broken off":   `["` + good + `"`,
		"two of them":  `[][]`,
		"no 0x":        `["` + good[2:] + `"]`,
		"short":        `["` + good[:len(good)-2] + `"]`,
		"no hex":       `["` + good[:len(good)-1] + `g"]`,
		"a path":       `["` + good[:len(good)-3] + `/.."]`,
		"not on curve": `["0x` + strings.Repeat("01", 64) + `"]`,
		"BLS key":      `["0x` + strings.Repeat("ab", 48) + `"]`,
	} {
		if got, err := parseKeys([]byte(answer)); err == nil {
			t.Errorf("%s: %d keys", name, len(got))
		}
	}
	account := signertest.Address(signertest.Key(0))
	for _, text := range []string{good, "0x04" + good[2:], "0x" + strings.ToUpper(good[2:])} {
		got, err := parseKeys([]byte(` ["` + text + `"] `))
		if err != nil || got[account] != text {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`["` + web3signertest.Identifier(signertest.Key(0)) + `"]`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		got, err := parseKeys(answer)
		for _, text := range got {
			if strings.Trim(text, "0123456789abcdefABCDEFx") != "" {
				t.Errorf("got %q in a path, want hex digits only", text)
			}
		}
		if err != nil && got != nil {
			t.Errorf("got keys %v and error %v, want one of them", got, err)
		}
	})
}

// BenchmarkSignMessage measures our side and the emulator's, not a Web3Signer.
func BenchmarkSignMessage(b *testing.B) {
	server := httptest.NewServer(web3signertest.New(keys(1)))
	defer server.Close()
	backend, err := Open(b.Context(), "web3signer+"+server.URL, signer.Environment{})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	backend = signer.Verified(backend)
	account := signertest.Address(keys(1)[0])
	b.SetParallelism(4)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := backend.SignMessage(b.Context(), account, []byte("a message")); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
}
