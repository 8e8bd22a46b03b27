package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/secretfile"
)

// validate checks what the parser does not, and fills in what follows from other settings.
func (c *Importer) validate() error {
	if c.Chain != "" {
		chain, err := pipeline.ParseChain(c.Chain)
		if err != nil {
			return &Error{"--chain", c.Chain, err.Error()}
		}
		c.ChainNumber = chain
	}
	if err := c.Queue.check(); err != nil {
		return err
	}
	if err := c.settleDialect(); err != nil {
		return err
	}
	if err := checkDataDir(c.DataDir); err != nil {
		return err
	}
	stdin := 0
	for _, f := range c.Files {
		if f == "-" {
			stdin++
		}
	}
	if stdin > 1 {
		return &Error{"FILE", "-", "standard input can be read only once"}
	}
	c.RejectsGiven = c.Rejects != ""
	if !c.RejectsGiven {
		c.Rejects = filepath.Join(c.DataDir, "rejects.csv")
	}
	return nil
}

// checkDataDir returns an error if something else has the name of the data directory. A missing one is created later.
func checkDataDir(dir string) error {
	if dir == "" { // as a variable of a script that is not set
		return &Error{Setting: "--data-dir", Problem: "is empty: want a directory; . is the current directory"}
	}
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return &Error{"--data-dir", dir, "is not a directory"}
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(dir); err == nil {
			dangling := lockfile.Dangling(dir)
			return &Error{"--data-dir", dir, dangling.Problem + ": " + dangling.Advice}
		}
	}
	return nil
}

// validate checks what the parser does not, and fills in what follows from other settings.
func (c *Consumer) validate() (err error) {
	if c.APIKey != "" && !isUUID(c.APIKey) {
		return &Error{Setting: "--api-key", Problem: notUUID}
	}
	if err := c.Queue.check(); err != nil {
		return err
	}
	if err := c.Membership.check(c.Embedded()); err != nil {
		return err
	}
	if !validGroup(c.Group) {
		return &Error{"--group", c.Group, "want 1 to 255 printable characters without space at either end"}
	}
	if err := checkDataDir(c.DataDir); err != nil {
		return err
	}
	if c.Ledger == "" {
		c.Ledger = filepath.Join(c.DataDir, "ledger.db")
	}
	if err := c.checkLedgerTopic(); err != nil {
		return err
	}
	positive := []struct {
		name  string
		value float64
		text  string
	}{
		{"--rate", c.Rate, fmt.Sprint(c.Rate)},
		{"--concurrency", float64(c.Concurrency), fmt.Sprint(c.Concurrency)},
		{"--signer-concurrency", float64(c.SignerConcurrency), fmt.Sprint(c.SignerConcurrency)},
		{"--signer-wait", c.SignerWait.Seconds(), c.SignerWait.String()},
		{"--max-attempts", float64(c.MaxAttempts), fmt.Sprint(c.MaxAttempts)},
		{"--max-outstanding", float64(c.MaxOutstanding), fmt.Sprint(c.MaxOutstanding)},
		{"--idempotency-ttl", c.IdempotencyTTL.Seconds(), c.IdempotencyTTL.String()},
		{"--challenge-ttl", c.ChallengeTTL.Seconds(), c.ChallengeTTL.String()},
		{"--retry-min", c.RetryMin.Seconds(), c.RetryMin.String()},
		{"--stalled-after", c.StalledAfter.Seconds(), c.StalledAfter.String()},
		{"--request-timeout", c.RequestTimeout.Seconds(), c.RequestTimeout.String()},
	}
	for _, p := range positive {
		if !(p.value > 0) || math.IsInf(p.value, 0) {
			return &Error{p.name, p.text, "must be greater than 0"}
		}
	}
	if c.Rate < 0.001 || c.Rate > 1e6 {
		return &Error{"--rate", fmt.Sprint(c.Rate), "want between 0.001 and 1,000,000 requests a second"}
	}
	if c.HaltAfter < 0 {
		return &Error{"--halt-after", fmt.Sprint(c.HaltAfter), "must be 0 or more"}
	}
	if c.OutageWait < 0 {
		return &Error{"--outage-wait", c.OutageWait.String(), "must be 0 or more"}
	}
	if c.SignatureAge < 0 || c.SignatureAge > time.Hour {
		return &Error{"--signature-age", c.SignatureAge.String(), "want 0s to 1h"}
	}
	if c.Parameters, err = parseParameters(c.SignatureParameters); err != nil {
		return err
	}
	const mostParallel = 4096
	if c.Concurrency > mostParallel {
		return &Error{"--concurrency", fmt.Sprint(c.Concurrency), fmt.Sprintf("want at most %d", mostParallel)}
	}
	if c.SignerConcurrency > mostParallel {
		return &Error{"--signer-concurrency", fmt.Sprint(c.SignerConcurrency), fmt.Sprintf("want at most %d", mostParallel)}
	}
	if !(c.SignerRate >= 0) || math.IsInf(c.SignerRate, 0) {
		return &Error{"--signer-rate", fmt.Sprint(c.SignerRate), "must be 0 or more"}
	}
	if err := c.checkMetrics(); err != nil {
		return err
	}
	if c.RetryMax < c.RetryMin {
		return &Error{"--retry-max", c.RetryMax.String(), "must not be less than --retry-min"}
	}
	return nil
}

