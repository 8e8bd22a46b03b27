package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"github.com/purser-onboard/purser/loopback"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/secretfile"
)

// Error is a setting that cannot be used. Commands exit with 2 for it.
type Error struct {
	Setting string // "--rate"
	Value   string // as given; Error shows it only where it can be no secret and no file's name
	Problem string
}

func (e *Error) Error() string {
	switch {
	case e.Value == "":
		return fmt.Sprintf("%s: %s", e.Setting, e.Problem)
	case !shown(e.Setting, e.Value):
		problem := e.Problem
		if len(e.Value) >= 16 { // a shorter one may be a part of any word
			problem = strings.ReplaceAll(problem, e.Value, "…")
		}
		return fmt.Sprintf("%s: %s", e.Setting, problem)
	}
	return fmt.Sprintf("%s %q: %s", e.Setting, e.Value, e.Problem)
}

// ErrPrinted is returned when the arguments asked for help or the version, which has been printed: exit with 0.
var ErrPrinted = errors.New("help or version printed")

// exited carries kong's wish to exit out of the parser.
type exited int

// Streams are where the parser prints help and version, and whether the process's variables count.
type Streams struct {
	Stdout, Stderr    io.Writer
	IgnoreEnvironment bool // for `sandbox run`, which must not meet the settings of production
	// Program is the program whose subcommands the commands are; empty if each is a program of its own.
	Program string
}

// name returns how a command is called: importer, or purser import.
func (s Streams) name(command string) string {
	switch {
	case s.Program == "":
		return command
	case command == "consumer": // its commands are the program's own
		return s.Program
	case command == "importer":
		command = "import"
	}
	return s.Program + " " + command
}

// parserOf makes the parser of a grammar. Name is how the command is called.
func parserOf(grammar any, name, description string, s Streams) (*kong.Kong, error) {
	parser, err := kong.New(grammar,
		kong.Name(name), kong.Description(description),
		kong.Writers(s.Stdout, s.Stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.KindMapper(reflect.String, kong.MapperFunc(text)),
		kong.ExplicitGroups(append(commandGroups(), flagGroups()...)), kong.Vars{"version": VersionText()},
		kong.Help(helpPrinter(s.Program)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}), kong.ValueFormatter(describe),
	)
	if err != nil {
		return nil, err // the grammar itself is wrong; every test would see it
	}
	parser.Model.HelpFlag.Help = "Print this help and exit."
	return parser, nil
}

// parse fills a command's settings. It returns the chosen command ("run") for grammars that have several.
func parse(grammar any, name, description string, args []string, s Streams) (command string, err error) {
	name = s.name(name)
	parser, err := parserOf(grammar, name, description, s)
	if err != nil {
		return "", err
	}
	if s.IgnoreEnvironment {
		forgetVariables(parser.Model.Node)
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exited:
			err = ErrPrinted
		default:
			panic(r)
		}
	}()
	context, err := parser.Parse(args)
	if err != nil {
		return "", &UsageError{Command: name, Err: withoutValues(parser, err)}
	}
	if err := checkValues(context); err != nil {
		return "", err
	}
	switch c := grammar.(type) {
	case *ConsumerCommands:
		c.Settings = effective(context)
	case *night:
		c.Settings = effective(context)
	}
	command, _, _ = strings.Cut(context.Command(), " <") // without its arguments
	if q, ok := grammar.(interface{ settle() }); ok {
		q.settle()
	}
	return command, nil
}

// text takes a text as it is. Kong's own mapper takes it through JSON, which replaces what is not UTF-8: a file with
// such a name would not be found.
func text(c *kong.DecodeContext, target reflect.Value) error {
	token, err := c.Scan.PopValue("string")
	if err != nil {
		return err
	}
	value, ok := token.Value.(string)
	if !ok {
		return fmt.Errorf("want a text, not %T", token.Value)
	}
	target.SetString(value)
	return nil
}

