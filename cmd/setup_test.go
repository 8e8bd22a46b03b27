package cmd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/purser-onboard/purser/sandbox"
)

// report is what a consumer's --report says.
type report struct {
	Rows struct {
		Received, Skipped, Onboarded, AlreadyOnboarded, Refused, Failed, Conflict int
	}
	Requests   struct{ Sent int }
	Signatures int
	Reason     string
	Exit       int
}

// drain runs a consumer to its end, which must have this exit code, and returns its report.
func drain(t *testing.T, env []string, code int, args ...string) report {
	t.Helper()
	return drainTo(t, env, []int{code}, args...)
}

// drainTo is drain where several exit codes are right.
func drainTo(t *testing.T, env []string, codes []int, args ...string) report {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.json")
	cmd, out := command(t, env, "consumer", append([]string{"--drain", "--report", path}, args...)...)
	if err := ignoreExit(cmd.Run()); err != nil {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); !slices.Contains(codes, got) {
		t.Errorf("consumer %v: got exit code %d, want one of %v:\n%s", args, got, codes, out)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// newKey writes a signing key that no partner knows.
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

func withFaults(t *testing.T, text string) sandbox.Config {
	t.Helper()
	faults, err := sandbox.ParseFaults(text)
	if err != nil {
		t.Fatal(err)
	}
	return sandbox.Config{Faults: faults, DeclaredRate: 500}
}

// TestDefaultsOnboard: default settings onboard every row with a partner that verifies as the vendor does, or as the
// RFC says, whatever this machine's clock shows.
func TestDefaultsOnboard(t *testing.T) {
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

// TestWrongSetUp: each wrong setting ends with exit code 2 and its name, soon, and spends few rows or none. With the
// right setting the rows that were left are onboarded, and those that were spent when they are imported again.
func TestWrongSetUp(t *testing.T) {
	wrongKey, _ := newKey(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("not the secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		faults   string
		args     []string
		says     string
		spent    int // rows that ended
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
				t.Errorf("got reason %q, want it to name %s", r.Reason, tt.says)
			}
			server.SetFaults(sandbox.Faults{})
			// Messages of rows that were spent may come once more, and are skipped.
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

// TestStrangeAnswers: answers that are not as documented, but that tell enough, are understood.
func TestStrangeAnswers(t *testing.T) {
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

// TestCheckFindsTheSetting: check prints the flag that the partner accepts, and it works.
func TestCheckFindsTheSetting(t *testing.T) {
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

// TestKeyRotatedInTheMiddle: a signing key that is replaced during a run halts it; the rows that were left go on with the
// new key.
func TestKeyRotatedInTheMiddle(t *testing.T) {
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
	for _, v := range env {
		if id, ok := strings.CutPrefix(v, "OFFBLOCKS_API_KEY="); ok {
			apiKey = id
		}
		if file, ok := strings.CutPrefix(v, "OFFBLOCKS_API_SECRET_FILE="); ok {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			secret = string(raw)
		}
	}
	running = server
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
	begun := time.Now()
	r := drain(t, env, 2)
	if r.Rows.Failed != 0 || !strings.Contains(r.Reason, "--api-ca") || !strings.Contains(r.Reason, "certificate") {
		t.Errorf("got %+v, want no row spent, and --api-ca named", r)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("got a halt after %v, want it at the first occurrence", took)
	}
	if r := drain(t, env, 0, "--api-ca", authority); r.Rows.Onboarded != 30 {
		t.Errorf("got %d onboarded with --api-ca, want 30", r.Rows.Onboarded)
	}
}

// TestEncodingChanged: rows whose signature was recorded in one encoding go on in another.
func TestEncodingChanged(t *testing.T) {
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
		t.Fatalf("%v:\n%s", err, out)
	}
	server.SetFaults(sandbox.Faults{})
	if r := drain(t, env, 0, "--signature-encoding", "raw"); r.Rows.Onboarded != 30 || r.Rows.Failed != 0 {
		t.Errorf("got %+v, want 30 onboarded", r)
	}
}

// ignoreExit is nil for a process that was killed or ended with an exit code.
func ignoreExit(err error) error {
	if errors.As(err, new(*exec.ExitError)) {
		return nil
	}
	return err
}