// checkMetrics brings --metrics-listen into the form host:port, and checks what belongs to it.
func (c *Consumer) checkMetrics() error {
	if c.MetricsListen != "" {
		address := c.MetricsListen
		if !strings.Contains(address, ":") {
			address = ":" + address
		}
		host, port, err := net.SplitHostPort(address)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return &Error{"--metrics-listen", c.MetricsListen, "want a port, or host:port"}
		}
		if host == "" { // all of this machine's addresses have to be asked for: 0.0.0.0:9464
			host = "127.0.0.1"
		}
		c.MetricsListen = net.JoinHostPort(host, port)
	} else if c.MetricsPprof {
		return &Error{Setting: "--metrics-pprof", Problem: "has no effect without --metrics-listen"}
	}
	if c.MetricsTextfile != "" && filepath.Ext(c.MetricsTextfile) != ".prom" {
		return &Error{Setting: "--metrics-textfile",
			Problem: "want a name that ends with .prom: node_exporter reads no other files"}
	}
	return nil
}

// isUUID reports whether a text is a UUID in its usual form of 36 characters (RFC 9562, section 4). Its 32 hex digits
// alone may be a secret.
func isUUID(text string) bool { return len(text) == 36 && uuid.Validate(text) == nil }

// parseParameters reads "nonce", "expires" or "expires=5m", "tag" or "tag=text".
func parseParameters(list []string) (Parameters, error) {
	var p Parameters
	for _, item := range list {
		name, value, given := strings.Cut(strings.TrimSpace(item), "=")
		bad := func(problem string) error { return &Error{"--signature-parameters", item, problem} }
		switch name {
		case "created", "keyid", "alg": // are always there
			if given {
				return p, bad("is always sent and has a fixed value")
			}
		case "nonce":
			if given {
				return p, bad("is generated for each request and cannot be set")
			}
			p.Nonce = true
		case "expires":
			p.Expires = 5 * time.Minute
			if given {
				d, err := time.ParseDuration(value)
				if err != nil || d < 5*time.Second || d > time.Hour || d%time.Second != 0 {
					return p, bad("want whole seconds from 5s to 1h, like expires=5m")
				}
				p.Expires = d
			}
		case "tag":
			p.Tag = "purser"
			if given {
				p.Tag = value
			}
			if p.Tag == "" {
				return p, bad("want a text, like tag=purser")
			}
		default:
			return p, bad("want nonce, expires=DURATION or tag=TEXT")
		}
	}
	return p, nil
}

