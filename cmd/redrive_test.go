package cmd

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// onBroker opens the embedded broker of a data directory between two commands.
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

// ends runs the consumer and fails unless it ends with that code and says all of that.
func ends(t *testing.T, env []string, code int, says []string, args ...string) {
	t.Helper()
	cmd, out := command(t, env, "consumer", args...)
	err := cmd.Run()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != code {
		t.Errorf("consumer %v ended with %d, want %d:\n%s", args, got, code, out)
	}
	for _, s := range says {
		if !strings.Contains(out.String(), s) {
			t.Errorf("consumer %v does not say %q:\n%s", args, s, out)
		}
	}
}

// TestRedrive: what cannot be read as a row becomes a dead letter with its bytes and headers, and is put back once.
func TestRedrive(t *testing.T) {
	_, env := partnerEnv(t, sandbox.Config{})
	bad := []pipeline.Message{
		{Key: []byte("k1"), Value: []byte(`{"v":2}`), Headers: []pipeline.Header{{Key: "trace", Value: []byte("t-1")}}},
		{Key: []byte("k2"), Value: []byte(`not json`)},
	}
	onBroker(t, env, func(b *broker.Embedded) {
		producer := broker.NewProducer(b.Cluster, broker.ProducerOptions{})
		if err := producer.Publish(t.Context(), "onboarding.customers", bad); err != nil {
			t.Fatal(err)
		}
	})
	ends(t, env, 3, []string{"2 received", "2 dead-lettered"}, "--drain")
	ends(t, env, 0, []string{"1 would be put back", "version: message version 2 is unknown"},
		"redrive", "--dry-run", "--reason", "version")
	ends(t, env, 0, []string{"0 would be put back"}, "redrive", "--dry-run", "--since", "2099-01-01")
	ends(t, env, 2, []string{"--since"}, "redrive", "--since", "yesterday")
	ends(t, env, 0, []string{"2 dead letters looked at, 2 put back"}, "redrive")
	ends(t, env, 0, []string{"0 dead letters looked at"}, "redrive")
	ends(t, env, 3, []string{"2 received", "2 dead-lettered"}, "--drain")
	onBroker(t, env, func(b *broker.Embedded) {
		dead, err := b.Peek(t.Context(), "onboarding.deadletter", "nobody", 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(dead) != 4 {
			t.Fatalf("%d dead letters, want 4", len(dead))
		}
		for _, m := range dead[2:] {
			headers := map[string]string{}
			for _, h := range m.Headers {
				headers[h.Key] = string(h.Value)
			}
			if headers[pipeline.HeaderAttempts] != "2" || headers[pipeline.HeaderTopic] != "onboarding.customers" {
				t.Errorf("%v", headers)
			}
			if string(m.Key) == "k1" && (headers["trace"] != "t-1" || string(m.Value) != `{"v":2}`) {
				t.Errorf("%s %v", m.Value, headers)
			}
		}
	})
}
