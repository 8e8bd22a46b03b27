package cmd

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/segmentio/kafka-go"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/sandbox"
)

const (
	fleetPartitions = 6
	fleetRate       = 60
	// fleetPatience bounds every wait; nothing that works comes near it.
	fleetPatience = 45 * time.Second
)

// kafkaAt is where a fleet finds Kafka: by its addresses, to which the road leads.
type kafkaAt struct {
	addrs []string
	road  *road
}

// fleetScale is how large a fleet's story is, and how long it takes at least.
type fleetScale struct {
	rows               int
	latency            time.Duration // of the partner
	session, heartbeat time.Duration
	faults             sandbox.Faults
}

// fullScale is what the brokers of a default installation allow.
func fullScale() fleetScale {
	return fleetScale{rows: 280, latency: 30 * time.Millisecond, session: 6 * time.Second, heartbeat: time.Second}
}

// usualScale is fullScale, or its short form.
func usualScale() fleetScale {
	s := fullScale()
	if !full {
		s.rows, s.session, s.heartbeat = 168, 2*time.Second, 250*time.Millisecond
	}
	return s
}

// fleet is a few consumers with a data directory each, a queue they share, and a partner that sees what they do.
type fleet struct {
	fleetScale
	t         *testing.T
	name      string // of the topic and the group
	kafka     kafkaAt
	server    *sandbox.Server
	env       []string
	export    string
	members   []*member
	partition map[string]int // by account, in lower case

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced with every change below
	claims    []claim
	sightings []sighting
	accounts  map[string]string // by customer id and by idempotency key
	onboarded map[string]bool   // by customer id
}

// claim is what a consumer's log says of a new generation of the group: from then on these partitions are its own.
type claim struct {
	at         time.Time
	member     *member
	partitions []int
}

// sighting is a request as the partner sees it come.
type sighting struct {
	at      time.Time
	member  *member // nil: it is not signed
	subject string  // customer id or, for a creation, idempotency key
	creates bool
}

// newFleet starts the partner and fills the queue. Its consumers have these settings besides.
func newFleet(t *testing.T, k kafkaAt, scale fleetScale, name string, settings ...string) *fleet {
	t.Helper()
	f := &fleet{
		fleetScale: scale, t: t, name: name, kafka: k, changed: make(chan struct{}), partition: map[string]int{},
		accounts: map[string]string{}, onboarded: map[string]bool{},
	}
	f.server, f.env = partnerBehind(t, sandbox.Config{
		Latency: f.latency, HistoryLog: f, DeclaredRate: fleetRate, Tolerance: fleetTolerance(), Faults: f.faults,
	}, f.watch)
	export, keys, accounts := makeExport(t, f.rows)
	partitions := make([]int, fleetPartitions)
	for i := range partitions {
		partitions[i] = i
	}
	for _, account := range accounts { // Java's partitioner, as another client has it
		p := kafka.Murmur2Balancer{}.Balance(kafka.Message{Key: []byte(account)}, partitions...)
		f.partition[strings.ToLower(account)] = p
	}
	f.env = onKafka(f.env, k.addrs, name)
	f.env = append(f.env, "PURSER_SIGNER=insecure-file:"+keys, "PURSER_RATE="+strconv.Itoa(fleetRate),
		"KAFKA_SESSION_TIMEOUT="+f.session.String(), "KAFKA_HEARTBEAT_INTERVAL="+f.heartbeat.String())
	f.env = append(f.env, settings...)
	f.export = export
	mustRun(t, f.env, "importer", "--create-topics", "--create-partitions", strconv.Itoa(fleetPartitions), export)
	mustRun(t, f.env, "consumer", "check", "--create-topics")
	f.addMember("a", "@method,@authority,@path,authorization")
	f.addMember("b", "@path,@method,@authority,authorization")
	f.addMember("c", "authorization,@method,@authority,@path")
	return f
}

// fleetTolerance is what may come beyond the rate though nobody does wrong: of each consumer's bucket, 1 and what its
// share gives in 20 ms, and what this machine's scheduler bunches in a fifth of a second. That is less than a consumer
// adds whose share, a third, has gone to the others.
func fleetTolerance() sandbox.Tolerance {
	return sandbox.Tolerance{Burst: 3 + fleetRate/50 + 1, Jitter: 200 * time.Millisecond}
}

