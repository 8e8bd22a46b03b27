// Package config reads all of Purser's settings: flags over variables over the configuration file. An error names the
// setting, the source of its value and the reason, and the value only if it cannot be a secret; an unknown name is an
// error. The package parses and validates; it opens only files that contain settings.
package config

import (
	"time"

	"github.com/alecthomas/kong"
)

// Common has the settings of every command.
type Common struct {
	Config    fileFlag         `help:"Read settings from this YAML file, under the flags' names." placeholder:"FILE" group:"general"`
	LogFormat string           `help:"Format of the log on standard error: text or json." enum:"text,json" env:"PURSER_LOG_FORMAT" default:"text" group:"output"`
	LogLevel  string           `help:"Lowest log level: debug, info, warn or error." enum:"debug,info,warn,error" env:"PURSER_LOG_LEVEL" default:"info" group:"output"`
	Progress  string           `help:"Progress on standard error: auto (on a terminal, one line updated in place), plain (one line a minute) or none." enum:"auto,plain,none" env:"PURSER_PROGRESS" default:"auto" group:"output"`
	Quiet     bool             `help:"If the command succeeds, print only warnings, no summary and no progress." env:"PURSER_QUIET" group:"output"`
	Version   kong.VersionFlag `help:"Print the version and exit."`

	Origins `kong:"-"`
	// UnknownVariables are variables of the environment whose names are almost those of settings, as "NAME (did you mean
	// OTHER?)".
	UnknownVariables []string `kong:"-"`
}

func (c *Common) common() *Common { return c }

// Output is the format of a command's output.
type Output struct {
	Output string `help:"Format of standard output: text, or json (one document)." enum:"text,json" default:"text"`
}

// JSON reports whether the format is JSON.
func (o Output) JSON() bool { return o.Output == "json" }

// Queue has the settings of the queue.
type Queue struct {
	Brokers         []string `help:"Kafka brokers, host:port (default: the embedded broker in the data directory)." env:"KAFKA_BROKERS" placeholder:"HOST:PORT"`
	Topic           string   `help:"Topic of the rows." env:"PURSER_TOPIC" default:"onboarding.customers"`
	DeadLetterTopic string   `help:"Topic of the dead letters: messages that cannot be processed." env:"PURSER_DEAD_LETTER_TOPIC" default:"onboarding.deadletter"`
	ResultsTopic    string   `help:"Topic of the results, one event per settled row; empty: none." env:"PURSER_RESULTS_TOPIC" default:"onboarding.results"`
	DataDir         string   `help:"Directory of the ledger, the embedded broker and the rejects file." env:"PURSER_DATA_DIR" default:"./purser-data" placeholder:"DIR" group:"general"`
	Kafka
	MessageKeyFile      string        `help:"File of the key that authenticates the messages of --topic: the importer signs them, and the consumer accepts only signed messages (default: messages are not authenticated)." env:"PURSER_MESSAGE_KEY_FILE" placeholder:"FILE"`
	InsecurePermissions bool          `help:"Allow key, password and token files that other users of this machine can access." env:"PURSER_INSECURE_PERMISSIONS" group:"general"`
	BrokerWait          time.Duration `help:"How long to wait for unreachable brokers before the run ends; 0: no wait at the start, 5s during the run." env:"PURSER_BROKER_WAIT" default:"2m"`
	CreateTopics        bool          `help:"Create missing topics (the embedded broker always does)." env:"PURSER_CREATE_TOPICS"`
	CreatePartitions    int           `help:"Partitions of a new topic (default: 12; 4 with the embedded broker); the dead-letter topic has 1." env:"PURSER_CREATE_PARTITIONS" placeholder:"N"`
	CreateReplication   int           `help:"Replication factor of a new topic (default: the brokers' default)." env:"PURSER_CREATE_REPLICATION" placeholder:"N"`
}

