package sandbox

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/httpsig"
)

// clock is a clock that stands still unless it is moved.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2025, 1, 17, 18, 21, 53, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// partner is a sandbox on loopback and a client without logic of its own.
type partner struct {
	t       testing.TB
	s       *Server
	clock   *clock
	api     *httptest.Server
	control *httptest.Server
	http    *http.Client
	cred    Credentials
	signer  *httpsig.Signer
	token   string
	keys    int
}

func vendorComponents() []string {
	return []string{
		"@method", "@authority", "@path", "authorization", "content-type", "content-digest", "idempotency-key",
	}
}

func signerOf(t testing.TB, cred Credentials, now func() time.Time, components ...string) *httpsig.Signer {
	t.Helper()
	return signerWith(t, cred, httpsig.Options{Components: components, Now: now})
}

func signerWith(t testing.TB, cred Credentials, o httpsig.Options) *httpsig.Signer {
	t.Helper()
	key, err := httpsig.ParsePrivateKey(cred.PrivateKeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	o.KeyID = cred.KeyID
	s, err := httpsig.NewSigner(key, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open starts a sandbox; configure may change its Config.
func open(t testing.TB, configure func(*Config)) *partner {
	t.Helper()
	p := &partner{t: t, clock: newClock()}
	cfg := Config{Now: p.clock.now, Seed: 7}
	if configure != nil {
		configure(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.s = s
	if p.cred, err = NewCredentials(nil); err != nil {
		t.Fatal(err)
	}
	if err := s.RegisterCredentials(p.cred); err != nil {
		t.Fatal(err)
	}
	p.signer = signerOf(t, p.cred, p.clock.now, vendorComponents()...)
	p.api, p.control = httptest.NewServer(s.API()), httptest.NewServer(s.Control())
	s.RedirectTo(p.control.URL)
	// One connection a request: net/http would silently repeat a request whose kept connection was cut.
	transport := &http.Transport{DisableKeepAlives: true}
	p.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	t.Cleanup(func() {
		p.api.Close()
		p.control.Close()
	})
	return p
}

// answer is a response; err is set when there was none, or not all of it.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (a answer) field(t testing.TB, name string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("body %q: got %v, want a JSON object", a.body, err)
	}
	return fmt.Sprint(m[name])
}

// edit changes a request before it is signed; after changes it afterwards.
type edit struct{ before, after func(*http.Request) }

func withKey(key string) edit {
	return edit{before: func(r *http.Request) { r.Header.Set("Idempotency-Key", key) }}
}

func (p *partner) request(method, path, body string, edits ...edit) *http.Request {
	p.t.Helper()
	r, err := http.NewRequest(method, p.api.URL+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if p.token == "" && path != "/v1/auth/token" {
		p.login()
	}
	if p.token != "" {
		r.Header.Set("Authorization", "Bearer "+p.token)
	}
	if body != "" {
		digest, err := httpsig.ContentDigest("sha-256", []byte(body))
		if err != nil {
			p.t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Content-Digest", digest)
	}
	if method != http.MethodGet {
		p.keys++
		r.Header.Set("Idempotency-Key", testKey(p.keys))
	}
	for _, e := range edits {
		if e.before != nil {
			e.before(r)
		}
	}
	if err := p.signer.Sign(r); err != nil {
		p.t.Fatal(err)
	}
	for _, e := range edits {
		if e.after != nil {
			e.after(r)
		}
	}
	return r
}

func (p *partner) do(method, path, body string, edits ...edit) answer {
	p.t.Helper()
	return p.send(p.request(method, path, body, edits...))
}

func (p *partner) send(r *http.Request) answer {
	res, err := p.http.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body), err}
}

func (p *partner) login() {
	p.t.Helper()
	a := p.fetchToken()
	if a.status != 200 || a.err != nil {
		p.t.Fatalf("token: got %+v, want status 200, no error", a)
	}
	p.token = a.field(p.t, "token")
}

func (p *partner) fetchToken() answer {
	r, err := http.NewRequest(http.MethodPost, p.api.URL+"/v1/auth/token",
		strings.NewReader(`{"apiKey":"`+p.cred.APIKey+`","apiSecret":"`+p.cred.APISecret+`"}`))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return p.send(r)
}

func testKey(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// wallet is a customer's key.
type wallet struct{ key *ecdsa.PrivateKey }

func newWallet(n int) wallet {
	seed := crypto.Keccak256([]byte("wallet " + strconv.Itoa(n)))
	key, err := crypto.ToECDSA(seed)
	if err != nil {
		panic(err)
	}
	return wallet{key}
}

func (w wallet) account() string {
	return "eip155:300:" + crypto.PubkeyToAddress(w.key.PublicKey).Hex()
}

func (w wallet) sign(t testing.TB, text string) []byte {
	t.Helper()
	digest := crypto.Keccak256([]byte("\x19Ethereum Signed Message:\n"+strconv.Itoa(len(text))), []byte(text))
	sig, err := crypto.Sign(digest, w.key)
	if err != nil {
		t.Fatal(err)
	}
	sig[64] += 27
	return sig
}

// submission is the body of POST …/challenge/sign.
func (w wallet) submission(t testing.TB, challenge string) string {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(challenge)
	if err != nil {
		t.Fatal(err)
	}
	return w.submit([]byte("0x" + hex.EncodeToString(w.sign(t, string(text)))))
}

func (w wallet) submit(inner []byte) string {
	return `{"ownerId":"` + w.account() + `","signature":"` + base64.StdEncoding.EncodeToString(inner) + `"}`
}

func createBody(account, externalID string) string {
	return `{"chainId":"` + account + `","externalId":"` + externalID + `"}`
}

// create makes the customer ext-1 and returns its id and challenge.
func (p *partner) create(w wallet) (id, challenge string) {
	p.t.Helper()
	a := p.do("POST", "/v1/customers", createBody(w.account(), "ext-1"))
	if a.status != 201 {
		p.t.Fatalf("create: got %+v, want status 201", a)
	}
	return a.field(p.t, "id"), a.field(p.t, "challenge")
}

// last is the latest request in the history.
func (p *partner) last() Entry {
	entries := p.s.History()
	return entries[len(entries)-1]
}

func (p *partner) ask(method, path, body string) answer {
	p.t.Helper()
	r, err := http.NewRequest(method, p.control.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		p.t.Fatal(err)
	}
	return p.send(r)
}

func (p *partner) wantNoViolations(expected []Expected) {
	p.t.Helper()
	for _, v := range p.s.Judge(expected).Violations {
		p.t.Errorf("seed %d: got %+v, want no violation", p.s.cfg.Seed, v)
	}
}