// makeExport makes accounts, an export of them, and a file of their keys for the signer.
func makeExport(t *testing.T, n int) (export, keys string, accounts []string) {
	t.Helper()
	rows, pairs := [][]string{{"address", "externalId"}}, [][]string{{"address", "privateKey"}}
	for i := range n {
		key, err := crypto.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		address := crypto.PubkeyToAddress(key.PublicKey).Hex()
		rows = append(rows, []string{address, fmt.Sprintf("fleet-%04d", i)})
		pairs = append(pairs, []string{address, hex.EncodeToString(crypto.FromECDSA(key))})
		accounts = append(accounts, "eip155:300:"+address)
	}
	dir := t.TempDir()
	export, keys = filepath.Join(dir, "export.csv"), filepath.Join(dir, "keys.csv")
	for path, table := range map[string][][]string{export: rows, keys: pairs} {
		var text bytes.Buffer
		if err := csv.NewWriter(&text).WriteAll(table); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return export, keys, accounts
}

// member is one consumer of the fleet, which may be started again.
type member struct {
	name     string
	clientID string // by which the brokers, and the road, know it
	fleet    *fleet
	order    string // of what its request signatures cover, by which the partner knows it from the others
	env      []string

	cmd    *exec.Cmd // nil: not running
	pauses int
	log    bytes.Buffer
	cut    []byte // the last line of the log, as far as it has come
}

// addMember makes a consumer with a data directory of its own.
func (f *fleet) addMember(name, order string) {
	m := &member{name: name, clientID: f.name + "." + name, fleet: f, order: order}
	m.env = append(slices.Clone(f.env), "PURSER_DATA_DIR="+f.t.TempDir(), "KAFKA_CLIENT_ID="+m.clientID,
		"OFFBLOCKS_SIGNATURE_COMPONENTS="+order+",content-type,content-digest,idempotency-key")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = append(f.members, m)
}

// start starts consumers that run until they are stopped.
func (f *fleet) start(members ...*member) {
	f.t.Helper()
	for _, m := range members {
		f.mu.Lock()
		f.claims = append(f.claims, claim{time.Now(), m, nil}) // those of its earlier runs are over
		f.mu.Unlock()
		m.cmd = exec.CommandContext(f.t.Context(), "consumer", "--log-format", "json", "--progress", "none")
		m.cmd.Env, m.cmd.Stdout, m.cmd.Stderr = m.env, m, m
		if err := m.cmd.Start(); err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { m.end(syscall.SIGKILL) })
	}
}

func (m *member) signal(s syscall.Signal) {
	if err := m.cmd.Process.Signal(s); err != nil {
		m.fleet.t.Errorf("signal %v to %s: %v", s, m.name, err)
	}
}

// pause stops the process where it stands, until SIGCONT.
func (m *member) pause() {
	m.pauses++
	m.signal(syscall.SIGSTOP)
}

// end sends the last signal of a run, waits and returns the exit code.
func (m *member) end(s syscall.Signal) int {
	if m.cmd == nil {
		return 0
	}
	_ = m.cmd.Process.Signal(s) // it may have ended by itself: the exit code says how
	_ = m.cmd.Wait()
	code := m.cmd.ProcessState.ExitCode()
	m.cmd = nil
	return code
}

// leave stops a consumer as an operator does.
func (m *member) leave() {
	code := m.end(syscall.SIGTERM)
	if code != 1 || !bytes.Contains(m.log.Bytes(), []byte("interrupted by terminated")) {
		m.fleet.t.Errorf("%s ended with %d and not by SIGTERM", m.name, code)
	}
}

// Write takes a consumer's output and notes what it claims.
func (m *member) Write(p []byte) (int, error) {
	f := m.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	m.log.Write(p)
	m.cut = append(m.cut, p...)
	for {
		line, rest, whole := bytes.Cut(m.cut, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		m.cut = rest
		var said struct {
			Time       time.Time
			Msg        string
			Partitions []int
		}
		if json.Unmarshal(line, &said) == nil && said.Msg == "partitions assigned" {
			f.claims = append(f.claims, claim{said.Time, m, said.Partitions})
			f.wake()
		}
	}
}

// Write takes the partner's history as it is written.
func (f *fleet) Write(line []byte) (int, error) {
	var e sandbox.Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Account != "" {
		f.accounts[e.Key] = e.Account
		if e.CustomerID != "" {
			f.accounts[e.CustomerID] = e.Account
		}
	}
	if e.Op == sandbox.OpSign && e.Status == http.StatusNoContent {
		f.onboarded[e.CustomerID] = true
	}
	f.wake()
	return len(line), nil
}

// watch notes which consumer a request comes from before the partner takes it up.
func (f *fleet) watch(partner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sighting{at: time.Now(), member: f.signer(r.Header.Get("Signature-Input"))}
		if _, below, ok := strings.Cut(r.URL.Path, "/customers/"); ok {
			s.subject, _, _ = strings.Cut(below, "/")
		} else if r.Method == http.MethodPost {
			s.subject, s.creates = r.Header.Get("Idempotency-Key"), true
		}
		f.mu.Lock()
		f.sightings = append(f.sightings, s)
		f.wake()
		f.mu.Unlock()
		partner.ServeHTTP(w, r)
	})
}

