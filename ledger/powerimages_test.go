package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/purser-onboard/purser/pipeline"
)

// image is a possible content of the disk after a power loss.
type image struct {
	what    string
	db, wal []byte   // wal nil: no log
	want    []string // the tables that the ledger may have; nil: any
	acked   map[string]int64
}

const (
	logHeader = 32
	logFrame  = 24 + pageSize
	pageSize  = 4096
)

// imagesBetween returns images of a power loss between two commits; a and b are the instants after them.
func imagesBetween(random *rand.Rand, a, b instant) (all []image) {
	add := func(what string, db, wal []byte, want ...string) {
		// The callers that had their answer when b was committed are those of a and of earlier commits.
		all = append(all, image{what, db, wal, want, b.acked})
	}
	for range 2 {
		if logRestarted(a, b) {
			header := append(bytes.Clone(b.wal[:logHeader]), a.wal[logHeader:]...)
			add("header of a new log", a.db, torn(random, a.wal, header, span{0, logHeader}), a.tables)
			add("new log", a.db, torn(random, header, b.wal, changed(header, b.wal)), a.tables, b.tables)
		} else {
			add("log", a.db, torn(random, a.wal, b.wal, changed(a.wal, b.wal)), a.tables, b.tables)
		}
		if pages := changedPages(a.db, b.db); len(pages) > 0 {
			add("checkpoint", torn(random, a.db, b.db, pages...), b.wal, b.tables)
		}
	}
	add("nothing torn", b.db, b.wal, b.tables)
	return all
}

// imagesAtTheEnds are images of a ledger that is being created, which may be empty, and of a ledger that is being
// closed.
func imagesAtTheEnds(random *rand.Rand, instants []instant) (all []image) {
	first, last := instants[0], instants[len(instants)-1]
	for range 20 {
		wal := torn(random, nil, first.wal, span{0, len(first.wal)})
		all = append(all, image{what: "being created", db: first.db, wal: wal})
	}
	want := []string{last.tables}
	return append(all,
		image{what: "created as a file", db: []byte{}},
		image{"log emptied", last.db, []byte{}, want, last.acked},
		image{"log removed", last.db, nil, want, last.acked},
	)
}

func logRestarted(a, b instant) bool { return !bytes.Equal(a.wal[:logHeader], b.wal[:logHeader]) }

// span is a part of a file; to is excluded.
type span struct{ from, to int }

// changed is the part of a log that was written between a and b.
func changed(a, b []byte) span {
	from, to := 0, len(b)
	for from < len(a) && from < to && a[from] == b[from] {
		from++
	}
	for len(a) == len(b) && to > from && a[to-1] == b[to-1] {
		to--
	}
	return span{from, to}
}

// changedPages are the database's changed pages, which are written as a whole.
func changedPages(a, b []byte) (pages []span) {
	for at := 0; at < len(b); at += pageSize {
		if at >= len(a) || !bytes.Equal(a[at:at+pageSize], b[at:at+pageSize]) {
			pages = append(pages, span{at, at + pageSize})
		}
	}
	return pages
}

// torn is a file between before and after, while the given parts are being written: each of their sectors (512 or 4096
// bytes, which a disk writes at once) may be written, or not, or spoilt.
func torn(random *rand.Rand, before, after []byte, parts ...span) []byte {
	sector := []int{512, 4096}[random.IntN(2)]
	now := bytes.Clone(before)
	if more := len(after) - len(before); more > 0 { // how far the file had grown
		now = append(now, make([]byte, random.IntN(more+1))...)
	}
	arrived, spoilt := random.Float64(), 0.0
	switch random.IntN(3) {
	case 0:
		spoilt = random.Float64()
	case 1:
		arrived = 1 - 1/float64(1+random.IntN(64)) // all but a few
	}
	inOrder := random.IntN(3) == 0
	for _, part := range parts {
		for from := part.from; from < min(part.to, len(now)); {
			to := min((from/sector+1)*sector, part.to, len(now))
			switch {
			case random.Float64() < arrived:
				copy(now[from:to], after[from:to])
			case inOrder: // the power went here
				copy(now[from:from+random.IntN(to-from)], after[from:to])
				return now
			case random.Float64() < spoilt:
				spoil(random, now[from:to])
			}
			from = to
		}
	}
	return now
}

// spoil leaves zeros or garbage.
func spoil(random *rand.Rand, sector []byte) {
	kind := random.IntN(2)
	for i := range sector {
		sector[i] = byte(kind * random.IntN(256))
	}
}

// check opens an image in a new directory: it must have every acknowledged change and no partial one, and accept
// changes.
func (im image) check(ctx context.Context, dir string, random *rand.Rand) error {
	o := testOptions(filepath.Join(dir, "ledger.db"))
	files := map[string][]byte{"": im.db}
	if im.wal != nil {
		files["-wal"] = im.wal
	}
	if random.IntN(2) == 0 { // the log's index is never synced: it is there or not, and means nothing
		files["-shm"] = make([]byte, 32<<10)
		spoil(random, files["-shm"])
	}
	for suffix, content := range files {
		if err := os.WriteFile(o.Path+suffix, content, 0o600); err != nil {
			return err
		}
	}
	l, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer l.Close()
	for externalID, version := range im.acked {
		var have int64
		row := l.readers.QueryRowContext(ctx, `SELECT version FROM rows WHERE external_id = ?`, externalID)
		if err := row.Scan(&have); err != nil {
			return fmt.Errorf("%s: got %w, want version %d, which was acknowledged", externalID, err, version)
		}
		if have < version {
			return fmt.Errorf("%s: got version %d, want at least %d, which was acknowledged", externalID, have, version)
		}
	}
	tables, err := readTables(ctx, l.readers)
	if err != nil {
		return err
	}
	if im.want != nil && !slices.Contains(im.want, tables) {
		return errors.New("got tables that are those of no commit, want those of a commit that may be there")
	}
	var half int // a transition without the key that it came with
	err = l.readers.QueryRowContext(ctx, `SELECT count(*) FROM rows r WHERE create_generation IS NOT NULL AND
		NOT EXISTS (SELECT 1 FROM keys k WHERE k.row_id = r.id AND k.generation = r.create_generation)`).Scan(&half)
	if err != nil {
		return err
	}
	if half > 0 {
		return fmt.Errorf("got %d rows with a partial update, want 0", half)
	}
	answers, err := l.Accept(ctx, []pipeline.Row{testRow(1_000_000, "after")})
	if err != nil {
		return err
	}
	next := answers[0].Record
	next.Stage = pipeline.Creating
	if _, err := l.Update(ctx, next); err != nil {
		return err
	}
	return l.Close()
}