// Traces has the settings of traces' contents. OpenTelemetry's variables select the exporter, see TraceExporter.
type Traces struct {
	CustomerData bool `name:"trace-customer-data" help:"Put accounts, externalIds, customer ids and reasons into traces, in addition to file and line." env:"PURSER_TRACE_CUSTOMER_DATA"`
}

// Kafka has the settings for connecting to the brokers and logging in.
type Kafka struct {
	TLS          bool   `name:"kafka-tls" help:"Connect to the brokers with TLS." env:"KAFKA_TLS"`
	CA           string `name:"kafka-ca" help:"PEM file of the certificate authorities for the brokers (default: the system's)." env:"KAFKA_CA" pem:"public" placeholder:"FILE"`
	Cert         string `name:"kafka-cert" help:"PEM file of the client certificate, for brokers that require one." env:"KAFKA_CERT" pem:"public" placeholder:"FILE"`
	Key          string `name:"kafka-key" help:"PEM file of the client certificate's key; the variable may hold the PEM text itself." env:"KAFKA_KEY" pem:"secret" placeholder:"FILE"`
	SASL         string `name:"kafka-sasl" help:"SASL mechanism: none, plain, scram-sha-256, scram-sha-512 or oauthbearer." env:"KAFKA_SASL" default:"none" placeholder:"MECHANISM"`
	Username     string `name:"kafka-username" help:"SASL user name." env:"KAFKA_USERNAME" placeholder:"NAME"`
	PasswordFile string `name:"kafka-password-file" help:"File with the SASL password; or set $$KAFKA_PASSWORD to the password itself." env:"KAFKA_PASSWORD_FILE" placeholder:"FILE"`
	TokenFile    string `name:"kafka-token-file" help:"File with the token for oauthbearer; reread for each connection." env:"KAFKA_TOKEN_FILE" placeholder:"FILE"`
	ClientID     string `name:"kafka-client-id" help:"Client id in the brokers' logs and quotas." env:"KAFKA_CLIENT_ID" default:"purser" placeholder:"NAME"`
}

// Membership has the timeouts of the consumer group. Only the consumer has these settings.
type Membership struct {
	SessionTimeout    time.Duration `name:"kafka-session-timeout" help:"How long the group waits for a silent consumer before it reassigns its partitions." env:"KAFKA_SESSION_TIMEOUT" default:"45s"`
	HeartbeatInterval time.Duration `name:"kafka-heartbeat-interval" help:"Interval between heartbeats to the group, and so the longest time until a rebalance is noticed." env:"KAFKA_HEARTBEAT_INTERVAL" default:"3s"`
}

// Embedded reports whether the embedded broker is used.
func (q Queue) Embedded() bool { return len(q.Brokers) == 0 }

// Importer has the settings of `importer`.
type Importer struct {
	Common
	Queue `group:"kafka"`
	Output
	Traces `group:"output"`
	Input  `group:"input"`
	DryRun bool `help:"Validate the exports and write the rejects file, but publish nothing." group:"input"`

	IgnoreEnvironment bool `kong:"-"` // the process's variables are not settings; see Streams
}

