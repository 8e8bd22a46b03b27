package broker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	// segmentSize is the size of the files in which an embedded broker keeps messages, in bytes. Opening reads a whole
	// file of every partition at once: small files bound the memory.
	segmentSize = 8 << 20
	// discardEvery is how often an embedded broker removes messages that were read. It also does when it is closed.
	discardEvery = time.Minute
)

// startDiscarding starts removing the messages of the topics that were read. The returned function ends that and
// removes once more.
func (e *Embedded) startDiscarding(ctx context.Context, topics []string) (end func()) {
	if len(topics) == 0 {
		return func() {}
	}
	discard := func() {
		for _, topic := range topics {
			if err := e.discardRead(ctx, topic); err != nil {
				e.log.log.Warn("cannot remove read messages from the embedded broker; retrying in a minute or in the "+
					"next run", "topic", topic, "dir", e.dir, "error", err)
			}
		}
	}
	ended := make(chan struct{})
	var loop sync.WaitGroup
	loop.Go(func() {
		ticker := time.NewTicker(discardEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				discard()
			case <-ended:
				return
			}
		}
	})
	return func() {
		close(ended)
		loop.Wait()
		discard()
	}
}

// readers are the groups whose consumers of this process read a topic: from before they look for the topic's beginning,
// when their group may have neither members nor offsets yet, until they end.
type readers struct {
	mu     sync.Mutex // held while messages are removed
	groups map[topicGroup]int
}

type topicGroup struct{ topic, group string }

// add adds a consumer until the returned function is called. It waits while messages are removed.
func (r *readers) add(topic, group string) (end func()) {
	change := func(by int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.groups == nil {
			r.groups = map[topicGroup]int{}
		}
		r.groups[topicGroup{topic, group}] += by
	}
	change(1)
	return func() { change(-1) }
}

// discardRead removes the messages of a topic that every group has read which has committed an offset there, has
// members, or is about to read in this process, from partitions that are larger than a segment: the broker deletes
// whole segments only. The last message that was read always stays: a partition without a segment would begin at offset
// 0 again after a kill, below the committed offsets.
func (e *Embedded) discardRead(ctx context.Context, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := e.lock.Check(); err != nil { // the files at the broker's paths may be another directory's
		return err
	}
	e.readers.mu.Lock() // no group of this process begins to read between the list and the removal
	defer e.readers.mu.Unlock()
	groups, err := e.client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	if err == nil {
		err = groups.Error
	}
	if err != nil {
		return fmt.Errorf("list the groups: %w", err)
	}
	reading := map[string]bool{} // the groups to look at, and whether a consumer of this process is in it
	for _, g := range groups.Groups {
		reading[g.GroupID] = false
	}
	for at, n := range e.readers.groups {
		if at.topic == topic && n > 0 {
			reading[at.group] = true
		}
	}
	for _, p := range e.broker.PartitionInfos(topic) {
		if p.NumBytes <= segmentSize {
			continue
		}
		read := int64(-1) // below it, every group has read all
		for group, here := range reading {
			info := e.broker.GroupInfo(group)
			if !here && (info == nil || len(info.Commits[topic]) == 0 && len(info.Members) == 0) {
				continue
			}
			var commit int64 // 0 if it has committed in other partitions only, or not yet
			if info != nil {
				commit = info.Commits[topic][p.Partition].Offset
			}
			if read < 0 || commit < read {
				read = commit
			}
		}
		to := min(read, p.HighWatermark) - 1
		if to <= p.LogStartOffset {
			continue
		}
		if err := e.broker.DeleteRecords(topic, p.Partition, to); err != nil {
			return fmt.Errorf("partition %d: %w", p.Partition, err)
		}
	}
	return nil
}
