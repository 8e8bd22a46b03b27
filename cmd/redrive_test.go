package cmd

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/purser-onboard/purser/broker"
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
	exitsWith(t, env, 0, []string{"2 dead letters looked at, 2 put back"}, "consumer", "redrive")
	exitsWith(t, env, 0, []string{"0 dead letters looked at"}, "consumer", "redrive")
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
	exitsWith(t, env, 3, []string{"1 dead letters looked at, 0 put back", "names the topic", "payments"}, "consumer", "redrive")
	exitsWith(t, other, 0, []string{"rows      0 received"}, "consumer", "--drain")
}