func (q Queue) check() error {
	for i, b := range q.Brokers {
		b = strings.TrimSpace(b) // a list may have spaces behind its commas
		q.Brokers[i] = b
		if _, _, err := net.SplitHostPort(b); err != nil {
			return &Error{"--brokers", b, "want host:port"}
		}
	}
	if err := q.checkKafka(); err != nil {
		return err
	}
	for name, topic := range map[string]string{"--topic": q.Topic, "--dead-letter-topic": q.DeadLetterTopic} {
		if !validTopic(topic) {
			return &Error{name, topic, topicShape}
		}
	}
	if q.ResultsTopic != "" && !validTopic(q.ResultsTopic) {
		return &Error{"--results-topic", q.ResultsTopic, topicShape}
	}
	if q.ResultsTopic == q.Topic || q.ResultsTopic != "" && q.ResultsTopic == q.DeadLetterTopic {
		return &Error{"--results-topic", q.ResultsTopic, "must differ from the other topics"}
	}
	if q.Topic == q.DeadLetterTopic {
		return &Error{"--dead-letter-topic", q.DeadLetterTopic, "must differ from --topic"}
	}
	return nil
}

func (c *Consumer) checkLedgerTopic() error {
	switch topic := c.LedgerTopic; {
	case topic == "" && c.LedgerTopicKeyFile != "":
		return &Error{Setting: "--ledger-topic-key-file", Problem: "has no effect without --ledger-topic"}
	case topic == "":
	case !validTopic(topic):
		return &Error{"--ledger-topic", topic, topicShape}
	case topic == c.Topic || topic == c.DeadLetterTopic || topic == c.ResultsTopic:
		return &Error{"--ledger-topic", topic, "must differ from the other topics"}
	case c.Embedded():
		return &Error{"--ledger-topic", topic, "requires --brokers; the embedded broker has one consumer, " +
			"whose ledger is in the same data directory"}
	case c.LedgerTopicKeyFile == "":
		return &Error{Setting: "--ledger-topic-key-file", Problem: "is missing (or $PURSER_LEDGER_TOPIC_KEY_FILE): " +
			"without it, any program with Write on the ledger topic could mark rows as onboarded; " +
			"`openssl rand -base64 32 > FILE` creates it"}
	}
	return nil
}

