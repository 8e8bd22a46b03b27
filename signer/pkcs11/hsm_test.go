//go:build hsm

package pkcs11

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/internal/pkcs11test"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// open opens the token with timings that suit a test; what ends the test closes it.
func open(t testing.TB, uri string, modules *Modules) *Token {
	t.Helper()
	modules.timing = &shortly
	backend, err := modules.Open(t.Context(), uri, signer.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := backend.Close(); err != nil {
			t.Errorf("Close: got error %v, want none", err)
		}
	})
	return backend.(*Token)
}

func TestSoftHSMConformance(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		return open(t, pkcs11test.New(t, keys...).URI(), new(Modules))
	})
}

// A thousand keys, each of which signs, by sixteen goroutines; and what the token gives is not what may be sent.
func TestSoftHSMThousandKeys(t *testing.T) {
	const n = 1000
	all := keys(n)
	token := open(t, pkcs11test.New(t, all...).URI(), new(Modules))
	line, err := token.Check(t.Context())
	if err != nil || !strings.Contains(line, `"purser test"`) || !strings.Contains(line, "1000 keys, sessions: 4") {
		t.Errorf("Check = %q, %v; want the token, 1000 keys and 4 sessions", line, err)
	}
	t.Log(line)

	verified := signer.Verified(token)
	message := []byte("example.com wants you to sign in")
	var group sync.WaitGroup
	var mu sync.Mutex
	var high int
	half := new(big.Int).Rsh(crypto.S256().Params().N, 1)
	for g := range 16 {
		group.Go(func() {
			for i := g; i < n; i += 16 {
				account := signertest.Address(all[i])
				if _, err := verified.SignMessage(t.Context(), account, message); err != nil {
					t.Errorf("key %d: got error %v, want none", i, err)
					return
				}
				raw, err := token.SignMessage(t.Context(), account, message)
				if err != nil {
					t.Errorf("key %d: got error %v, want none", i, err)
					return
				}
				if common.Hash(raw[32:64]).Big().Cmp(half) > 0 {
					mu.Lock()
					high++
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	if high < n/3 || high > 2*n/3 {
		t.Errorf("%d of %d raw signatures have a high s, want about half", high, n)
	}

	account := signertest.Address(all[0])
	one, err := verified.SignMessage(t.Context(), account, message)
	if err != nil {
		t.Fatal(err)
	}
	two, err := verified.SignMessage(t.Context(), account, message)
	if err != nil {
		t.Fatal(err)
	}
	if one == two {
		t.Error("got equal signatures of one message, want different ones, as devices make them")
	}
}

// Keys made in the token by the token, and by a program that knows nothing of addresses.
func TestSoftHSMGeneratedKeys(t *testing.T) {
	hsm := pkcs11test.New(t)
	accounts := hsm.Generate(20)
	dir := t.TempDir()
	tool := toolOf(t, hsm)
	tool("--keypairgen", "--key-type", "EC:secp256k1", "--id", "a1", "--label", "made by pkcs11-tool", "--usage-sign")
	file := filepath.Join(dir, "public.der")
	tool("--read-object", "--type", "pubkey", "--id", "a1", "--output-file", file)
	spki, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	public, err := crypto.UnmarshalPubkey(spki[len(spki)-65:])
	if err != nil {
		t.Fatal(err)
	}
	accounts = append(accounts, crypto.PubkeyToAddress(*public))

	// An import as docs/signers.md has it: the address is the ID and the label.
	imported := signertest.Key(3)
	account := signertest.Address(imported)
	der := filepath.Join(dir, "private.der")
	if err := os.WriteFile(der, sec1(imported), 0o600); err != nil {
		t.Fatal(err)
	}
	tool("--write-object", der, "--type", "privkey", "--id", strings.ToLower(account.Hex()[2:]),
		"--label", account.Hex(), "--usage-sign")
	accounts = append(accounts, account)

	token := open(t, hsm.URI(), new(Modules))
	for _, account := range accounts {
		if _, err := signer.Verified(token).SignMessage(t.Context(), account, []byte("hello")); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	}
}

func toolOf(t *testing.T, hsm *pkcs11test.Token) func(arguments ...string) {
	return func(arguments ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "pkcs11-tool", append([]string{
			"--module", hsm.Module, "--token-label", hsm.Label, "--login", "--pin", hsm.PIN,
		}, arguments...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("pkcs11-tool: got error %v, want none\n%s", err, out)
		}
	}
}

// A key whose public key object was deleted names no account; the reason of a row without a key describes it.
func TestSoftHSMKeyWithoutPublicKey(t *testing.T) {
	hsm := pkcs11test.New(t, signertest.Key(0))
	tool := toolOf(t, hsm)
	tool("--keypairgen", "--key-type", "EC:secp256k1", "--id", "a1", "--label", "customer 1", "--usage-sign")
	tool("--delete-object", "--type", "pubkey", "--id", "a1")
	tool("--keypairgen", "--key-type", "EC:secp256r1", "--id", addressOf(2).Hex()[2:], "--usage-sign")
	token := open(t, hsm.URI(), new(Modules))
	for i, want := range map[uint64]string{
		1: `CKA_ID "a1", CKA_LABEL "customer 1": it has no public key object`,
		2: "is on another curve, want secp256k1",
	} {
		err := token.HasKey(t.Context(), addressOf(i))
		if !errors.Is(err, signer.ErrNoKey) || !strings.Contains(err.Error(), want) {
			t.Errorf("HasKey = %v, want ErrNoKey with %q", err, want)
		}
	}
	line, err := token.Check(t.Context())
	if err != nil || !strings.Contains(line, `CKA_LABEL "customer 1"`) {
		t.Errorf("Check says %q, %v; want the key that names no account", line, err)
	}
}

// sec1 is key in DER (RFC 5915), which crypto/x509 does not write for this curve.
func sec1(key *ecdsa.PrivateKey) []byte {
	body := append([]byte{0x02, 0x01, 0x01, 0x04, 0x20}, crypto.FromECDSA(key)...)
	body = append(body, 0xa0, 0x07, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a, 0xa1, 0x44, 0x03, 0x42, 0x00)
	body = append(body, crypto.FromECDSAPub(&key.PublicKey)...)
	return append([]byte{0x30, byte(len(body))}, body...)
}

func TestSoftHSMWrongPIN(t *testing.T) {
	hsm := pkcs11test.New(t, signertest.Key(0))
	wrong := strings.Replace(hsm.PIN, "s", "\u017f", 1) // its form NFKC is the right one, and must not be tried
	if err := os.WriteFile(hsm.PINFile, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	counted := &counting{}
	modules := &Modules{load: counted.load}
	for range 3 {
		_, err := modules.Open(t.Context(), hsm.URI(), signer.Environment{})
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "CKR_PIN_INCORRECT") {
			t.Fatalf("got error %v, want ErrUnusable with CKR_PIN_INCORRECT", err)
		}
		if strings.Contains(err.Error(), wrong) {
			t.Errorf("got error %q, want none of the PIN in it", err)
		}
	}
	if n := counted.logins; n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	if err := os.WriteFile(hsm.PINFile, []byte(hsm.PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sign(t, open(t, hsm.URI(), new(Modules)), signertest.Key(0)); err != nil {
		t.Errorf("as by the next process, with the right PIN: got error %v, want none", err)
	}
}

// counting is the real library, its logins counted.
type counting struct {
	cryptoki
	logins int
}

func (c *counting) load(path string) cryptoki {
	c.cryptoki = loadLibrary(path)
	return c
}

func (c *counting) Login(session p11.SessionHandle, user uint, pin string) error {
	c.logins++
	return c.cryptoki.Login(session, user, pin)
}

func TestSoftHSMMissingKey(t *testing.T) {
	hsm := pkcs11test.New(t, keys(3)...)
	var later atomic.Int64
	env := signer.Environment{Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }}
	token, err := new(Modules).Open(t.Context(), hsm.URI(), env)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	err = sign(t, token, signertest.Key(3))
	if !errors.Is(err, signer.ErrNoKey) || errors.Is(err, signer.ErrUnusable) {
		t.Errorf("error %v, want ErrNoKey", err)
	}
	hsm.Import(signertest.Key(3))
	later.Store(int64(time.Minute))
	if err := sign(t, token, signertest.Key(3)); err != nil {
		t.Errorf("a key imported later: got error %v, want none", err)
	}
}

// The token is removed and restored repeatedly while eight goroutines sign. No call may return ErrNoKey.
func TestSoftHSMRemovedAndBack(t *testing.T) {
	all := keys(20)
	hsm := pkcs11test.New(t, all...)
	token := open(t, hsm.URI(), new(Modules))
	for round := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		away, back := make(chan struct{}, 1), make(chan struct{}, 1)
		var group sync.WaitGroup
		for g := range 8 {
			group.Go(func() {
				for i := g; ctx.Err() == nil; i++ {
					_, err := signer.Verified(token).SignMessage(ctx, signertest.Address(all[i%20]), []byte("hello"))
					var gone *AwayError
					switch {
					case err == nil:
						notice(back)
					case errors.As(err, &gone) && !gone.Given:
						notice(away)
					case ctx.Err() == nil:
						t.Errorf("round %d: got error %v, want none or the context's", round, err)
						cancel()
					}
				}
			})
		}
		wait(ctx, back)
		hsm.Remove()
		wait(ctx, away)
		hsm.Restore()
		drain(back) // of signatures made before it was pulled
		wait(ctx, back)
		cancel()
		group.Wait()
	}
	for sign(t, token, all[0]) != nil && !t.Failed() { // the last call of the loop above may have lost it once more
	}
	if err := token.HasKey(t.Context(), addressOf(19)); err != nil {
		t.Errorf("HasKey = %v, want nil", err)
	}
}

func notice(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func wait(ctx context.Context, c chan struct{}) {
	select {
	case <-c:
	case <-ctx.Done():
	}
}

// The whole directory is away, so that not even C_Initialize works, and does not come back.
func TestSoftHSMGoneForGood(t *testing.T) {
	hsm := pkcs11test.New(t, signertest.Key(0))
	brief := shortly
	brief.patience = 20 * time.Millisecond
	modules := &Modules{timing: &brief}
	backend, err := modules.Open(t.Context(), hsm.URI(), signer.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	if err := sign(t, backend, signertest.Key(0)); err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(filepath.Dir(hsm.Config), "tokens")
	if err := os.Rename(tokens, tokens+".gone"); err != nil {
		t.Fatal(err)
	}
	for {
		err := sign(t, backend, signertest.Key(0))
		if errors.Is(err, signer.ErrUnusable) {
			t.Log(err)
			return
		}
		var away *AwayError
		if !errors.As(err, &away) {
			t.Fatalf("error %v, want an AwayError until it is given up", err)
		}
	}
}

const childVariable = "PURSER_TEST_HSM_CHILD"

// Two processes on one token, then a third that is killed in the middle.
func TestSoftHSMTwoProcesses(t *testing.T) {
	hsm := pkcs11test.New(t, keys(50)...)
	child := func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSoftHSMChild$", "-test.v")
		cmd.Env = append(os.Environ(), append(hsm.Env(), childVariable+"="+hsm.URI())...)
		return cmd
	}
	token := open(t, hsm.URI(), new(Modules))
	work := func() {
		t.Helper()
		for i := range 200 {
			if err := sign(t, token, signertest.Key(uint64(i%50))); err != nil {
				t.Fatal(err)
			}
		}
	}

	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			out, err := child(t.Context()).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("signed 200")) {
				t.Errorf("child: got error %v, want 200 signatures\n%s", err, out)
			}
		})
	}
	work()
	group.Wait()

	doomed := child(t.Context())
	out, err := doomed.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := doomed.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "signed 50"); {
	}
	if err := doomed.Process.Kill(); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	_ = doomed.Wait()
	work()
}

// TestSoftHSMChild is the other process of TestSoftHSMTwoProcesses, and nothing when it is run by itself.
func TestSoftHSMChild(t *testing.T) {
	uri := os.Getenv(childVariable)
	if uri == "" {
		return
	}
	token := open(t, uri, new(Modules))
	for i := range 200 {
		if err := sign(t, token, signertest.Key(uint64(i%50))); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			fmt.Println("signed", i+1)
		}
	}
}

func BenchmarkSoftHSM(b *testing.B) {
	all := keys(100)
	for _, sessions := range []int{1, 4} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			hsm := pkcs11test.New(b, all...)
			token := open(b, hsm.URI(fmt.Sprintf("sessions=%d", sessions)), new(Modules))
			message := bytes.Repeat([]byte("x"), 400)
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := token.SignMessage(b.Context(), signertest.Address(all[i%100]), message); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
		})
	}
}

func BenchmarkSoftHSMOpen(b *testing.B) {
	hsm := pkcs11test.New(b, keys(1000)...)
	for b.Loop() {
		backend, err := new(Modules).Open(b.Context(), hsm.URI(), signer.Environment{})
		if err != nil {
			b.Fatal(err)
		}
		if err := backend.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
