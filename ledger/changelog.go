package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/purser-onboard/purser/pipeline"
)

// Changelog is the ledger topic as the ledger sees it: a compacted topic with the latest record of every row, and as
// many partitions as the work topic. A consumer that is assigned a partition first reads its records, and so continues
// where the previous owner stopped. Package broker implements it.
type Changelog interface {
	// Topic returns the name of the topic, under which the ledger stores its positions.
	Topic() string
	// Partition returns the partition of an account's rows (CAIP-10, EIP-55 form).
	Partition(account string) int
	// Epoch returns the number of the partition's current assignment to this consumer, which grows with each assignment; 0
	// if the partition is not assigned to it.
	Epoch(partition int) int64
	// Append writes each message to its Partition and sets its Offset. It returns when every in-sync replica has the
	// messages. It blocks while the ownership of the partitions is uncertain: pipeline.ErrFenced if they are not assigned
	// to this consumer. After an error any of the messages may have been written.
	Append(ctx context.Context, messages []pipeline.Message) error
	// Replay calls yield with the messages of a partition, in order, from an offset up to the end at the time of the call.
	// next is the offset after the batch; the last batch may be empty. If from is beyond the end, the topic was recreated:
	// pipeline.ErrChangelogRecreated.
	Replay(ctx context.Context, partition int, from int64, yield func(batch []pipeline.Message, next int64) error) error
}

// Authenticator proves that the records of the ledger topic were written by this fleet; *messageauth.Keys implements
// it. Its methods must be safe for concurrent use.
type Authenticator interface {
	// Topic returns the topic that the keys are for.
	Topic() string
	// ID returns the id of the key that signs. Other keys have other ids.
	ID() string
	// Sign adds the code to the headers of each record.
	Sign(records []pipeline.Message)
	// Verify returns nil for a record with a valid code under the key that signs, or under another accepted key.
	Verify(record pipeline.Message) error
	// Current reports whether an authentic record carries the code of the key that signs now.
	Current(record pipeline.Message) bool
}

// Follow makes the ledger write every change of a row to the ledger topic before the change is committed. The topic
// then has everything that the ledger has, except the partner's statuses (SetPartnerStatuses). Accept and Update then
// return pipeline.ErrFenced for rows whose partition is not assigned to this consumer, or was not restored since it was
// assigned. Records that a does not verify are ignored; with a nil Authenticator all records are accepted. Call Follow
// once, before Accept and Update; c must be for the topic Options.Changelog. It is an error if a is for another topic.
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

// Restored is the result of Restore.
type Restored struct {
	From, To int64 // offsets that were read, To excluded
	Records  int   // records that were read
	Newer    int   // of these, those newer than the row in this ledger
	Added    int   // rows of this ledger that were written to the topic
	Ignored  int   // records that could not be applied
	Resigned int   // records that were written again, because their MAC key is being withdrawn
}

// Restore applies the records of partitions of the ledger topic to this ledger, starting at its stored positions. A
// ledger that follows the topic for the first time then writes its own rows there, unless the topic has newer records.
// Call it when the partitions have been assigned, before their rows are accepted, and not concurrently. If interrupted,
// the next call continues, or starts again if little was stored in an empty ledger. Records that cannot be applied are
// ignored, with a warning for each kind. The results are in the order of the partitions; with an error they state what
// was stored.
//
// If the ledger is empty, other calls that write to it wait until most records are stored; see filling.
//
// Errors: *SnapshotError, pipeline.ErrFenced, ctx's, those of the Changelog and of Update.
func (l *Ledger) Restore(ctx context.Context, partitions []int) ([]Restored, error) {
	log, authenticator := l.writer.follows()
	runs := make([]*replaying, len(partitions))
	for i, p := range partitions { // the epoch before reading: a later assignment needs another call
		runs[i] = &replaying{partition: p, epoch: log.Epoch(p), log: log, authenticator: authenticator}
	}
	err := l.restorePartitions(ctx, runs)
	results := make([]Restored, len(runs))
	for i, run := range runs {
		results[i] = run.Restored
	}
	return results, translate(l.path, err)
}