func validTopic(s string) bool {
	if s == "" || len(s) > 249 || s == "." || s == ".." {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// validGroup reports whether a consumer group may have a name. Kafka takes nearly any; this keeps out what was not
// meant and what cannot be read in the brokers' logs and tools.
func validGroup(s string) bool {
	return s != "" && len(s) <= 255 && strings.TrimSpace(s) == s && printable.Is(s)
}

// CheckRun returns one error for all missing settings that a run needs.
func (c *Consumer) CheckRun(getenv func(string) string) error { return c.missing(getenv, true, true) }

// missing returns an error for each setting that is missing, joined: those of the partner API, and, if they are needed,
// the signing key's id and the signer.
func (c *Consumer) missing(getenv func(string) string, keyID, signer bool) error {
	given := func(value string) bool { return value != "" }
	var all []error
	for _, s := range []struct {
		flag, or string
		given    bool
	}{
		{"--api-url", "$OFFBLOCKS_API_URL)", given(c.APIURL)},
		{"--api-key", "$OFFBLOCKS_API_KEY)", given(c.APIKey)},
		{
			"--api-secret-file", "$OFFBLOCKS_API_SECRET, the secret itself)",
			given(c.APISecretFile) || given(getenv("OFFBLOCKS_API_SECRET")),
		},
		{"--signing-key", "$OFFBLOCKS_SIGNING_KEY)", given(c.SigningKey)},
		{
			"--signing-key-id", "$OFFBLOCKS_SIGNING_KEY_ID); `consumer register-key` registers the key and prints its id",
			given(c.SigningKeyID) || !keyID,
		},
		{"--signer", "$PURSER_SIGNER)", given(c.Signer) || !signer},
	} {
		if !s.given {
			all = append(all, &Error{Setting: s.flag, Problem: "is missing (or " + s.or})
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}

// CheckPartner is CheckAPI for commands that sign requests: they also need the signing key's id.
func (c *Consumer) CheckPartner(getenv func(string) string) (*url.URL, error) {
	if err := c.missing(getenv, true, false); err != nil {
		return nil, err
	}
	return c.CheckAPI(getenv)
}

// CheckAPI validates the settings of the partner API, reads the secret and the challenge's statement, and normalises
// the API URL and the challenge domain. It returns the base URL.
func (c *Consumer) CheckAPI(getenv func(string) string) (*url.URL, error) {
	if err := c.missing(getenv, false, false); err != nil {
		return nil, err
	}
	base, err := c.CheckURL()
	if err != nil {
		return nil, err
	}
	if err := checkProxy(base, getenv); err != nil {
		return nil, err
	}
	if getenv("OFFBLOCKS_API_SECRET") != "" && getenv("OFFBLOCKS_API_SECRET_FILE") != "" {
		return nil, &Error{Setting: "--api-secret-file",
			Problem: "$OFFBLOCKS_API_SECRET and $OFFBLOCKS_API_SECRET_FILE are both set: unset one"}
	}
	if c.APISecretFile != "" {
		if c.Secret, err = ReadSecret("--api-secret-file", c.APISecretFile, c.InsecurePermissions); err != nil {
			return nil, err
		}
	} else {
		c.Secret, err = secretIn("--api-secret-file", "OFFBLOCKS_API_SECRET", getenv("OFFBLOCKS_API_SECRET"))
		if err != nil {
			return nil, err
		}
	}
	given := c.ChallengeDomain
	if given == "" {
		c.ChallengeDomain = base.Host
	} else if c.ChallengeDomain, err = CanonicalHost(base.Scheme, given); err != nil {
		return nil, &Error{"--challenge-domain", given, err.Error()}
	}
	return base, c.settleChallenge(base.Scheme)
}

// settleChallenge reads the statement and checks the settings of the URI.
func (c *Consumer) settleChallenge(scheme string) error {
	var err error
	file, isFile := strings.CutPrefix(c.ChallengeStatement, "file:")
	switch {
	case c.ChallengeStatement == "any":
		c.AnyStatement = true
	case isFile:
		if c.Statement, err = readStatement(file); err != nil {
			return err
		}
	default:
		c.Statement = c.ChallengeStatement
	}
	if c.ChallengeURIHost == "" {
		return nil
	}
	if c.ChallengeURI != "" {
		return &Error{Setting: "--challenge-uri-host",
			Problem: "has no effect with --challenge-uri, which sets the whole URI"}
	}
	given := c.ChallengeURIHost
	if c.ChallengeURIHost, err = CanonicalHost(scheme, given); err != nil {
		return &Error{"--challenge-uri-host", given, err.Error()}
	}
	return nil
}

// readStatement reads the statement from a file; a line end behind it does not belong to it.
func readStatement(file string) (string, error) {
	raw, err := secretfile.ReadPlain(file, mostStatement)
	if err != nil {
		return "", &Error{Setting: "--challenge-statement", Problem: "the file " + err.Error()}
	}
	text := strings.TrimRight(string(raw), "\r\n")
	if text == "" {
		return "", &Error{Setting: "--challenge-statement", Problem: "the file is empty"}
	}
	return text, nil
}

// CheckURL normalises the API URL and returns it.
func (c *Consumer) CheckURL() (*url.URL, error) {
	base, err := parseAPIURL(c.APIURL)
	if err != nil {
		return nil, err
	}
	c.APIURL = base.String()
	return base, nil
}

// SecretReader returns a function that reads the API secret again; nil if the secret is not from a file.
func (c *Consumer) SecretReader() func() (string, error) {
	if c.APISecretFile == "" {
		return nil
	}
	return func() (string, error) { return ReadSecret("--api-secret-file", c.APISecretFile, c.InsecurePermissions) }
}

// ReadSigningKey reads the PEM text of the key that signs the requests.
func (c *Consumer) ReadSigningKey() ([]byte, error) {
	return readPEM("--signing-key", c.SigningKey, c.InsecurePermissions)
}
