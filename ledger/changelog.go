package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/purser-onboard/purser/pipeline"
)

// Changelog is a compacted topic beside the topic of the rows, with as many partitions, that holds the latest snapshot
// of every row. A consumer that is given a partition reads the snapshots of its rows first, and so goes on exactly
// where the one before it stood. Package broker has one.
type Changelog interface {
	// Topic names it; this ledger's place in it is kept under that name.
	Topic() string
	// Partition is where the rows of an account (CAIP-10, EIP-55 form) are.
	Partition(account string) int
	// Epoch numbers the assignment by which a partition is ours: it grows, and is 0 when the partition is not ours now.
	Epoch(partition int) int64
	// Append writes messages to the partitions that each of them names, and fills in their offsets. It returns when every
	// in-sync replica has them. It writes only while the partitions are ours for certain, waiting for that if it must:
	// pipeline.ErrFenced when they are not any more. After an error any part of the messages may have been written.
	Append(ctx context.Context, messages []pipeline.Message) error
	// Replay hands over what a partition holds from an offset on up to its end as it is when Replay begins, in order, and
	// with each batch the offset behind it; last with an empty batch if nothing but markers remained. When from lies
	// beyond the end, the topic is not the one it was: pipeline.ErrChangelogRecreated.
	Replay(ctx context.Context, partition int, from int64, yield func(batch []pipeline.Message, next int64) error) error
}

// Authenticator proves that the records of a changelog were written by this fleet; *messageauth.Keys has it. Its
// methods may be called by many goroutines.
type Authenticator interface {
	// Topic names the topic that the proofs are for.
	Topic() string
	// ID names the key that signs; it differs from every other key's.
	ID() string
	// Sign adds the proof to the headers of each record.
	Sign(records []pipeline.Message)
	// Verify returns nil for a record with a proof under the key that signs, or another that is accepted.
	Verify(record pipeline.Message) error
	// Current reports whether an authentic record was signed with the key that signs now.
	Current(record pipeline.Message) bool
}

// Follow has every change from now on written to a changelog, in the transaction that makes it and before that is
// committed: what the ledger knows of a partition, the changelog knows, too. Accept and Update then answer
// pipeline.ErrFenced for rows whose partition is not ours, or has not been restored since it became ours. Records that
// a does not prove are ignored, as if they were not there; nil: every record is believed. Call it once, before the
// first of them; the changelog must be the one that Options.Changelog names. It is an error if a is for another topic.
func (l *Ledger) Follow(c Changelog, a Authenticator) error {
	if a != nil && a.Topic() != c.Topic() {
		return fmt.Errorf("ledger: records of topic %q cannot be authenticated with the keys of topic %q",
			c.Topic(), a.Topic())
	}
	l.writer.mu.Lock()
	defer l.writer.mu.Unlock()
	l.writer.changelog, l.writer.authenticator = c, a
	return nil
}

// Restored says what Restore found.
type Restored struct {
	From, To int64 // offsets: what was read is From up to To
	Records  int   // how many there were
	Newer    int   // those that said more than this ledger knew
	Added    int   // rows of this ledger that the changelog now has besides
	Ignored  int   // records that could not be taken over
	Resigned int   // records that were written again, because their MAC key is about to be withdrawn
}

