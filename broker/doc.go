// Package broker is Purser's side of Kafka: it publishes messages, delivers the work topic by partition, and keeps a
// broker of its own for those who have none.
//
// A Cluster is the way to a broker. Connect gives one to any Apache Kafka 3.x or 4.x (or compatible); OpenEmbedded
// starts a broker inside the process, on disk, that listens on no port at all. What is built on a Cluster does not
// know the difference:
//
//   - Producer implements pipeline.Publisher: acks=all, partitions by murmur2 as Java clients choose them, order kept
//     within a partition, retried while that can help.
//   - Consumer implements pipeline.Queue: it joins the consumer group, delivers each partition in order, and commits
//     only the settled prefix of it, never further, never backwards.
//   - Check and Lag answer the questions of a preflight and of a status page.
//
// Delivery is at least once. A produce request that timed out may have been applied, and what was delivered but not
// settled is delivered again: the ledger finds repetitions.
//
// The client is segmentio/kafka-go, but neither its Reader nor its Writer: a Reader that lost a partition can move the
// group's offset backwards (its issue #1308) and delivers transaction markers as messages (#1332).
package broker
