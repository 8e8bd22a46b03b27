package broker_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/broker"
)

// serve opens the embedded broker in dir so that others can join it.
func serve(t testing.TB, dir string) *broker.Embedded {
	t.Helper()
	return openWith(t, broker.EmbeddedOptions{Dir: dir, Serve: true})
}

// joins opens the broker in dir, in whichever process it is.
func joins(t testing.TB, dir string) *broker.Embedded {
	t.Helper()
	return openWith(t, broker.EmbeddedOptions{Dir: dir, Join: true})
}

// Rows that other processes publish through the socket reach the consumer of the process that has the broker. All that
// was acknowledged is there after the broker was closed.
func TestSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "broker")
	e := serve(t, dir)
	path := filepath.Join(dir, "broker.sock")
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("got %v, %v; want a socket with mode 0600", info, err)
	}
	first, second := joins(t, dir), joins(t, dir)
	publish(t, first.Cluster, rows(0, 100))
	publish(t, second.Cluster, rows(100, 100))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	publish(t, second.Cluster, rows(200, 100))
	if got := counts(drained(t, e.Cluster)); len(got) != 300 || got[0] != 1 || got[299] != 1 {
		t.Fatalf("got %d rows, want 300 rows once", len(got))
	}
	publish(t, second.Cluster, rows(300, 100))
	if lags, err := second.Lag(within(t), topic, group); err != nil || len(lags) != broker.DefaultPartitions {
		t.Errorf("Lag: got %v, %v; want %d partitions", lags, err, broker.DefaultPartitions)
	}
	if peeked, err := second.Peek(within(t), topic, group, 200); err != nil || len(peeked) != 100 {
		t.Errorf("Peek: got %d messages, %v; want 100", len(peeked), err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: got %v, want no socket", err)
	}
	gone(t, second, os.Getpid())
	if got := counts(drained(t, serve(t, dir).Cluster)); len(got) != 100 || got[300] != 1 {
		t.Errorf("got %d rows, want the 100 last rows", len(got))
	}
}

// gone fails the test unless publishing fails because the process that had the broker has ended.
func gone(t *testing.T, e *broker.Embedded, pid int) {
	t.Helper()
	err := broker.NewProducer(e.Cluster, broker.ProducerOptions{}).Publish(within(t), topic, rows(0, 1))
	var g *broker.GoneError
	if !errors.As(err, &g) || g.PID != pid || broker.SetUp(err) || errors.Is(err, broker.ErrBrokerLost) {
		t.Errorf("Publish: got %v, want a GoneError of process %d", err, pid)
	}
}

// A topic that the process with the broker does not use is created for the process that joins.
func TestSocketCreatesTopics(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir)
	e := openWith(t, broker.EmbeddedOptions{Dir: dir, Join: true, Topics: map[string]int{"another": 3, topic: 9}})
	topics, err := e.Check(within(t), topic, "another")
	if err != nil || topics["another"] != 3 || topics[topic] != broker.DefaultPartitions {
		t.Errorf("got topics %v, %v; want another with 3 partitions, %s with %d", topics, err, topic, broker.DefaultPartitions)
	}
}

// kill -9 of the process with the broker: no acknowledged message of another process is lost, the other process is told,
// and the socket that was left is no obstacle.
func TestSocketSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	other, lines := spawn(t, "serve", dir)
	expectLine(t, lines, "serving")
	e := joins(t, dir)
	for i := range 10 {
		publish(t, e.Cluster, rows(100*i, 100))
	}
	other.Process.Kill()
	other.Wait()
	if _, err := os.Lstat(filepath.Join(dir, "broker.sock")); err != nil {
		t.Errorf("after the kill: got %v, want the socket left", err)
	}
	gone(t, e, other.Process.Pid)
	again := joins(t, dir) // which serves no others
	if _, err := os.Lstat(filepath.Join(dir, "broker.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the next start: got %v, want no socket", err)
	}
	if got := counts(drained(t, again.Cluster)); len(got) != 1000 || got[999] != 1 {
		t.Errorf("got %d rows, want 1000 rows once", len(got))
	}
	var locked *broker.LockedError
	_, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir, Join: true})
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("join a broker that serves no others: got %v, want a LockedError", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	publish(t, joins(t, dir).Cluster, rows(0, 1))
}

// A path that is too long for a socket's address.
func TestSocketLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 200), "broker")
	e := serve(t, dir)
	publish(t, joins(t, dir).Cluster, rows(0, 10))
	if got := drained(t, e.Cluster); len(got) != 10 {
		t.Errorf("got %d rows, want 10", len(got))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "broker.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: got %v, want no socket", err)
	}
}

// Where there can be no socket, the broker works for its own process, with a warning.
func TestSocketImpossible(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "broker.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	e := openWith(t, broker.EmbeddedOptions{Dir: dir, Serve: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if n := strings.Count(log.String(), "no other process can use the embedded broker"); n != 1 {
		t.Errorf("got %d warnings, want 1:\n%s", n, log.String())
	}
	publish(t, e.Cluster, rows(0, 1))
	_, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir, Join: true})
	if !errors.As(err, new(*broker.LockedError)) {
		t.Errorf("join: got %v, want a LockedError", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file in the socket's place: got %q, %v; want it unchanged", text, err)
	}
}

// What is not a request of Purser ends its connection, and not the broker.
func TestSocketJunk(t *testing.T) {
	dir := t.TempDir()
	e := serve(t, dir)
	request := func(size uint32, key, version uint16, body ...byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, size)
		b = binary.BigEndian.AppendUint16(b, key)
		return append(binary.BigEndian.AppendUint16(b, version), body...)
	}
	junk := map[string][]byte{
		"HTTP":            []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"TLS":             {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"huge":            request(1<<31, 3, 0),
		"all bits":        bytes.Repeat([]byte{0xff}, 100),
		"empty":           make([]byte, 100),
		"unknown key":     request(10, 9999, 0, make([]byte, 6)...),
		"negative key":    request(10, 0xffff, 0, make([]byte, 6)...),
		"topics deleted":  request(10, 20, 1, make([]byte, 6)...),
		"version":         request(10, 3, 0x7fff, make([]byte, 6)...),
		"short":           request(10, 0, 9, make([]byte, 6)...),
		"a truncated one": request(1000, 3, 9, 0, 0),
	}
	for name, bytes := range junk {
		c, err := net.Dial("unix", filepath.Join(dir, "broker.sock"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Write(bytes); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == "version" || name == "a truncated one" { // the broker answers, or waits for the rest
			_ = c.Close()
			continue
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: got %d bytes, %v; want the connection closed", name, n, err)
		}
		_ = c.Close()
	}
	// Requests with a random content.
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		body := make([]byte, 6+random.IntN(100))
		for i := range body {
			body[i] = byte(random.IntN(4))
		}
		keys := []uint16{0, 1, 2, 3, 8, 9, 10, 18, 19, 32}
		c, err := net.Dial("unix", filepath.Join(dir, "broker.sock"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(request(uint32(4+len(body)), keys[random.IntN(len(keys))], uint16(random.IntN(12)), body...))
		_ = c.Close()
	}
	publish(t, joins(t, dir).Cluster, rows(0, 10))
	if got := drained(t, e.Cluster); len(got) != 10 {
		t.Errorf("got %d rows, want 10", len(got))
	}
}
