package cmd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/purser-onboard/purser/sandbox"
)

// newKey writes a signing key that is registered with no partner.
func newKey(t *testing.T) (path string, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "other-key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, key
}

// TestDefaultsOnboard: default settings onboard every row with a partner that verifies as the vendor does, or as the
// RFC says, whatever this machine's clock shows.
func TestDefaultsOnboard(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		verify sandbox.Verification
		ahead  time.Duration // of the partner's clock
	}{
		"vendor":                        {verify: sandbox.VerifyVendor},
		"rfc":                           {verify: sandbox.VerifyRFC},
		"vendor, clock 700 ms ahead":    {verify: sandbox.VerifyVendor, ahead: 700 * time.Millisecond},
		"vendor, clock 700 ms behind":   {verify: sandbox.VerifyVendor, ahead: -700 * time.Millisecond},
		"vendor, clock 100 s ahead":     {verify: sandbox.VerifyVendor, ahead: 100 * time.Second},
		"vendor, clock 100 s behind":    {verify: sandbox.VerifyVendor, ahead: -100 * time.Second},
		"rfc, clock 700 ms in the past": {verify: sandbox.VerifyRFC, ahead: -700 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			server, env := partnerEnv(t, sandbox.Config{Verify: tt.verify, DeclaredRate: 500})
			server.Advance(-tt.ahead)
			mustRun(t, env, "importer", customers)
			if r := drain(t, env, 0); r.Rows.Onboarded != 30 {
				t.Errorf("got %d onboarded, want 30", r.Rows.Onboarded)
			}
			if verdict := server.Judge(nil); len(verdict.Violations) > 0 {
				t.Errorf("got violations %+v, want none", verdict.Violations)
			}
		})
	}
}

// TestWrongSetUp: a run with a wrong setting ends soon, with exit code 2 and the setting's name, after few rows have
// failed or none. With the right setting the other rows are onboarded, and the failed ones when they are imported
// again.
func TestWrongSetUp(t *testing.T) {
	t.Parallel()
	wrongKey, _ := newKey(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("not the secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		faults   string
		args     []string
		says     string
		spent    int // rows that failed or were refused
		requests int // at most
	}{
		"signing key": {args: []string{"--signing-key", wrongKey}, says: "--signing-key", requests: 6},
		"signing key id": {args: []string{"--signing-key-id", "00000000-0000-0000-0000-000000000000"},
			says: "--signing-key-id", requests: 6},
		"components": {args: []string{"--signature-components", "@method,@target-uri,authorization"},
			says: "--signature-components", requests: 6},
		"secret": {args: []string{"--api-secret-file", secret}, says: "--api-secret-file", requests: 3},
		"domain": {args: []string{"--challenge-domain", "other.example"}, says: "--challenge-domain", spent: 5, requests: 40},
		"encoding": {args: []string{"--signature-encoding", "raw"}, says: "--signature-encoding", spent: 5,
			requests: 120},
		"undocumented status": {faults: "status-unknown=1,on=create", says: "status", spent: 5, requests: 20},
		"wrapped customers":   {faults: "wrapped=1,on=create", says: `has no "id"; it has "`, requests: 40},
		"renamed token":       {faults: "renamed=1,on=token", says: `"accessToken"`, requests: 10},
		"another 2xx": {faults: "sign-2xx-undone=1", args: []string{"--max-attempts", "2", "--retry-min", "1ms"},
			says: "want 204", spent: 5, requests: 200},
	} {
		t.Run(name, func(t *testing.T) {
			server, env := partnerEnv(t, withFaults(t, tt.faults))
			mustRun(t, env, "importer", customers)
			r := drain(t, env, 2, tt.args...)
			if got := r.Rows.Failed + r.Rows.Refused; got != tt.spent || r.Rows.Onboarded != 0 || r.Exit != 2 {
				t.Errorf("got %d rows spent and %d onboarded (%s), want %d and none", got, r.Rows.Onboarded, r.Reason, tt.spent)
			}
			if r.Requests.Sent > tt.requests {
				t.Errorf("got %d requests, want at most %d", r.Requests.Sent, tt.requests)
			}
			if !strings.Contains(r.Reason, tt.says) || strings.Contains(r.Reason, "not the secret") {
				t.Errorf("got reason %q, want %s in it and no secret", r.Reason, tt.says)
			}
			server.SetFaults(sandbox.Faults{})
			// Messages of rows that have failed may be redelivered, and are skipped.
			again := drainTo(t, env, []int{0, 3})
			mustRun(t, env, "importer", customers)
			rest := drain(t, env, 0)
			if got := again.Rows.Onboarded + rest.Rows.Onboarded; got != 30 {
				t.Errorf("got %d onboarded with the right setting, want 30", got)
			}
			if verdict := server.Judge(nil); len(verdict.Violations) > 0 || verdict.Customers != 30 {
				t.Errorf("got %d customers and violations %+v, want 30 and none", verdict.Customers, verdict.Violations)
			}
		})
	}
}

// TestStrangeAnswers: responses that deviate from the documentation, but are sufficient, are understood.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]string{
		"statuses in capitals":         "status-case=1",
		"another 2xx to a submission":  "sign-2xx=1",
		"pages with links":             "list-link=1,stored-5xx-after=0.3,on=create+list,limit=4",
		"a list that announces more":   "list-paged=1,drop-after=0.2,limit=1",
		"statuses of the future, once": "sign-2xx=0.5,drop-after=0.2,limit=2",
	} {
		t.Run(name, func(t *testing.T) {
			server, env := partnerEnv(t, withFaults(t, faults))
			mustRun(t, env, "importer", customers)
			if r := drain(t, env, 0, "--retry-min", "5ms", "--list-pause", "50ms"); r.Rows.Onboarded != 30 {
				t.Errorf("got %d onboarded (%s), want 30", r.Rows.Onboarded, r.Reason)
			}
			if verdict := server.Judge(nil); len(verdict.Violations) > 0 || verdict.Customers != 30 {
				t.Errorf("got %d customers and violations %+v, want 30 and none", verdict.Customers, verdict.Violations)
			}
		})
	}
}

