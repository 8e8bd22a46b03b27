//go:build kafka

// Package kafkatest runs Apache Kafka for tests: KRaft brokers as child processes, on random ports of loopback, with
// data in a temporary directory, until the test ends. .ci/kafka-jars fetches the jars and sets variables to their
// directories.
//
// Each broker has a listener for each combination of security settings: plain text, SASL (PLAIN, SCRAM, OAUTHBEARER) in
// plain text and over TLS, TLS, and TLS with a required client certificate. One more listener is for tests with a proxy
// in front of the brokers (Detour). Access control is on. A client that does not log in is a superuser, so that tests
// which are not about permissions need none.
package kafkatest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/purser-onboard/purser/internal/freeport"
)

// Version is a version of Apache Kafka: the name of the variable that holds the directory of its jars.
type Version string

// The versions that .ci/kafka-jars fetches.
const (
	V4  Version = "PURSER_TEST_KAFKA_4"
	V39 Version = "PURSER_TEST_KAFKA_3_9"
)

// The users that log in by PLAIN and SCRAM, both with Password. They have no permissions until Grant.
const (
	User     = "purser"
	Stranger = "stranger"
	Password = `pass=word ü`
)

// startupLimit is how long a broker may take to start on a busy machine.
const startupLimit = 2 * time.Minute

// Cluster is a running cluster.
type Cluster struct {
	Version   Version
	Authority *Authority // signs the certificates of brokers and clients
	Tokens    *Issuer    // signs the tokens for OAUTHBEARER

	jars  string
	dir   string
	id    string
	ctx   context.Context // outlives the test's context, which ends before the cleanup stops the brokers
	nodes []*node
}

// node is a broker, which is also a controller.
type node struct {
	cluster *Cluster
	id      int
	at      map[string]string // host:port by listener
	detour  string            // host:port that the listener DETOUR advertises
	dir     string

	mu      sync.Mutex
	process *process // nil: not running
}

// listeners returns the listeners, in the order of their ports, each with its protocol.
func listeners() [][2]string {
	return [][2]string{
		{"CONTROLLER", "PLAINTEXT"}, {"OPEN", "PLAINTEXT"}, {"LOGIN", "SASL_PLAINTEXT"}, {"SECURE", "SSL"},
		{"MUTUAL", "SSL"}, {"BOTH", "SASL_SSL"}, {"DETOUR", "PLAINTEXT"},
	}
}

// Start runs a cluster of so many brokers until the test ends, and blocks until they are up. It fails the test, and
// never skips it, when Java or the jars are missing or a broker does not start.
func Start(t testing.TB, version Version, brokers int) *Cluster {
	t.Helper()
	jars := os.Getenv(string(version))
	if jars == "" {
		t.Fatalf("$%s is empty, want the directory of Apache Kafka's jars: run the tests with .ci/kafka", version)
	}
	if _, err := os.Stat(jars); err != nil {
		t.Fatalf("$%s: %v: run the tests with .ci/kafka", version, err)
	}
	c := &Cluster{Version: version, jars: jars, dir: t.TempDir(), id: "MkU3OEVBNTcwNTJENDM2Qk"}
	c.ctx = context.WithoutCancel(t.Context())
	c.Authority = newAuthority(t, c.dir)
	c.Tokens = newIssuer(t, c.dir)
	each := len(listeners()) + 1
	free := freeport.Addresses(t, brokers*each)
	for i := range brokers {
		c.nodes = append(c.nodes, newNode(t, c, i+1, free[i*each:(i+1)*each]))
	}
	var starting sync.WaitGroup
	errs := make([]error, len(c.nodes))
	for i, n := range c.nodes {
		if err := os.WriteFile(n.file("server.properties"), []byte(n.properties()), 0o600); err != nil {
			t.Fatal(err)
		}
		starting.Go(func() {
			if errs[i] = n.format(); errs[i] == nil {
				errs[i] = n.start()
			}
		})
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.kill(syscall.SIGKILL)
			if t.Failed() {
				n.showLog(t)
			}
		}
	})
	starting.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// newNode returns a node whose listeners, and what DETOUR advertises, have the free addresses.
func newNode(t testing.TB, c *Cluster, id int, free []string) *node {
	t.Helper()
	n := &node{cluster: c, id: id, at: map[string]string{}, detour: free[0], dir: filepath.Join(c.dir, fmt.Sprint(id))}
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, l := range listeners() {
		n.at[l[0]] = free[i+1]
	}
	return n
}

func (n *node) file(name string) string { return filepath.Join(n.dir, name) }

// addresses returns the addresses of a listener of all brokers.
func (c *Cluster) addresses(listener string) []string {
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.at[listener])
	}
	return all
}

// Addrs returns the brokers' addresses in plain text, without a login: for the superuser.
func (c *Cluster) Addrs() []string { return c.addresses("OPEN") }

// SASL returns the brokers' addresses in plain text, with a login.
func (c *Cluster) SASL() []string { return c.addresses("LOGIN") }

// TLS returns the brokers' addresses with TLS, without a login.
func (c *Cluster) TLS() []string { return c.addresses("SECURE") }

