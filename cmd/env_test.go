package cmd

import (
	"cmp"
	"encoding/csv"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// partnerEnv starts a sandbox and returns it with the environment in which commands use it.
func partnerEnv(t testing.TB, config sandbox.Config) (*sandbox.Server, []string) {
	t.Helper()
	return partnerBehind(t, config, func(partner http.Handler) http.Handler { return partner })
}

// partnerBehind is partnerEnv with a handler in front of the sandbox.
func partnerBehind(
	t testing.TB, config sandbox.Config, front func(partner http.Handler) http.Handler,
) (*sandbox.Server, []string) {
	t.Helper()
	creds, err := sandbox.NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return partnerOn(t, config, front, creds, listener)
}

// leavingPartner is partnerEnv with a partner that is not there while away is true.
func leavingPartner(t testing.TB) (server *sandbox.Server, env []string, away *atomic.Bool) {
	t.Helper()
	away = new(atomic.Bool)
	server, env = partnerBehind(t, sandbox.Config{DeclaredRate: 500}, func(partner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if away.Load() {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			partner.ServeHTTP(w, r)
		})
	})
	return server, env, away
}

// partnerOn is partnerBehind with the credentials and the address of an earlier sandbox.
func partnerOn(
	t testing.TB, config sandbox.Config, front func(partner http.Handler) http.Handler, creds sandbox.Credentials,
	listener net.Listener,
) (*sandbox.Server, []string) {
	t.Helper()
	dir := t.TempDir()
	config.Now = time.Now
	server, err := sandbox.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.RegisterCredentials(creds); err != nil {
		t.Fatal(err)
	}
	api := httptest.NewUnstartedServer(front(server.API()))
	_ = api.Listener.Close() // of another address
	api.Listener = listener
	api.Start()
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

func withFaults(t *testing.T, text string) sandbox.Config {
	t.Helper()
	faults, err := sandbox.ParseFaults(text)
	if err != nil {
		t.Fatal(err)
	}
	return sandbox.Config{Faults: faults, DeclaredRate: 500}
}

// onKafka adds brokers to the environment, and topics and a group of the test's own.
func onKafka(env, brokers []string, name string) []string {
	return append(env, "KAFKA_BROKERS="+strings.Join(brokers, ","), "PURSER_TOPIC="+name,
		"PURSER_DEAD_LETTER_TOPIC="+name+".dead", "PURSER_RESULTS_TOPIC="+name+".results", "PURSER_GROUP="+name)
}

// setting returns the value of a variable in an environment, of which the last entry counts.
func setting(env []string, name string) (value string) {
	for _, v := range env {
		if text, ok := strings.CutPrefix(v, name+"="); ok {
			value = text
		}
	}
	return value
}

// dataOf returns the data directory of an environment.
func dataOf(env []string) string { return setting(env, "PURSER_DATA_DIR") }

// exportRows returns the rows of the sample export, with the import id of another producer.
func exportRows(t *testing.T) (rows []pipeline.Row) {
	t.Helper()
	export, err := os.Open(customers)
	if err != nil {
		t.Fatal(err)
	}
	defer export.Close()
	lines, err := csv.NewReader(export).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for i, cells := range lines[1:] {
		account, err := pipeline.ParseAccount(cmp.Or(cells[2], "eip155:300") + ":" + strings.ToLower(cells[0]))
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, pipeline.Row{
			Account: account, ExternalID: cells[1], ImportID: "theirs", File: "export.csv", Line: i + 2,
		})
	}
	return rows
}
