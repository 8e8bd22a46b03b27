package cmd

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/sandbox"
)

// TestFleet has three consumers share a topic while they join, leave, die, are cut off and are paused.
func TestFleet(t *testing.T) {
	t.Parallel()
	testFleet(t, fakeKafka(t), usualScale())
}

// TestSessionTimeout: a session timeout that the brokers do not allow is an error of its setting.
func TestSessionTimeout(t *testing.T) {
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{})
	env = append(onKafka(env, k.addrs, "session"), "KAFKA_SESSION_TIMEOUT=50ms", "KAFKA_HEARTBEAT_INTERVAL=10ms")
	exitsWith(t, env, 0, nil, "consumer", "check", "--create-topics")
	exitsWith(t, env, 2, []string{`--kafka-session-timeout "50ms"`, "group.min.session.timeout.ms"}, "consumer", "--drain")
}

// TestCommittedBeyondTheEnd: what ends a run, ends its check, too.
func TestCommittedBeyondTheEnd(t *testing.T) {
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{})
	env = onKafka(env, k.addrs, "beyond")
	mustRun(t, env, "importer", "--create-topics", customers)
	mustRun(t, env, "consumer", "check", "--create-topics")
	cluster, err := broker.Connect(t.Context(), broker.Options{Brokers: k.addrs})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	if err := cluster.CommitScan(t.Context(), "beyond", "beyond", map[int]int64{0: 1000}); err != nil {
		t.Fatal(err)
	}
	says := []string{`group "beyond" has committed offset 1000 of beyond/0`}
	exitsWith(t, env, 2, says, "consumer", "check")
	exitsWith(t, env, 2, says, "consumer", "--drain")
}

// TestCompactedWorkTopic: compaction of the work topic would remove the first of two rows of an account.
func TestCompactedWorkTopic(t *testing.T) {
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{})
	env = onKafka(env, k.addrs, "compacted")
	cluster, err := broker.Connect(t.Context(), broker.Options{Brokers: k.addrs})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	_, err = cluster.CreateTopics(t.Context(), broker.Topic{
		Name: "compacted", Partitions: 1, Config: map[string]string{"cleanup.policy": "compact"},
	})
	if err != nil {
		t.Fatal(err)
	}
	says := []string{"because the topic is compacted", "topic=compacted"}
	exitsWith(t, env, 0, says, "importer", customers)
	exitsWith(t, env, 0, says, "consumer", "check", "--create-topics") // creates the others
	exitsWith(t, env, 0, says, "consumer", "--drain")
}

// TestMetadataOfOwnTopics: no command asks the brokers for the metadata of all topics, which a large cluster has
// megabytes of.
func TestMetadataOfOwnTopics(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	var asked atomic.Int64
	fake.ControlKey(kmsg.Metadata.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		if req.(*kmsg.MetadataRequest).Topics == nil {
			t.Error("got a request for the metadata of all topics, want none")
		}
		asked.Add(1)
		return nil, nil, false
	})
	server, env := partnerEnv(t, sandbox.Config{})
	env = onLedgerTopic(t, onKafka(env, fake.ListenAddrs(), "own"), "own.ledger")
	for _, command := range [][]string{
		{"importer", "--create-topics", customers}, {"consumer", "check", "--create-topics"}, {"consumer", "--drain"},
		{"consumer", "redrive"}, {"consumer", "status", "--fleet"}, {"consumer", "report"},
	} {
		before := asked.Load()
		mustRun(t, env, command[0], command[1:]...)
		if asked.Load() == before {
			t.Errorf("%q: got no request for metadata, want some", command)
		}
	}
	judged(t, server, env)
}

// fakeKafka starts kfake, which advertises the address of a network in front of it.
func fakeKafka(t *testing.T) kafkaAt {
	t.Helper()
	var front *network
	listen := func(network, _ string) (net.Listener, error) {
		ln, err := new(net.ListenConfig).Listen(t.Context(), network, "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		front = newNetwork(t, "127.0.0.1:0", ln.Addr().String())
		return listenerAt{ln, front.Addr()}, nil
	}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.ListenFn(listen))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return kafkaAt{fake.ListenAddrs(), front}
}

// listenerAt is a listener that reports another address.
type listenerAt struct {
	net.Listener
	addr net.Addr
}

func (l listenerAt) Addr() net.Addr { return l.addr }

