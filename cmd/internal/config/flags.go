// Package config is the one place where Purser's settings are read: flags over variables over the configuration file.
// What fails names the setting and the reason, and the value only where it can be no secret; an unknown name is an error. It parses and checks; it opens nothing but
// the files that hold settings.
package config

import (
	"time"

	"github.com/alecthomas/kong"
)

// Common are the settings of every command.
type Common struct {
	Config    kong.ConfigFlag  `help:"Read settings from this YAML file; its names are the flags' names." placeholder:"FILE"`
	LogFormat string           `help:"Form of the log on standard error: text or json." enum:"text,json" default:"text"`
	LogLevel  string           `help:"Least level that is logged: debug, info, warn or error." enum:"debug,info,warn,error" default:"info"`
	Progress  string           `help:"Progress on standard error: auto (a line that is rewritten, on a terminal), plain (a line now and then) or none." enum:"auto,plain,none" default:"auto"`
	Quiet     bool             `help:"Print nothing when all went well: no summary, no progress, only warnings." env:"PURSER_QUIET"`
	Version   kong.VersionFlag `help:"Print the version and exit."`
}

// Queue says where the rows queue.
type Queue struct {
	Brokers         []string `help:"Kafka brokers, host:port; none: the embedded broker under the data directory." env:"KAFKA_BROKERS" placeholder:"HOST:PORT,…"`
	Topic           string   `help:"The topic of the rows." env:"PURSER_TOPIC" default:"onboarding.customers"`
	DeadLetterTopic string   `help:"The topic of the messages that cannot be processed." env:"PURSER_DEAD_LETTER_TOPIC" default:"onboarding.deadletter"`
	ResultsTopic    string   `help:"The topic of the results, one event for each settled row; empty: none." env:"PURSER_RESULTS_TOPIC" default:"onboarding.results"`
	DataDir         string   `help:"Directory of the ledger and the embedded broker." env:"PURSER_DATA_DIR" default:"./purser-data"`
	Kafka
	MessageKeyFile      string        `help:"File of the key that authenticates the messages of --topic: the importer signs them, the consumer takes no others (default: messages are not authenticated)." env:"PURSER_MESSAGE_KEY_FILE" placeholder:"FILE"`
	InsecurePermissions bool          `help:"Use files of keys, passwords and tokens that other users of this machine may use." env:"PURSER_INSECURE_PERMISSIONS"`
	BrokerWait          time.Duration `help:"How long to wait for brokers that cannot be reached, at the start and later, before the run ends; 0: not at all." env:"PURSER_BROKER_WAIT" default:"2m"`
	CreateTopics        bool          `help:"Create the topics that are not there (the embedded broker always does)." env:"PURSER_CREATE_TOPICS"`
	CreatePartitions    int           `help:"Partitions of a topic that is created (default: 12; 4 with the embedded broker); the dead letters get 1." env:"PURSER_CREATE_PARTITIONS" placeholder:"N"`
	CreateReplication   int           `help:"Copies of each partition of a topic that is created (default: as the brokers have it)." env:"PURSER_CREATE_REPLICATION" placeholder:"N"`
}

// Kafka says how to talk to the brokers: what is between us and who we are.
type Kafka struct {
	TLS          bool   `name:"kafka-tls" help:"Talk TLS to the brokers." env:"KAFKA_TLS"`
	CA           string `name:"kafka-ca" help:"PEM file of the authorities that the brokers' certificates are checked against (default: the system's)." env:"KAFKA_CA" pem:"public" placeholder:"FILE"`
	Cert         string `name:"kafka-cert" help:"PEM file of our certificate, for brokers that ask for one." env:"KAFKA_CERT" pem:"public" placeholder:"FILE"`
	Key          string `name:"kafka-key" help:"PEM file of its key; the variable may hold the PEM text itself." env:"KAFKA_KEY" pem:"secret" placeholder:"FILE"`
	SASL         string `name:"kafka-sasl" help:"How to log in to the brokers: none, plain, scram-sha-256, scram-sha-512 or oauthbearer." env:"KAFKA_SASL" default:"none" placeholder:"MECHANISM"`
	Username     string `name:"kafka-username" help:"Name to log in with." env:"KAFKA_USERNAME" placeholder:"NAME"`
	PasswordFile string `name:"kafka-password-file" help:"File that holds the password; or put the password into $$KAFKA_PASSWORD." env:"KAFKA_PASSWORD_FILE" placeholder:"FILE"`
	TokenFile    string `name:"kafka-token-file" help:"File that holds the token for oauthbearer; it is read again for each connection." env:"KAFKA_TOKEN_FILE" placeholder:"FILE"`
	ClientID     string `name:"kafka-client-id" help:"What the brokers' logs and quotas call us." env:"KAFKA_CLIENT_ID" default:"purser" placeholder:"NAME"`
}