// TestCheckFindsTheSetting: check prints the flag with which the partner accepts requests.
func TestCheckFindsTheSetting(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config sandbox.Config
		wrong  []string
		finds  string
	}{
		"components": {
			wrong: []string{"--signature-components", "@method,@target-uri,authorization,content-type,content-digest,idempotency-key"},
			finds: "--signature-components=@method,@authority,@path,@query,authorization,content-type,content-digest,idempotency-key",
		},
		"target URI": {
			config: sandbox.Config{Verify: sandbox.VerifyRFC, RequiredComponents: []string{"@method", "@target-uri"}},
			finds:  "--signature-components=@method,@target-uri,authorization,content-type,content-digest,idempotency-key",
		},
		"parameters": {
			config: sandbox.Config{RequiredParams: []string{"created", "nonce", "expires"}},
			finds:  "--signature-parameters=nonce,expires",
		},
		"age": {
			config: sandbox.Config{SignatureSkew: -1},
			wrong:  []string{"--signature-age", "0s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, env := partnerEnv(t, tt.config)
			if tt.finds == "" {
				mustRun(t, env, "consumer", append([]string{"check"}, tt.wrong...)...)
				return
			}
			exitsWith(t, env, 2, []string{"FAIL  partner", tt.finds}, "consumer", append([]string{"check"}, tt.wrong...)...)
			mustRun(t, env, "consumer", "check", tt.finds)
			if created := server.Stats().Created; created != 0 {
				t.Errorf("got %d customers created by check, want none", created)
			}
			mustRun(t, env, "importer", customers)
			if r := drain(t, env, 0, tt.finds); r.Rows.Onboarded != 30 {
				t.Errorf("got %d onboarded, want 30", r.Rows.Onboarded)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		_, env := partnerEnv(t, sandbox.Config{})
		key, _ := newKey(t)
		exitsWith(t, env, 2, []string{"none of", "--signing-key", "register-key"}, "consumer", "check", "--signing-key", key)
	})
}

// TestKeyRotatedInTheMiddle: a signing key that is replaced during a run halts it. The next run, with the new key,
// onboards the other rows.
func TestKeyRotatedInTheMiddle(t *testing.T) {
	t.Parallel()
	path, key := newKey(t)
	var answered atomic.Int64
	var running *sandbox.Server
	var apiKey, secret string
	known := make(chan struct{}) // closed when the three are set
	server, env := partnerBehind(t, sandbox.Config{DeclaredRate: 500}, func(partner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if answered.Add(1) == 25 {
				<-known
				running.Register(apiKey, secret, "rotated", &key.PublicKey)
			}
			partner.ServeHTTP(w, r)
		})
	})
	raw, err := os.ReadFile(setting(env, "OFFBLOCKS_API_SECRET_FILE"))
	if err != nil {
		t.Fatal(err)
	}
	running, apiKey, secret = server, setting(env, "OFFBLOCKS_API_KEY"), string(raw)
	close(known)
	mustRun(t, env, "importer", customers)
	r := drain(t, env, 2)
	if r.Rows.Failed != 0 || r.Rows.Refused != 0 || r.Rows.Onboarded == 0 || r.Rows.Onboarded == 30 ||
		!strings.Contains(r.Reason, "--signing-key") {
		t.Errorf("got %+v, want some rows onboarded, none spent, and --signing-key named", r)
	}
	rest := drain(t, env, 0, "--signing-key", path, "--signing-key-id", "rotated")
	if got := r.Rows.Onboarded + rest.Rows.Onboarded; got != 30 {
		t.Errorf("got %d onboarded in both runs, want 30", got)
	}
}

