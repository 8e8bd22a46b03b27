package broker

import (
	"sync/atomic"

	"github.com/segmentio/kafka-go"
)

// layout is what Run and the group's balancer know of the topic's partitions. A topic that is made anew may have more
// of them than before, or fewer.
type layout struct {
	count atomic.Int64 // how many there were when we last looked
	dealt atomic.Int64 // how many we have dealt out since we were last asked; 0: somebody else leads the group
}

// outdated reports whether we have dealt out fewer partitions than there are; it asks once for each generation.
func (l *layout) outdated() bool {
	dealt := l.dealt.Swap(0)
	return dealt > 0 && dealt < l.count.Load()
}

// balancers are the library's own, made to give out every partition that Run has counted. The leader of the group asks
// the coordinator which partitions there are, and one that has not heard of a new topic yet answers with none. The
// library takes that as it is: everybody would be assigned nothing, and a drain be done at once.
func balancers(topic string, known *layout) []kafka.GroupBalancer {
	return []kafka.GroupBalancer{
		whole{kafka.RangeGroupBalancer{}, topic, known},
		whole{kafka.RoundRobinGroupBalancer{}, topic, known},
	}
}

// whole deals out all partitions of a topic, also those that the broker left out.
type whole struct {
	kafka.GroupBalancer
	topic string
	*layout
}

// AssignGroups implements kafka.GroupBalancer.
func (w whole) AssignGroups(
	members []kafka.GroupMember, partitions []kafka.Partition,
) kafka.GroupMemberAssignments {
	count := int(w.count.Load())
	known := make(map[int]bool, count)
	for _, p := range partitions {
		if p.Topic == w.topic {
			known[p.ID] = true
		}
	}
	dealt := len(known)
	for id := range count {
		if !known[id] {
			dealt++
			partitions = append(partitions, kafka.Partition{Topic: w.topic, ID: id})
		}
	}
	w.dealt.Store(int64(dealt))
	return w.GroupBalancer.AssignGroups(members, partitions)
}
