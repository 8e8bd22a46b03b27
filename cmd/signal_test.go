package cmd

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/sandbox"
)

// partnerEnv starts a stand-in and returns it with the environment that commands need to work against it.
func partnerEnv(t testing.TB, config sandbox.Config) (*sandbox.Server, []string) {
	t.Helper()
	return partnerBehind(t, config, func(partner http.Handler) http.Handler { return partner })
}

// partnerBehind is partnerEnv with something in front of the stand-in.
func partnerBehind(
	t testing.TB, config sandbox.Config, front func(partner http.Handler) http.Handler,
) (*sandbox.Server, []string) {
	t.Helper()
	dir := t.TempDir()
	creds, err := sandbox.NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	config.Now = time.Now
	server, err := sandbox.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.RegisterCredentials(creds); err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(front(server.API()))
	t.Cleanup(api.Close)
	secret, key := filepath.Join(dir, "secret"), filepath.Join(dir, "key.pem")
	if err := errors.Join(
		os.WriteFile(secret, []byte(creds.APISecret), 0o600),
		os.WriteFile(key, creds.PrivateKeyPEM, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	samples, err := filepath.Abs("../testdata")
	if err != nil {
		t.Fatal(err)
	}
	return server, append(os.Environ(),
		"OFFBLOCKS_API_URL="+api.URL+"/v1", "OFFBLOCKS_API_KEY="+creds.APIKey, "OFFBLOCKS_API_SECRET_FILE="+secret,
		"OFFBLOCKS_SIGNING_KEY="+key, "OFFBLOCKS_SIGNING_KEY_ID="+creds.KeyID,
		"PURSER_INSECURE_PERMISSIONS=true", // of the sample keystore in a clone
		"PURSER_SIGNER=keystore://"+samples+"/keystore?password-file="+samples+"/keystore-password",
		"PURSER_CHAIN=eip155:300", "PURSER_DATA_DIR="+filepath.Join(dir, "data"), "PURSER_RATE=500",
	)
}

// TestPartnerIsTheVendors: by default the stand-in of all suites verifies as the vendor's library does, by which no
// signature that covers @target-uri is valid.
func TestPartnerIsTheVendors(t *testing.T) {
	_, env := partnerEnv(t, sandbox.Config{})
	exitsWith(t, env, 0, nil, "consumer", "check")
	env = append(env, "OFFBLOCKS_SIGNATURE_COMPONENTS=@method,@target-uri,"+
		"authorization,content-type,content-digest,idempotency-key")
	exitsWith(t, env, 2, []string{"invalid required signature"}, "consumer", "check")
}

// command prepares one of the commands; its output is kept for the test's log.
func command(t testing.TB, env []string, name string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &out
	return cmd, &out
}

func mustRun(t testing.TB, env []string, name string, args ...string) {
	t.Helper()
	cmd, out := command(t, env, name, args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// onKafka says where the rows queue. Each test has topics and a group of its own.
func onKafka(env, brokers []string, name string) []string {
	return append(env, "KAFKA_BROKERS="+strings.Join(brokers, ","), "PURSER_TOPIC="+name,
		"PURSER_DEAD_LETTER_TOPIC="+name+".dead", "PURSER_RESULTS_TOPIC="+name+".results", "PURSER_GROUP="+name)
}

// exitsWith runs a command and fails the test unless it ends with that code and says all of that.
func exitsWith(t *testing.T, env []string, code int, says []string, name string, args ...string) {
	t.Helper()
	cmd, out := command(t, env, name, args...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("%s %v ended with %d, want %d:\n%s", name, args, got, code, out)
	}
	for _, s := range says {
		if !strings.Contains(out.String(), s) {
			t.Errorf("%s %v does not say %q:\n%s", name, args, s, out)
		}
	}
}

// afterLines closes a channel when so many lines have been written to it.
type afterLines struct {
	left atomic.Int64
	done chan struct{}
}

func newAfterLines(n int64) *afterLines {
	w := &afterLines{done: make(chan struct{})}
	w.left.Store(n)
	return w
}

func (w *afterLines) Write(p []byte) (int, error) {
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
	return len(p), nil
}

// heedHangUp has the commands that the test starts heed SIGHUP, also when the tests run under nohup: they inherit that it
// is ignored, but not that it is caught.
func heedHangUp(t *testing.T) {
	t.Helper()
	heeded := make(chan os.Signal, 1)
	signal.Notify(heeded, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(heeded) })
}

// TestStopInTheMiddle stops a consumer in the middle of its work. After SIGINT and SIGTERM it says what is left; after
// any of them the next run goes on, and the partner saw nothing twice.
func TestStopInTheMiddle(t *testing.T) {
	t.Parallel()
	heedHangUp(t)
	for _, tt := range []struct {
		signal syscall.Signal
		exit   int
		says   string
	}{
		{syscall.SIGINT, 1, "interrupted by interrupt"},
		{syscall.SIGTERM, 1, "interrupted by terminated"},
		{syscall.SIGHUP, 1, "interrupted by hangup"},
		{syscall.SIGKILL, -1, ""},
	} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			answered := newAfterLines(15)
			server, env := partnerEnv(t, sandbox.Config{Latency: 20 * time.Millisecond, HistoryLog: answered, DeclaredRate: 500})
			mustRun(t, env, "importer", "../testdata/customers.csv")
			cmd, out := command(t, env, "consumer", "--drain", "--concurrency", "3")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-answered.done
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != tt.exit || !strings.Contains(out.String(), tt.says) {
				t.Fatalf("ended with %v:\n%s", err, out)
			}
			if tt.exit == 1 && !strings.Contains(out.String(), "not settled") {
				t.Errorf("does not say what is left:\n%s", out)
			}
			const waits = "waiting for the requests in flight (each --request-timeout at most); a second signal cuts that short"
			if tt.exit == 1 && !strings.Contains(out.String(), waits) {
				t.Errorf("does not say %q:\n%s", waits, out)
			}
			if n := server.Stats().Created; n == 30 {
				t.Fatal("it was not stopped in the middle: all customers are created")
			}
			mustRun(t, env, "consumer", "--drain")
			var expected []sandbox.Expected
			for _, c := range server.Customers() {
				expected = append(expected, sandbox.Expected{ChainID: c.ChainID, ExternalID: c.ExternalID})
			}
			if verdict := server.Judge(expected); len(verdict.Violations) > 0 || verdict.Customers != 30 {
				t.Errorf("%+v", verdict)
			}
		})
	}
}

