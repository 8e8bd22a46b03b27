// Package broker is Purser's side of Kafka: it publishes messages, delivers the work topic by partition, and has an
// embedded broker for installations without Kafka.
//
// A Cluster is a client of the brokers. Connect returns a Cluster of any Apache Kafka 3.x or 4.x (or compatible);
// OpenEmbedded starts a broker inside the process, which stores its data on disk and listens on no port. Producers and
// consumers work the same with both:
//
//   - Producer implements pipeline.Publisher: acks=all, the partitions of Java clients (murmur2), order kept within
//     a partition, retries while they can help.
//   - Consumer implements pipeline.Queue: it joins the consumer group, delivers each partition in order, and commits
//     only the offset below which all messages are acknowledged. A committed offset never decreases.
//   - Check is a preflight check; Lag returns the position of a group.
//
// Delivery is at least once. A produce request that timed out may have been applied, and messages that were delivered
// but not acknowledged are delivered again: the ledger finds repetitions.
//
// The client is segmentio/kafka-go, but neither its Reader nor its Writer: a Reader that lost a partition can move the
// group's offset backwards (its issue #1308) and delivers transaction markers as messages (#1332).
package broker
