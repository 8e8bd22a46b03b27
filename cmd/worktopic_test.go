package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// TestStrangersMessages: messages of another producer become dead letters, and its ledger records are ignored with a
// warning. The other rows are onboarded, and so is the row in a wrong partition when it is put back.
func TestStrangersMessages(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(onLedgerTopic(t, onKafka(env, k.addrs, "strange"), "strange.ledger"), "PURSER_CREATE_TOPICS=true")
	const partitions = 4
	mustRun(t, env, "consumer", "check", "--create-partitions", fmt.Sprint(partitions))

	// The importer publishes all rows but the last.
	export, err := os.ReadFile(customers)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSpace(string(export)), "\n")
	rows := len(lines) - 1
	shorter := filepath.Join(t.TempDir(), "export.csv")
	if err := os.WriteFile(shorter, []byte(strings.Join(lines[:rows], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	last := exportRows(t)[rows-1]
	account, astray := last.Account, pipeline.AppendMessage(nil, last)

	cluster, err := broker.Connect(t.Context(), broker.Options{Brokers: k.addrs})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	home := cluster.Changelog("strange", partitions).Partition(account.String())
	stranger, err := kgo.NewClient(kgo.SeedBrokers(k.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(2<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	fleetKey := authenticator(t, messageauth.Ledgers, "strange.ledger", 1)
	put := func(topic string, partition int, key string, value []byte) {
		t.Helper()
		record := &kgo.Record{Topic: topic, Partition: int32(partition), Key: []byte(key), Value: value}
		if topic == "strange.ledger" { // signed, or they would not be read
			signed := []pipeline.Message{{Key: record.Key, Value: record.Value}}
			fleetKey.Sign(signed)
			for _, h := range signed[0].Headers {
				record.Headers = append(record.Headers, kgo.RecordHeader(h))
			}
		}
		if err := stranger.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	put("strange", 0, "junk", []byte("{}x"))
	put("strange", 1, "large", bytes.Repeat([]byte("x"), 1<<20-100)) // just under max.message.bytes
	put("strange", (home+1)%partitions, account.String(), astray)
	base, err := url.Parse(setting(env, "OFFBLOCKS_API_URL"))
	if err != nil {
		t.Fatal(err)
	}
	record := func(change map[string]any) []byte {
		members := map[string]any{
			"v": 2, "apiHost": base.Host, "apiKeyId": setting(env, "OFFBLOCKS_API_KEY"), "chainId": account.String(),
			"externalId": last.ExternalID, "version": 1, "stage": "onboarded", "claims": true, "importId": "theirs", "file": "",
			"line": 0, "acceptedAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
		}
		maps.Copy(members, change)
		value, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	for p := range partitions {
		put("strange.ledger", p, "junk", []byte("{}x"))
		put("strange.ledger", p, "none", nil)
		put("strange.ledger", p, account.String(), record(map[string]any{"version": json.Number("9223372036854775807")}))
		put("strange.ledger", p, account.String(), record(map[string]any{"v": 3}))
		put("strange.ledger", p, account.String(), record(map[string]any{"apiHost": "other.example.com"}))
	}
	put("strange.ledger", (home+1)%partitions, account.String(), record(nil))
	const ignored = 5*partitions + 1

	mustRun(t, env, "importer", shorter)
	exitsWith(t, env, 3, []string{
		fmt.Sprintf("%d received: %d onboarded", rows+2, rows-1), "3 dead-lettered",
		fmt.Sprintf("wrong partition: want %d, got %d", home, (home+1)%partitions),
		"kind=syntax", "kind=version", "kind=environment", "kind=invalid", "kind=partition",
	}, "consumer", "--drain")
	fleet := []string{fmt.Sprintf("records=%d", ignored), "left out"}
	exitsWith(t, env, 0, append(fleet, fmt.Sprintf("onboarded         %d", rows-1)), "consumer", "status", "--fleet")
	exitsWith(t, env, 0, append(fleet, "address,externalId"), "consumer", "failures", "--fleet")

	dead := deadLetters(t, cluster, "strange.dead")
	if len(dead) != 3 {
		t.Fatalf("got %d dead letters, want 3", len(dead))
	}
	for _, d := range dead {
		if d.Truncated != strings.HasPrefix(string(d.Value), "xxx") {
			t.Errorf("got %s truncated %v, want the large one alone", d.Where, d.Truncated)
		}
	}
	// Another producer's dead letters write to no other topic, and do not keep others from being put back.
	for _, topic := range []string{"strange.ledger", "strange.dead", "strange.nowhere", "no topic\x00"} {
		message := &kgo.Record{Topic: "strange.dead", Value: []byte("{}x"),
			Headers: []kgo.RecordHeader{{Key: pipeline.HeaderTopic, Value: []byte(topic)}}}
		if err := stranger.ProduceSync(t.Context(), message).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	exitsWith(t, env, 3, []string{"7 dead letters examined, 2 put back", "was truncated", "5 messages of strange.dead"},
		"consumer", "redrive")
	exitsWith(t, env, 3, []string{"2 received: 1 onboarded", "1 dead-lettered"}, "consumer", "--drain")
	judgeRows(t, server, rowsOf(t, env), rows)
}

// deadLetters reads all messages of a dead-letter topic.
func deadLetters(t *testing.T, c *broker.Cluster, topic string) (all []pipeline.DeadLetter) {
	t.Helper()
	_, err := c.Scan(context.WithoutCancel(t.Context()), topic, "test", func(m pipeline.Message) error {
		d, err := pipeline.ReadDeadLetter(m)
		all = append(all, d)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWriterOfTheWorkTopic shows the threat of Write on that topic without --message-key-file, as in
// docs/threat-model.md: a forged message binds a wallet that the signer holds to another externalId, and the true row
// ends in conflict.
func TestWriterOfTheWorkTopic(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, withFaults(t, ""))
	forged := exportRows(t)[0]
	forged.ExternalID = "theirs"
	publishEmbedded(t, env, "onboarding.customers", []pipeline.Message{
		{Key: []byte(forged.Account.String()), Value: pipeline.AppendMessage(nil, forged)},
	})
	if r := drain(t, env, 0); r.Rows.Onboarded != 1 {
		t.Fatalf("got %d onboarded, want the forged row", r.Rows.Onboarded)
	}
	mustRun(t, env, "importer", customers)
	if r := drain(t, env, 3); r.Rows.Onboarded != 29 || r.Rows.Conflict != 1 {
		t.Errorf("got %d onboarded, %d in conflict, want 29, 1", r.Rows.Onboarded, r.Rows.Conflict)
	}
	if v := server.Judge(nil).Violations; len(v) > 0 {
		t.Errorf("got violations %+v, want none", v)
	}
}
