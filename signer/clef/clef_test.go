package clef

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/internal/remotetest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/remote"
	"github.com/purser-onboard/purser/signer/signertest"
)

// newClef makes a server that behaves as Clef v1.17.3 with rules that approve.
func newClef(keys ...*ecdsa.PrivateKey) *remotetest.Server {
	unknown := &remotetest.Error{Code: -32000, Message: unknownAccount}
	return &remotetest.Server{Methods: map[string]func([]string) (any, *remotetest.Error){
		"account_version": func([]string) (any, *remotetest.Error) { return "6.1.0", nil },
		"account_list": func([]string) (any, *remotetest.Error) {
			list := []string{}
			for _, key := range keys {
				list = append(list, strings.ToLower(signertest.Address(key).Hex()))
			}
			return list, nil
		},
		"account_signData": func(params []string) (any, *remotetest.Error) {
			if len(params) != 3 || params[0] != "text/plain" || !common.IsHexAddress(params[1]) {
				return nil, &remotetest.Error{Code: -32602, Message: "invalid argument"}
			}
			message, bad := remotetest.Bytes(params[2])
			if bad != nil {
				return nil, bad
			}
			account := common.HexToAddress(params[1])
			i := slices.IndexFunc(keys, func(k *ecdsa.PrivateKey) bool { return signertest.Address(k) == account })
			if i < 0 {
				return nil, unknown
			}
			sig, err := crypto.Sign(signer.MessageHash(message).Bytes(), keys[i])
			if err != nil {
				return nil, &remotetest.Error{Code: -32000, Message: err.Error()}
			}
			sig[64] += 27
			return remote.Data(sig), nil
		},
	}}
}

func open(t *testing.T, uri string, env signer.Environment) *Clef {
	t.Helper()
	backend, err := Open(t.Context(), uri, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = backend.Close() })
	return backend.(*Clef)
}

func TestConformance(t *testing.T) {
	t.Run("HTTP", func(t *testing.T) {
		signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
			t.Helper()
			return open(t, "clef+"+newClef(keys...).HTTP(t), signer.Environment{})
		})
	})
	t.Run("Socket", func(t *testing.T) {
		signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
			t.Helper()
			path, _ := newClef(keys...).Socket(t)
			return open(t, "clef+unix://"+path, signer.Environment{})
		})
	})
}

// What Clef says is known by its text.
func TestErrors(t *testing.T) {
	tests := map[string]struct {
		code    int
		message string
		want    error
		hint    string
	}{
		"no such account":    {-32000, "unknown account", signer.ErrNoKey, ""},
		"declined":           {-32000, "request denied", signer.ErrDeclined, ""},
		"no password":        {-32000, "internal error", nil, "clef setpw"},
		"wrong password":     {-32000, "could not decrypt key with given password", nil, "decrypt"},
		"timed out there":    {-32002, "request timed out", nil, "timed out"},
		"not quite the text": {-32000, "unknown account manager", nil, "manager"},
		"not a Clef":         {-32601, "the method account_signData does not exist", signer.ErrUnusable, "not clef"},
	}
	sentinels := []error{signer.ErrNoKey, signer.ErrDeclined, signer.ErrUnusable, signer.ErrMismatch}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := newClef(signertest.Key(0))
			server.Methods["account_signData"] = func([]string) (any, *remotetest.Error) {
				return nil, &remotetest.Error{Code: test.code, Message: test.message}
			}
			c := open(t, "clef+"+server.HTTP(t), signer.Environment{})
			_, err := c.SignMessage(t.Context(), signertest.Address(signertest.Key(0)), []byte("x"))
			var answered *remote.RPCError
			if !errors.As(err, &answered) || !strings.Contains(err.Error(), test.hint) {
				t.Fatalf("error %v, want the answered one with %q", err, test.hint)
			}
			for _, sentinel := range sentinels {
				if got, want := errors.Is(err, sentinel), errors.Is(test.want, sentinel); got != want {
					t.Errorf("error %v: Is(%v) = %v", err, sentinel, got)
				}
			}
		})
	}
}

func TestOddSignatures(t *testing.T) {
	for _, answer := range []any{"", "0x", "0x1234", strings.Repeat("a", 132), 7, []string{}, map[string]string{}} {
		server := newClef(signertest.Key(0))
		server.Methods["account_signData"] = func([]string) (any, *remotetest.Error) { return answer, nil }
		c := open(t, "clef+"+server.HTTP(t), signer.Environment{})
		sig, err := c.SignMessage(t.Context(), signertest.Address(signertest.Key(0)), []byte("x"))
		if err == nil || sig != (signer.Signature{}) {
			t.Errorf("answer %v: got signature %x, error %v; want an error", answer, sig, err)
		}
	}
}

