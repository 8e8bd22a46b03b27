//go:build kafka

package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/purser-onboard/purser/internal/kafkatest"
	"github.com/purser-onboard/purser/sandbox"
)

// TestOnApacheKafka onboards the sample export by way of Apache Kafka.
func TestOnApacheKafka(t *testing.T) {
	t.Run("4", func(t *testing.T) {
		k := kafkatest.Start(t, kafkatest.V4, 1)
		t.Run("create topics", func(t *testing.T) { testCreateTopics(t, k) })
		t.Run("secure", func(t *testing.T) { testSecure(t, k) })
		t.Run("two consumers", func(t *testing.T) { testTwoConsumers(t, k) })
		t.Run("fleet", func(t *testing.T) { testFleet(t, realKafka(t, k), fullScale()) })
		t.Run("fleet's ledgers", func(t *testing.T) { testFleetLedger(t, realKafka(t, k), fullScale()) })
		t.Run("restart", func(t *testing.T) {
			testInterruption(t, k, "restart", func(int) {
				k.Kill(1)
				k.Restart(t, 1)
			})
		})
	})
	t.Run("3.9", func(t *testing.T) {
		k := kafkatest.Start(t, kafkatest.V39, 1)
		t.Run("create topics", func(t *testing.T) { testCreateTopics(t, k) })
	})
	t.Run("leader loss", func(t *testing.T) {
		k := kafkatest.Start(t, kafkatest.V4, 3)
		testInterruption(t, k, "leader-loss", k.Kill)
	})
}

// realKafka is a cluster of one broker with a network in front of it.
func realKafka(t *testing.T, k *kafkatest.Cluster) kafkaAt {
	t.Helper()
	advertised, bound := k.Detour(1)
	return kafkaAt{[]string{advertised}, newNetwork(t, advertised, bound)}
}

// testCreateTopics: a missing topic is a clear error, or is created.
func testCreateTopics(t *testing.T, k *kafkatest.Cluster) {
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = onKafka(env, k.Addrs(), "create")
	missing := []string{`topic "create" does not exist`, k.Addrs()[0], "--create-topics"}
	exitsWith(t, env, 2, missing, "importer", customers)
	exitsWith(t, env, 2, missing, "consumer", "--drain")
	exitsWith(t, env, 2, []string{"replication factor 2"}, "importer", "--create-topics", "--create-replication", "2", customers)
	exitsWith(t, env, 0, []string{"created a topic"}, "importer", "--create-topics", "--create-partitions", "6", customers)
	if n := len(k.Partitions(t, "create")); n != 6 {
		t.Errorf("got %d partitions, want 6", n)
	}
	exitsWith(t, env, 2, []string{`topic "create.dead" does not exist`}, "consumer", "--drain")
	exitsWith(t, env, 0, []string{"30 messages for group create"}, "consumer", "check", "--create-topics")
	if n := len(k.Partitions(t, "create.dead")); n != 1 {
		t.Errorf("dead letters: got %d partitions, want 1", n)
	}
	mustRun(t, env, "consumer", "--drain")
	judged(t, server, env)
	mustRun(t, env, "importer", customers) // again: everything is skipped
	exitsWith(t, env, 0, []string{"30 skipped"}, "consumer", "--drain")
	judged(t, server, env)
}