// Input has the settings of the exports and of their validation.
type Input struct {
	Files             []string `arg:"" name:"file" help:"Exports to import: CSV, JSON Lines, .xlsx or Parquet, detected by content (CSV and JSON Lines may be compressed with gzip or zstd); directories; patterns such as '/exports/*.csv'; - for standard input."`
	Chain             string   `help:"Default chain of addresses, in CAIP-2, for example eip155:300." env:"PURSER_CHAIN" placeholder:"CHAIN"`
	Columns           string   `help:"Columns with other names, for example address=wallet,externalId=\"Customer ID\",chainId=network; chainId= means that no column is the chain." env:"PURSER_COLUMNS" placeholder:"COLUMN=NAME,…"`
	Delimiter         string   `help:"Field separator of CSV: one character, or \\t (default: detected)." env:"PURSER_DELIMITER" placeholder:"CHARACTER"`
	Encoding          string   `help:"Encoding of text: auto (UTF-8, or UTF-16 with a byte order mark), utf-8, utf-16le, utf-16be, windows-1252 or iso-8859-1." enum:"auto,utf-8,utf-16le,utf-16be,windows-1252,iso-8859-1" env:"PURSER_ENCODING" default:"auto"`
	Sheet             string   `help:"Sheet of a workbook (default: the first)." env:"PURSER_SHEET" placeholder:"NAME"`
	Trim              bool     `help:"Remove white space around address, externalId and chainId, and report the number of rows." env:"PURSER_TRIM"`
	AllowUnterminated bool     `help:"Accept a last line without a line end in a file that is still changing." env:"PURSER_ALLOW_UNTERMINATED"`
	Rejects           string   `help:"File for invalid rows, with line, field and reason (default: rejects.csv in the data directory)." env:"PURSER_REJECTS" placeholder:"FILE"`
	MaxInvalid        string   `help:"Stop if more rows are invalid: a number, or a percentage of the rows read." env:"PURSER_MAX_INVALID" default:"100000" placeholder:"N|P%"`
	RequireRows       bool     `help:"Exit with 3 if an export has a header but no rows." env:"PURSER_REQUIRE_ROWS"`

	ChainNumber       uint64            `kong:"-"` // from Chain; 0: none
	Comma             rune              `kong:"-"` // from Delimiter; 0: to be recognised
	ColumnNames       map[string]string `kong:"-"` // from Columns: address, externalId and chainId to their names
	NoChainColumn     bool              `kong:"-"` // from Columns: no column has the chain
	MaxInvalidRows    int64             `kong:"-"` // from MaxInvalid; -1: no limit
	MaxInvalidPercent float64           `kong:"-"` // from MaxInvalid; -1: no limit
	RejectsGiven      bool              `kong:"-"` // Rejects was given, and is not the default
}

// night are the settings of `purser night`: an import and a drain.
type night struct {
	Consumer
	Input `group:"input"`
}

// Init are the settings of `purser init`.
type Init struct {
	File  string `help:"File to write, with mode 0600." default:"purser.yaml" placeholder:"FILE"`
	Force bool   `help:"Overwrite an existing settings file."`
	Check bool   `help:"Run check with the new file." default:"true" negatable:""`

	APIURL        string `name:"api-url" help:"Base URL of the partner API with its version, https://…/v1." env:"OFFBLOCKS_API_URL" placeholder:"URL" group:"partner"`
	APICA         string `name:"api-ca" help:"PEM file of the certificate authorities for the API (default: the system's)." env:"OFFBLOCKS_API_CA" pem:"public" placeholder:"FILE" group:"partner"`
	APIKey        string `name:"api-key" help:"Id of the API key." env:"OFFBLOCKS_API_KEY" placeholder:"UUID" group:"partner"`
	APISecretFile string `name:"api-secret-file" help:"File with the API secret; on a terminal, init prompts for the secret and writes it to the file api-secret next to --file." env:"OFFBLOCKS_API_SECRET_FILE" placeholder:"FILE" group:"partner"`
	SigningKey    string `help:"PEM file of the P-384 key that signs requests." env:"OFFBLOCKS_SIGNING_KEY" pem:"secret" placeholder:"FILE" group:"partner"`
	SigningKeyID  string `name:"signing-key-id" help:"Id that the partner assigned to the signing key." env:"OFFBLOCKS_SIGNING_KEY_ID" base64:"id" placeholder:"ID" group:"partner"`
	Signer        string `help:"URI of the signer for the customers' keys, for example keystore:///dir?password-file=FILE." env:"PURSER_SIGNER" placeholder:"URI" group:"signer"`
	Chain         string `help:"Default chain of addresses, in CAIP-2, for example eip155:300; any: the exports name the chain." env:"PURSER_CHAIN" placeholder:"CHAIN" group:"input"`
	DataDir       string `help:"Directory of the ledger, the embedded broker and the rejects file." default:"./purser-data" env:"PURSER_DATA_DIR" placeholder:"DIR" group:"general"`

	InsecurePermissions bool `help:"Allow key, password and token files that other users of this machine can access." env:"PURSER_INSECURE_PERMISSIONS" group:"general"`

	Origins          `kong:"-"`
	UnknownVariables []string `kong:"-"` // see Common
}