// Membership says how the group notices that one of its consumers is gone. It is a part of Kafka that only a consumer
// has.
type Membership struct {
	SessionTimeout    time.Duration `name:"kafka-session-timeout" help:"How long the group waits for a consumer that went silent before its partitions go to the others." env:"KAFKA_SESSION_TIMEOUT" default:"45s"`
	HeartbeatInterval time.Duration `name:"kafka-heartbeat-interval" help:"How often the group hears of this consumer, and so how long a rebalance may stay unnoticed." env:"KAFKA_HEARTBEAT_INTERVAL" default:"3s"`
}

// Embedded reports whether the embedded broker is used.
func (q Queue) Embedded() bool { return len(q.Brokers) == 0 }

// Importer are the settings of `importer`.
type Importer struct {
	Common
	Queue
	Files     []string `arg:"" name:"file" help:"Exports to import (CSV, also .gz and .zst); - is standard input."`
	Chain     string   `help:"Chain of addresses that name none, as CAIP-2, for example eip155:300." env:"PURSER_CHAIN" placeholder:"CHAIN"`
	Rejects   string   `help:"File for the rows that are not published, with line, field and reason (default: rejects.csv in the data directory)." env:"PURSER_REJECTS" placeholder:"FILE"`
	Delimiter string   `help:"What separates the fields of an export." default:","`
	DryRun    bool     `help:"Check the exports and write the rejects, but publish nothing."`

	RequireRows bool `help:"End with exit code 3 when an export has a header and no row." env:"PURSER_REQUIRE_ROWS"`

	ChainNumber  uint64 `kong:"-"` // from Chain; 0: none
	Comma        rune   `kong:"-"` // from Delimiter
	RejectsGiven bool   `kong:"-"` // Rejects was said, and is not the default
}

// Partner says how to talk to the partner API.
type Partner struct {
	APIURL              string        `name:"api-url" help:"Base URL of the partner API, with its version: https://…/v1." env:"OFFBLOCKS_API_URL" placeholder:"URL"`
	APICA               string        `name:"api-ca" help:"PEM file of the authorities that the API's certificate is checked against (default: the system's)." env:"OFFBLOCKS_API_CA" pem:"public" placeholder:"FILE"`
	APIKey              string        `name:"api-key" help:"Id of the API key." env:"OFFBLOCKS_API_KEY" placeholder:"UUID"`
	APISecretFile       string        `name:"api-secret-file" help:"File that holds the API secret; or put the secret into $$OFFBLOCKS_API_SECRET." env:"OFFBLOCKS_API_SECRET_FILE" placeholder:"FILE"`
	SigningKey          string        `help:"PEM file of the P-384 key that signs the requests; the variable may hold the PEM text itself." env:"OFFBLOCKS_SIGNING_KEY" pem:"secret" placeholder:"FILE"`
	SigningKeyID        string        `name:"signing-key-id" help:"The id that the partner gave to that key." env:"OFFBLOCKS_SIGNING_KEY_ID" base64:"id" placeholder:"ID"`
	SignatureComponents []string      `help:"What the request signature covers; @query and fields where the request has them." env:"OFFBLOCKS_SIGNATURE_COMPONENTS" default:"@method,@authority,@path,@query,authorization,content-type,content-digest,idempotency-key"`
	SignatureAge        time.Duration `help:"How long before the partner's time, as its answers show it, a request signature says it was created." env:"OFFBLOCKS_SIGNATURE_AGE" default:"2s"`
	SignatureParameters []string      `help:"Parameters of the request signature besides created, keyid and alg: nonce, expires=DURATION (5m), tag=TEXT (purser)." env:"OFFBLOCKS_SIGNATURE_PARAMETERS" placeholder:"NAME,…"`
	ContentDigest       string        `help:"Digest of request bodies: sha-256 or sha-512." env:"OFFBLOCKS_CONTENT_DIGEST" enum:"sha-256,sha-512" default:"sha-256"`
	SignatureEncoding   string        `help:"How a wallet's signature is sent: hex (base64 of the 0x text) or raw (base64 of the 65 bytes)." env:"OFFBLOCKS_SIGNATURE_ENCODING" enum:"hex,raw" default:"hex"`
	RequestTimeout      time.Duration `help:"Longest wait for one answer." env:"PURSER_REQUEST_TIMEOUT" default:"30s"`
}