// Restore brings this ledger's rows of a partition to where the changelog says they are, beginning where it last
// stood. A ledger that never met this topic gives it what it knew before, as far as the topic does not know better.
// Call it when the partition has become ours and before its rows are accepted. Interrupted, it goes on where it was.
// Records that cannot be taken over are ignored, with a warning for each kind.
//
// Errors: *SnapshotError, pipeline.ErrFenced, ctx's, those of the changelog and of Update.
func (l *Ledger) Restore(ctx context.Context, partition int) (Restored, error) {
	log, authenticator := l.writer.follows()
	epoch := log.Epoch(partition) // a later assignment has to be restored again
	next, before, err := l.position(ctx, log.Topic(), partition, keyID(authenticator))
	if err != nil {
		return Restored{}, translate(l.path, err)
	}
	r, in, err := l.replay(ctx, partition, next)
	if errors.Is(err, pipeline.ErrChangelogRecreated) && next > 0 {
		l.log.Warn("the ledger topic was recreated; it is given what this ledger knows",
			"topic", log.Topic(), "partition", partition, "stood_at", next)
		if before, err = l.startOver(ctx, log.Topic(), partition); err == nil {
			r, in, err = l.replay(ctx, partition, 0)
		}
	}
	in.report(l.log)
	if errors.As(err, new(*SnapshotError)) { // the next run is to find the same
		err = errors.Join(err, l.writer.do(ctx, 1, func(t *tx) error {
			_, err := t.setStanding.ExecContext(t.ctx, 0, log.Topic(), partition)
			return err
		}))
	}
	if err == nil && before > 0 {
		r.Added, err = l.merge(ctx, log, partition, before)
	}
	if err == nil {
		l.writer.markRestored(partition, epoch)
	}
	return r, translate(l.path, err)
}

// replay takes over the records of a partition from an offset on, and stores how far it has come with each batch.
func (l *Ledger) replay(ctx context.Context, partition int, from int64) (Restored, *intake, error) {
	log, authenticator := l.writer.follows()
	r := Restored{From: from, To: from}
	in := &intake{
		log: log, partition: partition, own: l.writer.own, authenticator: authenticator,
		suspects: map[recordKind]suspects{}, ignored: map[recordKind]*ignored{},
	}
	err := log.Replay(ctx, partition, from, func(batch []pipeline.Message, next int64) error {
		snapshots, err := in.read(batch)
		if err != nil {
			return err
		}
		var newer int
		err = l.writer.do(ctx, len(batch), func(t *tx) (err error) {
			newer, err = t.takeOver(log, partition, snapshots, next)
			return err
		})
		r.To, r.Records, r.Newer = next, r.Records+len(batch), r.Newer+newer
		r.Ignored, r.Resigned = in.total(), in.resigned
		return err
	})
	return r, in, err
}

// keyID names the key by which records are authentic now.
func keyID(a Authenticator) string {
	if a == nil {
		return ""
	}
	return a.ID()
}

// position is how this ledger stands to a partition of the changelog (its line of the table changelog). Records below
// the offset next are in this ledger. Rows with an id up to before may not be in the changelog, and merge has to write
// them there; 0: all are.
//
// meet makes the line when the ledger comes to the partition for the first time: next is 0, before its highest id.
// rekey sets it to the same when the MAC key is another than the last time, for both have to be signed again: the
// records there, and the rows here.
func (l *Ledger) position(
	ctx context.Context, topic string, partition int, key string,
) (next, before int64, err error) {
	err = l.writer.do(ctx, 1, func(t *tx) error {
		if _, err := t.meet.ExecContext(t.ctx, topic, partition, key); err != nil {
			return err
		}
		if _, err := t.rekey.ExecContext(t.ctx, topic, partition, key); err != nil {
			return err
		}
		return t.standing.QueryRowContext(t.ctx, topic, partition).Scan(&next, &before)
	})
	return next, before, err
}

// startOver is for a partition that was recreated: nothing that this ledger has read or written is there. It returns
// before, as standing does; next is 0.
func (l *Ledger) startOver(ctx context.Context, topic string, partition int) (before int64, err error) {
	err = l.writer.do(ctx, 1, func(t *tx) error {
		if _, err := t.forgetStanding.ExecContext(t.ctx, topic, partition); err != nil {
			return err
		}
		var next int64
		return t.standing.QueryRowContext(t.ctx, topic, partition).Scan(&next, &before)
	})
	return before, err
}

