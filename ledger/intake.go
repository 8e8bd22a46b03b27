package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// SnapshotError reports a ledger topic that this ledger cannot follow: it belongs to another environment, a newer
// program writes to it, or the number of partitions has changed. Topic, Partition, Offset and Key identify a record
// that shows this.
type SnapshotError struct {
	Topic     string
	Partition int
	Offset    int64
	Key       string // shortened and escaped
	Err       error
}

func (e *SnapshotError) Error() string {
	return fmt.Sprintf("ledger topic %s/%d, offset %d, key %q, and at least %d more records: %v; consumers fill a new "+
		"--ledger-topic from their ledgers", e.Topic, e.Partition, e.Offset, e.Key, minSuspects-1, e.Err)
}

func (e *SnapshotError) Unwrap() error { return e.Err }

// minSuspects is how many records with different keys show that the set-up is wrong. Fewer may be forged.
const minSuspects = 3

// CheckChangelog reads the ledger topic, which has the given number of partitions, until it finds a record of this
// ledger's environment. If it finds only records of another environment, and at least 3, it returns a *SnapshotError.
// Other errors are ctx's and the Changelog's. If there are records but none is authentic, it logs a warning: the key
// may not be the fleet's. Call it after Follow.
func (l *Ledger) CheckChangelog(ctx context.Context, partitions int) error {
	log, authenticator := l.writer.follows()
	foreign := suspects{}
	var authentic, unauthenticated int
	var why error
	found := errors.New("found a record of this environment")
	for p := range partitions {
		err := log.Replay(ctx, p, 0, func(batch []pipeline.Message, _ int64) error {
			for _, m := range batch {
				if authenticator != nil {
					if err := authenticator.Verify(m); err != nil {
						unauthenticated, why = unauthenticated+1, err
						continue
					}
				}
				authentic++
				head, err := headOf(m.Value)
				if err != nil {
					continue
				}
				if l.writer.own.check(head.environment()) == nil {
					return found
				}
				foreign.add(m)
			}
			return nil
		})
		if errors.Is(err, found) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	if unauthenticated > 0 && authentic == 0 {
		l.log.Warn("no record of the ledger topic is authentic, all are ignored: check --ledger-topic-key-file",
			"topic", log.Topic(), "records", unauthenticated, "latest", why.Error())
	}
	if m, enough := foreign.enough(); enough {
		return snapshotError(log, m, unreadable(m.Value, l.writer.own, nil))
	}
	return nil
}

// suspects are up to minSuspects records that may show a wrong set-up, by key.
type suspects map[string]pipeline.Message

func (s suspects) add(m pipeline.Message) {
	if len(s) < minSuspects {
		s[string(m.Key)] = m
	}
}

// enough reports whether there are minSuspects records, and returns any of them.
func (s suspects) enough() (m pipeline.Message, enough bool) {
	for _, m = range s {
		break
	}
	return m, len(s) >= minSuspects
}

func snapshotError(log Changelog, m pipeline.Message, err error) *SnapshotError {
	return &SnapshotError{
		Topic: log.Topic(), Partition: m.Partition, Offset: m.Offset,
		Key: printable.Line(string(m.Key), maxQuoted), Err: err,
	}
}

// intake parses the records of a partition and counts those that are ignored.
type intake struct {
	log       Changelog
	partition int
	own       ownEnvironments

	authenticator Authenticator // nil: all records are accepted

	resigned int // records to be written again, signed with the present MAC key
	suspects map[recordKind]suspects
	ignored  map[recordKind]*ignored
}

// ignored are the ignored records of a kind.
type ignored struct {
	n     int
	first pipeline.Message
	err   error
}

// read returns the snapshots of a batch, or a *SnapshotError if the set-up is wrong.
func (i *intake) read(batch []pipeline.Message) ([]*snapshot, error) {
	snapshots := make([]*snapshot, 0, len(batch))
	for _, m := range batch {
		s, err := i.parse(m)
		if err == nil {
			s.offset = m.Offset
			if i.authenticator != nil && !i.authenticator.Current(m) {
				s.resign = true
				i.resigned++
			}
			snapshots = append(snapshots, s)
			continue
		}
		if err.setUp {
			if i.suspects[err.kind] == nil {
				i.suspects[err.kind] = suspects{}
			}
			i.suspects[err.kind].add(m)
			if _, enough := i.suspects[err.kind].enough(); enough {
				return nil, snapshotError(i.log, m, err)
			}
		}
		if i.ignored[err.kind] == nil {
			i.ignored[err.kind] = &ignored{first: m, err: err}
		}
		i.ignored[err.kind].n++
	}
	return snapshots, nil
}

// parse authenticates, parses and checks a record.
func (i *intake) parse(m pipeline.Message) (*snapshot, *recordError) {
	if i.authenticator != nil {
		if err := i.authenticator.Verify(m); err != nil {
			return nil, &recordError{kind: kindUnauthenticated, err: err}
		}
	}
	s, err := parseSnapshot(m.Value, i.own)
	if err == nil {
		err = i.misplaced(m, s)
	}
	if err == nil {
		if bad := s.checkDerived(i.own); bad != nil {
			err = &recordError{kind: kindInvalid, err: bad}
		}
	}
	return s, err
}

// misplaced returns an error for a record under another key or in another partition than its row's.
func (i *intake) misplaced(m pipeline.Message, s *snapshot) *recordError {
	if !bytes.Equal(m.Key, s.key()) {
		return &recordError{kind: kindInvalid, err: errors.New("the message key is not that of the record's row")}
	}
	if p := i.log.Partition(s.ChainID); p != i.partition {
		return &recordError{kind: kindPartition, setUp: true, err: fmt.Errorf("account %s belongs to partition %d: were "+
			"partitions added?", s.ChainID, p)}
	}
	return nil
}

// total returns how many records were ignored.
func (i *intake) total() (n int) {
	for _, what := range i.ignored {
		n += what.n
	}
	return n
}

// report logs a warning for each kind of ignored records.
func (i *intake) report(logger *slog.Logger) {
	for kind, what := range i.ignored {
		logger.Warn("ignored records of the ledger topic that cannot be applied", "topic", i.log.Topic(),
			"partition", i.partition, "kind", string(kind), "records", what.n, "first_offset", what.first.Offset,
			"first_key", printable.Line(string(what.first.Key), maxQuoted), "reason", what.err.Error())
	}
}