// Partner has the settings for reaching the partner API and signing requests.
type Partner struct {
	APIURL              string        `name:"api-url" help:"Base URL of the partner API with its version, https://…/v1; required." env:"OFFBLOCKS_API_URL" placeholder:"URL"`
	APICA               string        `name:"api-ca" help:"PEM file of the certificate authorities for the API (default: the system's)." env:"OFFBLOCKS_API_CA" pem:"public" placeholder:"FILE"`
	APIKey              string        `name:"api-key" help:"Id of the API key; required." env:"OFFBLOCKS_API_KEY" placeholder:"UUID"`
	APISecretFile       string        `name:"api-secret-file" help:"File with the API secret, or set $$OFFBLOCKS_API_SECRET to the secret itself; required." env:"OFFBLOCKS_API_SECRET_FILE" placeholder:"FILE"`
	SigningKey          string        `help:"PEM file of the P-384 key that signs requests; the variable may hold the PEM text itself; required." env:"OFFBLOCKS_SIGNING_KEY" pem:"secret" placeholder:"FILE"`
	SigningKeyID        string        `name:"signing-key-id" help:"Id that the partner assigned to the signing key; required." env:"OFFBLOCKS_SIGNING_KEY_ID" base64:"id" placeholder:"ID"`
	SignatureComponents []string      `help:"Components that the request signature covers; @query and fields only if the request has them." env:"OFFBLOCKS_SIGNATURE_COMPONENTS" placeholder:"NAME" default:"@method,@authority,@path,@query,authorization,content-type,content-digest,idempotency-key"`
	SignatureAge        time.Duration `help:"Age of a request signature's created parameter, relative to the partner's time (from its Date headers)." env:"OFFBLOCKS_SIGNATURE_AGE" default:"2s"`
	SignatureParameters []string      `help:"Parameters of the request signature in addition to created, keyid and alg: nonce, expires=DURATION (5m), tag=TEXT (purser)." env:"OFFBLOCKS_SIGNATURE_PARAMETERS" placeholder:"NAME"`
	ContentDigest       string        `help:"Digest algorithm for request bodies: sha-256 or sha-512." env:"OFFBLOCKS_CONTENT_DIGEST" enum:"sha-256,sha-512" default:"sha-256"`
	SignatureEncoding   string        `help:"Encoding of wallet signatures: hex (base64 of the 0x text) or raw (base64 of the 65 bytes)." env:"OFFBLOCKS_SIGNATURE_ENCODING" enum:"hex,raw" default:"hex"`
	RequestTimeout      time.Duration `help:"Longest wait for a response." env:"PURSER_REQUEST_TIMEOUT" default:"30s" group:"limits"`
}

// Parameters are the optional parameters of a request signature (RFC 9421 §2.3).
type Parameters struct {
	Nonce   bool
	Expires time.Duration // after created; 0: no parameter expires
	Tag     string        // empty: no parameter tag
}