// Parameters are those of a request signature that not every server asks for (RFC 9421 §2.3).
type Parameters struct {
	Nonce   bool
	Expires time.Duration // after created; 0: no parameter expires
	Tag     string        // empty: no parameter tag
}

// Consumer are the settings that all commands of `consumer` share.
type Consumer struct {
	Common
	Queue
	Membership
	Partner
	Challenge
	Group              string        `help:"The consumer group." env:"PURSER_GROUP" default:"purser"`
	Ledger             string        `help:"The ledger's file (default: ledger.db in the data directory)." env:"PURSER_LEDGER" placeholder:"FILE"`
	LedgerTopic        string        `help:"A compacted topic in which a fleet keeps its ledgers, so that a partition that moves takes its rows' records along (default: none)." env:"PURSER_LEDGER_TOPIC" placeholder:"TOPIC"`
	LedgerTopicKeyFile string        `help:"File of the key that authenticates the records of --ledger-topic; required with it." env:"PURSER_LEDGER_TOPIC_KEY_FILE" placeholder:"FILE"`
	Retain             string        `help:"What settled rows keep of challenge and signature: all or none; none applies to rows that were settled earlier, too." env:"PURSER_RETAIN" enum:"all,none" default:"all"`
	Signer             string        `help:"Who signs for the customers, a URI: keystore:///dir?password-file=…, …" env:"PURSER_SIGNER" placeholder:"URI"`
	SignerConcurrency  int           `help:"How many signatures are asked for side by side." env:"PURSER_SIGNER_CONCURRENCY" default:"16"`
	SignerRate         float64       `help:"Most calls of the signer a second; 0: no limit." env:"PURSER_SIGNER_RATE" default:"0"`
	SignerWait         time.Duration `help:"With --drain: how long a row may wait for a custodian. Otherwise: how long its polls may fail in a row." env:"PURSER_SIGNER_WAIT" default:"30m"`
	ChallengeDomain    string        `help:"The domain that a challenge must name (default: host and port of the API URL)." env:"PURSER_CHALLENGE_DOMAIN" placeholder:"DOMAIN"`
	Rate               float64       `help:"Most requests a second, all workers and repetitions together." env:"PURSER_RATE" default:"20"`
	Concurrency        int           `help:"How many rows are worked on side by side." env:"PURSER_CONCURRENCY" default:"32"`
	IdempotencyTTL     time.Duration `name:"idempotency-ttl" help:"How long the partner honours an idempotency key." env:"PURSER_IDEMPOTENCY_TTL" default:"1h"`
	ChallengeTTL       time.Duration `name:"challenge-ttl" help:"How long a challenge lives." env:"PURSER_CHALLENGE_TTL" default:"1h"`
	MaxAttempts        int           `help:"Tries of one operation before the row fails." env:"PURSER_MAX_ATTEMPTS" default:"12"`
	RetryMin           time.Duration `help:"First wait between two tries of a row; it doubles." env:"PURSER_RETRY_MIN" default:"100ms"`
	RetryMax           time.Duration `help:"Longest wait between two tries of a row; 4s while other rows fare better." env:"PURSER_RETRY_MAX" default:"1m"`
	HaltAfter          int           `help:"Halt when so many rows in a row end alike, for a reason that a setting can cause; 0: never. Until a first row has passed a step, 5 are enough." env:"PURSER_HALT_AFTER" default:"100"`
	OutageWait         time.Duration `help:"How long to wait for a partner that gives no usable response before the run halts; it is probed every 5s." env:"PURSER_OUTAGE_WAIT" default:"2m"`
	ListPause          time.Duration `help:"Least time between two readings of the partner's customer list; it is three times what a reading takes if that is more, ten times if that is more than a second." env:"PURSER_LIST_PAUSE" default:"0s"`
	MaxOutstanding     int           `help:"Most unsettled rows per partition." env:"PURSER_MAX_OUTSTANDING" default:"10000"`
	StalledAfter       time.Duration `help:"Report a partition of which no row was settled for so long, and which row it waits for." env:"PURSER_STALLED_AFTER" default:"10m"`
	Report             string        `help:"Write a JSON report to this file when the run ends." env:"PURSER_REPORT" placeholder:"FILE"`

	Secret     string     `kong:"-" json:"-"` // the API secret; never printed
	Parameters Parameters `kong:"-"`          // from SignatureParameters
}

