package broker

import (
	"testing"

	"github.com/segmentio/kafka-go"
	"pgregory.net/rapid"

	"github.com/purser-onboard/purser/pipeline"
)

// The vectors are those of Apache Kafka's UtilsTest.testMurmur2.
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q): got %d, want %d", key, got, want)
		}
	}
}

func TestPartitionOfAgreesWithLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, "key")
		n := rapid.IntRange(1, 50).Draw(t, "partitions")
		want := kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: key}, partitionIDs(n)...)
		if got := partitionOf(key, n); got != want {
			t.Fatalf("partition of key %x among %d: got %d, want %d", key, n, got, want)
		}
	})
}

func TestPlanKeepsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewProducer(nil, ProducerOptions{})
		n := rapid.IntRange(1, 9).Draw(t, "partitions")
		keys := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 1, 3)).Draw(t, "keys")
		for range 2 { // the second time over used memory
			pl := p.plan(messagesOf(keys), n)
			seen := 0
			for partition := range n {
				last := int32(-1)
				for _, i := range pl.share(partition) {
					if i <= last || partitionOf(keys[i], n) != partition {
						t.Fatalf("partition %d: got message %d after %d, want ascending messages of that partition", partition, i, last)
					}
					last = i
					seen++
				}
			}
			if seen != len(keys) {
				t.Fatalf("got %d messages in the plan, want %d", seen, len(keys))
			}
		}
	})
}

func messagesOf(keys [][]byte) []pipeline.Message {
	all := make([]pipeline.Message, len(keys))
	for i, k := range keys {
		all[i].Key = k
	}
	return all
}
