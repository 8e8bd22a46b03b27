package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// noSASL is the value of --kafka-sasl that means no login.
const noSASL = "none"

// Mechanism returns the SASL mechanism by its registered name, "" for none.
func (k Kafka) Mechanism() string {
	if strings.EqualFold(k.SASL, noSASL) {
		return ""
	}
	return strings.ToUpper(k.SASL)
}

// given returns the names of the connection's settings that were given, in the order of the flags.
func (k Kafka) given() []string {
	var names []string
	for _, s := range []struct {
		name string
		set  bool
	}{
		{"--kafka-tls", k.TLS}, {"--kafka-ca", k.CA != ""}, {"--kafka-cert", k.Cert != ""}, {"--kafka-key", k.Key != ""},
		{"--kafka-sasl", k.Mechanism() != ""}, {"--kafka-username", k.Username != ""},
		{"--kafka-password-file", k.PasswordFile != ""}, {"--kafka-token-file", k.TokenFile != ""},
	} {
		if s.set {
			names = append(names, s.name)
		}
	}
	return names
}

// checkKafka finds settings that contradict each other or have no effect. TLSConfig and Password open the files.
func (q Queue) checkKafka() error {
	if q.CreatePartitions < 0 || q.CreatePartitions > 10_000 {
		return &Error{"--create-partitions", fmt.Sprint(q.CreatePartitions), "want 1 to 10000"}
	}
	if q.CreateReplication < 0 || q.CreateReplication > 32767 {
		return &Error{"--create-replication", fmt.Sprint(q.CreateReplication), "want 1 to 32767"}
	}
	if q.BrokerWait < 0 {
		return &Error{"--broker-wait", q.BrokerWait.String(), "must be 0 or more"}
	}
	k := q.Kafka
	if !slices.Contains([]string{"", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"}, k.Mechanism()) {
		return &Error{"--kafka-sasl", k.SASL, "want none, plain, scram-sha-256, scram-sha-512 or oauthbearer"}
	}
	if given := k.given(); q.Embedded() && len(given) > 0 {
		return &Error{Setting: given[0], Problem: "configures Kafka brokers, but --brokers is not set"}
	}
	if !k.TLS {
		for _, s := range []struct{ name, value string }{
			{"--kafka-ca", k.CA}, {"--kafka-cert", k.Cert}, {"--kafka-key", k.Key},
		} {
			if s.value != "" {
				return &Error{s.name, s.value, "has no effect without --kafka-tls"}
			}
		}
	}
	switch {
	case k.Cert != "" && k.Key == "":
		return &Error{"--kafka-cert", k.Cert, "needs its key: --kafka-key"}
	case k.Key != "" && k.Cert == "":
		return &Error{"--kafka-key", k.Key, "needs its certificate: --kafka-cert"}
	}
	return k.checkLogin()
}

func (k Kafka) checkLogin() error {
	mechanism := k.Mechanism()
	bearer := mechanism == "OAUTHBEARER"
	for _, s := range []struct {
		name, value, with string
		wanted            bool
	}{
		{"--kafka-username", k.Username, "plain or scram-sha-…", mechanism != "" && !bearer},
		{"--kafka-password-file", k.PasswordFile, "plain or scram-sha-…", mechanism != "" && !bearer},
		{"--kafka-token-file", k.TokenFile, "oauthbearer", bearer},
	} {
		if s.value != "" && !s.wanted { // the value is not shown: it may be the secret itself
			return &Error{Setting: s.name, Problem: fmt.Sprintf("requires --kafka-sasl %s, but it is %q", s.with, k.SASL)}
		}
	}
	switch {
	case bearer && k.TokenFile == "":
		return &Error{Setting: "--kafka-token-file", Problem: "is missing (or $KAFKA_TOKEN_FILE)"}
	case mechanism != "" && !bearer && k.Username == "":
		return &Error{Setting: "--kafka-username", Problem: "is missing (or $KAFKA_USERNAME)"}
	}
	return nil
}

// The defaults of a Membership, Java's.
const (
	defaultSessionTimeout    = 45 * time.Second
	defaultHeartbeatInterval = 3 * time.Second
)

// check finds times that no group can keep. The bounds of the session timeout are the brokers' to know
// (group.min.session.timeout.ms and group.max.session.timeout.ms).
func (m Membership) check(embedded bool) error {
	for _, s := range []struct {
		name       string
		value, def time.Duration
	}{
		{"--kafka-session-timeout", m.SessionTimeout, defaultSessionTimeout},
		{"--kafka-heartbeat-interval", m.HeartbeatInterval, defaultHeartbeatInterval},
	} {
		switch {
		case s.value < time.Millisecond || s.value > longestTime:
			return &Error{s.name, s.value.String(), "want 1ms to " + longestTime.String()}
		case embedded && s.value != s.def:
			return &Error{s.name, s.value.String(), "configures a Kafka consumer group, but --brokers is not set"}
		}
	}
	if m.HeartbeatInterval >= m.SessionTimeout {
		return &Error{"--kafka-heartbeat-interval", m.HeartbeatInterval.String(),
			fmt.Sprintf("must be shorter than --kafka-session-timeout (%v)", m.SessionTimeout)}
	}
	return nil
}

// longestTime is the longest duration in Kafka's protocol.
const longestTime = math.MaxInt32 * time.Millisecond

// TLSConfig reads the certificates. It returns nil without --kafka-tls.
func (q Queue) TLSConfig() (*tls.Config, error) {
	k := q.Kafka
	if !k.TLS {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if k.CA != "" {
		var err error
		if c.RootCAs, err = readAuthorities("--kafka-ca", k.CA); err != nil {
			return nil, err
		}
	}
	if k.Cert != "" {
		cert, err := readPEM("--kafka-cert", k.Cert, public)
		if err != nil {
			return nil, err
		}
		key, err := readPEM("--kafka-key", k.Key, q.InsecurePermissions)
		if err != nil {
			return nil, err
		}
		if strings.Contains(string(key), "ENCRYPTED") {
			return nil, &Error{"--kafka-key", k.Key, "is encrypted: use an unencrypted key in a file with mode 0600"}
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, &Error{"--kafka-cert", k.Cert, fmt.Sprintf("does not match --kafka-key: %v", err)}
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// readAuthorities reads the certificates of the PEM file that a setting names, or of the PEM text that it is. All of
// them must be readable: a pool that lacks one fails later, with an error that does not name the file.
func readAuthorities(setting, file string) (*x509.CertPool, error) {
	raw, err := readPEM(setting, file, public)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		n++
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &Error{setting, file, fmt.Sprintf("certificate %d cannot be read: %v", n, err)}
		}
		pool.AddCert(certificate)
	}
	if n == 0 {
		return nil, &Error{setting, file, "contains no PEM certificate"}
	}
	return pool, nil
}

// Password reads the password: from its file, or else $KAFKA_PASSWORD. It is "" when the login needs none.
func (q Queue) Password(getenv func(string) string) (string, error) {
	k := q.Kafka
	if m := k.Mechanism(); m == "" || m == "OAUTHBEARER" {
		return "", nil
	}
	if getenv("KAFKA_PASSWORD") != "" && getenv("KAFKA_PASSWORD_FILE") != "" {
		return "", &Error{Setting: "--kafka-password-file",
			Problem: "$KAFKA_PASSWORD and $KAFKA_PASSWORD_FILE are both set: unset one"}
	}
	if k.PasswordFile == "" {
		if password := getenv("KAFKA_PASSWORD"); password != "" {
			return secretIn("--kafka-password-file", "KAFKA_PASSWORD", password)
		}
		return "", &Error{Setting: "--kafka-password-file", Problem: "is missing (or $KAFKA_PASSWORD, the password itself)"}
	}
	return ReadSecret("--kafka-password-file", k.PasswordFile, q.InsecurePermissions)
}
