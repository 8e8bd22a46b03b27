package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

// applicationID identifies a ledger in SQLite's header: "PURS".
const applicationID = 0x50555253

//go:embed migrations/*.sql
var embedded embed.FS

// migration changes the schema to the version in its file name.
type migration struct {
	version int
	name    string
	script  string
}

// readMigrations reads 0001_….sql, 0002_….sql, … from dir; a gap in the numbers is an error.
func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	steps := make([]migration, 0, len(names))
	for i, name := range names { // Glob sorts
		base := strings.TrimPrefix(name, "migrations/")
		number, _, _ := strings.Cut(base, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 || len(number) != 4 {
			return nil, fmt.Errorf("migration %s: want number %04d", base, i+1)
		}
		script, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, migration{version: version, name: base, script: string(script)})
	}
	return steps, nil
}

// connector opens SQLite connections without registering a driver in database/sql.
type connector struct {
	dsn    string
	driver *sqlite3.SQLiteDriver
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.driver }

// openDB opens path (absolute) with mode ro or rw; pragmas are set on every connection and must not write.
func openDB(path, mode string, pragmas ...string) *sql.DB {
	// Wait up to five seconds while another program, such as a reader, checkpoints or recovers the file.
	uri := url.URL{Scheme: "file", Path: path, RawQuery: "mode=" + mode + "&_busy_timeout=5000"}
	return sql.OpenDB(connector{dsn: uri.String(), driver: &sqlite3.SQLiteDriver{
		ConnectHook: func(conn *sqlite3.SQLiteConn) error {
			for _, pragma := range pragmas {
				if _, err := conn.Exec("PRAGMA "+pragma, nil); err != nil {
					return fmt.Errorf("PRAGMA %s: %w", pragma, err)
				}
			}
			return nil
		},
	}})
}

// execer is the writing connection.
type execer interface {
	source
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// identify returns the schema of a ledger, 0 for a new file, or a *foreignError. It changes nothing.
func identify(ctx context.Context, db source, path string) (schema int, err error) {
	var id uint32
	var objects int
	row := db.QueryRowContext(ctx, `SELECT a.application_id, u.user_version, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_application_id a, pragma_user_version u`)
	if err := row.Scan(&id, &schema, &objects); err != nil {
		return 0, err
	}
	switch {
	case id == applicationID:
		return schema, nil
	case id == 0 && schema == 0 && objects == 0:
		return 0, nil // an empty file, or a creation that was interrupted
	}
	return 0, &foreignError{Path: path, ApplicationID: id}
}

// checkSchema returns a *schemaError for a ledger that a newer program has migrated.
func checkSchema(ctx context.Context, db source, path string, have, known int) error {
	if have <= known {
		return nil
	}
	newer := &schemaError{Path: path, Have: have, Known: known}
	// If the newer program has changed this table too, its name stays unknown.
	_ = db.QueryRowContext(ctx, `SELECT program FROM migrations WHERE version = ?`, have).Scan(&newer.Program)
	return newer
}

// readSchema returns the schema of a ledger that is only read, and the newest known. The error is ErrEmpty if it has
// none, and a *schemaError if it has a newer one.
func readSchema(ctx context.Context, db source, path string) (have, known int, err error) {
	steps, err := readMigrations(embedded)
	if err != nil {
		return 0, 0, err
	}
	have, err = identify(ctx, db, path)
	switch {
	case err != nil:
		return 0, 0, err
	case have == 0:
		return 0, 0, fmt.Errorf("%s: %w", path, ErrEmpty)
	}
	return have, len(steps), checkSchema(ctx, db, path, have, len(steps))
}

// migrate changes the schema from have to the newest, each step in its own transaction.
func migrate(ctx context.Context, conn execer, have int, steps []migration, program string, now time.Time) error {
	for _, step := range steps {
		if step.version <= have {
			continue
		}
		err := inTransaction(ctx, conn, func() error {
			script := fmt.Sprintf("%s\nPRAGMA user_version = %d;", step.script, step.version)
			if _, err := conn.ExecContext(ctx, script); err != nil {
				return err
			}
			_, err := conn.ExecContext(ctx, `INSERT INTO migrations (version, program, applied_at) VALUES (?, ?, ?)`,
				step.version, program, now.UnixMicro())
			return err
		})
		if err == nil { // a step may have rewritten a table's definition
			_, err = conn.ExecContext(ctx, `PRAGMA writable_schema = RESET`)
		}
		if err != nil {
			return fmt.Errorf("migration %s: %w", step.name, err)
		}
	}
	return nil
}

// inTransaction runs do in a transaction on the connection.
func inTransaction(ctx context.Context, conn execer, do func() error) error {
	if _, err := conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	err := do()
	if err == nil {
		_, err = conn.ExecContext(ctx, `COMMIT`)
	}
	if err != nil {
		// After some errors SQLite has rolled back already, and the statement fails.
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`)
	}
	return err
}

// The keys of meta.
const (
	metaHost  = "api_host"
	metaKeyID = "api_key_id"
	metaPath  = "api_path" // missing until a version that supports it has opened the ledger
	metaClean = "clean"    // "1" while no process has the ledger open
)

func readEnvironment(ctx context.Context, db source) (Environment, error) {
	host, err := readMeta(ctx, db, metaHost)
	if err != nil {
		return Environment{}, err
	}
	keyID, err := readMeta(ctx, db, metaKeyID)
	if err != nil {
		return Environment{}, err
	}
	path, err := readMeta(ctx, db, metaPath)
	return Environment{APIHost: host, APIKeyID: keyID, APIPath: path}, err
}

func readMeta(ctx context.Context, db source, key string) (string, error) {
	var value string
	err := db.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = ?`, key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return value, err
}

func writeMeta(ctx context.Context, conn execer, key, value string) error {
	_, err := conn.ExecContext(ctx,
		`INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value`, key, value)
	return err
}
