package cmd

import (
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// onBroker runs do with the embedded broker of a data directory, between two commands.
func onBroker(t *testing.T, env []string, do func(*broker.Embedded)) {
	t.Helper()
	b, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{
		Dir:    filepath.Join(dataOf(env), "broker"),
		Topics: map[string]int{"onboarding.customers": 4, "onboarding.deadletter": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	do(b)
}

// publishEmbedded writes messages to a topic of the embedded broker as any producer could.
func publishEmbedded(t *testing.T, env []string, topic string, messages []pipeline.Message) {
	t.Helper()
	onBroker(t, env, func(b *broker.Embedded) {
		producer := broker.NewProducer(b.Cluster, broker.ProducerOptions{})
		if err := producer.Publish(t.Context(), topic, messages); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRedrive: a message that is not a row becomes a dead letter with its bytes and headers, and is put back once.
func TestRedrive(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{})
	bad := []pipeline.Message{
		{Key: []byte("k1"), Value: []byte(`{"v":2}`), Headers: []pipeline.Header{{Key: "trace", Value: []byte("t-1")}}},
		{Key: []byte("k2"), Value: []byte(`not json`)},
	}
	publishEmbedded(t, env, "onboarding.customers", bad)
	exitsWith(t, env, 3, []string{"2 received", "2 dead-lettered"}, "consumer", "--drain")
	exitsWith(t, env, 0, []string{"1 would be put back", "version: message version 2 is unknown"},
		"consumer", "redrive", "--dry-run", "--reason", "version")
	exitsWith(t, env, 0, []string{"0 would be put back"}, "consumer", "redrive", "--dry-run", "--since", "2099-01-01")
	exitsWith(t, env, 2, []string{"--since"}, "consumer", "redrive", "--since", "yesterday")
	exitsWith(t, env, 0, []string{"2 dead letters examined, 2 put back"}, "consumer", "redrive")
	exitsWith(t, env, 0, []string{"0 dead letters examined"}, "consumer", "redrive")
	exitsWith(t, env, 3, []string{"2 received", "2 dead-lettered"}, "consumer", "--drain")
	onBroker(t, env, func(b *broker.Embedded) {
		dead, err := b.Peek(t.Context(), "onboarding.deadletter", "test", 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(dead) != 4 {
			t.Fatalf("got %d dead letters, want 4", len(dead))
		}
		for _, m := range dead[2:] {
			headers := map[string]string{}
			for _, h := range m.Headers {
				headers[h.Key] = string(h.Value)
			}
			if headers[pipeline.HeaderAttempts] != "2" || headers[pipeline.HeaderTopic] != "onboarding.customers" {
				t.Errorf("got headers %v, want 2 attempts and the topic onboarding.customers", headers)
			}
			if string(m.Key) == "k1" && (headers["trace"] != "t-1" || string(m.Value) != `{"v":2}`) {
				t.Errorf("got value %s, headers %v; want {\"v\":2} and trace t-1", m.Value, headers)
			}
		}
	})
}

// TestRedriveWritesToTheWorkTopicOnly: redrive does not write to the topic that a dead letter's headers name.
func TestRedriveWritesToTheWorkTopicOnly(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{})
	env = append(onKafka(env, k.addrs, "work"), "PURSER_CREATE_TOPICS=true")
	mustRun(t, env, "consumer", "check")
	other := append(onKafka(slices.Clone(env), k.addrs, "payments"), "PURSER_CREATE_TOPICS=true")
	mustRun(t, other, "consumer", "check")
	forged := pipeline.Message{
		Key: []byte("k"), Value: []byte(`{"pay":"me"}`),
		Headers: []pipeline.Header{{Key: pipeline.HeaderTopic, Value: []byte("payments")}},
	}
	publish(t, k, "work.dead", []pipeline.Message{forged})
	exitsWith(t, env, 3, []string{"1 dead letter examined, 0 put back", "names the topic", "payments",
		"1 message of work.dead cannot be put back and stays there"}, "consumer", "redrive")
	exitsWith(t, other, 0, []string{"rows      0 received"}, "consumer", "--drain")
}

// TestRedriveKeepsWhatStays: dead letters that cannot be put back are reported by each redrive until they can be; those
// around them are put back once. --forget ends the reports.
func TestRedriveKeepsWhatStays(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	env = append(onKafka(env, k.addrs, "stays"), "PURSER_CREATE_TOPICS=true", "PURSER_CREATE_PARTITIONS=2")
	right := append(slices.Clone(env), "PURSER_MESSAGE_KEY_FILE="+keyFile(t, 1))
	wrong := append(slices.Clone(env), "PURSER_MESSAGE_KEY_FILE="+keyFile(t, 2))
	mustRun(t, wrong, "consumer", "check")
	junk := []pipeline.Message{{Key: []byte("k"), Value: []byte("junk")}}
	authenticator(t, messageauth.Rows, "stays", 2).Sign(junk)
	publish(t, k, "stays", junk)
	mustRun(t, right, "importer", customers)
	exitsWith(t, wrong, 3, []string{"31 received", "31 dead-lettered"}, "consumer", "--drain")

	first := []string{"31 dead letters examined, 1 put back", "30 messages of stays.dead cannot be put back and stay"}
	again := []string{"30 dead letters examined, 0 put back", "30 messages of stays.dead cannot be put back and stay"}
	exitsWith(t, wrong, 3, first, "consumer", "redrive")
	exitsWith(t, wrong, 3, again, "consumer", "redrive")
	exitsWith(t, wrong, 3, again, "consumer", "redrive")
	// A choice looks at all that there is, and at each once.
	exitsWith(t, right, 0, []string{"31 dead letters examined, 30 would be put back"},
		"consumer", "redrive", "--dry-run", "--reason", "unknown key")
	exitsWith(t, right, 0, []string{"30 dead letters examined, 30 put back"}, "consumer", "redrive")
	exitsWith(t, right, 0, []string{"0 dead letters examined"}, "consumer", "redrive")
	exitsWith(t, right, 3, []string{"31 received: 30 onboarded", "1 dead-lettered"}, "consumer", "--drain")

	exitsWith(t, right, 3, []string{"1 dead letter examined, 0 put back"}, "consumer", "redrive")
	exitsWith(t, right, 2, []string{"--forget"}, "consumer", "redrive", "--forget", "--since", "1h")
	exitsWith(t, right, 3, []string{"1 dead letter examined, 0 would be put back"},
		"consumer", "redrive", "--forget", "--dry-run")
	exitsWith(t, right, 0, []string{"1 dead letter examined, 0 put back, 1 forgotten", "it is not authentic"},
		"consumer", "redrive", "--forget")
	exitsWith(t, right, 0, []string{"0 dead letters examined"}, "consumer", "redrive")
}

// TestRedriveInterrupted: where the position could not be committed, the copies of what stays count once.
func TestRedriveInterrupted(t *testing.T) {
	t.Parallel()
	var refusals atomic.Int32
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		if refusals.Add(-1) < 0 {
			return nil, nil, false
		}
		return nil, errors.New("gone"), true // the connection is closed
	})
	k := kafkaAt{addrs: fake.ListenAddrs()}
	_, env := partnerEnv(t, sandbox.Config{})
	env = append(onKafka(env, k.addrs, "cut"), "PURSER_CREATE_TOPICS=true", "PURSER_MESSAGE_KEY_FILE="+keyFile(t, 1),
		"PURSER_BROKER_WAIT=0s")
	mustRun(t, env, "consumer", "check")
	junk := pipeline.Message{Topic: "cut", Key: []byte("k"), Value: []byte("junk")}
	stays := pipeline.NewDeadLetter(junk, errors.New("junk"))
	publish(t, k, "cut.dead", []pipeline.Message{stays})
	refusals.Store(1)
	exitsWith(t, env, 1, nil, "consumer", "redrive")
	exitsWith(t, env, 3, []string{"1 dead letter examined, 0 put back"}, "consumer", "redrive")
	exitsWith(t, env, 3, []string{"1 dead letter examined, 0 put back"}, "consumer", "redrive")
}
