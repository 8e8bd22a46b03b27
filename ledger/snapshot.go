package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// snapshotVersion is the version of the ledger topic's records that this program writes and reads.
const snapshotVersion = 2

// snapshot is the record of a row in the ledger topic. Times are RFC 3339 in UTC, to the microsecond; absent means
// never.
type snapshot struct {
	V           int    `json:"v"`
	APIHost     string `json:"apiHost"`
	APIKeyID    string `json:"apiKeyId"`
	APIPath     string `json:"apiPath,omitempty"` // absent: unknown
	ChainID     string `json:"chainId"`
	ExternalID  string `json:"externalId"`
	Version     int64  `json:"version"`
	Stage       string `json:"stage"`
	Class       string `json:"class,omitempty"`
	Reason      string `json:"reason,omitempty"`
	HasClaims   bool   `json:"claims"`
	CustomerID  string `json:"customerId,omitempty"`
	Status      string `json:"partnerStatus,omitempty"`
	Challenge   string `json:"challenge,omitempty"`
	ChallengeAt *stamp `json:"challengeAt,omitempty"`
	TxID        string `json:"externalTxId,omitempty"`
	Signature   string `json:"signature,omitempty"`
	Refusals    int    `json:"refusals,omitempty"`
	Attempts    int    `json:"attempts,omitempty"`
	Already     bool   `json:"alreadyOnboarded,omitempty"`
	Unpublished bool   `json:"unannounced,omitempty"` // settled, and its event is still to be published

	ImportID string   `json:"importId"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Imports  []string `json:"earlierImports,omitempty"`

	CreateGeneration *int          `json:"createGeneration,omitempty"` // of the operation's current key
	SubmitGeneration *int          `json:"submitGeneration,omitempty"` // of the operation's current key
	Keys             []snapshotKey `json:"keys,omitempty"`             // of all generations
	// Keyrings from which keys may be derived apart from the present keyring: earlier key ids and earlier forms of the
	// host.
	Earlier []snapshotKeyring `json:"earlierKeyrings,omitempty"`

	Nonces []nonceUse `json:"nonces,omitempty"` // of all challenges of the row that the policy allowed

	AcceptedAt stamp `json:"acceptedAt"`
	UpdatedAt  stamp `json:"updatedAt"`

	offset int64 // of a record that was read
	resign bool  // the record must be written again, signed with the present MAC key
}

type snapshotKey struct {
	Operation  pipeline.Operation `json:"operation"`
	Generation int                `json:"generation"`
	ID         uuid.UUID          `json:"id"`
	Digest     hexDigest          `json:"digest"` // SHA-256 of the payload
	FirstSent  *stamp             `json:"firstSent,omitempty"`
	LastSent   *stamp             `json:"lastSent,omitempty"`
	Outcome    pipeline.KeyState  `json:"outcome"`
}

type snapshotKeyring struct {
	APIHost  string `json:"apiHost"`
	APIKeyID string `json:"apiKeyId"`
}

// stamp is a time as the ledger keeps it: UTC, whole microseconds.
type stamp struct{ time.Time }

func stampOf(t time.Time) *stamp {
	if t.IsZero() {
		return nil
	}
	return &stamp{t}
}

func (s *stamp) time() time.Time {
	if s == nil {
		return time.Time{}
	}
	return time.UnixMicro(s.UnixMicro()).UTC()
}

type hexDigest [32]byte

// MarshalText implements encoding.TextMarshaler.
func (d hexDigest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *hexDigest) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return fmt.Errorf("a digest has %d hex digits, want %d", len(text), 2*len(d))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// key returns the record's key for compaction. A row with claims has the key of its work message, the account. A row
// without claims has a key of its own, so that compaction does not remove the record of the row that has the claims.
func (s *snapshot) key() []byte {
	if s.HasClaims {
		return []byte(s.ChainID)
	}
	return []byte(s.ChainID + "\n" + s.ExternalID)
}

// snapshotOf returns the snapshot of a record. The caller adds keys, earlier imports, nonces and the state of the
// outbox.
func snapshotOf(r pipeline.Record, hasClaims bool, env Environment) *snapshot {
	s := &snapshot{
		V: snapshotVersion, APIHost: env.APIHost, APIKeyID: env.APIKeyID, APIPath: env.APIPath,
		ChainID: r.Account.String(), ExternalID: r.ExternalID, Version: r.Version,
		Stage: string(r.Stage), Class: r.Class, Reason: r.Reason, HasClaims: hasClaims,
		CustomerID: r.CustomerID, Status: r.PartnerStatus,
		Challenge: r.Challenge, ChallengeAt: stampOf(r.ChallengeAt), TxID: r.ExternalTxID, Signature: r.Signature,
		Refusals: r.Refusals, Attempts: r.Attempts, Already: r.AlreadyOnboarded,
		ImportID: r.ImportID, File: r.File, Line: r.Line,
		AcceptedAt: stamp{r.AcceptedAt}, UpdatedAt: stamp{r.UpdatedAt},
	}
	if !r.CreateKey.IsZero() {
		s.CreateGeneration = &r.CreateKey.Generation
	}
	if !r.SubmitKey.IsZero() {
		s.SubmitGeneration = &r.SubmitKey.Generation
	}
	return s
}

func (s *snapshot) environment() Environment {
	return Environment{APIHost: s.APIHost, APIKeyID: s.APIKeyID, APIPath: s.APIPath}
}

func (s *snapshot) addKey(k pipeline.Key) {
	s.Keys = append(s.Keys, snapshotKey{
		Operation: k.Operation, Generation: k.Generation, ID: k.ID, Digest: k.Digest,
		FirstSent: stampOf(k.FirstSent), LastSent: stampOf(k.LastSent), Outcome: k.Outcome,
	})
}

// Bounds on a record. Each is at least what this program itself can write: ignoring a record of the fleet would lose
// the state of its row. Lengths are in bytes.
const (
	maxVersion   = 1 << 53 // of the row, far more than a row can reach, and far from an overflow
	maxCount     = 1_000_000
	maxChallenge = 8 << 10 // as in the client
	maxImportID  = 64
	maxText      = 4 << 10 // of reasons, and of the partner's and the custodian's ids and words
	maxClass     = 64
	maxKeyrings  = 100
	maxQuoted    = 100 // of text from outside in a message
)

// recordKind classifies the records that cannot be applied. There is a warning for each kind.
type recordKind string

const (
	kindUnauthenticated recordKind = "unauthenticated" // without a valid code under a key of this consumer
	kindSyntax          recordKind = "syntax"          // not the JSON that this program writes
	kindVersion         recordKind = "version"         // another version of the format
	kindEnvironment     recordKind = "environment"     // another API or API key id
	kindInvalid         recordKind = "invalid"         // out of bounds or inconsistent
	kindPartition       recordKind = "partition"       // in another partition than its account's
)

// recordError says why a record of the ledger topic is ignored.
type recordError struct {
	kind recordKind
	// setUp: this fleet seems to have written the record, so the set-up may be wrong. A few such records may be forged;
	// minSuspects of them end the run.
	setUp bool
	err   error
}

func (e *recordError) Error() string { return e.err.Error() }

func (e *recordError) Unwrap() error { return e.err }

// parseSnapshot parses a record of the ledger topic strictly. The value may hold anything.
func parseSnapshot(value []byte, own ownEnvironments) (*snapshot, *recordError) {
	s, ok := readPlain(value)
	var err error
	if !ok {
		s, err = readJSON(value)
	}
	if err != nil || s.V != snapshotVersion || own.check(s.environment()) != nil {
		return nil, unreadable(value, own, err)
	}
	if err := s.check(); err != nil {
		return nil, &recordError{kind: kindInvalid, err: err}
	}
	return s, nil
}

// readJSON reads a record in any spelling.
func readJSON(value []byte) (*snapshot, error) {
	s := &snapshot{}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(s); err != nil {
		return nil, err
	}
	if _, e := decoder.Token(); !errors.Is(e, io.EOF) {
		return nil, errors.New("unexpected text after the JSON object")
	}
	if !utf8.Valid(value) {
		return nil, errors.New("not UTF-8")
	}
	return s, nil
}

// recordHead has the members that are common to records of all versions.
type recordHead struct {
	V        *int64 `json:"v"`
	APIHost  string `json:"apiHost"`
	APIKeyID string `json:"apiKeyId"`
	APIPath  string `json:"apiPath"`
}

func (h recordHead) environment() Environment {
	return Environment{APIHost: h.APIHost, APIKeyID: h.APIKeyID, APIPath: h.APIPath}
}

// headOf parses the head of a record of any version.
func headOf(value []byte) (h recordHead, err error) {
	if value == nil {
		return h, errors.New("the record has no value (a tombstone)")
	}
	if err := json.Unmarshal(value, &h); err != nil {
		return h, err
	}
	if h.V == nil {
		return h, errors.New("no version (v)")
	}
	return h, nil
}

// unreadable returns the error for a record that parseSnapshot cannot parse; err is the error of strict parsing, or
// nil.
func unreadable(value []byte, own ownEnvironments, err error) *recordError {
	head, bad := headOf(value)
	if bad != nil {
		return &recordError{kind: kindSyntax, err: bad}
	}
	foreign := own.check(head.environment())
	switch {
	case foreign != nil:
		// A record under another key id of the same API is probably the fleet's, from before or after a rotation.
		return &recordError{kind: kindEnvironment, setUp: own.sameAPI(head.environment()), err: foreign}
	case *head.V != snapshotVersion:
		return &recordError{kind: kindVersion, setUp: *head.V > snapshotVersion, err: fmt.Errorf("record version %d is "+
			"unknown, this program reads version %d: is a newer program part of the fleet?", *head.V, snapshotVersion)}
	}
	return &recordError{kind: kindSyntax, err: err}
}

// check returns an error for a record that this program would not write.
func (s *snapshot) check() error {
	account, address, err := pipeline.ParseAccountText(s.ChainID, nil)
	if err != nil {
		return fmt.Errorf("chainId %s: %w", printable.Quote(s.ChainID, maxQuoted), err)
	}
	if string(account.AppendTo(make([]byte, 0, 64), address)) != s.ChainID {
		return fmt.Errorf("chainId %s is not in EIP-55 form", printable.Quote(s.ChainID, maxQuoted))
	}
	if err := pipeline.CheckStoredID(s.ExternalID); err != nil {
		return err
	}
	if _, err := pipeline.ParseStage(s.Stage); err != nil {
		return fmt.Errorf("unknown stage %s", printable.Quote(s.Stage, maxQuoted))
	}
	if s.Version < 1 || s.Version > maxVersion {
		return fmt.Errorf("version %d is not in 1 to %d", s.Version, int64(maxVersion))
	}
	if s.Line < 0 || s.Refusals < 0 || s.Refusals > maxCount || s.Attempts < 0 || s.Attempts > maxCount {
		return fmt.Errorf("line %d, refusals %d or attempts %d is out of range", s.Line, s.Refusals, s.Attempts)
	}
	if err := s.checkText(); err != nil {
		return err
	}
	if !s.AcceptedAt.plausible() || !s.UpdatedAt.plausible() || !s.ChallengeAt.plausible() {
		return errors.New("acceptedAt, updatedAt or challengeAt is not a time in 1970 to 9999")
	}
	return s.checkKeys()
}

func (s *snapshot) checkText() error {
	for _, text := range []struct {
		name, value string
		most        int
		printable   bool
	}{
		{"importId", s.ImportID, maxImportID, true},
		{"class", s.Class, maxClass, true},
		{"reason", s.Reason, maxText, true},
		{"customerId", s.CustomerID, maxText, true},
		{"externalTxId", s.TxID, maxText, true},
		{"signature", s.Signature, maxText, true},
		{"partnerStatus", s.Status, maxText, false}, // as the partner writes it
		{"file", s.File, maxText, false},            // as the message has it
		{"challenge", s.Challenge, maxChallenge, false},
	} {
		if len(text.value) > text.most || text.printable && !printable.Is(text.value) {
			return fmt.Errorf("%s is unprintable or longer than %d bytes", text.name, text.most)
		}
	}
	if s.ImportID == "" || slices.ContainsFunc(s.Imports, func(id string) bool {
		return id == "" || len(id) > maxImportID || !printable.Is(id)
	}) {
		return errors.New("importId, or one of earlierImports, is empty, unprintable or too long")
	}
	if len(s.Earlier) > maxKeyrings {
		return fmt.Errorf("%d earlierKeyrings, want at most %d", len(s.Earlier), maxKeyrings)
	}
	return nil
}

// checkDerived returns an error if a key of the row's next requests is not the key that Purser derives for the row. A
// forged key could be one under which the partner has stored another customer's request. check must have succeeded.
func (s *snapshot) checkDerived(own ownEnvironments) error {
	keyrings := append([]pipeline.Keyring{{APIHost: s.APIHost, APIKeyID: s.APIKeyID}}, own.keyrings...)
	for _, k := range s.Earlier {
		keyrings = append(keyrings, pipeline.Keyring(k))
	}
	for _, k := range s.Keys {
		derives := func(from pipeline.Keyring) bool {
			return from.CreateOf(s.ChainID, s.ExternalID, k.Generation) == k.ID
		}
		switch {
		case k.Operation == pipeline.OpCreate && s.CreateGeneration != nil && k.Generation == *s.CreateGeneration:
		case k.Operation == pipeline.OpSubmit && s.SubmitGeneration != nil && k.Generation == *s.SubmitGeneration &&
			s.Stage == string(pipeline.Submitting):
			derives = func(from pipeline.Keyring) bool { return from.Submit(s.CustomerID, k.Digest, k.Generation) == k.ID }
		default:
			continue // never sent again
		}
		if !slices.ContainsFunc(keyrings, derives) {
			return fmt.Errorf("the %s key of generation %d is not the key that is derived for the row",
				k.Operation, k.Generation)
		}
	}
	return nil
}

// checkKeys returns an error for a duplicate or invalid key, and if an operation's current key is not its latest: the
// next generation must be free.
func (s *snapshot) checkKeys() error {
	latest := map[pipeline.Operation]int{}
	type place struct {
		operation  pipeline.Operation
		generation int
	}
	seen := make(map[place]bool, len(s.Keys))
	for _, k := range s.Keys {
		at := place{k.Operation, k.Generation}
		switch {
		case k.Operation != pipeline.OpCreate && k.Operation != pipeline.OpSubmit,
			k.Generation < 0, k.Generation > maxCount, seen[at], k.ID == uuid.Nil:
			return fmt.Errorf("a key of operation %s, generation %d is unknown, out of range, duplicate or without an id",
				printable.Quote(string(k.Operation), maxQuoted), k.Generation)
		case k.FirstSent == nil, !k.FirstSent.plausible(), !k.LastSent.plausible():
			return fmt.Errorf("firstSent or lastSent of the %s key of generation %d is not a time in 1970 to 9999",
				k.Operation, k.Generation)
		}
		switch k.Outcome {
		case pipeline.KeyOpen, pipeline.KeyHeard, pipeline.KeyAnswered, pipeline.KeyRefused, pipeline.KeySettled:
		default:
			return fmt.Errorf("the %s key of generation %d has the unknown outcome %s",
				k.Operation, k.Generation, printable.Quote(string(k.Outcome), maxQuoted))
		}
		seen[at] = true
		latest[k.Operation] = max(latest[k.Operation], k.Generation+1)
	}
	present := func(generation *int) (next int) {
		if generation == nil {
			return 0
		}
		return *generation + 1
	}
	if present(s.CreateGeneration) != latest[pipeline.OpCreate] ||
		present(s.SubmitGeneration) != latest[pipeline.OpSubmit] {
		return errors.New("createGeneration or submitGeneration is not the latest of its keys")
	}
	return nil
}

// plausible reports whether the ledger can store the time, which may be nil.
func (s *stamp) plausible() bool {
	return s == nil || !s.Before(time.Unix(0, 0)) && s.UTC().Year() <= 9999
}