// Challenge says which deviations of a sign-in challenge from the documented one are signed.
type Challenge struct {
	ChallengeStatement string `help:"The statement that a challenge must have, byte for byte: the text, file:PATH, any (every text is signed), or empty for none." env:"PURSER_CHALLENGE_STATEMENT" default:"OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using OffBlocks, you agree to our Terms of services and Privacy Policy" placeholder:"TEXT"`
	ChallengeURI       string `name:"challenge-uri" help:"The URI that a challenge must have, byte for byte (default: the challenge domain's, without path, query and fragment)." env:"PURSER_CHALLENGE_URI" placeholder:"URI"`
	ChallengeURIHost   string `name:"challenge-uri-host" help:"The host, and port if any, of a challenge's URI (default: the challenge domain)." env:"PURSER_CHALLENGE_URI_HOST" placeholder:"HOST"`
	AllowRequestID     bool   `name:"allow-request-id" help:"Sign challenges that have a request id." env:"PURSER_ALLOW_REQUEST_ID"`
	AllowResources     bool   `help:"Sign challenges that have resources (ERC-5573 delegations are refused even so)." env:"PURSER_ALLOW_RESOURCES"`

	Statement    string `kong:"-"` // from ChallengeStatement: the text itself; empty: none
	AnyStatement bool   `kong:"-"` // from ChallengeStatement
}

// ConsumerCommands are the commands of `consumer`.
type ConsumerCommands struct {
	Consumer
	Run struct {
		Drain bool `help:"End when the queue as it stood at the start is settled."`
	} `cmd:"" default:"withargs" help:"Take rows from the queue and onboard them (the default command)."`
	Check     struct{} `cmd:"" help:"Test clock, token, request signature, signer, broker and ledger without touching a customer."`
	Status    Inspect  `cmd:"" help:"Count the ledger's rows by stage and reason."`
	Failures  Inspect  `cmd:"" help:"Print unsettled and badly ended rows as CSV, ready to be imported again."`
	Reconcile struct{} `cmd:"" help:"Read the partner's list and bring the ledger up to date with it."`
	Redrive   struct {
		Reason string `help:"Only those whose class or reason contains this text." placeholder:"TEXT"`
		Since  string `help:"Only those since then: a duration (24h), a day (2026-11-22) or a time." placeholder:"WHEN"`
		DryRun bool   `help:"List them and put nothing back."`
	} `cmd:"" help:"Put dead letters back into the queue."`
	RegisterKey struct {
		Delete bool `help:"Remove the registered key instead."`
	} `cmd:"" help:"Register the public half of --signing-key with the partner, and print the id for --signing-key-id."`
	RotateSecret struct {
		NewSecretFile string `required:"" help:"File that holds the new API secret." placeholder:"FILE"`
		ReplaceFile   bool   `help:"When the new secret has been proved, write it to --api-secret-file."`
	} `cmd:"" help:"Replace the API secret at the partner by the one in a file."`
	Rebind struct {
		From string `help:"Id that the API key had before, for a ledger that does not know it, as that of a new member of a fleet." placeholder:"UUID"`
	} `cmd:"" help:"Bind the ledger to --api-key, after the API key's id was rotated."`
}