// TestSecondCopy starts a second consumer, and an importer, on the data directory of a running one.
func TestSecondCopy(t *testing.T) {
	answered := newAfterLines(3)
	_, env := partnerEnv(t, sandbox.Config{HistoryLog: answered})
	mustRun(t, env, "importer", "../testdata/customers.csv")
	cmd, out := command(t, env, "consumer")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-answered.done
	for _, args := range [][]string{{"consumer", "--drain"}, {"importer", "../testdata/customers.csv"}} {
		second, text := command(t, env, args[0], args[1:]...)
		err := second.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(text.String(), "in use by process") {
			t.Errorf("%v ended with %v:\n%s", args, err, text)
		}
	}
	mustRun(t, env, "consumer", "status") // reading is possible meanwhile
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Errorf("ended with 0 although stopped:\n%s", out)
	}
}

// TestStopImporter stops an importer that waits for a pipe nobody writes to any more.
func TestStopImporter(t *testing.T) {
	_, env := partnerEnv(t, sandbox.Config{})
	cmd, out := command(t, env, "importer", "-")
	pipe, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// More than a pipe holds: when all of it is written, the importer is reading.
	bad := "address,externalId\n" + strings.Repeat("no address,e\n", 40_000)
	if _, err := io.WriteString(pipe, bad); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out.String(), "interrupted by interrupt") {
		t.Errorf("ended with %v:\n%s", err, out)
	}
}