// A list that the rules do not approve halts: no row could begin.
func TestListingDenied(t *testing.T) {
	server := newClef(signertest.Key(0))
	server.Methods["account_list"] = func([]string) (any, *remotetest.Error) {
		return nil, &remotetest.Error{Code: -32000, Message: requestDenied}
	}
	c := open(t, "clef+"+server.HTTP(t), signer.Environment{})
	if err := c.HasKey(t.Context(), signertest.Address(signertest.Key(0))); !errors.Is(err, signer.ErrUnusable) ||
		errors.Is(err, signer.ErrDeclined) || !strings.Contains(err.Error(), "ApproveListing") {
		t.Errorf("HasKey: got error %v, want ErrUnusable with ApproveListing", err)
	}
	if _, err := c.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("Check: got error %v, want ErrUnusable", err)
	}
	if _, err := c.SignMessage(t.Context(), signertest.Address(signertest.Key(0)), []byte("x")); err != nil {
		t.Errorf("signing needs no list: got error %v, want none", err)
	}
}

func TestListIsRemembered(t *testing.T) {
	clock := time.Unix(1_800_000_000, 0)
	server := newClef(signertest.Key(0))
	c := open(t, "clef+"+server.HTTP(t), signer.Environment{Now: func() time.Time { return clock }})
	for i := range 100 {
		var want error
		if i > 0 {
			want = signer.ErrNoKey
		}
		if err := c.HasKey(t.Context(), signertest.Address(signertest.Key(uint64(i)))); !errors.Is(err, want) {
			t.Fatalf("HasKey of key %d = %v, want %v", i, err, want)
		}
	}
	if n := server.Calls("account_list"); n != 1 {
		t.Errorf("listed %d times, want once", n)
	}
}

func TestCheck(t *testing.T) {
	server := newClef(signertest.Key(0), signertest.Key(1))
	path, _ := server.Socket(t)
	c := open(t, "clef+unix:"+path, signer.Environment{})
	line, err := c.Check(t.Context())
	if want := `clef unix:` + path + ` (API "6.1.0"): 2 accounts`; err != nil || line != want {
		t.Errorf("Check = %q, %v; want %q", line, err, want)
	}
	empty := open(t, "clef+"+newClef().HTTP(t), signer.Environment{})
	if _, err := empty.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("a Clef without accounts: got error %v, want ErrUnusable", err)
	}
}

// A Clef that is restarted during a run causes only transient errors; at opening and checking, a Clef that is not there
// cannot be used.
func TestRestart(t *testing.T) {
	account := signertest.Address(signertest.Key(0))
	path, stop := newClef(signertest.Key(0)).Socket(t)
	c := open(t, "clef+unix:"+path, signer.Environment{})
	if _, err := c.SignMessage(t.Context(), account, []byte("x")); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := c.SignMessage(t.Context(), account, []byte("x")); err == nil || errors.Is(err, signer.ErrUnusable) {
		t.Errorf("signing while it is away: error %v, want a transient one", err)
	}
	if _, err := c.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("checking while it is away: error %v, want ErrUnusable", err)
	}
	if _, err := Open(t.Context(), "clef+unix:"+path, signer.Environment{}); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("opening while it is away: error %v, want ErrUnusable", err)
	}
	newClef(signertest.Key(0)).Listen(t, path)
	if _, err := c.SignMessage(t.Context(), account, []byte("x")); err != nil {
		t.Errorf("after it came back: got error %v, want none", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	other := newClef()
	delete(other.Methods, "account_version")
	page := &remotetest.Server{Before: func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte("<html>"))
		return true
	}}
	hosts := &remotetest.Server{Before: func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "invalid host specified", http.StatusForbidden) // --http.vhosts
		return true
	}}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ uri, want string }{
		"no Clef":       {"clef+" + other.HTTP(t), "not clef"},
		"no JSON-RPC":   {"clef+" + page.HTTP(t), "JSON-RPC"},
		"host unknown":  {"clef+" + hosts.HTTP(t), "invalid host specified"},
		"no socket":     {"clef+unix:" + file + "x", "no such file"},
		"not a socket":  {"clef+unix:" + file, "connection refused"},
		"nothing there": {"clef+http://127.0.0.1:1", "connection refused"},
	} {
		_, err := Open(t.Context(), test.uri, signer.Environment{})
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want ErrUnusable and %q", name, err, test.want)
		}
	}
	var bad *signer.URIError
	if _, err := Open(t.Context(), "clef:8550", signer.Environment{}); !errors.As(err, &bad) {
		t.Errorf("error %v, want a URIError", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, "clef+http://127.0.0.1:1", signer.Environment{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
