package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestKafkaSettings(t *testing.T) {
	base := Queue{Brokers: []string{"b:9092"}, Topic: "t", DeadLetterTopic: "d"}
	for name, tt := range map[string]struct {
		change  func(*Queue)
		setting string // "": accepted
		part    string
	}{
		"plain text":           {func(*Queue) {}, "", ""},
		"TLS":                  {func(q *Queue) { q.TLS, q.CA = true, "ca" }, "", ""},
		"mTLS":                 {func(q *Queue) { q.TLS, q.Cert, q.Key = true, "c", "k" }, "", ""},
		"SCRAM in capitals":    {func(q *Queue) { q.SASL, q.Username = "SCRAM-SHA-512", "u" }, "", ""},
		"token":                {func(q *Queue) { q.SASL, q.TokenFile = "oauthbearer", "f" }, "", ""},
		"none":                 {func(q *Queue) { q.SASL = "none" }, "", ""},
		"unknown mechanism":    {func(q *Queue) { q.SASL = "gssapi" }, "--kafka-sasl", "scram-sha-512"},
		"CA without TLS":       {func(q *Queue) { q.CA = "ca" }, "--kafka-ca", "--kafka-tls"},
		"key without TLS":      {func(q *Queue) { q.Cert, q.Key = "c", "k" }, "--kafka-cert", "--kafka-tls"},
		"certificate alone":    {func(q *Queue) { q.TLS, q.Cert = true, "c" }, "--kafka-cert", "--kafka-key"},
		"key alone":            {func(q *Queue) { q.TLS, q.Key = true, "k" }, "--kafka-key", "--kafka-cert"},
		"user without login":   {func(q *Queue) { q.Username = "u" }, "--kafka-username", "--kafka-sasl"},
		"login without user":   {func(q *Queue) { q.SASL = "plain" }, "--kafka-username", "KAFKA_USERNAME"},
		"bearer without token": {func(q *Queue) { q.SASL = "oauthbearer" }, "--kafka-token-file", "missing"},
		"bearer with user":     {func(q *Queue) { q.SASL, q.TokenFile, q.Username = "oauthbearer", "f", "u" }, "--kafka-username", "plain"},
		"plain with token":     {func(q *Queue) { q.SASL, q.TokenFile, q.Username = "plain", "f", "u" }, "--kafka-token-file", "oauthbearer"},
		"embedded with TLS":    {func(q *Queue) { q.Brokers, q.TLS = nil, true }, "--kafka-tls", "--brokers"},
		"embedded with login":  {func(q *Queue) { q.Brokers, q.SASL = nil, "plain" }, "--kafka-sasl", "--brokers"},
		"embedded, partitions": {func(q *Queue) { q.Brokers, q.CreateTopics, q.CreatePartitions = nil, true, 3 }, "", ""},
		"partitions":           {func(q *Queue) { q.CreatePartitions = -1 }, "--create-partitions", "1 to"},
		"broker wait":          {func(q *Queue) { q.BrokerWait = -time.Second }, "--broker-wait", "0 or more"},
		"replication":          {func(q *Queue) { q.CreateReplication = -3 }, "--create-replication", "1 to"},
		"much replication":     {func(q *Queue) { q.CreateReplication = 1 << 20 }, "--create-replication", "1 to 32767"},
	} {
		t.Run(name, func(t *testing.T) {
			q := base
			tt.change(&q)
			err := q.check()
			var setting *Error
			switch {
			case tt.setting == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case tt.setting != "" && (!errors.As(err, &setting) || setting.Setting != tt.setting ||
				!strings.Contains(err.Error(), tt.part)):
				t.Errorf("got %v, want an error of %s with %q", err, tt.setting, tt.part)
			}
		})
	}
}

