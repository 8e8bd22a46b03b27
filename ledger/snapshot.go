package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

// snapshotVersion is the version of the changelog's records that this program writes and reads.
const snapshotVersion = 1

// snapshot is all that the ledger knows of a row, as the changelog keeps it. Times are RFC 3339 in UTC, to the
// microsecond, absent for "never".
type snapshot struct {
	V           int    `json:"v"`
	APIHost     string `json:"apiHost"`
	APIKeyID    string `json:"apiKeyId"`
	ChainID     string `json:"chainId"`
	ExternalID  string `json:"externalId"`
	Version     int64  `json:"version"`
	Stage       string `json:"stage"`
	Class       string `json:"class,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Claims      bool   `json:"claims"`
	CustomerID  string `json:"customerId,omitempty"`
	Status      string `json:"partnerStatus,omitempty"`
	Challenge   string `json:"challenge,omitempty"`
	ChallengeAt *stamp `json:"challengeAt,omitempty"`
	TxID        string `json:"externalTxId,omitempty"`
	Signature   string `json:"signature,omitempty"`
	Refusals    int    `json:"refusals,omitempty"`
	Attempts    int    `json:"attempts,omitempty"`
	Already     bool   `json:"alreadyOnboarded,omitempty"`
	Unannounced bool   `json:"unannounced,omitempty"` // settled, and its event is still to be published

	ImportID string   `json:"importId"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Imports  []string `json:"earlierImports,omitempty"`

	CreateGeneration *int          `json:"createGeneration,omitempty"` // the present key of each operation
	SubmitGeneration *int          `json:"submitGeneration,omitempty"`
	Keys             []snapshotKey `json:"keys,omitempty"` // all there ever were

	AcceptedAt stamp `json:"acceptedAt"`
	UpdatedAt  stamp `json:"updatedAt"`
}

type snapshotKey struct {
	Operation  pipeline.Operation  `json:"operation"`
	Generation int                 `json:"generation"`
	ID         uuid.UUID           `json:"id"`
	Digest     hexDigest           `json:"digest"` // SHA-256 of the payload
	FirstSent  *stamp              `json:"firstSent,omitempty"`
	LastSent   *stamp              `json:"lastSent,omitempty"`
	Outcome    pipeline.KeyOutcome `json:"outcome"`
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

// key is what compaction goes by. A row that holds its claims stands for its account, under the very key of its work
// message; one that does not must not push that one out.
func (s *snapshot) key() []byte {
	if s.Claims {
		return []byte(s.ChainID)
	}
	return []byte(s.ChainID + "\n" + s.ExternalID)
}

// versionOf reads the version of a record of which nothing else may be known.
func versionOf(value []byte) (version int, ok bool) {
	var v struct {
		V int `json:"v"`
	}
	err := json.Unmarshal(value, &v)
	return v.V, err == nil
}

// snapshotOf fills in what record holds; keys and earlier imports are the caller's.
func snapshotOf(r pipeline.Record, claims bool, env Environment) *snapshot {
	s := &snapshot{
		V: snapshotVersion, APIHost: env.APIHost, APIKeyID: env.APIKeyID,
		ChainID: r.Account.String(), ExternalID: r.ExternalID, Version: r.Version,
		Stage: string(r.Stage), Class: r.Class, Reason: r.Reason, Claims: claims,
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

func (s *snapshot) addKey(k pipeline.Key) {
	s.Keys = append(s.Keys, snapshotKey{
		Operation: k.Operation, Generation: k.Generation, ID: k.ID, Digest: k.Digest,
		FirstSent: stampOf(k.FirstSent), LastSent: stampOf(k.LastSent), Outcome: k.Outcome,
	})
}

// parseSnapshot reads a record of the changelog, strictly.
func parseSnapshot(value []byte, own ownRecords) (*snapshot, error) {
	var s snapshot
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&s)
	if err != nil || s.V != snapshotVersion {
		if version, ok := versionOf(value); ok && version != snapshotVersion { // what else is wrong follows from that
			return nil, fmt.Errorf("its version is %d, this program reads %d: is a newer one part of the fleet?",
				version, snapshotVersion)
		}
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is text behind its JSON object")
	}
	if err := own.check(Environment{APIHost: s.APIHost, APIKeyID: s.APIKeyID}); err != nil {
		return nil, err
	}
	account, err := pipeline.ParseAccount(s.ChainID)
	if err != nil {
		return nil, fmt.Errorf("chainId %q: %w", s.ChainID, err)
	}
	if account.String() != s.ChainID {
		return nil, fmt.Errorf("chainId %q is not in EIP-55 form", s.ChainID)
	}
	if err := pipeline.CheckExternalID(s.ExternalID); err != nil {
		return nil, err
	}
	if _, err := pipeline.ParseStage(s.Stage); err != nil {
		return nil, err
	}
	if s.ImportID == "" || s.Version < 1 || s.Line < 0 {
		return nil, errors.New("importId, version or line is missing or out of range")
	}
	for _, k := range s.Keys {
		if k.Operation != pipeline.OpCreate && k.Operation != pipeline.OpSubmit || k.Generation < 0 {
			return nil, fmt.Errorf("a key of operation %q, generation %d", k.Operation, k.Generation)
		}
	}
	return &s, nil
}
