package cmd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// TestFleetLedger has a fleet keep its ledgers in a topic.
func TestFleetLedger(t *testing.T) {
	t.Parallel()
	testFleetLedger(t, fakeKafka(t), usualScale())
}

// testFleetLedger: a consumer dies and never comes back, or is paused; then one comes that has never seen a row.
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
			f := newFleet(t, k, scale, s.name, "PURSER_LEDGER_TOPIC="+s.name+".ledger", "PURSER_CREATE_TOPICS=true")
			s.story(f, f.members[0], f.members[1], f.members[2])
			f.awaitCommitted()
			for _, m := range f.members {
				if m.cmd != nil {
					m.leave()
				}
			}
			f.inherit()
			f.published() // also what the one that was killed had settled and not published
			f.oneOwner()
			if t.Failed() {
				f.show()
			}
		})
	}
}

// inherit has a consumer come with an empty data directory. By what it restores it knows all rows, skips all of them
// when they are imported once more, and asks the partner nothing.
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
		t.Errorf("it sent %d requests although it knows all rows", n-sent)
	}
	f.mu.Unlock()
	rows := rowsOf(t, d.env)
	verdict := f.server.Judge(rows)
	if len(rows) != f.rows || verdict.Customers != f.rows || !verdict.Complete || len(verdict.Violations) > 0 {
		t.Errorf("%d rows in its ledger, %d customers: %+v", len(rows), verdict.Customers, verdict.Violations)
	}
	if slices.ContainsFunc(rows, func(r sandbox.Expected) bool { return r.Stage != string(pipeline.Onboarded) }) {
		t.Error("its ledger has rows that are not onboarded")
	}
	exitsWith(t, d.env, 0, []string{"ledger topic " + f.name + ".ledger", fmt.Sprintf("onboarded         %d", f.rows)},
		"consumer", "status", "--fleet")
	cmd, out := command(t, d.env, "consumer", "failures", "--fleet")
	if err := cmd.Run(); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("the fleet's failures: %v\n%s", err, out)
	}
	t.Logf("%d rows, %d requests", f.rows, verdict.Requests)
}

// TestLedgerTopicThatDoesNotFit: what cannot work is said at the start, and which setting is to blame.
func TestLedgerTopicThatDoesNotFit(t *testing.T) {
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{})
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=ledgers"), 2,
		[]string{`--ledger-topic "ledgers"`, "share --brokers"}, "consumer", "--drain")
	exitsWith(t, env, 2, []string{"--fleet", "needs --ledger-topic"}, "consumer", "status", "--fleet")
	env = onKafka(env, k.addrs, "fit")
	mustRun(t, env, "consumer", "check", "--create-topics", "--create-partitions", "6")
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=fit.results"), 2, []string{"must differ"}, "consumer", "--drain")
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=nowhere"), 2,
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
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=few"), 2,
		[]string{`--ledger-topic "few"`, "has 4 partitions", "of the rows has 6"}, "consumer", "--drain")
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=deleted"), 2,
		[]string{`--ledger-topic "deleted"`, "cleanup.policy=delete"}, "consumer", "check")
	// Made by us it fits, whatever else would be made by default.
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=made"), 0, []string{"created a topic"},
		"consumer", "--drain", "--create-topics", "--create-partitions", "3")
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=made"), 0, nil, "consumer", "check")

	// Rows that another producer has put into partitions of its own choice would not move with their ledger.
	row := pipeline.Row{Account: accountOf(t), ExternalID: "cust-1", ImportID: "i1", File: "export.csv", Line: 2}
	astray := pipeline.Message{Key: []byte("cust-1"), Value: pipeline.AppendMessage(nil, row)}
	if err := broker.NewProducer(cluster, broker.ProducerOptions{}).Publish(t.Context(), "fit", []pipeline.Message{astray}); err != nil {
		t.Fatal(err)
	}
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=made"), 3,
		[]string{"1 dead-lettered", "wrong partition: want "}, "consumer", "--drain")
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=made"), 0, []string{"1 put back"}, "consumer", "redrive")
	// Keyed by its account it is a row like others; it fails because the signer has no key of it.
	exitsWith(t, append(env, "PURSER_LEDGER_TOPIC=made"), 3, []string{"1 failed"}, "consumer", "--drain")
}

func accountOf(t *testing.T) pipeline.Account {
	t.Helper()
	a, err := pipeline.ParseAccount("eip155:300:" + strings.ToLower("0x43158f45b5EbD7b1179130130DF00393928C2691"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestLedgerOfAnotherEnvironment: a topic of ledgers belongs to one API and key, as a ledger does.
func TestLedgerOfAnotherEnvironment(t *testing.T) {
	k := fakeKafka(t)
	settings := []string{"PURSER_LEDGER_TOPIC=env.ledger", "PURSER_CREATE_TOPICS=true"}
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(onKafka(env, k.addrs, "env"), settings...)
	mustRun(t, env, "importer", "--create-partitions", "2", customers)
	mustRun(t, env, "consumer", "--drain")
	_, other := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	other = append(onKafka(other, k.addrs, "env"), settings...)
	exitsWith(t, other, 2, []string{"ledger topic env.ledger/", "use another topic for another environment"}, "consumer", "--drain")
}

// TestLedgerTopicAfterARotation: records under an earlier id of the API key are accepted by a ledger that knows that id.
func TestLedgerTopicAfterARotation(t *testing.T) {
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(onKafka(env, k.addrs, "rotated"), "PURSER_LEDGER_TOPIC=rotated.ledger", "PURSER_CREATE_TOPICS=true")
	mustRun(t, env, "importer", "--create-partitions", "2", customers)
	mustRun(t, env, "consumer", "--drain")
	env = append(env, "OFFBLOCKS_API_KEY=00000000-0000-0000-0000-000000000002")
	stranger := append(slices.Clone(env), "PURSER_DATA_DIR="+t.TempDir())
	exitsWith(t, stranger, 2, []string{"ledger topic rotated.ledger/", "run `consumer rebind`"},
		"consumer", "status", "--fleet")
	exitsWith(t, env, 0, []string{"0 open rows"}, "consumer", "rebind")
	exitsWith(t, env, 0, []string{"onboarded         30"}, "consumer", "status", "--fleet")
}