func TestMembership(t *testing.T) {
	parse := func(args ...string) (Membership, error) {
		c, _, err := ParseConsumer(append(args, "status"), Streams{Stdout: t.Output(), Stderr: t.Output()})
		if err != nil {
			return Membership{}, err
		}
		return c.Membership, nil
	}
	const brokers = "--brokers=b:9092"
	for _, tt := range []struct {
		args []string
		want Membership
	}{
		{nil, Membership{defaultSessionTimeout, defaultHeartbeatInterval}},
		{[]string{brokers, "--kafka-session-timeout=6s", "--kafka-heartbeat-interval=1s"}, Membership{6 * time.Second, time.Second}},
		{[]string{brokers, "--kafka-session-timeout=2m"}, Membership{2 * time.Minute, 3 * time.Second}},
		{[]string{"--kafka-session-timeout=45s"}, Membership{45 * time.Second, 3 * time.Second}}, // the default, which the embedded broker allows
	} {
		if got, err := parse(tt.args...); got != tt.want || err != nil {
			t.Errorf("%v: got %+v, %v; want %+v", tt.args, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		args                 []string
		setting, value, part string
	}{
		{[]string{brokers, "--kafka-heartbeat-interval=45s"}, "--kafka-heartbeat-interval", "45s", "shorter than --kafka-session-timeout (45s)"},
		{[]string{brokers, "--kafka-session-timeout=2s"}, "--kafka-heartbeat-interval", "3s", "--kafka-session-timeout (2s)"},
		{[]string{brokers, "--kafka-session-timeout=0s"}, "--kafka-session-timeout", "0s", "want 1ms to"},
		{[]string{brokers, "--kafka-session-timeout=-6s"}, "--kafka-session-timeout", "-6s", "want 1ms to"},
		{[]string{brokers, "--kafka-session-timeout=600h"}, "--kafka-session-timeout", "600h0m0s", "want 1ms to"},
		{[]string{brokers, "--kafka-heartbeat-interval=1us"}, "--kafka-heartbeat-interval", "1µs", "want 1ms to"},
		{[]string{"--kafka-session-timeout=6s"}, "--kafka-session-timeout", "6s", "--brokers"},
		{[]string{"--kafka-heartbeat-interval=1s"}, "--kafka-heartbeat-interval", "1s", "--brokers"},
	} {
		var setting *Error
		_, err := parse(tt.args...)
		if !errors.As(err, &setting) || setting.Setting != tt.setting || setting.Value != tt.value || !strings.Contains(err.Error(), tt.part) {
			t.Errorf("%v: got %v, want an error of %s %q with %q", tt.args, err, tt.setting, tt.value, tt.part)
		}
	}
}

func TestKafkaFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	none := func(string) string { return "" }
	if c, err := (Queue{}).TLSConfig(); c != nil || err != nil {
		t.Errorf("without TLS: got %v, %v; want nil", c, err)
	}
	if c, err := (Queue{Kafka: Kafka{TLS: true}}).TLSConfig(); err != nil || c.RootCAs != nil || c.InsecureSkipVerify {
		t.Errorf("TLS alone: got %+v, %v; want the system's authorities", c, err)
	}
	junk, locked := file("junk", "junk"), file("locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
	missing := filepath.Join(dir, "missing")
	for _, tt := range []struct {
		kafka   Kafka
		setting string
	}{
		{Kafka{TLS: true, CA: missing}, "--kafka-ca"},
		{Kafka{TLS: true, CA: junk}, "--kafka-ca"},
		{Kafka{TLS: true, Cert: missing, Key: junk}, "--kafka-cert"},
		{Kafka{TLS: true, Cert: junk, Key: missing}, "--kafka-key"},
		{Kafka{TLS: true, Cert: junk, Key: locked}, "--kafka-key"},
		{Kafka{TLS: true, Cert: junk, Key: junk}, "--kafka-cert"},
	} {
		var setting *Error
		if _, err := (Queue{Kafka: tt.kafka}).TLSConfig(); !errors.As(err, &setting) || setting.Setting != tt.setting {
			t.Errorf("%+v: got %v, want an error of %s", tt.kafka, err, tt.setting)
		}
	}
	secret := file("secret", "pa ss\n")
	variable := func(name string) string { return map[string]string{"KAFKA_PASSWORD": "hidden"}[name] }
	both := func(string) string { return "hidden" }
	for _, tt := range []struct {
		kafka  Kafka
		getenv func(string) string
		want   string
		bad    bool
	}{
		{Kafka{SASL: "none"}, both, "", false},
		{Kafka{SASL: "oauthbearer"}, none, "", false},
		{Kafka{SASL: "plain"}, variable, "hidden", false},
		{Kafka{SASL: "plain", PasswordFile: secret}, variable, "pa ss", false},
		{Kafka{SASL: "plain", PasswordFile: secret}, both, "", true},
		{Kafka{SASL: "plain", PasswordFile: missing}, none, "", true},
		{Kafka{SASL: "plain", PasswordFile: file("empty", "\n")}, none, "", true},
		{Kafka{SASL: "plain"}, none, "", true},
	} {
		got, err := (Queue{Kafka: tt.kafka}).Password(tt.getenv)
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%+v: got %q, %v; want %q, an error: %v", tt.kafka, got, err, tt.want, tt.bad)
		}
		if err != nil && (strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "--kafka-password-file")) {
			t.Errorf("got %q, want it to name --kafka-password-file and to hide the password", err)
		}
	}
}