// testFleet runs the scenarios, each with a topic, a group and a partner of its own.
func testFleet(t *testing.T, k kafkaAt, scale fleetScale) {
	for _, s := range []struct {
		name  string
		story func(f *fleet, a, b, c *member)
	}{
		{"join-and-leave", joinAndLeave},
		{"kill", killInTheMiddle},
		{"cut", cutOff},
		{"pause", pauseAndGoOn},
		{"pause-and-cut", wakeUpCutOff},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, k, scale, s.name)
			began := time.Now()
			s.story(f, f.members[0], f.members[1], f.members[2])
			f.awaitCommitted()
			t.Logf("%d rows in %v", f.rows, time.Since(began).Round(time.Millisecond))
			f.verify()
		})
	}
}

// joinAndLeave: partitions move repeatedly while rows are processed.
func joinAndLeave(f *fleet, a, b, c *member) {
	f.start(a)
	f.awaitWork()
	f.start(b)
	f.awaitShared(a, b)
	f.awaitWork()
	f.start(c)
	f.awaitShared(a, b, c)
	f.awaitWork()
	a.leave()
	f.awaitShared(b, c)
	f.awaitWork()
	f.start(a)
	f.awaitShared(a, b, c)
}

// killInTheMiddle: a consumer dies while the partner works on one of its requests.
func killInTheMiddle(f *fleet, a, b, c *member) {
	f.start(a, b, c)
	f.awaitShared(a, b, c)
	f.awaitWork()
	f.awaitCreation(b)
	b.end(syscall.SIGKILL)
	f.awaitShared(a, c)
}

// cutOff: a consumer still reaches the partner, but not the brokers.
func cutOff(f *fleet, a, b, c *member) {
	f.start(a, b, c)
	f.awaitShared(a, b, c)
	f.awaitWork()
	f.awaitCreation(b)
	f.kafka.network.cut(b.clientID)
	f.awaitShared(a, c)
	f.awaitGoingOn(b)
	f.kafka.network.heal(b.clientID)
	f.awaitShared(a, b, c)
}

// pauseAndGoOn: a consumer is stopped until others have its partitions, and then continued.
func pauseAndGoOn(f *fleet, a, b, c *member) {
	f.start(a, b, c)
	f.awaitShared(a, b, c)
	f.awaitWork()
	f.awaitCreation(b)
	b.pause()
	f.awaitShared(a, c)
	f.awaitGoingOn(b)
	b.signal(syscall.SIGCONT)
	f.awaitShared(a, b, c)
}

// wakeUpCutOff: the same, and the brokers cannot reach the continued consumer. It must give up its partitions by
// itself.
func wakeUpCutOff(f *fleet, a, b, c *member) {
	f.start(a, b, c)
	f.awaitShared(a, b, c)
	f.awaitWork()
	f.awaitCreation(b)
	b.pause()
	f.kafka.network.cut(b.clientID)
	f.awaitShared(a, c)
	f.awaitGoingOn(b)
	b.signal(syscall.SIGCONT)
	f.awaitWork()
	f.kafka.network.heal(b.clientID)
	f.awaitShared(a, b, c)
}

// verify stops the consumers and looks at what they have done.
func (f *fleet) verify() {
	t := f.t
	for _, m := range f.members {
		if m.cmd != nil {
			m.leave()
		}
	}
	t.Logf("%d requests, at most %d in a second, the longest silence %v",
		len(f.sightings), len(f.busiest(time.Second)), f.silence().Round(time.Millisecond))
	f.oneOwner()
	// Everything is committed, so that a next run receives nothing. It publishes the events that a killed one left.
	for _, m := range f.members {
		exitsWith(t, m.env, 0, []string{"rows      0 received"}, "consumer", "--drain")
	}
	f.judge()
	f.published()
	if t.Failed() {
		f.show()
	}
}