// LogFormatOf returns the format of the log that arguments, or the configuration file that they name, ask for: what is
// wrong with arguments or file is said in it.
func LogFormatOf(args []string) string {
	if format := valueOf(args, "--log-format"); format != "" {
		return format
	}
	if format, set := os.LookupEnv("PURSER_LOG_FORMAT"); set {
		return format
	}
	content, err := secretfile.ReadPlain(kong.ExpandPath(valueOf(args, "--config")), mostFile)
	if err != nil {
		return "text"
	}
	var settings struct {
		LogFormat string `yaml:"log-format"`
	}
	_ = yaml.Unmarshal(content, &settings) // a file that cannot be read asks for none
	return cmp.Or(settings.LogFormat, "text")
}

// valueOf returns the last value that arguments give a flag; empty: none.
func valueOf(args []string, flag string) (value string) {
	for i, arg := range args {
		text, assigned := strings.CutPrefix(arg, flag+"=")
		switch {
		case arg == "--":
			return value
		case arg == flag && i+1 < len(args):
			value = args[i+1]
		case assigned:
			value = text
		}
	}
	return value
}

// Whereabouts are the flags among arguments that name the configuration file, the data directory and the ledger, as
// pairs of flag and value.
func Whereabouts(args []string) (flags [][2]string) {
	for _, flag := range []string{"--config", "--data-dir", "--ledger"} {
		if value := valueOf(args, flag); value != "" {
			flags = append(flags, [2]string{flag, value})
		}
	}
	return flags
}

// settle makes the other settings follow --quiet.
func (c *Common) settle() {
	if !c.Quiet {
		return
	}
	c.Progress = "none"
	if c.LogLevel == "debug" || c.LogLevel == "info" {
		c.LogLevel = "warn"
	}
}

func forgetVariables(n *kong.Node) {
	for _, f := range n.Flags {
		f.Envs, f.Tag.Envs = nil, nil
	}
	for _, child := range n.Children {
		forgetVariables(child)
	}
}

// UsageError is a command line, variable or configuration file that does not fit the command.
type UsageError struct {
	Command string
	Err     error
}

func (e *UsageError) Error() string {
	return fmt.Sprintf("%v (see `%s --help`)", e.Err, e.Command)
}

func (e *UsageError) Unwrap() error { return e.Err }

// ParseImporter reads the settings of `importer`.
func ParseImporter(args []string, s Streams) (*Importer, error) {
	c := Importer{IgnoreEnvironment: s.IgnoreEnvironment}
	_, err := parse(&c, "importer", aboutImporter, args, s)
	if err == nil {
		err = c.validate()
	}
	if err != nil {
		return nil, err
	}
	return &c, nil
}

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

// ParseNight reads the settings of `purser night`: those of its import and of its drain. Flags of both are given once.
func ParseNight(args []string, s Streams) (*Importer, *Consumer, error) {
	var n night
	if _, err := parse(&n, "night", aboutNight, args, s); err != nil {
		return nil, nil, err
	}
	if err := n.Consumer.validate(); err != nil {
		return nil, nil, err
	}
	i := &Importer{
		Common: n.Common, Queue: n.Queue, Traces: n.Traces, Input: n.Input, IgnoreEnvironment: s.IgnoreEnvironment,
	}
	if err := i.validate(); err != nil {
		return nil, nil, err
	}
	return i, &n.Consumer, nil
}

// ParseInit reads the settings of `purser init`, as far as they are given.
func ParseInit(args []string, s Streams) (*Init, error) {
	var c Init
	if _, err := parse(&c, "init", aboutInit, args, s); err != nil {
		return nil, err
	}
	return &c, nil
}

// ParseConsumer reads the settings of `consumer` and the command. What only some commands need is checked by
// CheckPartner and CheckSigner.
func ParseConsumer(args []string, s Streams) (*ConsumerCommands, string, error) {
	var c ConsumerCommands
	command, err := parse(&c, "consumer", aboutConsumer, args, s)
	if err != nil {
		return nil, "", err
	}
	if from := c.Rebind.From; from != "" && !isUUID(from) {
		return nil, "", &Error{Setting: "--from", Problem: notUUID}
	}
	if err := c.validate(); err != nil {
		return nil, "", err
	}
	if c.Account.Last < 1 {
		return nil, "", &Error{"--last", fmt.Sprint(c.Account.Last), "must be 1 or more"}
	}
	if c.Account.Run != "" && c.Account.Last > 1 {
		return nil, "", &Error{Setting: "--last", Problem: "cannot be combined with --run"}
	}
	return &c, command, nil
}

