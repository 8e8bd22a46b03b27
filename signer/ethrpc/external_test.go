//go:build external

package ethrpc

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/internal/remotetest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// anvil is the binary that `make test-external` installs, or the one that the variable ANVIL names. A machine without it
// cannot pass: these tests were asked for.
func anvil(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv("ANVIL")
	if path == "" {
		path = filepath.Join("testdata", "anvil", "node_modules", "@foundry-rs", "anvil-"+runtime.GOOS+"-"+runtime.GOARCH,
			"bin", "anvil")
	}
	if _, err := os.Stat(path); err != nil {
		tb.Fatalf("no anvil (make test-external installs it where its makers have one; else set ANVIL): %v", err)
	}
	return path
}

// startAnvil starts anvil on a free port and gives its URL and the keys of its accounts, which it derives from its
// mnemonic and cannot be given.
func startAnvil(tb testing.TB) (url string, keys []*ecdsa.PrivateKey, command *exec.Cmd) {
	tb.Helper()
	config := filepath.Join(tb.TempDir(), "anvil.json")
	command = exec.Command(anvil(tb), "--port", "0", "--accounts", "4", "--config-out", config)
	address := remotetest.Start(tb, command, 1, func(line string) (int, string, bool) {
		address, ok := strings.CutPrefix(line, "Listening on ")
		return 0, address, ok
	})[0]
	text, err := os.ReadFile(config) // written before it listens
	if err != nil {
		tb.Fatal(err)
	}
	var made struct {
		PrivateKeys []string `json:"private_keys"`
	}
	if err := json.Unmarshal(text, &made); err != nil {
		tb.Fatal(err)
	}
	for _, digits := range made.PrivateKeys {
		key, err := crypto.HexToECDSA(strings.TrimPrefix(digits, "0x"))
		if err != nil {
			tb.Fatal(err)
		}
		keys = append(keys, key)
	}
	return "http://" + address, keys, command
}

func TestAnvil(t *testing.T) {
	url, keys, command := startAnvil(t)
	signertest.RunKeys(t, keys, func(t *testing.T) signer.Backend {
		t.Helper()
		return open(t, "eth-rpc+"+url, signer.Environment{})
	})
	node := open(t, "eth-rpc+"+url, signer.Environment{})
	line, err := node.Check(t.Context())
	if err != nil || !strings.HasPrefix(line, "node "+url+` ("anvil/v`) || !strings.HasSuffix(line, ": 4 accounts") {
		t.Errorf("Check = %q, %v; want anvil's version and 4 accounts", line, err)
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The kernel closes its sockets at some moment after the kill; each call until then is answered or breaks off.
	for {
		if _, err = node.SignMessage(t.Context(), signertest.Address(keys[0]), []byte("x")); err != nil {
			break
		}
	}
	if errors.Is(err, signer.ErrUnusable) || errors.Is(err, signer.ErrNoKey) {
		t.Errorf("signing with a node that is gone: error %v, want a transient one", err)
	}
	if _, err := node.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("checking a node that is gone: error %v, want ErrUnusable", err)
	}
}

func BenchmarkAnvil(b *testing.B) {
	url, keys, _ := startAnvil(b)
	backend, err := Open(b.Context(), "eth-rpc+"+url, signer.Environment{})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	backend = signer.Verified(backend)
	for _, workers := range []int{1, 4} {
		b.Run(map[int]string{1: "1 worker", 4: "4 workers a core"}[workers], func(b *testing.B) {
			signature := func() {
				if _, err := backend.SignMessage(b.Context(), signertest.Address(keys[0]), []byte("a message")); err != nil {
					b.Error(err)
				}
			}
			if workers == 1 {
				for b.Loop() {
					signature()
				}
			} else {
				b.SetParallelism(workers)
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						signature()
					}
				})
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
		})
	}
}
