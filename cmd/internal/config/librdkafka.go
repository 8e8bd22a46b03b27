package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// librdkafka maps what librdkafka (and with it kcat and most clients that are not Java's) calls a setting to our name
// of
// it, so that a file that works there can be pasted here. security.protocol is two of ours and is translated apart.
func librdkafka(name string) string {
	switch name {
	case "bootstrap.servers", "metadata.broker.list":
		return "brokers"
	case "sasl.mechanism", "sasl.mechanisms":
		return "kafka-sasl"
	case "sasl.username":
		return "kafka-username"
	case "ssl.ca.location":
		return "kafka-ca"
	case "ssl.certificate.location":
		return "kafka-cert"
	case "ssl.key.location":
		return "kafka-key"
	case "group.id":
		return "group"
	case "client.id":
		return "kafka-client-id"
	case "session.timeout.ms":
		return "kafka-session-timeout"
	case "heartbeat.interval.ms":
		return "kafka-heartbeat-interval"
	}
	return ""
}

// translate puts the file's settings with librdkafka's names under ours. A setting that is there under both names, or
// that contradicts another, is an error: which of the two was meant is not for us to guess.
func (f *file) translate() error {
	names := slices.SortedFunc(maps.Keys(f.keys), func(a, b string) int { return f.keys[a].Line - f.keys[b].Line })
	for _, name := range names {
		key, value := f.keys[name], f.values[name]
		switch name {
		case "sasl.password":
			return fileErrorf("%s:%d: the password must not be in this file: use kafka-password-file or $KAFKA_PASSWORD",
				f.name, key.Line)
		case "ssl.key.password":
			return fileErrorf("%s:%d: passwords must not be in this file, and encrypted keys are not supported: use "+
				"ssl.key.location with a file of mode 0600 that holds the unencrypted key", f.name, key.Line)
		}
		ours := librdkafka(name)
		if ours == "" {
			continue
		}
		if ours == "kafka-sasl" {
			if err := f.mechanism(key, value); err != nil {
				return err
			}
		}
		if strings.HasSuffix(name, ".ms") {
			var err error
			if value, err = f.milliseconds(key, value); err != nil {
				return err
			}
		}
		if err := f.rename(key, ours, value); err != nil {
			return err
		}
	}
	if key, ok := f.keys["security.protocol"]; ok {
		return f.securityProtocol(key, f.values["security.protocol"])
	}
	return nil
}

// rename takes a setting for one of ours. The key keeps its line and name for messages.
func (f *file) rename(key *yaml.Node, ours string, value *yaml.Node) error {
	if earlier, ok := f.keys[ours]; ok {
		return fileErrorf("%s:%d: %s and %s in line %d set the same setting: remove one",
			f.name, key.Line, key.Value, earlier.Value, earlier.Line)
	}
	delete(f.keys, key.Value)
	delete(f.values, key.Value)
	f.keys[ours], f.values[ours] = key, value
	return nil
}

func (f *file) mechanism(key, value *yaml.Node) error {
	switch strings.ToUpper(value.Value) {
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER":
		return nil
	}
	return fileErrorf("%s:%d: %s %s is not supported: want PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
		f.name, key.Line, key.Value, quote(value.Value))
}

// milliseconds takes a time as librdkafka has it, a whole number without a unit, for one as ours are.
func (f *file) milliseconds(key, value *yaml.Node) (*yaml.Node, error) {
	n, err := strconv.ParseUint(value.Value, 10, 31)
	if err != nil {
		return nil, fileErrorf("%s:%d: %s %s: want a whole number of milliseconds",
			f.name, key.Line, key.Value, quote(value.Value))
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Line: value.Line, Value: fmt.Sprintf("%dms", n)}, nil
}

// securityProtocol says whether there is TLS and whether there is a login. librdkafka would log in by GSSAPI if no
// mechanism is named; here it has to be named.
func (f *file) securityProtocol(key, value *yaml.Node) error {
	var secure, login bool
	switch strings.ToLower(value.Value) {
	case "plaintext":
	case "ssl":
		secure = true
	case "sasl_plaintext":
		login = true
	case "sasl_ssl":
		secure, login = true, true
	default:
		return fileErrorf("%s:%d: %s %s: want plaintext, ssl, sasl_plaintext or sasl_ssl",
			f.name, key.Line, key.Value, quote(value.Value))
	}
	mechanism, ok := f.keys["kafka-sasl"]
	named := ok && !strings.EqualFold(f.values["kafka-sasl"].Value, noSASL)
	switch {
	case login && !named:
		return fileErrorf("%s:%d: %s %s requires a sasl.mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 "+
			"or OAUTHBEARER", f.name, key.Line, key.Value, value.Value)
	case !login && named:
		return fileErrorf("%s:%d: %s %s has no login, but %s in line %d requires one",
			f.name, key.Line, key.Value, value.Value, mechanism.Value, mechanism.Line)
	}
	for _, name := range []string{"kafka-ca", "kafka-cert", "kafka-key"} {
		if other, ok := f.keys[name]; ok && !secure {
			return fileErrorf("%s:%d: %s %s has no TLS, but %s in line %d requires it",
				f.name, key.Line, key.Value, value.Value, other.Value, other.Line)
		}
	}
	return f.rename(key, "kafka-tls", &yaml.Node{
		Kind: yaml.ScalarNode, Line: value.Line, Value: fmt.Sprint(secure),
	})
}
