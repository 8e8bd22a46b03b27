package cmd

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/internal/fireblockstest"
	"github.com/purser-onboard/purser/sandbox"
)

// sampleKeys are the keys of testdata/customers.csv, made as testdata/generate.go makes them.
func sampleKeys(t *testing.T) []*ecdsa.PrivateKey {
	t.Helper()
	var keys []*ecdsa.PrivateKey
	for i := range uint64(30) {
		seed := binary.BigEndian.AppendUint64([]byte("purser testdata v1 key "), i)
		key, err := crypto.ToECDSA(crypto.Keccak256(seed))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

// TestCustodian onboards the sample export with a custodian at which a person approves: the first run leaves the rows
// waiting, the second is killed while some are approved, the third settles them. Each transaction is requested once.
func TestCustodian(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	vault, err := fireblockstest.New(fireblockstest.Config{
		APIKey: "api-key", PublicKey: &key.PublicKey, Now: time.Now, Unsigned: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range sampleKeys(t) {
		vault.AddVault(strconv.Itoa(i), "ETH", k)
	}
	api := httptest.NewServer(vault)
	defer api.Close()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fireblocks.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	answered := newAfterLines(40)
	server, env := partnerEnv(t, sandbox.Config{HistoryLog: answered, DeclaredRate: 500})
	env = append(env, "PURSER_SIGNER=fireblocks://vault?api-key=api-key&private-key-file="+file+"&base-url="+api.URL,
		"PURSER_RETRY_MIN=10ms", "PURSER_RETRY_MAX=50ms")
	mustRun(t, env, "importer", customers)

	first, out := command(t, env, "consumer", "--drain", "--signer-wait", "500ms")
	err = first.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || strings.Count(out.String(), "for the custodian's transaction") != 30 {
		t.Fatalf("got %v, want exit code 3 and 30 waiting rows:\n%s", err, out)
	}
	if n := len(vault.Transactions()); n != 30 {
		t.Fatalf("got %d transactions, want 30", n)
	}
	for _, tx := range vault.Transactions()[:15] {
		if err := vault.Approve(tx.ExternalID); err != nil {
			t.Fatal(err)
		}
	}
	killAfter(t, env, answered) // 31 answers until now, the submissions of the approved ones follow
	for _, tx := range vault.Transactions()[15:] {
		if err := vault.Approve(tx.ExternalID); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
	for _, tx := range vault.Transactions() {
		if tx.Posts != 1 {
			t.Errorf("transaction %s: got %d requests, want 1", tx.ExternalID, tx.Posts)
		}
	}
	if n := len(vault.Transactions()); n != 30 {
		t.Errorf("got %d transactions, want 30", n)
	}
}
