package ethrpc

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net/http"
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

// newNode makes a server that behaves as anvil 1.7.1.
func newNode(keys ...*ecdsa.PrivateKey) *remotetest.Server {
	return &remotetest.Server{Methods: map[string]func([]string) (any, *remotetest.Error){
		"web3_clientVersion": func([]string) (any, *remotetest.Error) { return "anvil/v1.7.1", nil },
		"eth_accounts": func([]string) (any, *remotetest.Error) {
			list := []string{}
			for _, key := range keys {
				list = append(list, strings.ToLower(signertest.Address(key).Hex()))
			}
			return list, nil
		},
		"eth_sign": func(params []string) (any, *remotetest.Error) {
			if len(params) != 2 || !common.IsHexAddress(params[0]) {
				return nil, &remotetest.Error{Code: -32602, Message: "invalid params"}
			}
			message, bad := remotetest.Bytes(params[1])
			if bad != nil {
				return nil, bad
			}
			account := common.HexToAddress(params[0])
			i := slices.IndexFunc(keys, func(k *ecdsa.PrivateKey) bool { return signertest.Address(k) == account })
			if i < 0 {
				return nil, &remotetest.Error{Code: -32602, Message: "No Signer available"}
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

func open(t *testing.T, uri string, env signer.Environment) signer.Backend {
	t.Helper()
	backend, err := Open(t.Context(), uri, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = backend.Close() })
	return backend
}

func TestConformance(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		t.Helper()
		return open(t, "eth-rpc+"+newNode(keys...).HTTP(t), signer.Environment{})
	})
}

// Each node has its own words, and most of them serve for several cases.
func TestErrors(t *testing.T) {
	held, absent := signertest.Address(signertest.Key(0)), signertest.Address(signertest.Key(1))
	tests := map[string]struct {
		account common.Address
		code    int
		message string
		want    error
	}{
		"anvil, no account":            {absent, -32602, "No Signer available", signer.ErrNoKey},
		"go-ethereum, no account":      {absent, -32000, "unknown account", signer.ErrNoKey},
		"Web3Signer, no account":       {absent, -32000, "No unlocked account matches the Sender", signer.ErrNoKey},
		"go-ethereum, locked":          {held, -32000, "authentication needed: password or unlock", signer.ErrUnusable},
		"no eth_sign":                  {held, -32601, "the method eth_sign does not exist/is not available", signer.ErrUnusable},
		"no eth_sign, no account":      {absent, -32601, "Method not found", signer.ErrUnusable},
		"a person declined":            {held, 4001, "User rejected the request.", signer.ErrDeclined},
		"Clef behind it declined":      {held, -32000, "request denied", signer.ErrDeclined},
		"something of its own":         {held, -32603, "Internal error", nil},
		"busy":                         {held, -32005, "limit exceeded", nil},
		"an account that it does have": {held, -32602, "No Signer available", nil},
	}
	sentinels := []error{signer.ErrNoKey, signer.ErrDeclined, signer.ErrUnusable, signer.ErrMismatch}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := newNode(signertest.Key(0))
			server.Methods["eth_sign"] = func([]string) (any, *remotetest.Error) {
				return nil, &remotetest.Error{Code: test.code, Message: test.message}
			}
			node := open(t, "eth-rpc+"+server.HTTP(t), signer.Environment{})
			_, err := node.SignMessage(t.Context(), test.account, []byte("x"))
			var answered *remote.RPCError
			if !errors.As(err, &answered) {
				t.Fatalf("error %v, want the answered one", err)
			}
			for _, sentinel := range sentinels {
				if got, want := errors.Is(err, sentinel), errors.Is(test.want, sentinel); got != want {
					t.Errorf("error %v: Is(%v) = %v", err, sentinel, got)
				}
			}
		})
	}
}