// Inspect says whose rows a command looks at.
type Inspect struct {
	Fleet bool `help:"Look at the rows of all consumers, as --ledger-topic has them, and not at this ledger."`
}

// SandboxCommands are the commands of `sandbox`.
type SandboxCommands struct {
	Common
	Serve SandboxServe `cmd:"" help:"Serve the stand-in API on loopback until stopped."`
	Run   SandboxRun   `cmd:"" help:"Everything at once: stand-in API, embedded broker, keystore signer, importer, consumer, summary."`
}

// Adversary says how strict the stand-in is, how it misbehaves and what it keeps short.
type Adversary struct {
	Verify        string         `help:"How request signatures are verified: vendor (as the partner's own server library does) or rfc (as RFC 9421 says)." enum:"vendor,rfc" default:"vendor"`
	SignatureSkew *time.Duration `help:"How far a signature's created may lie in the future (default: 0s with --verify vendor, 1m with rfc)." placeholder:"DURATION"`

	Seed         uint64        `help:"Seed of ids, nonces and faults: the same seed repeats a run." default:"1"`
	Faults       string        `help:"Faults with their probabilities, name=p,name=p." placeholder:"NAME=P,…"`
	KeyTTL       time.Duration `name:"key-ttl" help:"How long an idempotency key is honoured." default:"1h"`
	ChallengeTTL time.Duration `name:"challenge-ttl" help:"How long a challenge lives." default:"1h"`
	TokenTTL     time.Duration `name:"token-ttl" help:"How long a token lives." default:"1h"`
	Latency      time.Duration `help:"How long each answer takes at least." default:"0s"`
}

// SandboxServe are the settings of `sandbox serve`.
type SandboxServe struct {
	Adversary
	Listen       string  `help:"Address of the API, on loopback." default:"127.0.0.1:8420"`
	Control      string  `help:"Address of the control plane, on loopback." default:"127.0.0.1:8421"`
	Dir          string  `help:"Directory for the credentials that a consumer needs; made if missing, credentials in it are used again." default:"./sandbox-data"`
	Rate         float64 `help:"Requests a second above which 429 is answered; 0: no limit." default:"0"`
	DeclaredRate float64 `help:"The rate that the client has promised, for the judge; 0: not judged." default:"0"`
	Domain       string  `help:"Domain of the challenges (default: the host that was asked)." placeholder:"DOMAIN"`

	RequireParameters []string `help:"Parameters that every request signature must have: created, expires, keyid, alg, nonce, tag." placeholder:"NAME,…"`
}

// SandboxRun are the settings of `sandbox run`.
type SandboxRun struct {
	Adversary
	Files        []string `arg:"" name:"file" help:"Exports to onboard."`
	Chain        string   `help:"Chain of addresses that name none." default:"eip155:300"`
	Keystore     string   `help:"Directory of the customers' V3 key files (default: keystore beside the export)." placeholder:"DIR"`
	PasswordFile string   `help:"File that holds their password (default: keystore-password beside the export)." placeholder:"FILE"`
	DataDir      string   `help:"Directory for ledger, broker and rejects (default: a temporary one, removed if all is well)." placeholder:"DIR"`
	Rate         float64  `help:"Most requests a second." default:"200"`
	Concurrency  int      `help:"How many rows are worked on side by side." default:"32"`
	Report       string   `help:"Write the consumer's JSON report to this file." placeholder:"FILE"`
}