const notUUID = "is not a UUID, as the partner's ids are"

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
	if c.Concurrency > 4096 {
		return &Error{"--concurrency", fmt.Sprint(c.Concurrency), "want at most 4096"}
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
				return p, bad("is always sent, and its value cannot be chosen")
			}
		case "nonce":
			if given {
				return p, bad("is made up for each request, and its value cannot be chosen")
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

// ParseSandbox reads the settings of `sandbox` and the command.
func ParseSandbox(args []string, s Streams) (*SandboxCommands, string, error) {
	var c SandboxCommands
	command, err := parse(&c, "sandbox", aboutSandbox, args, s)
	if err != nil {
		return nil, "", err
	}
	if command == "serve" {
		for name, address := range map[string]string{"--listen": c.Serve.Listen, "--control": c.Serve.Control} {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, "", &Error{name, address, "want host:port"}
			}
			if !loopback.Is(host) {
				return nil, "", &Error{name, address, "the sandbox serves on loopback only"}
			}
		}
	}
	return &c, command, nil
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
		return &Error{"--ledger-topic", topic, "is for consumers that share --brokers; the embedded broker has one, " +
			"whose ledger is in the same data directory"}
	case c.LedgerTopicKeyFile == "":
		return &Error{Setting: "--ledger-topic-key-file", Problem: "is missing (or $PURSER_LEDGER_TOPIC_KEY_FILE): " +
			"without it, any program with Write on the ledger topic could mark rows as onboarded; " +
			"`openssl rand -base64 32 > FILE` makes one"}
	}
	return nil
}

const topicShape = "a topic's name is 1 to 249 letters, digits, dots, hyphens or underscores"

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

// CheckRun finds the settings that a run needs and that are missing, all of them at once.
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

// CheckPartner is CheckAPI for commands whose requests are signed: they need the signing key's id, too.
func (c *Consumer) CheckPartner(getenv func(string) string) (*url.URL, error) {
	if err := c.missing(getenv, true, false); err != nil {
		return nil, err
	}
	return c.CheckAPI(getenv)
}

// CheckAPI makes sure that the partner API can be talked to, reads the secret and the challenge's statement, and brings
// the API URL and the challenge domain into their one form. It returns the base URL.
func (c *Consumer) CheckAPI(getenv func(string) string) (*url.URL, error) {
	if err := c.missing(getenv, false, false); err != nil {
		return nil, err
	}
	base, err := c.CheckURL()
	if err != nil {
		return nil, err
	}
	if getenv("OFFBLOCKS_API_SECRET") != "" && getenv("OFFBLOCKS_API_SECRET_FILE") != "" {
		return nil, &Error{Setting: "--api-secret-file",
			Problem: "$OFFBLOCKS_API_SECRET and $OFFBLOCKS_API_SECRET_FILE are both set: which one?"}
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

// settleChallenge reads the statement and checks what is said of the URI.
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
			Problem: "has no effect with --challenge-uri, which names the whole URI"}
	}
	given := c.ChallengeURIHost
	if c.ChallengeURIHost, err = CanonicalHost(scheme, given); err != nil {
		return &Error{"--challenge-uri-host", given, err.Error()}
	}
	return nil
}

// mostStatement bounds the file of a statement, which is one line of a challenge.
const mostStatement = 64 << 10

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

// CheckURL brings the API URL into its one form and returns it.
func (c *Consumer) CheckURL() (*url.URL, error) {
	base, err := parseAPIURL(c.APIURL)
	if err != nil {
		return nil, err
	}
	c.APIURL = base.String()
	return base, nil
}

// SecretReader returns what reads the API secret again; nil when it is no file's.
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