// judge merges the ledgers and asks the partner.
func (f *fleet) judge() {
	t := f.t
	rows, ledgers := map[string]sandbox.Expected{}, map[string]int{}
	for _, m := range f.members {
		for _, row := range rowsOf(t, m.env) {
			ledgers[row.ChainID]++
			if rows[row.ChainID].Stage != string(pipeline.Onboarded) {
				rows[row.ChainID] = row
			}
		}
	}
	maps.DeleteFunc(ledgers, func(_ string, n int) bool { return n == 1 })
	for _, row := range rows {
		if row.Stage != string(pipeline.Onboarded) {
			t.Errorf("%s: got stage %s in every ledger, want onboarded in one", row.ChainID, row.Stage)
		}
	}
	verdict := f.server.Judge(slices.Collect(maps.Values(rows)))
	if len(rows) != f.rows || verdict.Customers != f.rows || !verdict.Complete {
		t.Errorf("got %d rows, %d customers, history complete: %v; want %d of both, true",
			len(rows), verdict.Customers, verdict.Complete, f.rows)
	}
	for _, v := range verdict.Violations {
		t.Errorf("got violation %s of %s, want none: %s", v.Rule, v.Subject, v.Detail)
		if v.Rule == sandbox.RateKept {
			t.Logf("the busiest second:%s", f.crowd())
		}
	}
	t.Logf("%d rows are in more than one ledger", len(ledgers))
}

// busiest returns the requests of the window of time with the most of them.
func (f *fleet) busiest(window time.Duration) []sighting {
	var most []sighting
	from := 0
	for to, s := range f.sightings {
		for s.at.Sub(f.sightings[from].at) >= window {
			from++
		}
		if to+1-from > len(most) {
			most = f.sightings[from : to+1]
		}
	}
	return most
}

// crowd returns how many requests each consumer sent in each tenth of the busiest second, and the claims of partitions
// around it. Many requests of all consumers in one tenth, after none, are caused by this machine's scheduler.
func (f *fleet) crowd() string {
	var b strings.Builder
	busiest := f.busiest(time.Second)
	began := busiest[0].at
	for tenth := range 10 {
		sent := map[string]int{}
		for _, s := range busiest {
			if int(s.at.Sub(began)/(100*time.Millisecond)) == tenth && s.member != nil {
				sent[s.member.name]++
			}
		}
		fmt.Fprintf(&b, "\n%4d ms: %v", 100*tenth, sent)
	}
	for _, c := range f.claims {
		if since := c.at.Sub(began); since.Abs() <= time.Second {
			fmt.Fprintf(&b, "\n%4d ms: %s claims %v", since.Milliseconds(), c.member.name, c.partitions)
		}
	}
	return b.String()
}

// silence is the longest time between two requests.
func (f *fleet) silence() time.Duration {
	var longest time.Duration
	for i := range f.sightings[1:] {
		longest = max(longest, f.sightings[i+1].at.Sub(f.sightings[i].at))
	}
	return longest
}

// oneOwner fails the test if a consumer sent a request for a row whose partition another had claimed. A process that is
// stopped after its last check of the clock and before the send does send when it continues: one request is allowed for
// each pause.
func (f *fleet) oneOwner() {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortStableFunc(f.claims, func(a, b claim) int { return a.at.Compare(b.at) })
	stale := map[*member][]string{}
	for _, s := range f.sightings {
		p, ok := f.partitionOf(s)
		if !ok || s.member == nil {
			continue
		}
		var owner claim
		for _, c := range f.claims {
			if !c.at.After(s.at) && slices.Contains(c.partitions, p) {
				owner = c
			}
		}
		if owner.member != s.member && owner.member != nil {
			stale[s.member] = append(stale[s.member], fmt.Sprintf("partition %d, %s's for %v",
				p, owner.member.name, s.at.Sub(owner.at).Round(time.Millisecond)))
		}
	}
	for m, what := range stale {
		if len(what) <= m.pauses {
			f.t.Logf("%s was stopped just before a send: %v", m.name, what)
			continue
		}
		f.t.Errorf("%s: got %d requests for rows of other consumers, want at most %d:\n%s", m.name, len(what), m.pauses,
			strings.Join(what, "\n"))
	}
}

// published fails the test unless the results topic has an onboarded event of every row.
func (f *fleet) published() {
	t := f.t
	cluster, err := broker.Connect(t.Context(), broker.Options{Brokers: f.kafka.addrs})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	messages, err := cluster.Peek(t.Context(), f.name+".results", "test", 4*f.rows)
	if err != nil {
		t.Fatal(err)
	}
	onboarded := map[string]bool{}
	for _, m := range messages {
		var e results.Event
		if err := json.Unmarshal(m.Value, &e); err != nil {
			t.Fatal(err)
		}
		if e.Stage != pipeline.Onboarded {
			t.Errorf("results: got %s %s, want onboarded", e.ChainID, e.Stage)
		}
		onboarded[e.ChainID] = true
	}
	if len(onboarded) != f.rows {
		t.Errorf("results: got %d rows, want %d", len(onboarded), f.rows)
	}
}
