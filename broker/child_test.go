package broker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// child is what the test binary does when a test started it as another process.
func child(role, dir string) error {
	ctx := context.Background()
	if role == "full" {
		// No file may grow beyond this, as on a full disk. The runtime ignores the signal, so writes fail.
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}); err != nil {
			return err
		}
	}
	if role == "files" {
		return fewFiles(ctx, dir)
	}
	e, err := broker.OpenEmbedded(ctx, broker.EmbeddedOptions{
		Dir: dir, Topics: map[string]int{topic: 0}, Serve: role == "serve",
	})
	if err != nil {
		return err
	}
	p := broker.NewProducer(e.Cluster, broker.ProducerOptions{})
	switch role {
	case "hold": // keeps the directory until it is killed
		fmt.Println("holding")
		select {}
	case "serve": // keeps the directory until it is killed, and lets others join
		fmt.Println("serving")
		select {}
	case "produce": // publishes until it is killed, and prints what is acknowledged
		for i := 0; ; i += 100 {
			if err := p.Publish(ctx, topic, rows(i, 100)); err != nil {
				return err
			}
			fmt.Println("acked", i+100)
		}
	case "consume": // acknowledges row after row until it is killed, and prints what is committed
		q, err := broker.NewConsumer(e.Cluster, broker.ConsumerOptions{
			Topic: topic, Group: group, CommitInterval: 5 * time.Millisecond, MaxBatch: 10,
		})
		if err != nil {
			return err
		}
		go func() {
			for {
				if lags, err := e.Lag(ctx, topic, group); err == nil {
					fmt.Println("committed", lags[0].Committed, lags[1].Committed, lags[2].Committed, lags[3].Committed)
				}
			}
		}()
		return q.Run(ctx, new(sink))
	case "full":
		for i := 0; ; i += 100 {
			if err := p.Publish(ctx, topic, rows(i, 100)); err != nil {
				fmt.Println("failed", err)
				return nil
			}
			fmt.Println("acked", i+100)
		}
	case "million": // the importer's load: 1M rows of 120 bytes
		n, _ := strconv.Atoi(os.Getenv("BROKER_TEST_ROWS"))
		begun := time.Now()
		if err := load(ctx, p, n); err != nil {
			return err
		}
		took := time.Since(begun)
		if err := e.Close(); err != nil {
			return err
		}
		rss, err := peakMemory()
		if err != nil {
			return err
		}
		fmt.Println("done", took.Milliseconds(), rss)
		return nil
	}
	return fmt.Errorf("unknown role %q", role)
}

// fewFiles drains the embedded broker repeatedly, each time with another limit of open files, and prints the results.
func fewFiles(ctx context.Context, dir string) error {
	drain := func() error {
		e, err := broker.OpenEmbedded(ctx, broker.EmbeddedOptions{Dir: dir, Topics: map[string]int{topic: 0}})
		if err != nil {
			return err
		}
		q, err := broker.NewConsumer(e.Cluster, broker.ConsumerOptions{
			Topic: topic, Group: group, Drain: true, LostAfter: time.Hour,
		})
		if err == nil {
			err = q.Run(ctx, new(sink))
		}
		return errors.Join(err, e.Close())
	}
	// The runtime's poller, which the first pipe starts, ends the process when it cannot open its files.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if err := errors.Join(r.Close(), w.Close()); err != nil {
		return err
	}
	for limit := uint64(8); limit <= 40; limit++ {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: 40}); err != nil {
			return err
		}
		fmt.Printf("limit %d: %q\n", limit, fmt.Sprint(drain()))
	}
	return nil
}

// load publishes n rows of 120 bytes in calls of 32,000, one call ahead of the other as the importer does it.
func load(ctx context.Context, p *broker.Producer, n int) error {
	const size = 32_000
	full, empty := make(chan []pipeline.Message, 1), make(chan []pipeline.Message, 2)
	for range 2 {
		empty <- make([]pipeline.Message, size)
	}
	failed := make(chan error, 1)
	go func() {
		var err error
		for batch := range full {
			if err == nil {
				err = p.Publish(ctx, topic, batch)
			}
			empty <- batch[:size]
		}
		failed <- err
	}()
	for i := 0; i < n; i += size {
		batch := <-empty
		batch = batch[:min(size, n-i)]
		for j := range batch {
			key := fmt.Appendf(batch[j].Key[:0], "eip155:300:0x%040x", i+j)
			value := fmt.Appendf(batch[j].Value[:0], "%067d", i+j)
			batch[j] = pipeline.Message{Key: key, Value: value}
		}
		full <- batch
	}
	close(full)
	return <-failed
}

// peakMemory is the greatest resident size of this process so far, in bytes.
func peakMemory() (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in /proc/self/status")
}
