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
	// fleetPatience bounds every wait. A passing test stays far below it.
	fleetPatience = 45 * time.Second
)

// kafkaAt is a Kafka cluster: its advertised addresses, and the network in front of them.
type kafkaAt struct {
	addrs   []string
	network *network
}

// fleetScale is the size of a fleet's test, and the times that bound how long it takes.
type fleetScale struct {
	rows               int
	latency            time.Duration // of the partner
	session, heartbeat time.Duration
	faults             sandbox.Faults
}

// fullScale has the shortest session that brokers allow by default.
func fullScale() fleetScale {
	return fleetScale{rows: 280, latency: 30 * time.Millisecond, session: 6 * time.Second, heartbeat: time.Second}
}

// usualScale is fullScale, or its short form.
func usualScale() fleetScale {
	s := fullScale()
	if !full {
		s.rows, s.session, s.heartbeat = 168, 2*time.Second, 250*time.Millisecond
	}
	if raceEnabled { // partitions move more slowly, and there have to be rows until the last has moved
		s.rows = fullScale().rows
	}
	return s
}

// fleet is a few consumers with a data directory each, the queue that they share, and a partner that records requests.
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

// claim is the assignment of partitions to a consumer, from its log.
type claim struct {
	at         time.Time
	member     *member
	partitions []int
}

// sighting is a request as the partner receives it.
type sighting struct {
	at      time.Time
	member  *member // nil: it is not signed
	subject string  // customer id or, for a creation, idempotency key
	creates bool
}

// newFleet starts the partner and fills the queue. settings are added to its consumers' environment.
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
	for _, account := range accounts { // as Java's default partitioner does
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

// fleetTolerance is how far correct consumers may exceed the rate: by the bucket of each, which is 1 and its share of
// 20 ms, and by the requests that this machine's scheduler delays by up to 200 ms. A consumer that keeps a share, a
// third, which has moved to the others exceeds it by more. Under the race detector the fleet uses more than the machine
// has, and requests wait for it longer; there the detector is what matters.
func fleetTolerance() sandbox.Tolerance {
	jitter := 200 * time.Millisecond
	if raceEnabled {
		jitter = time.Second
	}
	return sandbox.Tolerance{Burst: 3 + fleetRate/50 + 1, Jitter: jitter}
}

// makeExport generates accounts, and writes an export of them and a file of their keys for the signer.
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
	clientID string // by which the brokers and the network know it
	fleet    *fleet
	order    string // of the signed components, which identifies it to watch
	env      []string

	cmd    *exec.Cmd // nil: not running
	pauses int
	log    bytes.Buffer
	cut    []byte // the last line of the log, incomplete
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
		m.fleet.t.Errorf("signal %v to %s: got %v, want it delivered", s, m.name, err)
	}
}

// pause stops the process until SIGCONT.
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

// leave stops a consumer with SIGTERM.
func (m *member) leave() {
	code := m.end(syscall.SIGTERM)
	if code != 1 || !bytes.Contains(m.log.Bytes(), []byte("interrupted by terminated")) {
		m.fleet.t.Errorf("%s: got exit code %d, want 1 and \"interrupted by terminated\"", m.name, code)
	}
}

// Write takes a consumer's output and notes its assignments.
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

// watch notes which consumer a request comes from before the partner handles it.
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

// signer returns the consumer whose requests cover these components in this order, nil if none does.
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

// wake wakes the waiting calls of await after a change. The lock is held.
func (f *fleet) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// await waits until holds returns true. It is called with the lock held, after every change.
func (f *fleet) await(what string, holds func() bool) {
	f.t.Helper()
	limit := time.After(fleetPatience)
	for {
		f.mu.Lock()
		done, changed := holds(), f.changed
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-limit:
			f.show()
			f.t.Fatalf("got no change for %v, want %s", fleetPatience, what)
		}
	}
}

// awaitWork waits until a further tenth of all requests has arrived, or no row is left: on a slow machine the fleet may
// have finished before its story has.
func (f *fleet) awaitWork() {
	f.t.Helper()
	f.mu.Lock()
	n := len(f.sightings) + 2*f.rows/10
	f.mu.Unlock()
	f.await("requests", func() bool { return len(f.sightings) >= n || len(f.onboarded) == f.rows })
}

// awaitCreation waits until the partner has received a creation by a consumer, which it answers after its latency.
func (f *fleet) awaitCreation(by *member) {
	f.t.Helper()
	f.mu.Lock()
	seen := len(f.sightings)
	f.mu.Unlock()
	f.await("a creation by "+by.name, func() bool {
		return slices.ContainsFunc(f.sightings[seen:], func(s sighting) bool { return s.member == by && s.creates })
	})
}

// awaitShared waits until these consumers together have all partitions, each of them at least one.
func (f *fleet) awaitShared(among ...*member) {
	f.t.Helper()
	f.await("the partitions shared", func() bool {
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

// held returns the latest assignment of a consumer. The lock is held.
func (f *fleet) held(by *member) []int {
	for _, c := range slices.Backward(f.claims) {
		if c.member == by {
			return c.partitions
		}
	}
	return nil
}

// awaitGoingOn waits until another consumer has sent a request for a row of a partition that the consumer had.
func (f *fleet) awaitGoingOn(without *member) {
	f.t.Helper()
	f.mu.Lock()
	lost, seen := f.held(without), len(f.sightings)
	f.mu.Unlock()
	f.await("requests of others for the partitions of "+without.name, func() bool {
		return slices.ContainsFunc(f.sightings[seen:], func(s sighting) bool {
			p, ok := f.partitionOf(s)
			return ok && s.member != without && slices.Contains(lost, p)
		})
	})
}

// partitionOf returns the partition of a request's row. The lock is held.
func (f *fleet) partitionOf(s sighting) (int, bool) {
	p, ok := f.partition[f.accounts[s.subject]]
	return p, ok
}

// awaitCommitted waits until all rows are onboarded and their offsets are committed. The second takes longer: rows of a
// consumer that was cut off are settled again by the next owners.
func (f *fleet) awaitCommitted() {
	f.t.Helper()
	f.await("all customers onboarded", func() bool { return len(f.onboarded) == f.rows })
	cluster, err := broker.Connect(f.t.Context(), broker.Options{Brokers: f.kafka.addrs})
	if err != nil {
		f.t.Fatal(err)
	}
	defer cluster.Close()
	limit := time.After(fleetPatience)
	again := time.NewTicker(50 * time.Millisecond) // brokers do not notify, so they are polled
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
			f.t.Fatalf("got lags %+v, %v; want all offsets committed", lags, err)
		}
	}
}

// show puts the consumers' output into the test's log.
func (f *fleet) show() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		f.t.Logf("output of %s:\n%s", m.name, &m.log)
	}
}