// Consumer has the settings that all commands of `consumer` share.
type Consumer struct {
	Common
	Queue              `group:"kafka"`
	Traces             `group:"output"`
	Membership         `group:"kafka"`
	Partner            `group:"partner"`
	Challenge          `group:"signer"`
	Group              string        `help:"Consumer group." env:"PURSER_GROUP" default:"purser" group:"kafka"`
	Ledger             string        `help:"File of the ledger (default: ledger.db in the data directory)." env:"PURSER_LEDGER" placeholder:"FILE" group:"general"`
	LedgerTopic        string        `help:"Compacted topic that stores the ledgers of a fleet, so that a partition's records move with it to another consumer (default: none)." env:"PURSER_LEDGER_TOPIC" placeholder:"TOPIC" group:"kafka"`
	LedgerTopicKeyFile string        `help:"File of the key that authenticates the records of --ledger-topic; required with --ledger-topic." env:"PURSER_LEDGER_TOPIC_KEY_FILE" placeholder:"FILE" group:"kafka"`
	Retain             string        `help:"Whether settled rows keep challenge and signature: all or none; none also applies to rows of earlier runs." env:"PURSER_RETAIN" enum:"all,none" default:"all" group:"general"`
	Signer             string        `help:"URI of the signer for the customers' keys, for example keystore:///dir?password-file=FILE; required." env:"PURSER_SIGNER" placeholder:"URI" group:"signer"`
	SignerConcurrency  int           `help:"Maximum signer calls in parallel." env:"PURSER_SIGNER_CONCURRENCY" default:"16" group:"signer"`
	SignerRate         float64       `help:"Maximum signer calls per second; 0: no limit." env:"PURSER_SIGNER_RATE" default:"0" group:"signer"`
	SignerWait         time.Duration `help:"With --drain: how long a row may wait for a custodian. Without: how long a row's polls may fail in succession." env:"PURSER_SIGNER_WAIT" default:"30m" group:"signer"`
	ChallengeDomain    string        `help:"Domain that a challenge must have (default: host and port of the API URL)." env:"PURSER_CHALLENGE_DOMAIN" placeholder:"DOMAIN" group:"signer"`
	Rate               float64       `help:"Maximum requests per second, for all workers and retries together." env:"PURSER_RATE" default:"20" group:"limits"`
	Concurrency        int           `help:"Maximum rows in parallel." env:"PURSER_CONCURRENCY" default:"32" group:"limits"`
	IdempotencyTTL     time.Duration `name:"idempotency-ttl" help:"Lifetime of an idempotency key at the partner." env:"PURSER_IDEMPOTENCY_TTL" default:"1h" group:"limits"`
	ChallengeTTL       time.Duration `name:"challenge-ttl" help:"Lifetime of a challenge." env:"PURSER_CHALLENGE_TTL" default:"1h" group:"limits"`
	MaxAttempts        int           `help:"Attempts of one operation before the row fails." env:"PURSER_MAX_ATTEMPTS" default:"12" group:"limits"`
	RetryMin           time.Duration `help:"First wait between two attempts of a row; it doubles." env:"PURSER_RETRY_MIN" default:"50ms" group:"limits"`
	RetryMax           time.Duration `help:"Longest wait between two attempts of a row; 4s while other rows succeed." env:"PURSER_RETRY_MAX" default:"1m" group:"limits"`
	HaltAfter          int           `help:"Halt after this many consecutive rows end with the same class, if a setting can cause it; 0: never. Until a first row has passed the step the limit is 5, also with 0, except for no-answer and server-error." env:"PURSER_HALT_AFTER" default:"100" group:"limits"`
	OutageWait         time.Duration `help:"How long to wait for a usable response from the partner before the run halts; the partner is probed every 5s." env:"PURSER_OUTAGE_WAIT" default:"2m" group:"limits"`
	ListPause          time.Duration `help:"Shortest pause between two reads of the partner's customer list; never less than three times the list's response time, ten times if that is over a second." env:"PURSER_LIST_PAUSE" default:"0s" group:"limits"`
	MaxOutstanding     int           `help:"Maximum unsettled rows per partition." env:"PURSER_MAX_OUTSTANDING" default:"10000" group:"limits"`
	StalledAfter       time.Duration `help:"Report a partition in which no row was settled for this long, and the row that it waits for." env:"PURSER_STALLED_AFTER" default:"10m" group:"limits"`
	Report             string        `help:"Write a JSON report to this file at the start and end of the run; - is standard output, {run} the run's id." env:"PURSER_REPORT" placeholder:"FILE" group:"monitoring"`
	MetricsListen      string        `help:"Serve /metrics, /healthz and /readyz over HTTP at this address; a port alone means loopback." env:"PURSER_METRICS_LISTEN" placeholder:"ADDR" group:"monitoring"`
	MetricsPprof       bool          `help:"Also serve profiles of the process at /debug/pprof/." env:"PURSER_METRICS_PPROF" group:"monitoring"`
	MetricsTextfile    string        `help:"Write the metrics to this file for node_exporter, every 15 seconds and at the end of the run; the name must end with .prom." env:"PURSER_METRICS_TEXTFILE" placeholder:"FILE" group:"monitoring"`

	Notify `group:"monitoring"`

	ReportHTML string `name:"report-html" help:"Write the account of the night as an HTML page to this file at the start and end of the run; - is standard output, {run} the run's id." env:"PURSER_REPORT_HTML" placeholder:"FILE" group:"monitoring"`

	Secret string `kong:"-" json:"-"` // the API secret; never printed
	// Settings are the effective settings by flag, for the record of the run; NotShown replaces possible secrets.
	Settings   map[string]string `kong:"-"`
	Parameters Parameters        `kong:"-"` // from SignatureParameters
}

