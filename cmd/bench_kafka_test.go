//go:build kafka

package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/internal/kafkatest"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/csvimport"
)

const benchPartitions = 4

// dump is a Publisher that writes the messages for `kcat -P -K '\t'`: the very bytes that the importer publishes.
type dump struct{ w *bufio.Writer }

func (d dump) Publish(_ context.Context, _ string, messages []pipeline.Message) error {
	for _, m := range messages {
		if _, err := fmt.Fprintf(d.w, "%s\t%s\n", m.Key, m.Value); err != nil {
			return err
		}
	}
	return nil
}

func dumpMessages(b *testing.B, export string) (path string) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "messages")
	out, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	in, err := os.Open(export)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	rows, err := csvimport.NewReader(csvimport.Input{Reader: in},
		csvimport.Options{Name: "export.csv", Chain: 300, ImportID: "019f0000-0000-7000-8000-000000000000"})
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriterSize(out, 1<<20)
	im := csvimport.Importer{Publisher: dump{w}, Rejects: csvimport.NewRejectsWriter(io.Discard)}
	if err := errors.Join(im.Import(b.Context(), rows), w.Flush(), out.Close()); err != nil {
		b.Fatal(err)
	}
	return path
}

// kcat sends the dumped messages, with the acknowledgements and the partitioner that the importer uses.
func (p programs) kcat(b *testing.B, brokers []string, topic, messages string) usage {
	b.Helper()
	return p.run(b, os.Environ(), "kcat", "-P", "-b", strings.Join(brokers, ","), "-t", topic, "-K", "\t", "-l",
		"-X", "acks=all", "-X", "partitioner=murmur2_random", messages)
}

// holds fails the benchmark unless the topic holds want messages.
func holds(b *testing.B, brokers []string, topic string, want int) {
	b.Helper()
	c, err := broker.Connect(b.Context(), broker.Options{Brokers: brokers})
	if err != nil {
		b.Fatal(err)
	}
	lags, err := c.Lag(b.Context(), topic, "test")
	if err := errors.Join(err, c.Close()); err != nil {
		b.Fatal(err)
	}
	n := 0
	for _, l := range lags {
		n += int(l.End - l.First)
	}
	if n != want {
		b.Fatalf("topic %q: got %d messages, want %d", topic, n, want)
	}
}

// BenchmarkImportBesideKcat imports mixed-case addresses, and compares that with kcat, which sends the same keys and
// values and checks nothing. They take turns, so that other load of the machine affects both.
func BenchmarkImportBesideKcat(b *testing.B) {
	p := buildPrograms(b)
	export := writeExport(b, manyRows, scattered)
	messages := dumpMessages(b, export)
	b.Run("apache", func(b *testing.B) {
		k := kafkatest.Start(b, kafkatest.V4, 1)
		send := func(b *testing.B, export string, rows int) usage {
			topic := newTopic(b, k.Admin(b))
			defer holds(b, k.Addrs(), topic, rows)
			return p.run(b, onKafka(embeddedEnv(b), k.Addrs(), topic), p.importer, export)
		}
		b.Run(fmt.Sprintf("rows=%d", manyRows), func(b *testing.B) {
			besideKcat(b, func() (ours, theirs usage) {
				topic := newTopic(b, k.Admin(b))
				theirs = p.kcat(b, k.Addrs(), topic, messages)
				holds(b, k.Addrs(), topic, manyRows)
				return send(b, export, manyRows), theirs
			})
		})
		if slices.Contains(importSizes(), bigRows) {
			b.Run(fmt.Sprintf("rows=%d", bigRows), func(b *testing.B) {
				reportImport(b, bigRows, []usage{send(b, writeExport(b, bigRows, scattered), bigRows)})
			})
		}
	})
	b.Run(fmt.Sprintf("embedded/rows=%d", manyRows), func(b *testing.B) {
		besideKcat(b, func() (ours, theirs usage) {
			addrs, stop := openPort(b)
			defer stop()
			theirs = p.kcat(b, addrs, "rows", messages)
			holds(b, addrs, "rows", manyRows)
			return p.run(b, embeddedEnv(b), p.importer, export), theirs
		})
	})
}

// openPort is a broker of the embedded kind, as durable, that kcat can reach: the embedded one itself has no port. It
// runs in this process, so kcat's processor time is without the broker's and the importer's with it.
func openPort(b *testing.B) (addrs []string, stop func()) {
	b.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(b.TempDir()), kfake.SyncWrites(),
		kfake.SeedTopics(benchPartitions, "rows"),
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1", "log.segment.bytes": fmt.Sprint(8 << 20)}))
	if err != nil {
		b.Fatal(err)
	}
	return fake.ListenAddrs(), fake.Close
}

// besideKcat runs rounds of both, the first uncounted: a JVM begins slowly. x-kcat is how many times as fast as kcat
// the importer is.
func besideKcat(b *testing.B, round func() (ours, theirs usage)) {
	b.Helper()
	round()
	var ours []usage
	var us, them, theirCPU time.Duration
	for b.Loop() {
		for range 3 {
			o, t := round()
			ours, us, them, theirCPU = append(ours, o), us+o.took, them+t.took, theirCPU+t.cpu
		}
	}
	reportImport(b, manyRows, ours)
	b.ReportMetric(them.Seconds()/float64(len(ours)), "s-kcat")
	b.ReportMetric(them.Seconds()/us.Seconds(), "x-kcat")
	b.ReportMetric(float64(theirCPU.Microseconds())/float64(manyRows*len(ours)), "cpu-µs/row-kcat")
}

// topics counts those that newTopic has created: with -count a benchmark runs several times on one broker.
var topics int

// newTopic creates a topic and returns its name.
func newTopic(b *testing.B, client *kafka.Client) (name string) {
	b.Helper()
	topics++
	name = fmt.Sprintf("rows-%d", topics)
	res, err := client.CreateTopics(b.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: name, NumPartitions: benchPartitions, ReplicationFactor: 1,
	}}})
	if err == nil {
		err = res.Errors[name]
	}
	if err != nil {
		b.Fatal(err)
	}
	return name
}
