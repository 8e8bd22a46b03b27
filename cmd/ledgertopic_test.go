package cmd

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// onLedgerTopic adds a ledger topic to the environment. All environments have the same key.
func onLedgerTopic(t testing.TB, env []string, topic string) []string {
	t.Helper()
	return append(slices.Clone(env), "PURSER_LEDGER_TOPIC="+topic, "PURSER_LEDGER_TOPIC_KEY_FILE="+keyFile(t, 1))
}

// keyFile writes a key file. Its first key signs; the others are accepted, too.
func keyFile(t testing.TB, keys ...byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "message.key")
	if err := os.WriteFile(path, keyText(keys...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keyText(keys ...byte) (text []byte) {
	for _, k := range keys {
		text = base64.StdEncoding.AppendEncode(text, append(bytes.Repeat([]byte{k}, 31), 0))
		text = append(text, '\n')
	}
	return text
}

// authenticator returns the keys that a command with such a key file uses.
func authenticator(t testing.TB, purpose messageauth.Purpose, topic string, keys ...byte) *messageauth.Keys {
	t.Helper()
	k, err := messageauth.New(keyText(keys...), purpose, topic)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestFleetLedger has a fleet keep its ledgers in a topic.
func TestFleetLedger(t *testing.T) {
	t.Parallel()
	testFleetLedger(t, fakeKafka(t), usualScale())
}

// testFleetLedger: a consumer dies for good, or is paused. Then a consumer with an empty data directory joins.
func testFleetLedger(t *testing.T, k kafkaAt, scale fleetScale) {
	for _, s := range []struct {
		name  string
		story func(f *fleet, a, b, c *member)
	}{
		{"ledger-kill", killInTheMiddle},
		{"ledger-pause", pauseAndGoOn},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, k, scale, s.name, onLedgerTopic(t, []string{"PURSER_CREATE_TOPICS=true"}, s.name+".ledger")...)
			s.story(f, f.members[0], f.members[1], f.members[2])
			f.awaitCommitted()
			for _, m := range f.members {
				if m.cmd != nil {
					m.leave()
				}
			}
			f.inherit()
			f.published() // also the rows that the killed consumer had settled and not published
			f.oneOwner()
			if t.Failed() {
				f.show()
			}
		})
	}
}

// inherit starts a consumer with an empty data directory. It restores all rows, skips all of them when they are
// imported again, and sends the partner no request.
func (f *fleet) inherit() {
	t := f.t
	f.addMember("d", "authorization,@path,@authority,@method")
	d := f.members[3]
	exitsWith(t, d.env, 0, []string{"rows      0 received"}, "consumer", "--drain")
	f.mu.Lock()
	sent := len(f.sightings)
	f.mu.Unlock()
	mustRun(t, d.env, "importer", f.export)
	exitsWith(t, d.env, 0, []string{
		fmt.Sprintf("rows      %d received: 0 onboarded, %d skipped", f.rows, f.rows), "requests  0 sent",
	}, "consumer", "--drain")
	f.mu.Lock()
	if n := len(f.sightings); n != sent {
		t.Errorf("got %d requests, want none: it knows all rows", n-sent)
	}
	f.mu.Unlock()
	rows := rowsOf(t, d.env)
	verdict := f.server.Judge(rows)
	if len(rows) != f.rows || verdict.Customers != f.rows || !verdict.Complete || len(verdict.Violations) > 0 {
		t.Errorf("got %d rows, %d customers, violations %+v; want %d, %[4]d, none",
			len(rows), verdict.Customers, verdict.Violations, f.rows)
	}
	for _, r := range rows {
		if r.Stage != string(pipeline.Onboarded) {
			t.Errorf("%s: got stage %s, want onboarded", r.ChainID, r.Stage)
		}
	}
	exitsWith(t, d.env, 0, []string{"ledger topic " + f.name + ".ledger", fmt.Sprintf("onboarded         %d", f.rows)},
		"consumer", "status", "--fleet")
	cmd, out := command(t, d.env, "consumer", "failures", "--fleet")
	if err := cmd.Run(); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("failures --fleet: got %v, want the header alone:\n%s", err, out)
	}
	t.Logf("%d rows, %d requests", f.rows, verdict.Requests)
}

