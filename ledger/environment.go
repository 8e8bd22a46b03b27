package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// Environment identifies the API to which a ledger is bound when it is created (the rule "One ledger, one environment"
// in docs/rules.md).
type Environment struct {
	APIHost  string // host of the partner's API, with the port if it has one
	APIKeyID string // id of the API key
	// APIPath is the path of the API's base URL, "/" if it has none. Idempotency keys do not depend on it. "" means
	// unknown: a ledger of an earlier version takes the path of the first run that opens it.
	APIPath string
}

// API returns host and path, for messages.
func (e Environment) API() string { return e.APIHost + strings.TrimSuffix(e.APIPath, "/") }

// Matches reports whether both are the same environment. An unknown path equals any path.
func (e Environment) Matches(other Environment) bool {
	return e.sameAPI(other) && e.APIKeyID == other.APIKeyID
}

// sameAPI compares host and path. An unknown path equals any path.
func (e Environment) sameAPI(other Environment) bool {
	return e.APIHost == other.APIHost && (e.APIPath == other.APIPath || e.APIPath == "" || other.APIPath == "")
}

// Binding is an environment that a ledger is or was bound to.
type Binding struct {
	Environment // without APIPath
	Since       time.Time
}

// Bindings returns every environment that the ledger was bound to, oldest first; the last is the current environment.
// Keys that were recorded before its time were derived for an earlier one.
func (q *queries) Bindings(ctx context.Context) ([]Binding, error) {
	bindings, err := readBindings(ctx, q.source)
	return bindings, translate(q.path, err)
}

func readBindings(ctx context.Context, db source) ([]Binding, error) {
	rows, err := db.QueryContext(ctx, `SELECT api_host, api_key_id, bound_at FROM bindings ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var bindings []Binding
	for rows.Next() {
		var b Binding
		var since sql.NullInt64
		if err := rows.Scan(&b.APIHost, &b.APIKeyID, &since); err != nil {
			return nil, err
		}
		b.Since = fromMicros(since)
		bindings = append(bindings, b)
	}
	return bindings, rows.Err()
}

// checkEnvironment returns an *EnvironmentError if the ledger is bound to another environment. A ledger that is not
// bound was interrupted while it was created. With Options.Rebind another key id of the same API is not an error.
func checkEnvironment(ctx context.Context, db source, path string, o Options) error {
	stored, err := readEnvironment(ctx, db)
	if err != nil || stored == (Environment{}) {
		return err
	}
	stored.APIHost = canonical(stored.APIHost, o.CanonicalHost)
	if stored.Matches(o.Environment) || o.Rebind && stored.sameAPI(o.Environment) {
		return nil
	}
	return &EnvironmentError{Path: path, Ledger: stored, Given: o.Environment}
}

func canonical(host string, canonicalHost func(string) string) string {
	if canonicalHost == nil {
		return host
	}
	return canonicalHost(host)
}

// bind binds the ledger to its environment, if it is not bound already, and returns all bindings. Missing earlier key
// ids are inserted before the current id.
func bind(ctx context.Context, conn execer, o Options) ([]Binding, error) {
	known, err := readBindings(ctx, conn)
	if err != nil {
		return nil, err
	}
	n := len(known)
	now := time.UnixMicro(o.Now().UnixMicro()).UTC()
	for _, keyID := range o.EarlierKeyIDs {
		same := func(b Binding) bool { return b.APIKeyID == keyID }
		if keyID != o.Environment.APIKeyID && !slices.ContainsFunc(known, same) {
			known = append(known, Binding{Environment{APIHost: o.Environment.APIHost, APIKeyID: keyID}, now})
		}
	}
	key := Environment{APIHost: o.Environment.APIHost, APIKeyID: o.Environment.APIKeyID}
	if len(known) == 0 || known[len(known)-1].Environment != key {
		known = append(known, Binding{key, now})
	}
	path, err := readMeta(ctx, conn, metaPath)
	if err != nil {
		return nil, err
	}
	if len(known) == n && (path != "" || o.Environment.APIPath == "") {
		return known, nil
	}
	err = inTransaction(ctx, conn, func() error {
		for _, b := range known[n:] {
			if _, err := conn.ExecContext(ctx, `INSERT INTO bindings (api_host, api_key_id, bound_at) VALUES (?, ?, ?)`,
				b.APIHost, b.APIKeyID, now.UnixMicro()); err != nil {
				return err
			}
		}
		if err := writeMeta(ctx, conn, metaHost, o.Environment.APIHost); err != nil {
			return err
		}
		if err := writeMeta(ctx, conn, metaKeyID, o.Environment.APIKeyID); err != nil {
			return err
		}
		if path != "" || o.Environment.APIPath == "" {
			return nil
		}
		return writeMeta(ctx, conn, metaPath, o.Environment.APIPath)
	})
	if err != nil {
		return nil, fmt.Errorf("bind to API %s with key id %q: %w", o.Environment.API(), o.Environment.APIKeyID, err)
	}
	return known, nil
}

// ownEnvironments decides which records of a ledger topic are this ledger's: those of the current environment and those
// under earlier ids of its API key.
type ownEnvironments struct {
	current       Environment
	keyIDs        map[string]bool
	canonicalHost func(string) string
	keyrings      []pipeline.Keyring // from which their idempotency keys may be derived
}

func newOwnEnvironments(o Options, bindings []Binding) ownEnvironments {
	own := ownEnvironments{
		current: o.Environment, keyIDs: map[string]bool{o.Environment.APIKeyID: true}, canonicalHost: o.CanonicalHost,
	}
	for _, b := range bindings {
		own.keyIDs[b.APIKeyID] = true
		own.keyrings = append(own.keyrings, pipeline.Keyring{APIHost: b.APIHost, APIKeyID: b.APIKeyID})
	}
	return own
}

// sameAPI reports whether the record is of the ledger's API.
func (own ownEnvironments) sameAPI(theirs Environment) bool {
	theirs.APIHost = canonical(theirs.APIHost, own.canonicalHost)
	return own.current.sameAPI(theirs)
}

// check returns an error for a record of another environment.
func (own ownEnvironments) check(theirs Environment) error {
	given, advice := own.current, "use another topic for another environment"
	switch same := own.sameAPI(theirs); {
	case same && own.keyIDs[theirs.APIKeyID]:
		return nil
	case same:
		advice = rotated + "; if the key is unrelated to the earlier key, use another topic"
	}
	return fmt.Errorf("the record belongs to API %s with key id %s, this ledger to API %q with key id %q: %s",
		printable.Quote(theirs.API(), maxQuoted), printable.Quote(theirs.APIKeyID, maxQuoted),
		given.API(), given.APIKeyID, advice)
}

// rotated is the advice if only the key id differs.
const rotated = "if the API key was rotated, run `consumer rebind`"
