//go:build external

package clef

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/internal/keystoretest"
	"github.com/purser-onboard/purser/internal/remotetest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

const (
	masterPassword = "the master password"
	filePassword   = "the key files' password"
)

// rules approve all but what says that it should not be.
const rules = `
function ApproveListing() { return "Approve" }
function ApproveSignData(r) {
	if (r.content_type != "text/plain") { return "Reject" }
	return r.messages[0].value.indexOf("decline this") >= 0 ? "Reject" : "Approve"
}
function OnSignerStartup() {}
`

// binary is the Clef that `make test-external` builds, or the one that the variable CLEF names. A machine without it
// cannot pass: these tests were asked for.
func binary(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv("CLEF")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "tools", "clef")
	}
	if _, err := os.Stat(path); err != nil {
		tb.Fatalf("no clef (make test-external builds it; or set CLEF): %v", err)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// installation is a Clef with all it needs to run unattended.
type installation struct {
	binary  string
	dir     string
	options []string
}

// newInstallation sets a Clef up as docs/signers.md describes it: a master seed, key files of scrypt cost n, their
// passwords, and attested rules. The last of keys gets no password stored.
func newInstallation(tb testing.TB, n, p int, keys ...*ecdsa.PrivateKey) installation {
	tb.Helper()
	dir, err := os.MkdirTemp("", "clef") //nolint:usetesting // a socket's path has 104 bytes at most
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := installation{binary: binary(tb), dir: dir, options: []string{
		"--suppress-bootwarn", "--configdir", filepath.Join(dir, "config"), "--keystore", filepath.Join(dir, "keys"),
		"--nousb", "--lightkdf",
	}}
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
		tb.Fatal(err)
	}
	c.run(tb, []string{masterPassword, masterPassword}, "init")
	random := rand.NewChaCha8([32]byte{1})
	for i, key := range keys {
		file, err := keystoretest.KeyFile(key, filePassword, n, p, random)
		if err != nil {
			tb.Fatal(err)
		}
		c.write(tb, filepath.Join("keys", strings.ToLower(signertest.Address(key).Hex()[2:])+".json"), file)
		if i < len(keys)-1 {
			c.run(tb, []string{filePassword, filePassword, masterPassword}, "setpw", signertest.Address(key).Hex())
		}
	}
	c.write(tb, "rules.js", []byte(rules))
	sum := sha256.Sum256([]byte(rules))
	c.run(tb, []string{masterPassword}, "attest", hex.EncodeToString(sum[:]))
	return c
}

func (c installation) write(tb testing.TB, name string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), data, 0o600); err != nil {
		tb.Fatal(err)
	}
}

func (c installation) command(args []string, input io.Reader) *exec.Cmd {
	command := exec.Command(c.binary, slices.Concat(c.options, args)...)
	command.Dir = c.dir // it leaves its audit log and 4byte file where it stands
	command.Stdin = input
	return command
}

// run runs a command of Clef's that asks for the lines of input.
func (c installation) run(tb testing.TB, input []string, args ...string) {
	tb.Helper()
	out, err := c.command(args, strings.NewReader(strings.Join(input, "\n")+"\n")).CombinedOutput()
	if err != nil {
		tb.Fatalf("clef %s: %v\n%s", args[0], err, out)
	}
}

// start starts Clef's servers on a free port and on the socket, and gives the URIs.
func (c installation) start(tb testing.TB) (overHTTP, overSocket string, command *exec.Cmd) {
	tb.Helper()
	command = c.command([]string{"--rules", filepath.Join(c.dir, "rules.js"), "--http", "--http.port", "0"},
		strings.NewReader(masterPassword+"\n"))
	found := remotetest.Start(tb, command, 2, func(line string) (int, string, bool) {
		if url, ok := strings.CutPrefix(line, "* extapi_http : "); ok {
			return 0, strings.TrimSuffix(url, "/"), true
		}
		path, ok := strings.CutPrefix(line, "* extapi_ipc : ")
		return 1, path, ok
	})
	return "clef+" + found[0], "clef+unix:" + found[1], command
}

func TestRealClef(t *testing.T) {
	keys := []*ecdsa.PrivateKey{signertest.Key(0), signertest.Key(1), signertest.Key(2), signertest.Key(3)}
	locked := signertest.Key(5)
	overHTTP, overSocket, command := newInstallation(t, 2, 1, append(keys, locked)...).start(t)
	for name, uri := range map[string]string{"HTTP": overHTTP, "Socket": overSocket} {
		t.Run(name, func(t *testing.T) {
			signertest.RunKeys(t, keys, func(t *testing.T) signer.Backend {
				t.Helper()
				return open(t, uri, signer.Environment{})
			})
			c := open(t, uri, signer.Environment{})
			line, err := c.Check(t.Context())
			if err != nil || !strings.Contains(line, `(API "6.1.0"): 5 accounts`) {
				t.Errorf("Check = %q, %v; want API 6.1.0 and 5 accounts", line, err)
			}
			account := signertest.Address(keys[0])
			if _, err := c.SignMessage(t.Context(), account, []byte("please decline this")); !errors.Is(err, signer.ErrDeclined) {
				t.Errorf("what the rules decline: got error %v, want ErrDeclined", err)
			}
			_, err = c.SignMessage(t.Context(), signertest.Address(locked), []byte("x"))
			if err == nil || !strings.Contains(err.Error(), "clef setpw") || errors.Is(err, signer.ErrUnusable) {
				t.Errorf("an account whose password is not stored: error %v, want a transient one with advice", err)
			}
		})
	}
	c := open(t, overSocket, signer.Environment{})
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The kernel closes its sockets at some moment after the kill; each call until then is answered or breaks off.
	var err error
	for err == nil {
		_, err = c.SignMessage(t.Context(), signertest.Address(keys[0]), []byte("x"))
	}
	if errors.Is(err, signer.ErrUnusable) || errors.Is(err, signer.ErrNoKey) {
		t.Errorf("signing with a Clef that is gone: error %v, want a transient one", err)
	}
	if _, err := c.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("checking a Clef that is gone: error %v, want ErrUnusable", err)
	}
}

func BenchmarkClef(b *testing.B) {
	key, spare := signertest.Key(0), signertest.Key(1)
	for _, cost := range []struct{ n, p int }{{2, 1}, {4096, 6}} {
		overHTTP, overSocket, _ := newInstallation(b, cost.n, cost.p, key, spare).start(b)
		for _, way := range []struct{ name, uri string }{{"HTTP", overHTTP}, {"socket", overSocket}} {
			backend, err := Open(b.Context(), way.uri, signer.Environment{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = backend.Close() })
			backend = signer.Verified(backend)
			for _, parallel := range []int{0, 4} {
				b.Run(fmt.Sprintf("N=%d/%s/workers=%d", cost.n, way.name, max(1, parallel*2)), func(b *testing.B) {
					sign := func() {
						if _, err := backend.SignMessage(b.Context(), signertest.Address(key), []byte("a message")); err != nil {
							b.Error(err)
						}
					}
					if parallel == 0 {
						for b.Loop() {
							sign()
						}
					} else {
						b.SetParallelism(parallel)
						b.RunParallel(func(p *testing.PB) {
							for p.Next() {
								sign()
							}
						})
					}
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
				})
			}
		}
	}
}