// A thousand rows without a key do not cost a thousand lists.
func TestListIsRemembered(t *testing.T) {
	clock := time.Unix(1_800_000_000, 0)
	server := newNode(signertest.Key(0))
	node := open(t, "eth-rpc+"+server.HTTP(t), signer.Environment{Now: func() time.Time { return clock }})
	for i := range 100 {
		account := signertest.Address(signertest.Key(uint64(i + 1)))
		if err := node.HasKey(t.Context(), account); !errors.Is(err, signer.ErrNoKey) {
			t.Fatalf("HasKey = %v, want ErrNoKey", err)
		}
		if _, err := node.SignMessage(t.Context(), account, []byte("x")); !errors.Is(err, signer.ErrNoKey) {
			t.Fatalf("error %v, want ErrNoKey", err)
		}
	}
	if n := server.Calls("eth_accounts"); n != 1 {
		t.Errorf("listed %d times, want once", n)
	}
}

// The signatures of a node that adds no prefix are mismatches.
func TestNodeWithoutPrefix(t *testing.T) {
	key := signertest.Key(0)
	server := newNode(key)
	server.Methods["eth_sign"] = func(params []string) (any, *remotetest.Error) {
		message, bad := remotetest.Bytes(params[1])
		if bad != nil {
			return nil, bad
		}
		sig, err := crypto.Sign(crypto.Keccak256(message), key)
		if err != nil {
			return nil, &remotetest.Error{Code: -32000, Message: err.Error()}
		}
		return remote.Data(sig), nil
	}
	node := signer.Verified(open(t, "eth-rpc+"+server.HTTP(t), signer.Environment{}))
	_, err := node.SignMessage(t.Context(), signertest.Address(key), []byte("x"))
	if !errors.Is(err, signer.ErrMismatch) {
		t.Errorf("error %v, want ErrMismatch", err)
	}
}

func TestCheck(t *testing.T) {
	server := newNode(signertest.Key(0), signertest.Key(1))
	url := server.HTTP(t)
	node := open(t, "eth-rpc+"+url+"/secret-path", signer.Environment{})
	line, err := node.Check(t.Context())
	if want := "node " + url + ` ("anvil/v1.7.1"): 2 accounts`; err != nil || line != want {
		t.Errorf("Check = %q, %v; want %q", line, err, want)
	}
	delete(server.Methods, "web3_clientVersion")
	line, err = node.Check(t.Context())
	if want := "node " + url + `: 2 accounts`; err != nil || line != want {
		t.Errorf("without a version Check = %q, %v; want %q", line, err, want)
	}
	empty := open(t, "eth-rpc+"+newNode().HTTP(t), signer.Environment{})
	if _, err := empty.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("a node without accounts: got error %v, want ErrUnusable", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	silent := &remotetest.Server{}
	denying := newNode()
	denying.Methods["eth_accounts"] = func([]string) (any, *remotetest.Error) {
		return nil, &remotetest.Error{Code: -32000, Message: denied}
	}
	odd := newNode()
	odd.Methods["eth_accounts"] = func([]string) (any, *remotetest.Error) { return []string{"0x12"}, nil }
	guarded := &remotetest.Server{Before: func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return true
	}}
	for name, test := range map[string]struct{ uri, want string }{
		"no accounts method": {"eth-rpc+" + silent.HTTP(t), "does not sign"},
		"list declined":      {"eth-rpc+" + denying.HTTP(t), "declined to list"},
		"odd list":           {"eth-rpc+" + odd.HTTP(t), "entry 1"},
		"unauthorized":       {"eth-rpc+" + guarded.HTTP(t), "401"},
		"nothing there":      {"eth-rpc+http://127.0.0.1:1/secret", "connection refused"},
	} {
		_, err := Open(t.Context(), test.uri, signer.Environment{})
		if !errors.Is(err, signer.ErrUnusable) || errors.Is(err, signer.ErrDeclined) ||
			!strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v, want ErrUnusable and %q", name, err, test.want)
		}
	}
	var bad *signer.URIError
	for _, uri := range []string{"eth-rpc:8545", "eth-rpc+unix:///x.ipc", "clef+http://localhost"} {
		if _, err := Open(t.Context(), uri, signer.Environment{}); !errors.As(err, &bad) {
			t.Errorf("%s: error %v, want a URIError", uri, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, "eth-rpc+http://127.0.0.1:1", signer.Environment{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