// Notify has the receivers of notifications. The URLs contain tokens and are secrets, also in a file or a variable.
type Notify struct {
	PingURL        string `name:"ping-url" help:"URL of a dead man's switch such as healthchecks.io: POST to URL/start, and at the end to URL, or to URL/EXIT if the exit code is not 0." env:"PURSER_PING_URL" holds:"secret" placeholder:"URL" json:"-"`
	PingURLFile    string `name:"ping-url-file" help:"File with the URL of --ping-url." env:"PURSER_PING_URL_FILE" placeholder:"FILE"`
	WebhookURL     string `name:"webhook-url" help:"URL that receives a POST with a JSON summary at the start and end of a run." env:"PURSER_WEBHOOK_URL" holds:"secret" placeholder:"URL" json:"-"`
	WebhookURLFile string `name:"webhook-url-file" help:"File with the URL of --webhook-url." env:"PURSER_WEBHOOK_URL_FILE" placeholder:"FILE"`
}

// Challenge permits challenges that differ from the documented form.
type Challenge struct {
	ChallengeStatement string `help:"Statement that a challenge must have, byte for byte: the text, file:PATH, any (every text is signed), or empty for none." env:"PURSER_CHALLENGE_STATEMENT" default:"OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using OffBlocks, you agree to our Terms of services and Privacy Policy" placeholder:"TEXT"`
	ChallengeURI       string `name:"challenge-uri" help:"URI that a challenge must have, byte for byte (default: the URI of the challenge domain, without path, query and fragment)." env:"PURSER_CHALLENGE_URI" placeholder:"URI"`
	ChallengeURIHost   string `name:"challenge-uri-host" help:"Host, and port if any, that a challenge's URI must have (default: the challenge domain)." env:"PURSER_CHALLENGE_URI_HOST" placeholder:"HOST"`
	AllowRequestID     bool   `name:"allow-request-id" help:"Sign challenges that have a request id." env:"PURSER_ALLOW_REQUEST_ID"`
	AllowResources     bool   `help:"Sign challenges that have resources (ERC-5573 delegations are always refused)." env:"PURSER_ALLOW_RESOURCES"`

	Statement    string `kong:"-"` // from ChallengeStatement: the text itself; empty: none
	AnyStatement bool   `kong:"-"` // from ChallengeStatement
}