// signer is the consumer whose requests cover these components in this order; nil: none of them does.
func (f *fleet) signer(input string) *member {
	_, covered, _ := strings.Cut(input, "(")
	covered = strings.ReplaceAll(strings.ReplaceAll(covered, `"`, ""), " ", ",")
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		if strings.HasPrefix(covered, m.order) {
			return m
		}
	}
	return nil
}

// wake tells who waits that something has changed. The lock is held.
func (f *fleet) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// await waits until it is so. It is asked with the lock held, after every change.
func (f *fleet) await(what string, so func() bool) {
	f.t.Helper()
	limit := time.After(fleetPatience)
	for {
		f.mu.Lock()
		done, changed := so(), f.changed
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-limit:
			f.show()
			f.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// awaitWork waits until a tenth of all requests have come on top of those before.
func (f *fleet) awaitWork() {
	f.t.Helper()
	f.mu.Lock()
	n := len(f.sightings) + 2*f.rows/10
	f.mu.Unlock()
	f.await("requests", func() bool { return len(f.sightings) >= n })
}

// awaitCreation waits until a consumer is in the middle of a row: the partner has the request to create the customer and
// takes its time to answer.
func (f *fleet) awaitCreation(by *member) {
	f.t.Helper()
	f.mu.Lock()
	seen := len(f.sightings)
	f.mu.Unlock()
	f.await("a creation by "+by.name, func() bool {
		return slices.ContainsFunc(f.sightings[seen:], func(s sighting) bool { return s.member == by && s.creates })
	})
}

// awaitShared waits until these consumers, and no others, hold all partitions, each some.
func (f *fleet) awaitShared(among ...*member) {
	f.t.Helper()
	f.await("the partitions are shared", func() bool {
		var all []int
		for _, m := range among {
			held := f.held(m)
			if len(held) == 0 {
				return false
			}
			all = append(all, held...)
		}
		slices.Sort(all)
		return len(all) == fleetPartitions && len(slices.Compact(all)) == fleetPartitions
	})
}

// held is what a consumer claimed last. The lock is held.
func (f *fleet) held(by *member) []int {
	for _, c := range slices.Backward(f.claims) {
		if c.member == by {
			return c.partitions
		}
	}
	return nil
}

// awaitGoingOn waits until somebody else has begun a row of a partition that a consumer held.
func (f *fleet) awaitGoingOn(without *member) {
	f.t.Helper()
	f.mu.Lock()
	lost, seen := f.held(without), len(f.sightings)
	f.mu.Unlock()
	f.await("the others go on with the partitions of "+without.name, func() bool {
		return slices.ContainsFunc(f.sightings[seen:], func(s sighting) bool {
			p, ok := f.partitionOf(s)
			return ok && s.member != without && slices.Contains(lost, p)
		})
	})
}

// partitionOf says to which partition's row a request belongs. The lock is held.
func (f *fleet) partitionOf(s sighting) (int, bool) {
	p, ok := f.partition[f.accounts[s.subject]]
	return p, ok
}

// awaitCommitted waits until all rows are settled and the group has it in writing. That they are onboarded is less: what
// a consumer did before it was cut off, its heirs do again.
func (f *fleet) awaitCommitted() {
	f.t.Helper()
	f.await("everybody is onboarded", func() bool { return len(f.onboarded) == f.rows })
	cluster, err := broker.Connect(f.t.Context(), broker.Options{Brokers: f.kafka.addrs})
	if err != nil {
		f.t.Fatal(err)
	}
	defer cluster.Close()
	limit := time.After(fleetPatience)
	again := time.NewTicker(50 * time.Millisecond) // the brokers have to be asked: they do not tell
	defer again.Stop()
	for {
		lags, err := cluster.Lag(f.t.Context(), f.name, f.name)
		if err == nil && !slices.ContainsFunc(lags, func(l broker.PartitionLag) bool { return l.Lag() > 0 }) {
			return
		}
		select {
		case <-again.C:
		case <-limit:
			f.show()
			f.t.Fatalf("not everything is committed: %+v, %v", lags, err)
		}
	}
}

// show puts the consumers' output into the test's log.
func (f *fleet) show() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		f.t.Logf("%s said:\n%s", m.name, &m.log)
	}
}
