package consumecmd

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

const (
	earlierSecret = "the-earlier-secret"
	newSecret     = "the-new-secret"
)

// command runs `consumer` in this process.
type command struct {
	t           *testing.T
	dir         string
	creds       sandbox.Credentials
	url         string
	out, errors string // of the latest run
}

func newCommand(t *testing.T, url string) *command {
	t.Helper()
	creds, err := sandbox.NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &command{t: t, dir: t.TempDir(), creds: creds, url: url}
	c.write("key.pem", string(creds.PrivateKeyPEM))
	c.write("secret", earlierSecret+"\n")
	c.write("new", newSecret+"\n")
	return c
}

func (c *command) path(name string) string { return filepath.Join(c.dir, name) }

func (c *command) write(name, content string) {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *command) read(name string) string {
	c.t.Helper()
	raw, err := os.ReadFile(c.path(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(raw)
}

const anyFailure = -1 // an exit code other than 0

// run fails the test unless the command ends with the exit code, with no secret in its output.
func (c *command) run(want int, args ...string) {
	c.t.Helper()
	var out, errs bytes.Buffer
	args = append(args, "--api-url", c.url, "--data-dir", c.path("data"))
	for _, s := range [][2]string{{"--api-key", c.creds.APIKey}, {"--signing-key", c.path("key.pem")},
		{"--signing-key-id", c.creds.KeyID}, {"--api-secret-file", c.path("secret")}} {
		if !strings.Contains(strings.Join(args, " "), s[0]) && s[1] != "" {
			args = append(args, s[0], s[1])
		}
	}
	err := Main(c.t.Context(), c.t.Context(), args, Streams{
		Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, IgnoreEnvironment: true,
	})
	got := console.Exit(&errs, "consumer", err)
	c.out, c.errors = out.String(), errs.String()
	if got != want && (want != anyFailure || got == console.ExitWell) {
		c.t.Errorf("%v: got exit code %d, want %d; output %q, errors %q", args[:1], got, want, c.out, c.errors)
	}
	for _, secret := range []string{earlierSecret, newSecret} {
		if strings.Contains(c.out+c.errors, secret) {
			c.t.Errorf("%v: got output %s%s, want it without the secret %q", args[:1], c.out, c.errors, secret)
		}
	}
}

func (c *command) wantOutput(parts ...string) {
	c.t.Helper()
	for _, part := range parts {
		if !strings.Contains(c.out+c.errors, part) {
			c.t.Errorf("got output %q, errors %q; want %q in them", c.out, c.errors, part)
		}
	}
}

// TestRegisterKey: from no registered key to a checked one, and back.
func TestRegisterKey(t *testing.T) {
	server, err := sandbox.New(sandbox.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(server.API())
	t.Cleanup(api.Close)
	c := newCommand(t, api.URL+"/v1/")
	server.Register(c.creds.APIKey, earlierSecret, "", nil)

	unknown := c.creds.KeyID
	c.creds.KeyID = ""
	c.run(console.ExitUsage, "check")
	c.wantOutput("--signing-key-id: is missing", "register-key")
	c.run(console.ExitWell, "register-key")
	id := strings.TrimSpace(c.out)
	c.wantOutput("--signing-key-id " + id)
	c.run(console.ExitUsage, "register-key", "--delete")
	c.wantOutput("--signing-key-id: is missing")

	// The key that is registered now signs for its own replacement and removal.
	c.creds.KeyID = id
	c.run(console.ExitUsage, "check") // no signer is set
	c.wantOutput("ok    partner")
	c.run(console.ExitWell, "register-key")
	if got := strings.TrimSpace(c.out); got != id { // the same key
		t.Errorf("registered again: id %q, want %q", got, id)
	}
	c.creds.KeyID = unknown
	c.run(console.ExitUsage, "register-key", "--delete")
	c.creds.KeyID = id
	c.run(console.ExitWell, "register-key", "--delete")
	if c.out != "" {
		t.Errorf("--delete: got output %q, want none", c.out)
	}
	c.run(console.ExitUsage, "check")
	c.wantOutput("FAIL  partner")
}

func TestRegisterKeyWithoutAnID(t *testing.T) {
	p := newRotatingPartner(t)
	c := newCommand(t, p.URL)
	p.put = func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"fingerprint":"value"}`) }
	c.run(console.ExitUsage, "register-key")
	c.wantOutput(`has no "keyId"; it has "fingerprint"`)
	if c.out != "" {
		t.Errorf("got output %q, want none", c.out)
	}
}

// rotatingPartner has tokens for one secret, and one that PUT /auth/credentials replaces.
type rotatingPartner struct {
	*httptest.Server
	mu     sync.Mutex
	secret string
	down   bool                      // no token is issued
	put    func(http.ResponseWriter) // what answers PUT; nil: 204
	lose   bool                      // PUT takes effect and is not answered
	get    func(http.ResponseWriter, *http.Request)
}

func newRotatingPartner(t *testing.T) *rotatingPartner {
	p := &rotatingPartner{secret: earlierSecret}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

func (p *rotatingPartner) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var body struct{ APIKey, APISecret string }
	raw, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(raw, &body)
	switch r.Method + " " + r.URL.Path {
	case "POST /auth/token":
		switch {
		case p.down:
			w.WriteHeader(http.StatusBadGateway)
		case body.APISecret != p.secret:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"message":"wrong secret `+body.APISecret+`"}`)
		default:
			_, _ = io.WriteString(w, `{"token":"t-`+p.secret+`","tokenType":"Bearer"}`)
		}
		return
	case "PUT /auth/credentials":
		if p.put == nil || p.lose {
			p.secret = body.APISecret
		}
	}
	switch {
	case r.Method == http.MethodGet:
		p.get(w, r)
	case p.lose:
		panic(http.ErrAbortHandler)
	case p.put != nil:
		p.put(w)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// TestRunReadsTheSecretAgain: the client of a run reads the secret again after it was replaced in its file.
func TestRunReadsTheSecretAgain(t *testing.T) {
	p := newRotatingPartner(t)
	c := newCommand(t, p.URL)
	settings, _, err := config.ParseConsumer([]string{"--api-url", p.URL, "--api-key", c.creds.APIKey, "--signing-key",
		c.path("key.pem"), "--signing-key-id", c.creds.KeyID, "--api-secret-file", c.path("secret")},
		config.Streams{IgnoreEnvironment: true})
	if err != nil {
		t.Fatal(err)
	}
	api, err := openPartner(&settings.Consumer, func(string) string { return "" }, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer api.client.Close()
	p.get = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t-"+p.secret {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}
	if _, err := api.client.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.secret = newSecret
	p.mu.Unlock()
	c.write("secret", newSecret+"\n")
	if _, err := api.client.Check(t.Context()); err != nil {
		t.Errorf("after the rotation: got %v, want nil", err)
	}
}

// TestAPICA: the API's certificate is checked against --api-ca and nothing else.
func TestAPICA(t *testing.T) {
	server, err := sandbox.New(sandbox.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewUnstartedServer(server.API())
	api.Config.ErrorLog = log.New(io.Discard, "", 0)
	api.StartTLS()
	t.Cleanup(api.Close)
	c := newCommand(t, api.URL+"/v1")
	server.Register(c.creds.APIKey, earlierSecret, "", nil)
	c.creds.KeyID = ""
	c.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})))
	c.run(console.ExitWell, "register-key", "--api-ca", c.path("ca.pem"))
	c.run(anyFailure, "register-key")
	c.wantOutput("certificate")
}

