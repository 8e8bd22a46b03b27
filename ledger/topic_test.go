package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

// topic is a compacted topic in memory, shared by several ledgers.
type topic struct {
	mu         sync.Mutex
	partitions [][]pipeline.Message
	ends       []int64
}

func newTopic(partitions int) *topic {
	return &topic{partitions: make([][]pipeline.Message, partitions), ends: make([]int64, partitions)}
}

// compact keeps the latest message of each key, as the broker may at any time.
func (p *topic) compact() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, messages := range p.partitions {
		latest := map[string]int64{}
		for _, m := range messages {
			latest[string(m.Key)] = m.Offset
		}
		p.partitions[i] = slices.DeleteFunc(messages, func(m pipeline.Message) bool {
			return latest[string(m.Key)] != m.Offset
		})
	}
}

// follower is the Changelog of a ledger.
type follower struct {
	*topic
	held  map[int]bool
	epoch int64
	lose  bool // the next Append writes and returns an error
	batch int  // number of messages in a batch of Replay; 0: three
}

func (f *follower) Topic() string { return "onboarding.ledger" }

func (f *follower) Partition(account string) int {
	hash := fnv.New32a()
	hash.Write([]byte(account))
	return int(hash.Sum32() % uint32(len(f.partitions)))
}

func (f *follower) Epoch(partition int) int64 {
	if !f.held[partition] {
		return 0
	}
	return f.epoch
}

var errLost = errors.New("the answer was lost")

func (f *follower) Append(_ context.Context, messages []pipeline.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range messages {
		m := &messages[i]
		if !f.held[m.Partition] {
			return pipeline.ErrFenced
		}
		m.Offset = f.ends[m.Partition]
		f.ends[m.Partition]++
		f.partitions[m.Partition] = append(f.partitions[m.Partition], *m)
	}
	if f.lose {
		f.lose = false
		return errLost
	}
	return nil
}

func (f *follower) Replay(
	_ context.Context, partition int, from int64, yield func([]pipeline.Message, int64) error,
) error {
	f.mu.Lock()
	messages, end := slices.Clone(f.partitions[partition]), f.ends[partition]
	f.mu.Unlock()
	if from > end {
		return pipeline.ErrChangelogRecreated
	}
	messages = slices.DeleteFunc(messages, func(m pipeline.Message) bool { return m.Offset < from })
	for batch := range slices.Chunk(messages, cmp.Or(f.batch, 3)) {
		if err := yield(batch, batch[len(batch)-1].Offset+1); err != nil {
			return err
		}
	}
	return yield(nil, end)
}

// openFollower opens a ledger that follows the topic and has no partition yet.
func openFollower(t testing.TB, path string, p *topic) (*Ledger, *follower) {
	t.Helper()
	o := testOptions(path)
	o.Changelog = "onboarding.ledger"
	o.Environment.APIPath = "/v1"
	l := reopen(t, o)
	f := &follower{topic: p, held: map[int]bool{}, epoch: 1}
	if err := l.Follow(f, nil); err != nil {
		t.Fatal(err)
	}
	return l, f
}

// newFollower opens a new ledger that follows the topic, and restores its partition 0.
func newFollower(t testing.TB, p *topic) (*Ledger, *follower) {
	t.Helper()
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), p)
	restore(t, l, f, 0)
	return l, f
}

func restore(t testing.TB, l *Ledger, f *follower, partition int) Restored {
	t.Helper()
	f.held[partition] = true
	r, err := l.restoreOne(t.Context(), partition)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dump returns everything that a ledger has about the rows of a partition, except row ids.
func dump(t testing.TB, l *Ledger, f *follower, partition int) map[string]*snapshot {
	t.Helper()
	all := map[string]*snapshot{}
	err := l.writer.do(t.Context(), 1, func(tx *tx) error {
		rows, err := l.source.QueryContext(tx.ctx, `SELECT id FROM rows`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			s, err := tx.snapshot(id, testEnvironment)
			if err != nil {
				return err
			}
			if f.Partition(s.ChainID) == partition {
				all[s.ChainID+" "+s.ExternalID] = s
			}
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// difference describes the rows that differ between two dumps.
func difference(want, got map[string]*snapshot) string {
	var b strings.Builder
	for _, dumps := range [][2]map[string]*snapshot{{want, got}, {got, want}} {
		for row := range dumps[0] {
			if !reflect.DeepEqual(want[row], got[row]) {
				wantText, _ := json.Marshal(want[row]) // cannot fail for texts and numbers
				gotText, _ := json.Marshal(got[row])
				fmt.Fprintf(&b, "got  %s\nwant %s\n", gotText, wantText)
			}
		}
	}
	return b.String()
}

// restoreOne is Restore for one partition.
func (l *Ledger) restoreOne(ctx context.Context, partition int) (Restored, error) {
	all, err := l.Restore(ctx, []int{partition})
	return all[0], err
}