// merge gives the changelog every row of the partition that was here before it was met, also those about which it knew
// better: they are as it has them by now.
func (l *Ledger) merge(ctx context.Context, log Changelog, partition int, before int64) (added int, err error) {
	var ids []int64
	flush := func() error {
		err := l.writer.do(ctx, len(ids), func(t *tx) error {
			t.touched = append(t.touched, ids...)
			return nil
		})
		added += len(ids)
		ids = ids[:0]
		return err
	}
	err = l.each(ctx, recordQuery+` WHERE r.id <= ? ORDER BY r.id`, []any{before}, func(r pipeline.Record) error {
		if log.Partition(r.Account.String()) != partition {
			return nil
		}
		if ids = append(ids, r.ID); len(ids) < mergeBatch {
			return nil
		}
		return flush()
	})
	if err == nil && len(ids) > 0 {
		err = flush()
	}
	if err != nil {
		return added, err
	}
	return added, l.writer.do(ctx, 1, func(t *tx) error {
		_, err := t.setMerged.ExecContext(t.ctx, log.Topic(), partition)
		return err
	})
}

// mergeBatch is how many rows merge writes at once.
const mergeBatch = 1000

// meetQuery makes the line of a partition. Another partition of the topic may have been met before (met is its highest
// id then): rows that have come since are in the topic, because they came from there or were written there.
const meetQuery = `INSERT INTO changelog (topic, partition, next, before, met, mac_key)
	SELECT ?1, ?2, 0, m.id, m.id, ?3 FROM (SELECT coalesce((SELECT min(met) FROM changelog WHERE topic = ?1),
	(SELECT max(id) FROM rows), 0) AS id) m WHERE true ON CONFLICT DO NOTHING`

const standingQuery = `SELECT next, before FROM changelog WHERE topic = ? AND partition = ?`

const setStandingQuery = `UPDATE changelog SET next = ? WHERE topic = ? AND partition = ?`

const setMergedQuery = `UPDATE changelog SET before = 0 WHERE topic = ? AND partition = ?`

// forgetStandingQuery is for a partition that was recreated: whatever is in here may not be there.
const forgetStandingQuery = `UPDATE changelog SET next = 0, before = (SELECT coalesce(max(id), 0) FROM rows)
	WHERE topic = ? AND partition = ?`

// rekeyQuery is for a partition in which this ledger's records are under another MAC key.
const rekeyQuery = `UPDATE changelog SET next = 0, before = (SELECT coalesce(max(id), 0) FROM rows), mac_key = ?3
	WHERE topic = ?1 AND partition = ?2 AND mac_key <> ?3`

// advanceQuery moves on over what was just written, if nothing of somebody else's lies between.
const advanceQuery = `UPDATE changelog SET next = ? WHERE topic = ? AND partition = ? AND next = ?`

// touch notes that a row was changed.
func (t *tx) touch(id int64) {
	if t.changelog != nil {
		t.touched = append(t.touched, id)
	}
}

// fence refuses a change to a row whose partition is not ours, or is ours again and not yet restored.
func (t *tx) fence(r pipeline.Row, account string) error {
	// A worker may come late with what it did when the partition was ours before.
	if !t.holds(account) {
		return fmt.Errorf("row %s: %w", r.Where(), pipeline.ErrFenced)
	}
	return nil
}

// publish writes the rows that this transaction has touched to the changelog. What is touched is ours, but may have
// been given away since; a row of another's partition that gave its claim to one of ours is not touched, and whoever
// has that partition will find the contradiction, too.
func (t *tx) publish(env Environment) error {
	slices.Sort(t.touched)
	var messages []pipeline.Message
	for _, id := range slices.Compact(t.touched) {
		s, err := t.snapshot(id, env)
		if err != nil {
			return err
		}
		partition := t.changelog.Partition(s.ChainID)
		if t.changelog.Epoch(partition) == 0 {
			continue
		}
		value, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("snapshot of ledger row %d: %w", id, err)
		}
		messages = append(messages, pipeline.Message{Partition: partition, Key: s.key(), Value: value})
	}
	if len(messages) == 0 {
		return nil
	}
	if t.authenticator != nil {
		t.authenticator.Sign(messages)
	}
	if err := t.changelog.Append(t.ctx, messages); err != nil {
		return fmt.Errorf("write to the ledger topic %s: %w", t.changelog.Topic(), err)
	}
	type stretch struct{ begin, next int64 }
	written := map[int]stretch{}
	for _, m := range messages {
		s, ok := written[m.Partition]
		switch {
		case !ok:
			s = stretch{m.Offset, m.Offset + 1}
		case m.Offset == s.next:
			s.next++
		} // behind a gap, somebody else has written: the next Restore reads from there
		written[m.Partition] = s
	}
	for partition, s := range written {
		var next, before int64
		if err := t.standing.QueryRowContext(t.ctx, t.changelog.Topic(), partition).Scan(&next, &before); err != nil {
			return err
		}
		if s.begin < next { // it ends before what this ledger has read: the next Restore gives it everything
			if _, err := t.forgetStanding.ExecContext(t.ctx, t.changelog.Topic(), partition); err != nil {
				return err
			}
			continue
		}
		_, err := t.advance.ExecContext(t.ctx, s.next, t.changelog.Topic(), partition, s.begin)
		if err != nil {
			return err
		}
	}
	return nil
}