// testSecure runs over TLS with a login, by librdkafka's names of the settings, and with no more permissions than
// needed; then with wrong ones.
func testSecure(t *testing.T, k *kafkatest.Cluster) {
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, onKafka(env, k.Addrs(), "secure"), "importer", "--create-topics", "--create-partitions", "3", customers)
	mustRun(t, onKafka(env, k.Addrs(), "secure"), "consumer", "check", "--create-topics")
	env = onKafka(env, nil, "secure")
	password := filepath.Join(t.TempDir(), "password")
	settings := filepath.Join(t.TempDir(), "purser.yaml")
	if err := errors.Join(
		os.WriteFile(password, []byte(kafkatest.Password+"\n"), 0o600),
		os.WriteFile(settings, fmt.Appendf(nil, `
bootstrap.servers: %s
security.protocol: sasl_ssl
sasl.mechanism: SCRAM-SHA-512
sasl.username: %s
kafka-password-file: %s
ssl.ca.location: %s
`, k.SASLOverTLS()[0], kafkatest.User, password, k.Authority.CA), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	env = without(env, "KAFKA_BROKERS")
	exitsWith(t, env, 2, []string{"may not describe"}, "consumer", "check", "--config", settings)
	k.Grant(t, kafkatest.User, kafka.ResourceTypeTopic, "secure", kafka.ACLOperationTypeRead)
	k.Grant(t, kafkatest.User, kafka.ResourceTypeTopic, "secure.dead", kafka.ACLOperationTypeWrite)
	k.Grant(t, kafkatest.User, kafka.ResourceTypeTopic, "secure.results", kafka.ACLOperationTypeWrite)
	k.Grant(t, kafkatest.User, kafka.ResourceTypeGroup, "secure", kafka.ACLOperationTypeRead)
	exitsWith(t, env, 2, []string{`Write on topic "secure"`}, "importer", "--config", settings, customers)
	k.Grant(t, kafkatest.User, kafka.ResourceTypeTopic, "secure", kafka.ACLOperationTypeWrite)
	mustRun(t, env, "importer", "--config", settings, customers)
	mustRun(t, env, "consumer", "check", "--config", settings)
	mustRun(t, env, "consumer", "--drain", "--config", settings)
	judged(t, server, env)

	if err := os.WriteFile(password, []byte("wr0ng\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	exitsWith(t, env, 2, []string{"SASL", k.SASLOverTLS()[0]}, "importer", "--config", settings, customers)
	exitsWith(t, env, 2, []string{"SASL"}, "consumer", "--drain", "--config", settings)
	exitsWith(t, append(env, "KAFKA_CA="+password), 2, []string{"--kafka-ca"}, "consumer", "check", "--config", settings)
}

// without drops a variable.
func without(env []string, name string) []string {
	var kept []string
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			kept = append(kept, v)
		}
	}
	return kept
}

// testTwoConsumers: a second member joins in the middle, on a machine of its own; together they settle all rows.
func testTwoConsumers(t *testing.T, k *kafkatest.Cluster) {
	answered := newAfterLines(10)
	server, env := partnerEnv(t, sandbox.Config{
		Latency: 50 * time.Millisecond, HistoryLog: answered, DeclaredRate: 500,
	})
	env = onKafka(env, k.Addrs(), "two")
	second := append(env, "PURSER_DATA_DIR="+t.TempDir())
	mustRun(t, env, "importer", "--create-topics", "--create-partitions", "4", customers)
	mustRun(t, env, "consumer", "check", "--create-topics")
	one, outOne := command(t, env, "consumer", "--drain", "--concurrency", "1")
	if err := one.Start(); err != nil {
		t.Fatal(err)
	}
	<-answered.done
	two, outTwo := command(t, second, "consumer", "--drain", "--concurrency", "1")
	if err := errors.Join(two.Start(), one.Wait(), two.Wait()); err != nil {
		t.Fatalf("got %v, want exit code 0 of both\none:\n%s\ntwo:\n%s", err, outOne, outTwo)
	}
	mustRun(t, env, "consumer", "--drain") // rows that one of them left to the other
	rows := map[string]sandbox.Expected{}
	for _, e := range [][]string{env, second} {
		for _, row := range rowsOf(t, e) {
			if row.Stage == "onboarded" {
				rows[row.ChainID] = row
			}
		}
	}
	var all []sandbox.Expected
	for _, row := range rows {
		all = append(all, row)
	}
	verdict := server.Judge(all)
	if len(all) != 30 || verdict.Customers != 30 || len(verdict.Violations) > 0 || !verdict.Complete {
		t.Errorf("got %d rows, %+v; want 30 rows and customers without violations\none:\n%s\ntwo:\n%s",
			len(all), verdict, outOne, outTwo)
	}
}

// testInterruption interrupts the broker that leads a partition while rows are in progress.
func testInterruption(t *testing.T, k *kafkatest.Cluster, name string, interrupt func(leader int)) {
	answered := newAfterLines(15)
	server, env := partnerEnv(t, sandbox.Config{
		Latency: 50 * time.Millisecond, HistoryLog: answered, DeclaredRate: 500,
	})
	env = onKafka(env, k.Addrs(), name)
	mustRun(t, env, "importer", "--create-topics", "--create-partitions", "4", customers)
	mustRun(t, env, "consumer", "check", "--create-topics")
	leader := k.Leader(t, name, 0)
	cmd, out := command(t, env, "consumer", "--drain", "--concurrency", "2")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-answered.done
	began := time.Now()
	interrupt(leader)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("got %v, want exit code 0:\n%s", err, out)
	}
	// A session lasts 45 s: the consumer did not wait for the session of a stale member to end.
	if took := time.Since(began); took > 40*time.Second {
		t.Errorf("got the end after %v, want at most 40s:\n%s", took, out)
	}
	t.Logf("the consumer was done %v after broker %d was killed", time.Since(began).Round(time.Millisecond), leader)
	judged(t, server, env)
	exitsWith(t, env, 0, []string{"rows      0 received"}, "consumer", "--drain") // everything was committed
}
