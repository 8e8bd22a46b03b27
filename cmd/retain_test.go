package cmd

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// signatureText is a customer's signature as the ledger keeps it: 65 bytes in hex.
var signatureText = regexp.MustCompile(`0x[0-9a-f]{130}`)

const challengeText = "wants you to sign in with your Ethereum account"

// signaturesIn returns the customers' signatures in the files of a data directory, and the number of challenges.
func signaturesIn(t *testing.T, env []string) (signatures []string, challenges int) {
	t.Helper()
	err := filepath.WalkDir(dataOf(env), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		signatures = append(signatures, signatureText.FindAllString(string(content), -1)...)
		challenges += strings.Count(string(content), challengeText)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(signatures)
	return slices.Compact(signatures), challenges
}

// TestRetainNone: with --retain none the data directory has no challenge and no signature after a run, and a replay
// sends no request all the same.
func TestRetainNone(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, withFaults(t, ""))
	mustRun(t, env, "importer", customers)
	if r := drain(t, env, 0, "--retain", "none"); r.Rows.Onboarded != 30 || r.Signatures != 30 {
		t.Fatalf("got %d onboarded, %d signatures, want 30, 30", r.Rows.Onboarded, r.Signatures)
	}
	if got, challenges := signaturesIn(t, env); len(got) != 0 || challenges != 0 {
		t.Errorf("got signatures %q, %d challenges in the data directory, want none", got, challenges)
	}
	mustRun(t, env, "importer", customers)
	if r := drain(t, env, 0, "--retain", "none"); r.Rows.Skipped != 30 || r.Requests.Sent != 0 {
		t.Errorf("got %d skipped, %d requests of the replay, want 30, 0", r.Rows.Skipped, r.Requests.Sent)
	}
	judged(t, server, env)
	exitsWith(t, env, 2, []string{"--retain"}, "consumer", "--drain", "--retain", "sometimes")
}

// TestRetainNoneAfterAll: the first run with --retain none drops the challenges and signatures of earlier runs.
func TestRetainNoneAfterAll(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, withFaults(t, ""))
	mustRun(t, env, "importer", customers)
	if r := drain(t, env, 0); r.Rows.Onboarded != 30 {
		t.Fatalf("got %d onboarded, want 30", r.Rows.Onboarded)
	}
	if got, challenges := signaturesIn(t, env); len(got) != 30 || challenges < 30 {
		t.Fatalf("got %d signatures, %d challenges in the data directory, want those of all 30 rows", len(got), challenges)
	}
	exitsWith(t, append(env, "PURSER_RETAIN=none"), 0, []string{"rows=30"}, "consumer", "--drain")
	if got, challenges := signaturesIn(t, env); len(got) != 0 || challenges != 0 {
		t.Errorf("got signatures %q, %d challenges in the data directory, want none", got, challenges)
	}
	mustRun(t, env, "importer", customers)
	if r := drain(t, env, 0, "--retain", "none"); r.Rows.Skipped != 30 || r.Requests.Sent != 0 {
		t.Errorf("got %d skipped, %d requests of the replay, want 30, 0", r.Rows.Skipped, r.Requests.Sent)
	}
	judged(t, server, env)
}

// TestRetainNoneInTheLedgerTopic: the latest records of the ledger topic, which compaction keeps, have no challenge and
// no signature.
func TestRetainNoneInTheLedgerTopic(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	_, env := partnerEnv(t, withFaults(t, ""))
	env = append(onKafka(env, k.addrs, "retain"), "PURSER_CREATE_TOPICS=true", "PURSER_RETAIN=none")
	env = onLedgerTopic(t, env, "retain.ledger")
	mustRun(t, env, "consumer", "check")
	mustRun(t, env, "importer", customers)
	if r := drain(t, env, 0); r.Rows.Onboarded != 30 {
		t.Fatalf("got %d onboarded, want 30", r.Rows.Onboarded)
	}
	cluster, err := broker.Connect(t.Context(), broker.Options{Brokers: k.addrs})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	latest, signed := map[string][]byte{}, 0
	_, err = cluster.Scan(t.Context(), "retain.ledger", "test", func(m pipeline.Message) error {
		latest[string(m.Key)] = m.Value
		if signatureText.Match(m.Value) {
			signed++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(latest) != 30 || signed < 30 {
		t.Errorf("got records of %d rows, %d with a signature, want 30 rows and at least 30 signatures", len(latest), signed)
	}
	for key, value := range latest {
		if signatureText.Match(value) || strings.Contains(string(value), challengeText) {
			t.Errorf("got the latest record %s of %s, want neither challenge nor signature", value, key)
		}
	}
}