// ConsumerCommands are the commands of `consumer`.
type ConsumerCommands struct {
	Consumer
	Run struct {
		Drain bool `help:"Onboard the rows that are in the queue at the start, then exit."`
	} `cmd:"" group:"night" default:"withargs" help:"Take rows from the queue and onboard them (default command)."`
	Check  Output `cmd:"" group:"night" help:"Test clock, token, request signature, signer, broker and ledger without touching a customer."`
	Status struct {
		Inspect
		Output
		JSON  bool   `name:"json" help:"Same as --output json; with --watch, one document per line."`
		Watch bool   `help:"Print the status every 5 seconds until a signal; on a terminal, update it in place."`
		Run   string `help:"Print the report of a run (last or an id) and exit with its exit code." placeholder:"RUN"`
	} `cmd:"" group:"look" help:"Count the ledger's rows by stage and class."`
	Runs struct {
		Output
		Last int `help:"Number of runs." default:"20"`
	} `cmd:"" group:"look" help:"List the latest runs with exit code, counts and reason."`
	Account struct {
		Run    string `help:"Id of the run (default: the latest)." placeholder:"RUN"`
		Last   int    `help:"Number of latest runs to report together." default:"1"`
		Format string `help:"text, html (one page without scripts) or json." enum:"text,html,json" default:"text"`
		Unmask bool   `help:"Show ids and addresses in full."`
	} `cmd:"" name:"report" group:"look" help:"Report a night: the outcomes of its rows, what is left, and what to do now."`
	Failures  Failures `cmd:"" group:"look" help:"Print rows that ended badly as CSV that can be imported again."`
	Dismiss   Dismiss  `cmd:"" group:"settle" help:"Leave rows that ended badly and need no more action out of failures and reports."`
	Reconcile Output   `cmd:"" group:"settle" help:"Read the partner's customer list and record each customer's status in the ledger."`
	Redrive   struct {
		Output
		Reason string `help:"Only dead letters whose class or reason contains this text." placeholder:"TEXT"`
		Since  string `help:"Only dead letters since a duration ago (24h), a day (2026-11-22) or a time." placeholder:"WHEN"`
		DryRun bool   `help:"List the dead letters without putting them back."`
		Forget bool   `help:"Report dead letters that cannot be put back for the last time; later redrives skip them."`
	} `cmd:"" group:"settle" help:"Put dead letters back into the queue."`
	LedgerFile struct {
		Backup  LedgerBackup  `cmd:"" help:"Copy the ledger to a file and check the copy; a consumer may be running."`
		Restore LedgerRestore `cmd:"" help:"Replace the ledger with a backup; the ledger is kept under another name."`
	} `cmd:"" name:"ledger" group:"settle" help:"Back up and restore the ledger."`
	RegisterKey struct {
		Delete bool `help:"Remove the registered key instead."`
	} `cmd:"" group:"keys" help:"Register the public half of --signing-key with the partner, and print the id for --signing-key-id."`
	RotateSecret struct {
		NewSecretFile string `required:"" help:"File with the new API secret; required." placeholder:"FILE"`
		ReplaceFile   bool   `help:"Write the new secret to --api-secret-file as soon as the partner has issued a token for it."`
	} `cmd:"" group:"keys" help:"Replace the API secret at the partner with the secret in a file."`
	Rebind struct {
		From string `help:"Earlier id of the API key, if the ledger does not have it, for example a new fleet member's ledger." placeholder:"UUID"`
	} `cmd:"" group:"keys" help:"Bind the ledger to --api-key after the API key's id was rotated."`
}

// LedgerBackup are the arguments of `ledger backup`.
type LedgerBackup struct {
	File  string `arg:"" help:"Backup file, created with mode 0600."`
	Force bool   `help:"Overwrite FILE if it exists."`
}

// LedgerRestore are the arguments of `ledger restore`.
type LedgerRestore struct {
	File  string `arg:"" help:"File that ledger backup wrote, or another copy of a ledger; it is not changed."`
	Force bool   `help:"Replace the ledger even if it is newer than FILE or cannot be compared with it."`
}

// Inspect selects the rows of this ledger or of the fleet.
type Inspect struct {
	Fleet bool `help:"Show the rows of all consumers, from --ledger-topic, instead of this ledger."`
}

// Failures selects rows that are not onboarded.
type Failures struct {
	Inspect
	All       bool     `help:"Also print unsettled rows."`
	Dismissed bool     `help:"Print only dismissed rows."`
	Stage     []string `help:"Only rows in these stages, for example failed,conflict; a stage that is not terminal implies --all." placeholder:"STAGE"`
	Class     []string `help:"Only rows with these classes, for example no-key." placeholder:"CLASS"`
	Since     string   `help:"Only rows that have changed since a duration ago (24h), a day (2026-11-22) or a time." placeholder:"WHEN"`
	Import    string   `help:"Only rows whose latest import has this id or id prefix." placeholder:"ID"`
}