// snapshot reads all that there is of a row.
func (t *tx) snapshot(id int64, env Environment) (*snapshot, error) {
	record, claims, err := scanRecord(t.rowByID.QueryRowContext(t.ctx, id))
	if err != nil {
		return nil, fmt.Errorf("ledger row %d: %w", id, err)
	}
	s := snapshotOf(record, claims, env)
	for _, k := range t.own.keyrings {
		if k.APIHost != env.APIHost || k.APIKeyID != env.APIKeyID {
			s.Earlier = append(s.Earlier, snapshotKeyring(k))
		}
	}
	keys, err := t.keysOfRow.QueryContext(t.ctx, id)
	if err != nil {
		return nil, err
	}
	if err := eachKey(keys, func(k pipeline.Key) { s.addKey(k) }); err != nil {
		return nil, fmt.Errorf("ledger row %d: %w", id, err)
	}
	if err := t.unannounced.QueryRowContext(t.ctx, id).Scan(&s.Unannounced); err != nil {
		return nil, err
	}
	if s.Nonces, err = t.noncesOf(id); err != nil {
		return nil, err
	}
	imports, err := t.importsOfRow.QueryContext(t.ctx, id)
	if err != nil {
		return nil, err
	}
	defer imports.Close()
	for imports.Next() {
		var name string
		if err := imports.Scan(&name); err != nil {
			return nil, err
		}
		s.Imports = append(s.Imports, name)
	}
	return s, imports.Err()
}

// takeOver stores a batch of snapshots, and how far the ledger has come with them. It returns how many of them said
// more than it knew.
func (t *tx) takeOver(log Changelog, partition int, batch []*snapshot, next int64) (newer int, err error) {
	for _, s := range batch {
		id, more, err := t.restore(s)
		if err != nil {
			return 0, fmt.Errorf("take over %s/%d, offset %d: %w", log.Topic(), partition, s.offset, err)
		}
		if s.resign {
			t.touched = append(t.touched, id)
		}
		if more {
			newer++
		}
	}
	_, err = t.setStanding.ExecContext(t.ctx, next, log.Topic(), partition)
	return newer, err
}

const rowIDQuery = `SELECT id, version FROM rows WHERE external_id = ? AND chain_id = ?`

const restoreRowQuery = `INSERT INTO rows (external_id, chain_id, stage, class, reason, customer_id, import_id, file,
	line, claims, version, partner_status, challenge, challenge_at, external_tx_id, signature, refusals, attempts,
	already_onboarded, create_generation, submit_generation, accepted_at, updated_at)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (external_id, chain_id) DO UPDATE SET stage = excluded.stage, class = excluded.class,
	reason = excluded.reason, customer_id = excluded.customer_id, import_id = excluded.import_id, file = excluded.file,
	line = excluded.line, claims = excluded.claims, version = excluded.version,
	partner_status = excluded.partner_status, challenge = excluded.challenge, challenge_at = excluded.challenge_at,
	external_tx_id = excluded.external_tx_id, signature = excluded.signature, refusals = excluded.refusals,
	attempts = excluded.attempts, already_onboarded = excluded.already_onboarded,
	create_generation = excluded.create_generation, submit_generation = excluded.submit_generation,
	accepted_at = excluded.accepted_at, updated_at = excluded.updated_at
	RETURNING id`

