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

// Environment is what a ledger is bound to when it is made (rule 12).
type Environment struct {
	APIHost  string // host, and port if there is one, of the partner's API
	APIKeyID string // which API key; its id, not the key
	// APIPath is the path of the API's base URL, "/" if it has none. Keys are not derived from it. "" is not known: a
	// ledger of an earlier version takes that of the first run that opens it.
	APIPath string
}

// API is the host and path, as messages show them.
func (e Environment) API() string { return e.APIHost + strings.TrimSuffix(e.APIPath, "/") }

// Matches reports whether both are the same environment. A path that is not known is any.
func (e Environment) Matches(other Environment) bool {
	return e.sameAPI(other) && e.APIKeyID == other.APIKeyID
}

func (e Environment) sameAPI(other Environment) bool {
	return e.APIHost == other.APIHost && (e.APIPath == other.APIPath || e.APIPath == "" || other.APIPath == "")
}

// Binding is an environment that a ledger was bound to, and since when.
type Binding struct {
	Environment
	Since time.Time
}

// Bindings returns every environment that the ledger was bound to, oldest first and without the path; the last one is
// in force. Keys that were recorded before it were derived in an earlier one.
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

// checkEnvironment holds a known ledger to its environment (rule 12). One that is bound to nothing was interrupted
// while it was made. With Options.Rebind another key id of the same API is no error.
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

// bind ties the ledger to its environment, unless it is already, and returns every environment that it was bound to.
// Earlier key ids that it does not know go before the one in force.
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
	if _, err := conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return nil, err
	}
	for _, b := range known[n:] {
		if _, err = conn.ExecContext(ctx, `INSERT INTO bindings (api_host, api_key_id, bound_at) VALUES (?, ?, ?)`,
			b.APIHost, b.APIKeyID, now.UnixMicro()); err != nil {
			break
		}
	}
	if err == nil {
		err = writeMeta(ctx, conn, metaHost, o.Environment.APIHost)
	}
	if err == nil {
		err = writeMeta(ctx, conn, metaKeyID, o.Environment.APIKeyID)
	}
	if err == nil && path == "" && o.Environment.APIPath != "" {
		err = writeMeta(ctx, conn, metaPath, o.Environment.APIPath)
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, `COMMIT`)
	}
	if err != nil {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`)
		return nil, fmt.Errorf("bind to API %s with key id %q: %w", o.Environment.API(), o.Environment.APIKeyID, err)
	}
	return known, nil
}

// ownRecords says which records of a ledger topic are this ledger's: those of the environment in force, and of the API
// key's earlier ids.
type ownRecords struct {
	inForce       Environment
	keyIDs        map[string]bool
	canonicalHost func(string) string
	keyrings      []pipeline.Keyring // what their keys may be derived from
}

func newOwnRecords(o Options, bindings []Binding) ownRecords {
	own := ownRecords{
		inForce: o.Environment, keyIDs: map[string]bool{o.Environment.APIKeyID: true}, canonicalHost: o.CanonicalHost,
	}
	for _, b := range bindings {
		own.keyIDs[b.APIKeyID] = true
		own.keyrings = append(own.keyrings, pipeline.Keyring{APIHost: b.APIHost, APIKeyID: b.APIKeyID})
	}
	return own
}

// sameAPI reports whether the record is of the API that the ledger is bound to.
func (own ownRecords) sameAPI(theirs Environment) bool {
	theirs.APIHost = canonical(theirs.APIHost, own.canonicalHost)
	return own.inForce.sameAPI(theirs)
}

func (own ownRecords) check(theirs Environment) error {
	given, advice := own.inForce, "use another topic for another environment"
	switch same := own.sameAPI(theirs); {
	case same && own.keyIDs[theirs.APIKeyID]:
		return nil
	case same:
		advice = rotated + "; if it is another programme's, use another topic"
	}
	return fmt.Errorf("the record belongs to API %s with key id %s, this ledger to API %q with key id %q: %s",
		printable.Quote(theirs.API(), mostQuoted), printable.Quote(theirs.APIKeyID, mostQuoted),
		given.API(), given.APIKeyID, advice)
}

// rotated is what to do when only the key id differs.
const rotated = "if the API key was rotated, run `consumer rebind`"