// Dismiss chooses the rows to dismiss.
type Dismiss struct {
	File string `arg:"" help:"CSV file with the rows, as failures prints it; - for standard input."`
	Undo bool   `help:"Show the rows again."`
}

// SandboxCommands are the commands of `sandbox`.
type SandboxCommands struct {
	Common
	Serve SandboxServe `cmd:"" help:"Serve the stand-in API on loopback until stopped."`
	Run   SandboxRun   `cmd:"" help:"Run stand-in API, embedded broker, keystore signer, importer and consumer in one process, and print a summary."`
}

// Adversary has the stand-in's strictness, its faults, and the lifetimes of keys, challenges and tokens.
type Adversary struct {
	Verify        string         `help:"How to verify request signatures: vendor (like the partner's own server library) or rfc (RFC 9421)." enum:"vendor,rfc" default:"vendor"`
	SignatureSkew *time.Duration `help:"How far a request signature's created may be in the future (default: 0s with --verify vendor, 1m with rfc)." placeholder:"DURATION"`

	Seed         uint64        `help:"Seed of ids, nonces and faults; the same seed repeats a run." default:"1"`
	Faults       string        `help:"Faults with their probabilities: name=p,name=p." placeholder:"NAME=P,…"`
	KeyTTL       time.Duration `name:"key-ttl" help:"Lifetime of an idempotency key." default:"1h"`
	ChallengeTTL time.Duration `name:"challenge-ttl" help:"Lifetime of a challenge." default:"1h"`
	TokenTTL     time.Duration `name:"token-ttl" help:"Lifetime of a token." default:"1h"`
	Latency      time.Duration `help:"Minimum response time." default:"0s"`
}

// SandboxServe are the settings of `sandbox serve`.
type SandboxServe struct {
	Adversary
	Listen       string  `help:"Address of the API, on loopback." default:"127.0.0.1:8420"`
	Control      string  `help:"Address of the control plane, on loopback." default:"127.0.0.1:8421"`
	Dir          string  `help:"Directory for the credentials that a consumer needs; created if missing; existing credentials are reused." default:"./sandbox-data"`
	Rate         float64 `help:"Requests per second above which the response is 429; 0: no limit." default:"0"`
	DeclaredRate float64 `help:"Rate that the client has promised, for the judge; 0: not judged." default:"0"`
	Chain        string  `help:"Default chain of addresses, for sandbox.env." default:"eip155:300"`
	Keystore     string  `help:"Directory of the customers' V3 key files, for sandbox.env; if it does not exist, sandbox.env names no signer." default:"./testdata/keystore" placeholder:"DIR"`
	PasswordFile string  `help:"File with the password of the key files (default: keystore-password next to the keystore)." placeholder:"FILE"`
	Domain       string  `help:"Domain of the challenges (default: the host of the request)." placeholder:"DOMAIN"`

	RequireParameters []string `help:"Parameters that every request signature must have: created, expires, keyid, alg, nonce, tag." placeholder:"NAME"`
}

// SandboxRun are the settings of `sandbox run`.
type SandboxRun struct {
	Adversary
	Files        []string `arg:"" name:"file" help:"Exports to onboard."`
	Chain        string   `help:"Default chain of addresses." default:"eip155:300"`
	Keystore     string   `help:"Directory of the customers' V3 key files (default: keystore in the export's directory)." placeholder:"DIR"`
	PasswordFile string   `help:"File with the password of the key files (default: keystore-password in the export's directory)." placeholder:"FILE"`
	DataDir      string   `help:"Directory of ledger, broker and rejects file (default: a temporary directory, removed if the run succeeds)." placeholder:"DIR"`
	Rate         float64  `help:"Maximum requests per second." default:"200"`
	Concurrency  int      `help:"Maximum rows in parallel." default:"32"`
	Report       string   `help:"Write the consumer's JSON report to this file." placeholder:"FILE"`
}