// replaying is a partition that is being restored.
type replaying struct {
	Restored          // what was committed
	filled   Restored // what the fill has stored, which may not be committed yet

	partition     int
	epoch         int64
	log           Changelog
	authenticator Authenticator // may be nil

	mergeUpTo int64 // see position
	misfit    bool  // the topic is one that this ledger cannot follow
}

// maxRestores is how many partitions are read at once: one waits for the network while another is parsed.
const maxRestores = 4

func (l *Ledger) restorePartitions(ctx context.Context, runs []*replaying) (err error) {
	for _, run := range runs {
		run.From, run.mergeUpTo, err = l.position(ctx, run.log.Topic(), run.partition, keyID(run.authenticator))
		if err != nil {
			return err
		}
		run.To = run.From
	}
	f, err := l.startFill(ctx)
	if err != nil {
		return err
	}
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(maxRestores)
	for _, run := range runs {
		group.Go(func() error { return l.read(working, run, f) })
	}
	err = group.Wait()
	ended, least := ctx.Err(), 0
	switch {
	case errors.As(err, new(*SnapshotError)):
		least = math.MaxInt
	case ended != nil:
		least = worthKeeping
	}
	if err == nil { // all was read, but may not be kept
		err = ended
	}
	failed := f.drop(least)
	if err == nil || !errors.Is(failed, errAbandoned) && !errors.Is(err, failed) { // a reader may have returned it already
		err = errors.Join(err, failed)
	}
	for _, run := range runs {
		run.settle(f)
		if run.misfit { // the next run must read from the start and fail again
			err = errors.Join(err, l.writer.do(context.WithoutCancel(ctx), 1, func(t *tx) error {
				_, err := t.setPosition.ExecContext(t.ctx, 0, run.log.Topic(), run.partition)
				return err
			}))
		}
	}
	if err != nil {
		return err
	}
	for _, run := range runs {
		if run.mergeUpTo > 0 {
			if run.Added, err = l.merge(ctx, run.partition, run.epoch, run.mergeUpTo); err != nil {
				return err
			}
		}
		l.writer.markRestored(run.partition, run.epoch)
	}
	return nil
}

// read applies the records of a partition, with the fill if it can.
func (l *Ledger) read(ctx context.Context, run *replaying, f *filling) error {
	in, err := l.replay(ctx, run, f)
	if errors.Is(err, pipeline.ErrChangelogRecreated) && run.From > 0 {
		l.log.Warn("the ledger topic was recreated; writing the rows of this ledger to it",
			"topic", run.log.Topic(), "partition", run.partition, "position", run.From)
		if err = f.finish(); err == nil { // startOver writes
			run.mergeUpTo, err = l.startOver(ctx, run.log.Topic(), run.partition)
		}
		if err == nil {
			run.Restored = Restored{}
			in, err = l.replay(ctx, run, f)
		}
	}
	in.report(l.log)
	run.misfit = errors.As(err, new(*SnapshotError))
	return err
}

// settle takes over what the fill has committed. It must have ended.
func (r *replaying) settle(f *filling) {
	if f != nil && f.err == nil && r.filled.To > r.To {
		r.Restored = r.filled
	}
}

// replayBatch is the number of records after which a transaction of store takes no further batch.
const replayBatch = 5000

// replayed are records that were parsed and are not stored yet. Restored counts all records up to them, except Newer.
type replayed struct {
	Restored
	run       *replaying
	snapshots []*snapshot
}

