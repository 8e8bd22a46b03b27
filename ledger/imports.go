package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// keptImports is how many imports a ledger keeps: three years with an import a night.
const keptImports = 1000

const importColumns = `id, program, host, started_at, ended_at, exit, reason, lines, rows, published, published_lines,
	invalid, invalid_lines, header, blank, neither, files, topic`

// PutImports stores the importers' records, replacing earlier records of the same imports, and keeps only the latest
// 1000.
func (l *Ledger) PutImports(ctx context.Context, imports []pipeline.Import) error {
	if len(imports) == 0 {
		return nil
	}
	return translate(l.path, l.writer.do(ctx, len(imports), func(t *tx) error {
		for _, i := range imports {
			files, err := json.Marshal(i.Files)
			if err != nil {
				return err
			}
			c := i.ImportCounts
			_, err = l.conn.ExecContext(t.ctx, `INSERT OR REPLACE INTO imports (`+importColumns+`)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				i.ID, i.Program, i.Host, i.StartedAt.UnixMicro(), micros(i.EndedAt), i.Exit, i.Reason, c.Lines, c.Rows,
				c.Published, c.PublishedLines, c.Invalid, c.InvalidLines, c.Header, c.Blank, c.Neither, string(files),
				i.Topic)
			if err != nil {
				return fmt.Errorf("store import %s: %w", printable.Line(i.ID, maxImportID), err)
			}
		}
		_, err := l.conn.ExecContext(t.ctx, `DELETE FROM imports WHERE id NOT IN
			(SELECT id FROM imports ORDER BY started_at DESC, id DESC LIMIT ?)`, keptImports)
		return err
	}))
}

// Imports returns up to n imports, the latest first.
func (q *queries) Imports(ctx context.Context, n int) ([]pipeline.Import, error) {
	rows, err := q.source.QueryContext(ctx, `SELECT `+importColumns+` FROM imports
		ORDER BY started_at DESC, id DESC LIMIT ?`, n)
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	var imports []pipeline.Import
	for rows.Next() {
		var i pipeline.Import
		var started int64
		var ended sql.NullInt64
		var files string
		c := &i.ImportCounts
		err := rows.Scan(&i.ID, &i.Program, &i.Host, &started, &ended, &i.Exit, &i.Reason, &c.Lines, &c.Rows,
			&c.Published, &c.PublishedLines, &c.Invalid, &c.InvalidLines, &c.Header, &c.Blank, &c.Neither, &files, &i.Topic)
		if err != nil {
			return nil, translate(q.path, err)
		}
		i.StartedAt, i.EndedAt = time.UnixMicro(started).UTC(), fromMicros(ended)
		if err := json.Unmarshal([]byte(files), &i.Files); err != nil {
			return nil, fmt.Errorf("ledger %s: files of import %s: %w", q.path, printable.Line(i.ID, maxImportID), err)
		}
		imports = append(imports, i)
	}
	return imports, translate(q.path, rows.Err())
}

// StagesByImport counts the rows of the given imports by stage. A row belongs to the latest import that started or
// continued it, so a row that an earlier import settled counts for that one. It reads the whole table, as Counts does.
func (q *queries) StagesByImport(ctx context.Context, ids []string) (map[string]map[pipeline.Stage]int64, error) {
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	rows, err := q.source.QueryContext(ctx, `SELECT import_id, stage, count(*) FROM rows
		WHERE import_id IN (SELECT value FROM json_each(?)) GROUP BY import_id, stage`, string(list))
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	counts := make(map[string]map[pipeline.Stage]int64, len(ids))
	for rows.Next() {
		var id string
		var stage pipeline.Stage
		var n int64
		if err := rows.Scan(&id, &stage, &n); err != nil {
			return nil, translate(q.path, err)
		}
		if counts[id] == nil {
			counts[id] = make(map[pipeline.Stage]int64)
		}
		counts[id][stage] = n
	}
	return counts, translate(q.path, rows.Err())
}
