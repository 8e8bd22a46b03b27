// Package contracts tests that what Purser publishes about itself is true: the schemas in schemas, docs/openapi.yaml,
// docs/asyncapi.yaml, and the ledger's views with the queries in docs/looking-into-a-night.md. All of them are compared
// with what real commands read and write in a night with trouble.
package contracts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/consumecmd"
	"github.com/purser-onboard/purser/cmd/internal/importcmd"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// samples is the directory of the sample exports.
const samples = "../../testdata"

// The topics, which have their default names.
const (
	workTopic    = "onboarding.customers"
	resultsTopic = "onboarding.results"
	deadTopic    = "onboarding.deadletter"
)

// night is a data directory and the partner.
type night struct {
	dir     string
	server  *sandbox.Server
	traffic *traffic // between the two
	common  []string // settings of importer and consumer
	partner []string // settings of the consumer
}

// newNight prepares a night; nothing has run yet.
func newNight(t *testing.T, config sandbox.Config) *night {
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
	n := &night{dir: dir, server: server, traffic: newTraffic(t, server.API())}
	api := httptest.NewServer(n.traffic)
	t.Cleanup(api.Close)
	secret, key := filepath.Join(dir, "secret"), filepath.Join(dir, "key.pem")
	if err := errors.Join(
		os.WriteFile(secret, []byte(creds.APISecret), 0o600), os.WriteFile(key, creds.PrivateKeyPEM, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	keys, err := filepath.Abs(samples)
	if err != nil {
		t.Fatal(err)
	}
	n.common = []string{"--data-dir", filepath.Join(dir, "data"), "--brokers=", "--progress", "none", "--log-level", "error"}
	n.partner = []string{
		"--api-url", api.URL + "/v1", "--api-key", creds.APIKey, "--api-secret-file", secret,
		"--signing-key", key, "--signing-key-id", creds.KeyID, "--rate", "1000", "--halt-after", "0",
		"--signer", "keystore://" + keys + "/keystore?password-file=" + keys + "/keystore-password",
		"--insecure-permissions", // of the sample keystore in a clone
	}
	return n
}

// importer runs the importer and fails the test unless it ends with the exit code.
func (n *night) importer(t *testing.T, code int, args ...string) {
	t.Helper()
	var out bytes.Buffer
	args = append(append(n.common[:len(n.common):len(n.common)], "--chain", "eip155:300"), args...)
	err := importcmd.Main(t.Context(), args, strings.NewReader(""), &out, &out)
	if got := console.Code(err); got != code {
		t.Fatalf("importer %v: got exit code %d (%v), want %d:\n%s", args, got, err, code, &out)
	}
}

// consumer runs a command of the consumer and fails the test unless it ends with the exit code.
func (n *night) consumer(t *testing.T, code int, command string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	args = append(append(append([]string{command}, n.common...), n.partner...), args...)
	err := consumecmd.Main(t.Context(), t.Context(), args, consumecmd.Streams{
		Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }, IgnoreEnvironment: true,
	})
	if got := console.Code(err); got != code {
		t.Fatalf("consumer %v: got exit code %d (%v), want %d:\n%s", args, got, err, code, &out)
	}
}

// drainAnyhow runs the consumer to its end, whatever the exit code.
func (n *night) drainAnyhow(t *testing.T) {
	t.Helper()
	var out bytes.Buffer
	args := append(append([]string{"run", "--drain", "--max-attempts", "2"}, n.common...), n.partner...)
	_ = consumecmd.Main(t.Context(), t.Context(), args, consumecmd.Streams{ // its end is not the question
		Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }, IgnoreEnvironment: true,
	})
}

// broker has do work with the embedded broker, between two commands.
func (n *night) broker(t *testing.T, do func(*broker.Embedded)) {
	t.Helper()
	b, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{
		Dir: filepath.Join(n.dir, "data", "broker"), Topics: map[string]int{workTopic: 4, deadTopic: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	do(b)
}

// messages returns the messages of a topic.
func (n *night) messages(t *testing.T, topic string) (all []pipeline.Message) {
	t.Helper()
	n.broker(t, func(b *broker.Embedded) {
		_, err := b.Scan(context.WithoutCancel(t.Context()), topic, "test", func(m pipeline.Message) error {
			all = append(all, m)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	return all
}

func (n *night) ledger() string { return filepath.Join(n.dir, "data", "ledger.db") }

func (n *night) report() string { return filepath.Join(n.dir, "report.json") }

// badNight is a night in which much went wrong: invalid rows, dead letters, customers that the partner had before or
// rejects, hostile challenges, accounts without a key, throttling; then the retry, and reconcile.
func badNight(t *testing.T) *night {
	t.Helper()
	faults, err := sandbox.ParseFaults(
		"throttle-429=0.02,expired-token=0.1,refuse-signature=0.1,challenge-domain=0.1,limit=1,retry-after=1s")
	if err != nil {
		t.Fatal(err)
	}
	n := newNight(t, sandbox.Config{Faults: faults, Seed: 13})
	for account, status := range map[string]sandbox.Status{
		"eip155:300:0xE66c9b8E74D0ece13e824f4987Aa568Bc3963C3f f23e9748-3b5e-5ddc-9f52-3824b6e7430e": sandbox.StatusRejected,
		"eip155:300:0x073729871d9085700A1fEFeB8C7858501Db09364 a289ff05-eaed-5d7a-a7bf-0d8cc8223e68": sandbox.StatusInitiating,
		"eip155:300:0xFc5b11ae20b77420eDb2D91f65267618168dB3D3 another":                              sandbox.StatusActive,
		"eip155:300:0xBd274D821494C5190eFf34AEcdc62F6aB12faBa3 13a670bc-cbcf-561e-a32d-6fcaa48cccfe": sandbox.StatusActive,
	} {
		account, externalID, _ := strings.Cut(account, " ")
		if _, err := n.server.Add(account, externalID, status); err != nil {
			t.Fatal(err)
		}
	}
	n.importer(t, console.ExitWell, samples+"/customers.csv")
	n.importer(t, console.ExitRowsBad, samples+"/messy.csv")
	n.broker(t, func(b *broker.Embedded) {
		trace := []pipeline.Header{{Key: "trace", Value: []byte("t-1")}}
		err := broker.NewProducer(b.Cluster, broker.ProducerOptions{}).Publish(t.Context(), workTopic, []pipeline.Message{
			{Key: []byte("k1"), Value: []byte(`{"v":2}`), Headers: trace},
			{Key: []byte("k2"), Value: []byte("not json")},
			{Key: []byte("k3"), Value: bytes.Repeat([]byte("x"), 1_048_300)}, // 1 MiB with a dead letter's headers
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	n.consumer(t, console.ExitRowsBad, "run", "--drain", "--report", n.report())
	n.server.SetFaults(sandbox.Faults{})
	n.consumer(t, console.ExitRowsBad, "run", "--drain") // it repeats the result of the run before
	n.consumer(t, console.ExitWell, "reconcile")
	return n
}

// wantAll fails the test unless there is at least one of each.
func wantAll[K comparable](t *testing.T, what string, got map[K]int, want ...K) {
	t.Helper()
	for _, k := range want {
		if got[k] == 0 {
			t.Errorf("%s: got %s, want at least one %v", what, fmt.Sprint(got), k)
		}
	}
}