// TestLedgerTopicThatDoesNotFit: a ledger topic that cannot work is an error at the start that names the setting.
func TestLedgerTopicThatDoesNotFit(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{})
	exitsWith(t, onLedgerTopic(t, env, "ledgers"), 2,
		[]string{`--ledger-topic "ledgers"`, "requires --brokers"}, "consumer", "--drain")
	exitsWith(t, env, 2, []string{"--fleet", "needs --ledger-topic"}, "consumer", "status", "--fleet")
	env = onKafka(env, k.addrs, "fit")
	exitsWith(t, onLedgerTopic(t, env, "nowhere"), 2, []string{`topic "fit" does not exist`}, "consumer", "status", "--fleet")
	mustRun(t, env, "consumer", "check", "--create-topics", "--create-partitions", "6")
	exitsWith(t, onLedgerTopic(t, env, "fit.results"), 2, []string{"must differ"}, "consumer", "--drain")
	exitsWith(t, onLedgerTopic(t, env, "nowhere"), 2,
		[]string{`topic "nowhere" does not exist`, "--create-topics"}, "consumer", "--drain")
	cluster, err := broker.Connect(t.Context(), broker.Options{Brokers: k.addrs})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	_, err = cluster.CreateTopics(t.Context(), broker.Topic{Name: "deleted", Partitions: 6},
		broker.Topic{Name: "few", Partitions: 4, Config: map[string]string{"cleanup.policy": "compact"}})
	if err != nil {
		t.Fatal(err)
	}
	exitsWith(t, onLedgerTopic(t, env, "few"), 2,
		[]string{`--ledger-topic "few"`, "has 4 partitions", "of the rows has 6"}, "consumer", "--drain")
	exitsWith(t, onLedgerTopic(t, env, "deleted"), 2,
		[]string{`--ledger-topic "deleted"`, "cleanup.policy=delete"}, "consumer", "check")
	// A topic that the consumer creates fits.
	exitsWith(t, onLedgerTopic(t, env, "made"), 0, []string{"created a topic"},
		"consumer", "--drain", "--create-topics", "--create-partitions", "3")
	exitsWith(t, onLedgerTopic(t, env, "made"), 0, nil, "consumer", "check")

	// A row in a partition of another producer's choice would not move with its ledger.
	row := pipeline.Row{Account: accountOf(t), ExternalID: "cust-1", ImportID: "i1", File: "export.csv", Line: 2}
	astray := pipeline.Message{Key: []byte("cust-1"), Value: pipeline.AppendMessage(nil, row)}
	if err := broker.NewProducer(cluster, broker.ProducerOptions{}).Publish(t.Context(), "fit", []pipeline.Message{astray}); err != nil {
		t.Fatal(err)
	}
	exitsWith(t, onLedgerTopic(t, env, "made"), 3,
		[]string{"1 dead-lettered", "wrong partition: want "}, "consumer", "--drain")
	exitsWith(t, onLedgerTopic(t, env, "made"), 0, []string{"1 put back"}, "consumer", "redrive")
	// Keyed by its account it is processed; it fails because the signer has no key of it.
	exitsWith(t, onLedgerTopic(t, env, "made"), 3, []string{"1 failed"}, "consumer", "--drain")
}