// TestUnknownAuthority: a certificate that does not verify ends the run at once; --api-ca makes it verify.
func TestUnknownAuthority(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	secure := httptest.NewTLSServer(server.API())
	defer secure.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(authority, text, 0o600); err != nil {
		t.Fatal(err)
	}
	env = append(env, "OFFBLOCKS_API_URL="+secure.URL+"/v1")
	mustRun(t, env, "importer", customers)
	start := time.Now()
	r := drain(t, env, 2)
	if r.Rows.Failed != 0 || !strings.Contains(r.Reason, "--api-ca") || !strings.Contains(r.Reason, "certificate") {
		t.Errorf("got %+v, want no row spent, and --api-ca named", r)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("got a halt after %v, want it at the first occurrence", took)
	}
	if r := drain(t, env, 0, "--api-ca", authority); r.Rows.Onboarded != 30 {
		t.Errorf("got %d onboarded with --api-ca, want 30", r.Rows.Onboarded)
	}
}

// TestEncodingChanged: rows with a recorded signature are onboarded after a change of the encoding.
func TestEncodingChanged(t *testing.T) {
	t.Parallel()
	config := withFaults(t, "unstored-5xx=1,on=sign")
	config.Encoding = sandbox.EncodingRaw
	refused := newAfterLines(60)
	config.HistoryLog = refused
	server, env := partnerEnv(t, config)
	env = append(env, "PURSER_RETRY_MIN=1ms", "PURSER_RETRY_MAX=10ms")
	mustRun(t, env, "importer", customers)
	cmd, out := command(t, env, "consumer", "--drain", "--max-attempts", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-refused.done
	if err := errors.Join(cmd.Process.Kill(), ignoreExit(cmd.Wait())); err != nil {
		t.Fatalf("got %v, want the consumer killed:\n%s", err, out)
	}
	server.SetFaults(sandbox.Faults{})
	if r := drain(t, env, 0, "--signature-encoding", "raw"); r.Rows.Onboarded != 30 || r.Rows.Failed != 0 {
		t.Errorf("got %+v, want 30 onboarded", r)
	}
}

// TestPartnerIsTheVendors: by default the sandbox of all tests verifies as the vendor's library does, for which no
// signature that covers @target-uri is valid.
func TestPartnerIsTheVendors(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{})
	exitsWith(t, env, 0, nil, "consumer", "check")
	env = append(env, "OFFBLOCKS_SIGNATURE_COMPONENTS=@method,@target-uri,"+
		"authorization,content-type,content-digest,idempotency-key")
	exitsWith(t, env, 2, []string{"invalid required signature"}, "consumer", "check")
}