// restore takes over one snapshot, unless the row has come further here: then that of a consumer which had lost its
// partition came late, or this ledger has just been given the topic.
func (t *tx) restore(s *snapshot) (id int64, more bool, err error) {
	var version int64
	err = t.rowID.QueryRowContext(t.ctx, s.ExternalID, s.ChainID).Scan(&id, &version)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, false, err
	}
	if version > s.Version {
		return id, false, nil
	}
	more = version < s.Version
	claims, err := t.claimFor(s, id)
	if err != nil {
		return 0, false, err
	}
	err = t.restoreRow.QueryRowContext(t.ctx, s.ExternalID, s.ChainID, s.Stage, s.Class, s.Reason, s.CustomerID,
		s.ImportID, s.File, s.Line, claims, s.Version, s.Status, s.Challenge, micros(s.ChallengeAt.time()), s.TxID,
		s.Signature, s.Refusals, s.Attempts, s.Already, nullable(s.CreateGeneration), nullable(s.SubmitGeneration),
		s.AcceptedAt.UnixMicro(), s.UpdatedAt.UnixMicro()).Scan(&id)
	if err != nil {
		return 0, false, err
	}
	for _, k := range s.Keys {
		if err := t.restoreKey(id, k, version > 0); err != nil {
			return 0, false, err
		}
	}
	for _, use := range s.Nonces { // one that another row has used here keeps its first use
		if _, err := t.storeNonce(id, use); err != nil {
			return 0, false, err
		}
	}
	for _, name := range s.Imports {
		if _, err := t.rememberImport.ExecContext(t.ctx, id, name); err != nil {
			return 0, false, err
		}
	}
	// The table's triggers have put it into the outbox if it was settled, which is not for them to say this time.
	if s.Unannounced {
		_, err = t.announce.ExecContext(t.ctx, id, s.Version)
	} else {
		_, err = t.announced.ExecContext(t.ctx, id, s.Version)
	}
	return id, more, err
}

const externalTakenQuery = `SELECT EXISTS (SELECT 1 FROM rows WHERE external_id = ? AND claims = 1 AND chain_id <> ?)`

const unclaimQuery = `UPDATE rows SET claims = 0 WHERE chain_id = ? AND claims = 1 AND id <> ?`

// claimFor says whether the restored row may claim its account and its externalId here. Another row of the same account
// is of the same partition, and the changelog knows better. Another account's row with the same externalId is not, so
// the row that has the claim here keeps it: the partner will say which of the two exists.
func (t *tx) claimFor(s *snapshot, id int64) (bool, error) {
	if !s.Claims {
		return false, nil
	}
	var taken bool
	if err := t.externalTaken.QueryRowContext(t.ctx, s.ExternalID, s.ChainID).Scan(&taken); err != nil || taken {
		return false, err
	}
	_, err := t.unclaim.ExecContext(t.ctx, s.ChainID, id)
	return true, err
}

const dropKeyQuery = `DELETE FROM keys WHERE row_id = ? AND operation = ? AND generation = ?
	AND (id <> ? OR digest <> ?)`

// restoreKey stores a key in the place of the one that this ledger may have in its generation, from a time when it did
// not follow the topic.
func (t *tx) restoreKey(id int64, k snapshotKey, known bool) error {
	if known {
		_, err := t.dropKey.ExecContext(t.ctx, id, string(k.Operation), k.Generation, k.ID.String(), k.Digest[:])
		if err != nil {
			return err
		}
	}
	_, err := t.putKey.ExecContext(t.ctx, id, string(k.Operation), k.Generation, k.ID.String(), k.Digest[:],
		micros(k.FirstSent.time()), micros(k.LastSent.time()), string(k.Outcome))
	return err
}

func nullable(n *int) sql.NullInt64 {
	if n == nil {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: int64(*n), Valid: true}
}