func accountOf(t *testing.T) pipeline.Account {
	t.Helper()
	a, err := pipeline.ParseAccount("eip155:300:" + strings.ToLower("0x43158f45b5EbD7b1179130130DF00393928C2691"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestLedgerOfAnotherEnvironment: a ledger topic belongs to one API and key, as a ledger does.
func TestLedgerOfAnotherEnvironment(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	settings := onLedgerTopic(t, []string{"PURSER_CREATE_TOPICS=true"}, "env.ledger")
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(onKafka(env, k.addrs, "env"), settings...)
	mustRun(t, env, "importer", "--create-partitions", "2", customers)
	mustRun(t, env, "consumer", "--drain")
	_, other := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	other = append(onKafka(other, k.addrs, "env"), settings...)
	exitsWith(t, other, 2, []string{"ledger topic env.ledger/", "use another topic for another environment"}, "consumer", "--drain")
}

// TestLedgerTopicAfterARotation: records under an earlier id of the API key are accepted by a ledger that knows that
// id.
func TestLedgerTopicAfterARotation(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(onLedgerTopic(t, onKafka(env, k.addrs, "rotated"), "rotated.ledger"), "PURSER_CREATE_TOPICS=true")
	mustRun(t, env, "importer", "--create-partitions", "2", customers)
	mustRun(t, env, "consumer", "--drain")
	env = append(env, "OFFBLOCKS_API_KEY=00000000-0000-0000-0000-000000000002")
	stranger := append(slices.Clone(env), "PURSER_DATA_DIR="+t.TempDir())
	exitsWith(t, stranger, 2, []string{"ledger topic rotated.ledger/", "run `consumer rebind`"},
		"consumer", "status", "--fleet")
	exitsWith(t, env, 0, []string{"0 open rows"}, "consumer", "rebind")
	exitsWith(t, env, 0, []string{"onboarded         30"}, "consumer", "status", "--fleet")
}

// forgedRecords returns ledger records that state that every row of the sample export is onboarded.
func forgedRecords(t *testing.T, env []string) (forged []pipeline.Message) {
	t.Helper()
	base, err := url.Parse(setting(env, "OFFBLOCKS_API_URL"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range exportRows(t) {
		value, err := json.Marshal(map[string]any{
			"v": 2, "apiHost": base.Host, "apiKeyId": setting(env, "OFFBLOCKS_API_KEY"), "chainId": row.Account.String(),
			"externalId": row.ExternalID, "version": 9, "stage": "onboarded", "claims": true, "importId": "forged",
			"file": "", "line": 0, "acceptedAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
		})
		if err != nil {
			t.Fatal(err)
		}
		forged = append(forged, pipeline.Message{Key: []byte(row.Account.String()), Value: value})
	}
	return forged
}

// TestForgedLedgerRecord: forged records by which rows are onboarded, from a producer with Write on the ledger topic
// and without its key, are ignored and counted, and the rows are onboarded. As a control, forged records with the key
// work.
func TestForgedLedgerRecord(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	for name, tt := range map[string]struct {
		sign func(topic string, forged []pipeline.Message)
		says []string
	}{
		"without a code": {func(string, []pipeline.Message) {},
			[]string{"30 received: 30 onboarded", "kind=unauthenticated", "no message authentication code"}},
		"another key": {func(topic string, forged []pipeline.Message) {
			authenticator(t, messageauth.Ledgers, topic, 9).Sign(forged)
		}, []string{"30 received: 30 onboarded", "kind=unauthenticated", "authenticated with the unknown key"}},
		"the code of another record": {func(topic string, forged []pipeline.Message) {
			authenticator(t, messageauth.Ledgers, topic, 1).Sign(forged)
			for i := range forged {
				forged[i].Headers = forged[(i+1)%len(forged)].Headers
			}
		}, []string{"30 received: 30 onboarded", "kind=unauthenticated", "does not match"}},
		"the key of messages": {func(topic string, forged []pipeline.Message) {
			authenticator(t, messageauth.Rows, topic, 1).Sign(forged)
		}, []string{"30 received: 30 onboarded", "kind=unauthenticated"}},
		"the fleet's key": {func(topic string, forged []pipeline.Message) {
			authenticator(t, messageauth.Ledgers, topic, 1).Sign(forged)
		}, []string{"30 received: 0 onboarded, 30 skipped"}},
	} {
		t.Run(name, func(t *testing.T) {
			topic := "forged-" + strings.ReplaceAll(name, " ", "-")
			topic = strings.ReplaceAll(topic, "'", "")
			server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
			env = append(onKafka(env, k.addrs, topic), "PURSER_CREATE_TOPICS=true", "PURSER_CREATE_PARTITIONS=2")
			env = onLedgerTopic(t, env, topic+".ledger")
			mustRun(t, env, "consumer", "check")
			forged := forgedRecords(t, env)
			tt.sign(topic+".ledger", forged)
			publish(t, k, topic+".ledger", forged)
			mustRun(t, env, "importer", customers)
			exitsWith(t, env, 0, tt.says, "consumer", "--drain")
			if name == "the fleet's key" {
				return
			}
			judgeRows(t, server, rowsOf(t, env), 30)
			exitsWith(t, env, 0, []string{"onboarded         30", "unauthenticated"}, "consumer", "status", "--fleet")
		})
	}
}

// publish writes messages as any producer with Write on the topic.
func publish(t *testing.T, k kafkaAt, topic string, messages []pipeline.Message) {
	t.Helper()
	cluster, err := broker.Connect(t.Context(), broker.Options{Brokers: k.addrs})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	if err := broker.NewProducer(cluster, broker.ProducerOptions{}).Publish(t.Context(), topic, messages); err != nil {
		t.Fatal(err)
	}
}

// TestLedgerTopicKeyRotation: the new key is accepted, then signs, then the old key is removed. After the second step
// all records carry the new key, so that a consumer with an empty ledger knows all rows without the old key.
func TestLedgerTopicKeyRotation(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(onKafka(env, k.addrs, "newkey"), "PURSER_CREATE_TOPICS=true", "PURSER_CREATE_PARTITIONS=2",
		"PURSER_LEDGER_TOPIC=newkey.ledger")
	with := func(keys ...byte) []string {
		return append(slices.Clone(env), "PURSER_LEDGER_TOPIC_KEY_FILE="+keyFile(t, keys...))
	}
	mustRun(t, env, "importer", customers)
	mustRun(t, with(1), "consumer", "--drain")
	exitsWith(t, with(1, 2), 0, []string{"resigned=0"}, "consumer", "--drain")
	exitsWith(t, with(2, 1), 0, []string{"added="}, "consumer", "--drain")
	empty := append(with(2), "PURSER_DATA_DIR="+t.TempDir())
	mustRun(t, empty, "importer", customers)
	exitsWith(t, empty, 0, []string{"30 received: 0 onboarded, 30 skipped", "requests  0 sent"}, "consumer", "--drain")
	exitsWith(t, with(2), 0, []string{"onboarded         30"}, "consumer", "status", "--fleet")
	for _, command := range []string{"status", "failures"} { // not "no rows" and exit code 0
		exitsWith(t, with(3), 2, []string{"no record of the ledger topic is authentic", "records can be used"},
			"consumer", command, "--fleet")
	}
}

// TestLedgerTopicKeyIsRequired: a ledger topic without a key, and a key without a ledger topic, are usage errors; so
// are a key file without a key and a key file that others may read. check names each such file and goes on.
func TestLedgerTopicKeyIsRequired(t *testing.T) {
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{})
	env = append(onKafka(env, k.addrs, "keyless"), "PURSER_INSECURE_PERMISSIONS=false")
	exitsWith(t, append(slices.Clone(env), "PURSER_LEDGER_TOPIC=keyless.ledger"), 2,
		[]string{"--ledger-topic-key-file", "is missing", "openssl rand -base64 32"}, "consumer", "--drain")
	exitsWith(t, append(slices.Clone(env), "PURSER_LEDGER_TOPIC_KEY_FILE="+keyFile(t, 1)), 2,
		[]string{"--ledger-topic-key-file", "no effect without --ledger-topic"}, "consumer", "--drain")
	path := filepath.Join(t.TempDir(), "key")
	for content, says := range map[string]string{"": "holds no secret", "hunter2hunter2": "line 1"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		exitsWith(t, append(slices.Clone(env), "PURSER_LEDGER_TOPIC=keyless.ledger", "PURSER_LEDGER_TOPIC_KEY_FILE="+path), 2,
			[]string{"--ledger-topic-key-file (from $PURSER_LEDGER_TOPIC_KEY_FILE): the file: ", says}, "consumer", "status", "--fleet")
	}
	exposed := keyFile(t, 1)
	if err := os.Chmod(exposed, 0o644); err != nil {
		t.Fatal(err)
	}
	exitsWith(t, append(slices.Clone(env), "PURSER_MESSAGE_KEY_FILE="+exposed), 2,
		[]string{"--message-key-file", "run chmod 600"}, "importer", customers)
	exitsWith(t, append(slices.Clone(env), "PURSER_MESSAGE_KEY_FILE="+exposed, "PURSER_LEDGER_TOPIC=keyless.ledger",
		"PURSER_LEDGER_TOPIC_KEY_FILE="+exposed, "PURSER_CREATE_TOPICS=true"), 2,
		[]string{"FAIL  messages  --message-key-file (from $PURSER_MESSAGE_KEY_FILE): the file",
			"FAIL  topic-key --ledger-topic-key-file (from $PURSER_LEDGER_TOPIC_KEY_FILE): the file",
			"FAIL  signer", "ok    broker", "3 of the checks failed"}, "consumer", "check")
}
