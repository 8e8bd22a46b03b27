package broker

import "github.com/segmentio/kafka-go"

// balancers are the library's own, made to give out every partition that Run has counted. The leader of the group asks
// the coordinator which partitions there are, and one that has not heard of a new topic yet answers with none. The
// library takes that as it is: everybody would be assigned nothing, and a drain be done at once.
func balancers(topic string, partitions int) []kafka.GroupBalancer {
	return []kafka.GroupBalancer{
		whole{kafka.RangeGroupBalancer{}, topic, partitions},
		whole{kafka.RoundRobinGroupBalancer{}, topic, partitions},
	}
}

// whole deals out all partitions of a topic, also those that the broker left out.
type whole struct {
	kafka.GroupBalancer
	topic string
	count int // how many partitions the topic has at least
}

// AssignGroups implements kafka.GroupBalancer.
func (w whole) AssignGroups(
	members []kafka.GroupMember, partitions []kafka.Partition,
) kafka.GroupMemberAssignments {
	known := make(map[int]bool, w.count)
	for _, p := range partitions {
		if p.Topic == w.topic {
			known[p.ID] = true
		}
	}
	for id := range w.count {
		if !known[id] {
			partitions = append(partitions, kafka.Partition{Topic: w.topic, ID: id})
		}
	}
	return w.GroupBalancer.AssignGroups(members, partitions)
}
