package broker

import (
	"sync/atomic"

	"github.com/segmentio/kafka-go"
)

// topicLayout is what Run and the group's balancer know of the topic's partitions. A recreated topic may have more or
// fewer partitions than before.
type topicLayout struct {
	count    atomic.Int64 // partitions when Run last looked
	assigned atomic.Int64 // partitions that we, as the group's leader, assigned since outdated; 0: another member leads
}

// outdated reports whether we assigned fewer partitions than the topic has. It asks once for each generation.
func (l *topicLayout) outdated() bool {
	assigned := l.assigned.Swap(0)
	return assigned > 0 && assigned < l.count.Load()
}

// balancers returns the library's balancers, made to assign every partition that Run has counted. The group's leader
// asks the coordinator which partitions there are, and a coordinator that does not know a new topic yet returns none.
// The library would assign nothing to all members then, and a drain would end at once.
func balancers(topic string, known *topicLayout) []kafka.GroupBalancer {
	return []kafka.GroupBalancer{
		completeBalancer{kafka.RangeGroupBalancer{}, topic, known},
		completeBalancer{kafka.RoundRobinGroupBalancer{}, topic, known},
	}
}

// completeBalancer assigns all partitions of a topic, also those that the broker left out.
type completeBalancer struct {
	kafka.GroupBalancer
	topic string
	*topicLayout
}

// AssignGroups implements kafka.GroupBalancer.
func (b completeBalancer) AssignGroups(
	members []kafka.GroupMember, partitions []kafka.Partition,
) kafka.GroupMemberAssignments {
	count := int(b.count.Load())
	known := make(map[int]bool, count)
	for _, p := range partitions {
		if p.Topic == b.topic {
			known[p.ID] = true
		}
	}
	assigned := len(known)
	for id := range count {
		if !known[id] {
			assigned++
			partitions = append(partitions, kafka.Partition{Topic: b.topic, ID: id})
		}
	}
	b.assigned.Store(int64(assigned))
	return b.GroupBalancer.AssignGroups(members, partitions)
}
