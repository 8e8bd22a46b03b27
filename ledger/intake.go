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

// SnapshotError says that the changelog is not, or no longer, one that this ledger can follow: the topic is another
// environment's, a newer program writes there, or the topic of the rows has another number of partitions. It names the
// record that showed it.
type SnapshotError struct {
	Topic     string
	Partition int
	Offset    int64
	Key       string // of the record, its beginning
	Err       error
}

func (e *SnapshotError) Error() string {
	return fmt.Sprintf("ledger topic %s/%d, offset %d, key %q, and at least %d records more: %v; a new --ledger-topic is "+
		"filled from the consumers' ledgers", e.Topic, e.Partition, e.Offset, e.Key, several-1, e.Err)
}

func (e *SnapshotError) Unwrap() error { return e.Err }

// several is how many records, under keys of their own, show that the set-up is wrong. Fewer may be a stranger's.
const several = 3

// CheckChangelog reads the changelog, of so many partitions, until it finds a record of this ledger's environment. When
// there is none but several of another, the topic is another fleet's: *SnapshotError. Other errors are ctx's and the
// changelog's. When there are records and none is authentic, it warns: the key may be another than the fleet's. Call it
// after Follow.
func (l *Ledger) CheckChangelog(ctx context.Context, partitions int) error {
	log, authenticator := l.writer.follows()
	foreign := suspects{}
	var authentic, unauthenticated int
	var why error
	ours := errors.New("found one of ours")
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
					return ours
				}
				foreign.add(m)
			}
			return nil
		})
		if errors.Is(err, ours) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	if unauthenticated > 0 && authentic == 0 {
		l.log.Warn("no record of the ledger topic is authentic, and all are ignored: has this consumer the key of its fleet?",
			"topic", log.Topic(), "records", unauthenticated, "latest", why.Error())
	}
	if m, many := foreign.several(); many {
		return snapshotError(log, m, unreadable(m.Value, l.writer.own, nil))
	}
	return nil
}

// suspects are records that may show a wrong set-up, by their keys, no more than it takes.
type suspects map[string]pipeline.Message

func (s suspects) add(m pipeline.Message) {
	if len(s) < several {
		s[string(m.Key)] = m
	}
}

// several returns one of them if they are enough.
func (s suspects) several() (m pipeline.Message, many bool) {
	for _, m = range s {
		return m, len(s) >= several
	}
	return m, false
}

func snapshotError(log Changelog, m pipeline.Message, err error) *SnapshotError {
	return &SnapshotError{
		Topic: log.Topic(), Partition: m.Partition, Offset: m.Offset,
		Key: printable.Line(string(m.Key), mostQuoted), Err: err,
	}
}

// intake sorts the records of a partition into those that can be taken over and those that are ignored.
type intake struct {
	log       Changelog
	partition int
	own       ownRecords

	authenticator Authenticator // nil: every record is authentic

	resigned int // records to be written again, under the present MAC key
	suspects map[recordKind]suspects
	ignored  map[recordKind]*ignored
}

// ignored are the records of one kind.
type ignored struct {
	n     int
	first pipeline.Message
	err   error
}

// read returns the snapshots of a batch. *SnapshotError when the set-up is wrong.
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
			if _, many := i.suspects[err.kind].several(); many {
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

// parse reads a record that belongs here.
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

func (i *intake) misplaced(m pipeline.Message, s *snapshot) *recordError {
	if !bytes.Equal(m.Key, s.key()) {
		return &recordError{kind: kindInvalid, err: errors.New("the key is not that of the row in the record")}
	}
	if p := i.log.Partition(s.ChainID); p != i.partition {
		return &recordError{kind: kindPartition, setUp: true, err: fmt.Errorf("account %s belongs to partition %d: were "+
			"partitions added?", s.ChainID, p)}
	}
	return nil
}

// total is how many records were ignored.
func (i *intake) total() (n int) {
	for _, what := range i.ignored {
		n += what.n
	}
	return n
}

// report warns of what was ignored, once for each kind.
func (i *intake) report(logger *slog.Logger) {
	for kind, what := range i.ignored {
		logger.Warn("ignored records of the ledger topic that could not be taken over", "topic", i.log.Topic(),
			"partition", i.partition, "kind", string(kind), "records", what.n, "first_offset", what.first.Offset,
			"first_key", printable.Line(string(what.first.Key), mostQuoted), "reason", what.err.Error())
	}
}