// TestLibrdkafkaNames reads files with the names that librdkafka and kcat use.
func TestLibrdkafkaNames(t *testing.T) {
	parse := func(t *testing.T, text string) (Queue, *Consumer, error) {
		path := filepath.Join(t.TempDir(), "kafka.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, _, err := ParseConsumer([]string{"--config", path, "status"}, Streams{Stdout: t.Output(), Stderr: t.Output()})
		if err != nil {
			return Queue{}, nil, err
		}
		return c.Queue, &c.Consumer, nil
	}
	t.Run("everything", func(t *testing.T) {
		q, c, err := parse(t, `
bootstrap.servers: b-1:9096,b-2:9096
security.protocol: SASL_SSL
sasl.mechanisms: SCRAM-SHA-512
sasl.username: purser
kafka-password-file: /secret
ssl.ca.location: /ca.pem
ssl.certificate.location: /cert.pem
ssl.key.location: /key.pem
group.id: night
client.id: onboarding
session.timeout.ms: 10000
heartbeat.interval.ms: 2500
`)
		want := Kafka{
			TLS: true, CA: "/ca.pem", Cert: "/cert.pem", Key: "/key.pem", SASL: "SCRAM-SHA-512", Username: "purser",
			PasswordFile: "/secret", ClientID: "onboarding",
		}
		if err != nil || q.Kafka != want || len(q.Brokers) != 2 {
			t.Fatalf("got %+v, %v; want %+v and 2 brokers", q, err, want)
		}
		if m := (Membership{10 * time.Second, 2500 * time.Millisecond}); c.Group != "night" || c.Membership != m {
			t.Errorf("got group %q, %+v; want night, %+v", c.Group, c.Membership, m)
		}
	})
	t.Run("variable over file", func(t *testing.T) {
		t.Setenv("KAFKA_USERNAME", "operator")
		q, _, err := parse(t, "bootstrap.servers: b:1\nsecurity.protocol: sasl_plaintext\nsasl.mechanism: PLAIN\nsasl.username: purser\n")
		if err != nil || q.Username != "operator" || q.TLS {
			t.Errorf("got %+v, %v; want username operator, no TLS", q, err)
		}
	})
	for _, tt := range []struct{ name, text, want string }{
		{"password", "sasl.password: hunter2\n", ":1: the password must not be in this file"},
		{"our password", "kafka-password: hunter2\n", ":1: the password must not be in this file"},
		{"key password", "ssl.key.password: hunter2\n", ":1: passwords must not be in this file"},
		{"unknown", "sasl.kerberos.keytab: /k\n", `:1: unknown setting "sasl.kerberos.keytab"`},
		{"kerberos", "sasl.mechanism: GSSAPI\n", `:1: sasl.mechanism "GSSAPI" is not supported`},
		{"protocol", "security.protocol: tls\n", `:1: security.protocol "tls": want plaintext`},
		{"both names", "brokers: [a:1]\nbootstrap.servers: a:1\n", ":2: bootstrap.servers and brokers in line 1 set the same setting"},
		{"both names, ours last", "bootstrap.servers: a:1\nbrokers: [a:1]\n", "set the same setting"},
		{"two spellings", "sasl.mechanism: PLAIN\nsasl.mechanisms: PLAIN\n", ":2: sasl.mechanisms and sasl.mechanism in line 1 set the same setting"},
		{"no mechanism", "security.protocol: sasl_ssl\n", ":1: security.protocol sasl_ssl requires a sasl.mechanism"},
		{"mechanism none", "security.protocol: sasl_ssl\nkafka-sasl: none\n", ":1: security.protocol sasl_ssl requires a sasl.mechanism"},
		{"no login", "sasl.mechanism: PLAIN\nsecurity.protocol: ssl\n", ":2: security.protocol ssl has no login, but sasl.mechanism in line 1"},
		{"no TLS", "ssl.ca.location: /ca\nsecurity.protocol: plaintext\n", ":2: security.protocol plaintext has no TLS, but ssl.ca.location in line 1"},
		{"session with a unit", "session.timeout.ms: 6s\n", `:1: session.timeout.ms "6s": want a whole number of milliseconds`},
		{"session by both names", "kafka-session-timeout: 6s\nsession.timeout.ms: 6000\n", ":2: session.timeout.ms and kafka-session-timeout in line 1"},
		{"fraction of a heartbeat", "heartbeat.interval.ms: 1.5\n", `:1: heartbeat.interval.ms "1.5": want a whole number`},
		{"our TLS", "kafka-tls: false\nsecurity.protocol: ssl\n", ":2: security.protocol and kafka-tls in line 1 set the same setting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := parse(t, tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q in it", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %q, want it without the secret", err)
			}
		})
	}
}