func TestRotateSecret(t *testing.T) {
	refuse := func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadRequest) }
	drop := func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	for name, test := range map[string]struct {
		prepare func(*rotatingPartner, *command)
		args    []string
		exit    int
		want    []string
		file    string // what --api-secret-file holds afterwards
	}{
		"well": {func(*rotatingPartner, *command) {}, nil, console.ExitWell,
			[]string{"a token was issued", "next: mv "}, earlierSecret},
		"with --replace-file": {func(*rotatingPartner, *command) {}, []string{"--replace-file"}, console.ExitWell,
			[]string{"holds it now"}, newSecret},
		"the answer was lost": {func(p *rotatingPartner, _ *command) { p.lose = true }, []string{"--replace-file"},
			console.ExitWell, []string{"a token was issued", "holds it now"}, newSecret},
		"killed after the request": {func(p *rotatingPartner, _ *command) { p.secret = newSecret },
			[]string{"--replace-file"}, console.ExitWell, []string{"a token was issued", "holds it now"}, newSecret},
		"the request was lost": {func(p *rotatingPartner, _ *command) { p.put = drop }, []string{"--replace-file"},
			console.ExitUnfinished, []string{"was not replaced", "--api-secret-file is still the valid secret"}, earlierSecret},
		"refused": {func(p *rotatingPartner, _ *command) { p.put = refuse }, []string{"--replace-file"},
			console.ExitUsage, []string{"was not replaced", "HTTP 400", "--api-secret-file is still the valid secret"}, earlierSecret},
		"down afterwards": {func(p *rotatingPartner, _ *command) {
			p.put = func(w http.ResponseWriter) { p.down = true; w.WriteHeader(http.StatusNoContent) }
		}, []string{"--replace-file"}, console.ExitUnfinished, []string{"is unknown", "keep both"},
			earlierSecret},
		"neither": {func(p *rotatingPartner, _ *command) {
			p.put = func(w http.ResponseWriter) { p.secret = "a third one"; w.WriteHeader(http.StatusNoContent) }
		}, []string{"--replace-file"}, console.ExitUsage, []string{"accepts neither", "keep both"}, earlierSecret},
		"wrong secret": {func(p *rotatingPartner, _ *command) { p.secret = "a third one" }, nil, console.ExitUsage,
			[]string{"HTTP 401", "check --api-key and --api-secret-file"}, earlierSecret},
		"the same": {func(_ *rotatingPartner, c *command) { c.write("new", earlierSecret) }, nil, console.ExitUsage,
			[]string{"--new-secret-file: contains the secret that is already in use"}, earlierSecret},
		"white space": {func(_ *rotatingPartner, c *command) { c.write("new", " "+newSecret) }, nil, console.ExitUsage,
			[]string{"--new-secret-file: the secret has white space"}, earlierSecret},
		"no file": {func(_ *rotatingPartner, c *command) { _ = os.Remove(c.path("new")) }, nil, console.ExitUsage,
			[]string{"--new-secret-file: the file cannot be read"}, earlierSecret},
	} {
		t.Run(name, func(t *testing.T) {
			p := newRotatingPartner(t)
			c := newCommand(t, p.URL)
			test.prepare(p, c)
			c.run(test.exit, append([]string{"rotate-secret", "--new-secret-file", c.path("new")}, test.args...)...)
			c.wantOutput(test.want...)
			if got := strings.TrimSpace(c.read("secret")); got != test.file {
				t.Errorf("--api-secret-file holds %q, want %q", got, test.file)
			}
			if info, err := os.Stat(c.path("secret")); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("--api-secret-file: got %v, %v; want mode 0600", info.Mode(), err)
			}
		})
	}
}