// replay applies the records of a partition from its position on, and stores the position with each transaction.
// Records are parsed while the writer stores earlier ones.
func (l *Ledger) replay(ctx context.Context, run *replaying, f *filling) (*intake, error) {
	in := &intake{
		log: run.log, partition: run.partition, own: l.writer.own, authenticator: run.authenticator,
		suspects: map[recordKind]suspects{}, ignored: map[recordKind]*ignored{},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan replayed, 2) // each has about 1 MiB of records, and several partitions are restored at once
	stored := make(chan error)
	read := run.Restored
	go func() {
		err := l.store(ctx, run, f, batches)
		cancel() // ends the reading
		stored <- err
	}()
	err := run.log.Replay(ctx, run.partition, run.From, func(batch []pipeline.Message, next int64) error {
		snapshots, err := in.read(batch)
		if err != nil {
			return err
		}
		read.To, read.Records, read.Ignored, read.Resigned = next, read.Records+len(batch), in.total(), in.resigned
		select {
		case batches <- replayed{read, run, snapshots}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	close(batches)
	if failed := <-stored; failed != nil {
		if errors.As(err, new(*SnapshotError)) { // restorePartitions looks for it
			failed = errors.Join(err, failed)
		}
		err = failed // what the reading ended with is its consequence
	}
	return in, err
}

// store applies the batches in order. Without the fill, all that are waiting share a transaction.
func (l *Ledger) store(ctx context.Context, run *replaying, f *filling, batches <-chan replayed) error {
	for batch := range batches {
		switch taken, err := f.take(ctx, batch); {
		case err != nil:
			return err
		case taken:
			continue
		}
		run.settle(f)
		for len(batches) > 0 && len(batch.snapshots) < replayBatch { // no other goroutine receives
			next := <-batches
			batch.Restored, batch.snapshots = next.Restored, append(batch.snapshots, next.snapshots...)
		}
		var newer int
		err := l.writer.do(ctx, len(batch.snapshots), func(t *tx) (err error) {
			newer, err = t.applyBatch(run.partition, run.epoch, batch.snapshots, batch.To)
			return err
		})
		if err != nil {
			return err
		}
		batch.Newer = run.Newer + newer
		run.Restored = batch.Restored
	}
	return nil
}

// keyID returns the id of the key that signs, "" without authentication.
func keyID(a Authenticator) string {
	if a == nil {
		return ""
	}
	return a.ID()
}

// position returns this ledger's position in a partition (a row of the table changelog). The ledger has the records
// below the offset next. Rows with an id up to mergeUpTo (column before) may be missing in the topic, and merge has to
// write them; 0: none is missing.
//
// At the first call for a partition, and when the MAC key has changed, next is 0 and mergeUpTo the highest id: after a
// change of the key all records must be signed again, those of the topic and those of this ledger.
func (l *Ledger) position(
	ctx context.Context, topic string, partition int, key string,
) (next, mergeUpTo int64, err error) {
	err = l.writer.do(ctx, 1, func(t *tx) error {
		if _, err := t.insertPosition.ExecContext(t.ctx, topic, partition, key); err != nil {
			return err
		}
		if _, err := t.changeMACKey.ExecContext(t.ctx, topic, partition, key); err != nil {
			return err
		}
		return t.position.QueryRowContext(t.ctx, topic, partition).Scan(&next, &mergeUpTo)
	})
	return next, mergeUpTo, err
}

// startOver resets the position in a partition that was recreated. It returns mergeUpTo, as position does.
func (l *Ledger) startOver(ctx context.Context, topic string, partition int) (mergeUpTo int64, err error) {
	err = l.writer.do(ctx, 1, func(t *tx) error {
		if _, err := t.resetPosition.ExecContext(t.ctx, topic, partition); err != nil {
			return err
		}
		var next int64
		return t.position.QueryRowContext(t.ctx, topic, partition).Scan(&next, &mergeUpTo)
	})
	return mergeUpTo, err
}

// merge writes the partition's rows with an id up to mergeUpTo to the ledger topic. Rows of which the topic had newer
// records are among them, as restored.
func (l *Ledger) merge(ctx context.Context, partition int, epoch, mergeUpTo int64) (added int, err error) {
	log, _ := l.writer.follows()
	var ids []int64
	flush := func() error {
		err := l.writer.do(ctx, len(ids), func(t *tx) error {
			t.touched = append(t.touched, ids...)
			return t.fencePartition(partition, epoch)
		})
		if err == nil {
			added += len(ids)
		}
		ids = ids[:0]
		return err
	}
	err = l.each(ctx, recordQuery+` WHERE r.id <= ? ORDER BY r.id`, []any{mergeUpTo}, func(r pipeline.Record) error {
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

// mergeBatch is how many rows merge writes in a transaction.
const mergeBatch = 1000

// insertPositionQuery inserts a partition's position if it has none. The column met is the highest id at the first
// position in the topic: later rows need not be merged, because they came from the topic or were written to it.
const insertPositionQuery = `INSERT INTO changelog (topic, partition, next, before, met, mac_key)
	SELECT ?1, ?2, 0, m.id, m.id, ?3 FROM (SELECT coalesce((SELECT min(met) FROM changelog WHERE topic = ?1),
	(SELECT max(id) FROM rows), 0) AS id) m WHERE true ON CONFLICT DO NOTHING`

const positionQuery = `SELECT next, before FROM changelog WHERE topic = ? AND partition = ?`

const setPositionQuery = `UPDATE changelog SET next = ? WHERE topic = ? AND partition = ?`

const setMergedQuery = `UPDATE changelog SET before = 0 WHERE topic = ? AND partition = ?`

// resetPositionQuery is for a recreated partition: no row of this ledger may be there.
const resetPositionQuery = `UPDATE changelog SET next = 0, before = (SELECT coalesce(max(id), 0) FROM rows)
	WHERE topic = ? AND partition = ?`

// changeMACKeyQuery resets the position in a partition whose records this ledger has signed with another MAC key.
const changeMACKeyQuery = `UPDATE changelog SET next = 0, before = (SELECT coalesce(max(id), 0) FROM rows), mac_key = ?3
	WHERE topic = ?1 AND partition = ?2 AND mac_key <> ?3`

// advancePositionQuery advances the position past the records just written, if no other records precede them.
const advancePositionQuery = `UPDATE changelog SET next = ? WHERE topic = ? AND partition = ? AND next = ?`

// touch records that a row was changed.
func (t *tx) touch(id int64) {
	if t.changelog != nil {
		t.touched = append(t.touched, id)
	}
}

// fence returns pipeline.ErrFenced for a row whose partition is not ours, or not yet restored since it became ours: a
// worker may come late with a result from an earlier assignment.
func (t *tx) fence(r pipeline.Row, account string) error {
	if !t.owns(account) {
		return fmt.Errorf("row %s: %w", r.Where(), pipeline.ErrFenced)
	}
	return nil
}

// fencePartition returns pipeline.ErrFenced if a partition was lost since the assignment that the epoch numbers.
func (t *tx) fencePartition(partition int, epoch int64) error {
	if t.changelog.Epoch(partition) != epoch {
		return fmt.Errorf("partition %d: %w", partition, pipeline.ErrFenced)
	}
	return nil
}

// errPartitionLost: a partition was ours when a row of it was changed, and is not any more.
var errPartitionLost = errors.New("the partition was lost")

// publish writes the rows that this transaction has touched to the ledger topic, or returns errPartitionLost and writes
// nothing. Only rows of partitions that were ours are touched: the owner of another partition finds a contradiction of
// claims, too.
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
			return errPartitionLost
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
	type span struct{ begin, next int64 }
	written := map[int]span{}
	for _, m := range messages {
		s, ok := written[m.Partition]
		switch {
		case !ok:
			s = span{m.Offset, m.Offset + 1}
		case m.Offset == s.next:
			s.next++
		} // after a gap, in which another producer has written, the next Restore reads on
		written[m.Partition] = s
	}
	for partition, s := range written {
		var next, mergeUpTo int64
		if err := t.position.QueryRowContext(t.ctx, t.changelog.Topic(), partition).Scan(&next, &mergeUpTo); err != nil {
			return err
		}
		if s.begin < next { // the partition was recreated: the next Restore merges all rows
			if _, err := t.resetPosition.ExecContext(t.ctx, t.changelog.Topic(), partition); err != nil {
				return err
			}
			continue
		}
		_, err := t.advancePosition.ExecContext(t.ctx, s.next, t.changelog.Topic(), partition, s.begin)
		if err != nil {
			return err
		}
	}
	return nil
}

// snapshot reads everything that the ledger has about a row.
func (t *tx) snapshot(id int64, env Environment) (*snapshot, error) {
	record, hasClaims, err := scanRecord(t.rowByID.QueryRowContext(t.ctx, id))
	if err != nil {
		return nil, fmt.Errorf("ledger row %d: %w", id, err)
	}
	s := snapshotOf(record, hasClaims, env)
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
	if err := t.inOutbox.QueryRowContext(t.ctx, id).Scan(&s.Unpublished); err != nil {
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