// MutualTLS returns the brokers' addresses with TLS and a client certificate. The user is "CN=…", the certificate's
// subject.
func (c *Cluster) MutualTLS() []string { return c.addresses("MUTUAL") }

// SASLOverTLS returns the brokers' addresses with TLS and a login.
func (c *Cluster) SASLOverTLS() []string { return c.addresses("BOTH") }

// Detour returns the address that a broker, counted from 1, advertises, and the address at which it listens, in plain
// text and without a login. The test listens on the first and forwards to the second.
func (c *Cluster) Detour(id int) (advertised, bound string) {
	n := c.nodes[id-1]
	return n.detour, n.at["DETOUR"]
}

// Grant allows a user ("purser", or "CN=purser" by its certificate) operations on a topic or a group.
func (c *Cluster) Grant(
	t testing.TB, user string, kind kafka.ResourceType, name string, ops ...kafka.ACLOperationType,
) {
	t.Helper()
	var entries []kafka.ACLEntry
	for _, op := range ops {
		entries = append(entries, kafka.ACLEntry{
			ResourceType: kind, ResourceName: name, ResourcePatternType: kafka.PatternTypeLiteral,
			Principal: "User:" + user, Host: "*", Operation: op, PermissionType: kafka.ACLPermissionTypeAllow,
		})
	}
	res, err := c.Admin(t).CreateACLs(t.Context(), &kafka.CreateACLsRequest{ACLs: entries})
	if err == nil {
		err = errors.Join(res.Errors...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Admin returns a superuser's client.
func (c *Cluster) Admin(t testing.TB) *kafka.Client {
	transport := new(kafka.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(c.Addrs()...), Timeout: 15 * time.Second, Transport: transport}
}

// Leader returns the leader of a partition, counted from 1; 0: it has none.
func (c *Cluster) Leader(t testing.TB, topic string, partition int) int {
	t.Helper()
	for _, p := range c.Partitions(t, topic) {
		if p.ID == partition {
			return p.Leader.ID
		}
	}
	return 0
}

// Partitions returns the partitions of a topic in the metadata of any broker; nil when the request fails.
func (c *Cluster) Partitions(t testing.TB, topic string) []kafka.Partition {
	t.Helper()
	client := c.Admin(t)
	defer client.Transport.(*kafka.Transport).CloseIdleConnections()
	res, err := client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil
	}
	return res.Topics[0].Partitions
}

// Kill kills a broker, counted from 1, and blocks until it has ended.
func (c *Cluster) Kill(id int) { c.nodes[id-1].kill(syscall.SIGKILL) }

// Stop shuts a broker down, counted from 1: it moves its leaderships first. It blocks until the broker has ended, and
// kills it after 30 s.
func (c *Cluster) Stop(id int) { c.nodes[id-1].kill(syscall.SIGTERM) }

// Restart starts a broker that has ended, with the same ports and data, and blocks until it is up.
func (c *Cluster) Restart(t testing.TB, id int) {
	t.Helper()
	if err := c.nodes[id-1].start(); err != nil {
		t.Fatal(err)
	}
}

// properties returns the broker's configuration. What differs from the defaults makes the broker small and fast, or is
// needed by tests; auto.create.topics.enable stays on, as it is by default.
func (n *node) properties() string {
	c := n.cluster
	var bound, advertised, protocols, voters []string
	for _, l := range listeners() {
		at := l[0] + "://" + n.at[l[0]]
		bound = append(bound, at)
		switch l[0] {
		case "CONTROLLER":
		case "DETOUR":
			advertised = append(advertised, l[0]+"://"+n.detour)
		default:
			advertised = append(advertised, at)
		}
		protocols = append(protocols, l[0]+":"+l[1])
	}
	for _, v := range c.nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", v.id, v.at["CONTROLLER"]))
	}
	replication := min(len(c.nodes), 3)
	plain := fmt.Sprintf(`org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=%q user_%s=%q;`,
		User, Password, Stranger, Password)
	const scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	const bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearer"
	lines := []string{
		"process.roles=broker,controller",
		fmt.Sprintf("node.id=%d", n.id),
		"controller.quorum.voters=" + strings.Join(voters, ","),
		"controller.listener.names=CONTROLLER",
		"listeners=" + strings.Join(bound, ","),
		"advertised.listeners=" + strings.Join(advertised, ","),
		"listener.security.protocol.map=" + strings.Join(protocols, ","),
		"inter.broker.listener.name=OPEN",
		"log.dirs=" + n.file("data"),
		"num.network.threads=2",
		"num.io.threads=2",
		"background.threads=2",
		"num.partitions=1",
		fmt.Sprintf("default.replication.factor=%d", replication),
		fmt.Sprintf("offsets.topic.replication.factor=%d", replication),
		fmt.Sprintf("transaction.state.log.replication.factor=%d", replication),
		"transaction.state.log.min.isr=1",
		"offsets.topic.num.partitions=3",
		"transaction.state.log.num.partitions=3",
		"group.initial.rebalance.delay.ms=0",
		"group.min.session.timeout.ms=1000",
		"broker.session.timeout.ms=3000",
		"broker.heartbeat.interval.ms=500",
		"replica.lag.time.max.ms=3000",
		"controlled.shutdown.enable=true",
		"log.cleaner.backoff.ms=100",
		"log.cleaner.dedupe.buffer.size=4194304",
		"file.delete.delay.ms=0",
		"log.initial.task.delay.ms=1000",
		// Retention deletes at once, and not in the middle of another test five minutes later.
		"log.retention.check.interval.ms=300",
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users=User:ANONYMOUS",
		"ssl.keystore.type=PEM",
		"ssl.keystore.location=" + c.Authority.server,
		"ssl.truststore.type=PEM",
		"ssl.truststore.location=" + c.Authority.CA,
		"listener.name.mutual.ssl.client.auth=required",
		// The broker closes connections that have not logged in again after half a second (KIP-368).
		"listener.name.both.connections.max.reauth.ms=500",
	}
	for _, name := range []string{"login", "both"} {
		prefix := "listener.name." + name + "."
		lines = append(lines,
			prefix+"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
			prefix+"plain.sasl.jaas.config="+escape(plain),
			prefix+"scram-sha-256.sasl.jaas.config="+scram,
			prefix+"scram-sha-512.sasl.jaas.config="+scram,
			prefix+"oauthbearer.sasl.jaas.config="+bearer+"LoginModule required;",
			prefix+"oauthbearer.sasl.server.callback.handler.class="+bearer+"ValidatorCallbackHandler",
			prefix+"oauthbearer.sasl.oauthbearer.jwks.endpoint.url="+c.Tokens.url,
			prefix+"oauthbearer.sasl.oauthbearer.expected.audience="+audience,
			prefix+"oauthbearer.sasl.oauthbearer.expected.issuer="+issuer,
		)
	}
	return strings.Join(lines, "\n") + "\n"
}

// escape writes text as a Java properties file has it: in Latin 1, and a backslash is an escape.
func escape(s string) string {
	var b strings.Builder
	for _, r := range strings.ReplaceAll(s, `\`, `\\`) {
		if r < 128 {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func (n *node) java(class string, args ...string) *exec.Cmd {
	c := n.cluster
	// A small heap, and only the fast compiler, for a short life.
	flags := []string{
		"-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true",
		"-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8",
		"-Dlog4j2.configurationFile=" + filepath.Join(settings(), "log4j2.properties"),
		"-Dlog4j.configuration=file:" + filepath.Join(settings(), "log4j.properties"),
		"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + c.Tokens.url,
		"-cp", c.jars + "/*", class,
	}
	cmd := exec.CommandContext(c.ctx, "java", slices.Concat(flags, args)...)
	cmd.Dir = n.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = withParent()
	return cmd
}

// settings returns the folder of the logging configurations, relative to this source file.
func settings() string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), "testdata")
}

// format prepares the data directory and, in the cluster's first metadata, the SCRAM users.
func (n *node) format() error {
	args := []string{"format", "--cluster-id", n.cluster.id, "--config", n.file("server.properties")}
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		for _, user := range []string{User, Stranger} {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, user, Password))
		}
	}
	if out, err := n.java("kafka.tools.StorageTool", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage of broker %d: %w\n%s", n.id, err, out)
	}
	return nil
}

// process is a run of a broker.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has been waited for
}

// start runs the broker and blocks until it is up.
func (n *node) start() error {
	cmd := n.java("kafka.Kafka", n.file("server.properties"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started, up := make(chan error, 1), make(chan struct{})
	go func() {
		// The kernel kills the broker when the thread that started it ends (withParent), so the thread must not end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			n.watch(out, up)
			_ = cmd.Wait() // a killed process has an error
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start broker %d: %w", n.id, err)
	}
	n.mu.Lock()
	n.process = p
	n.mu.Unlock()
	select {
	case <-up:
		return nil
	case <-p.ended:
		return fmt.Errorf("broker %d ended while it started", n.id)
	case <-time.After(startupLimit):
		return fmt.Errorf("broker %d is not up after %v", n.id, startupLimit)
	}
}

// watch writes the broker's output to its log, and closes up when the broker logs that it has started.
func (n *node) watch(out io.Reader, up chan struct{}) {
	log, err := os.OpenFile(n.file("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer log.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if _, err := fmt.Fprintln(log, lines.Text()); err != nil {
			return // the disk is full; the broker fails, too
		}
		if up != nil && strings.Contains(lines.Text(), "Kafka Server started") {
			close(up)
			up = nil
		}
	}
}

func (n *node) kill(signal syscall.Signal) {
	n.mu.Lock()
	p := n.process
	n.process = nil
	n.mu.Unlock()
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(signal) // it may have ended already
	select {
	case <-p.ended:
		return
	case <-time.After(30 * time.Second): // the shutdown does not end
		_ = p.cmd.Process.Kill()
	}
	<-p.ended
}

func (n *node) showLog(t testing.TB) {
	raw, err := os.ReadFile(n.file("log"))
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	t.Logf("the last lines of broker %d:\n%s", n.id, strings.Join(lines[max(len(lines)-40, 0):], "\n"))
}