func TestRebindCommand(t *testing.T) {
	c := newCommand(t, "http://LOCALHOST:80/v1")
	c.run(console.ExitUsage, "rebind")
	c.wantOutput("there is no ledger at", "--from")
	options := ledger.Options{Path: c.path("data/ledger.db"), Now: time.Now,
		Environment: ledger.Environment{APIHost: "localhost:80", APIKeyID: "earlier"}}
	book, err := ledger.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	for line := range 3 {
		row := pipeline.Row{Account: pipeline.Account{Chain: 300, Address: common.Address{byte(line + 1)}},
			ExternalID: strings.Repeat("x", line+1), ImportID: "i", File: "f", Line: line + 2}
		if _, err := book.Accept(t.Context(), []pipeline.Row{row}); err != nil {
			t.Fatal(err)
		}
	}
	c.run(console.ExitUnfinished, "rebind")
	c.wantOutput("is in use by process")
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
	c.run(console.ExitWell, "rebind")
	c.wantOutput("API localhost: key id earlier -> "+c.creds.APIKey, "3 open rows")
	c.run(console.ExitWell, "rebind")
	c.wantOutput("is already bound to key id " + c.creds.APIKey)
	c.url = "http://localhost:81/v1"
	c.run(console.ExitUsage, "rebind")
	c.wantOutput("another data directory for another environment")

	// A new member of a fleet.
	const earlier = "6f1c2d3e-8a4b-4c5d-9e6f-7a8b9c0d1e2f"
	c.url = "http://localhost/v1"
	c.run(console.ExitWell, "rebind", "--ledger", c.path("member.db"), "--from", earlier)
	c.wantOutput("key id "+earlier+" -> "+c.creds.APIKey, "0 open rows")
	if got := earlierKeyIDs(t.Context(), c.path("member.db")); len(got) != 2 || got[0] != earlier {
		t.Errorf("the member's key ids: %q, want %s and the API key", got, earlier)
	}
}

// TestSyncOfAPipe: a new secret must be durable, which a pipe is not; its writer is not waited for.
func TestSyncOfAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syncFile(path); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v, want %v", err, syscall.EINVAL)
	}
}
