package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/purser-onboard/purser/lockfile"
)

// DefaultPartitions is the number of partitions of a topic in EmbeddedOptions.Topics that names none.
const DefaultPartitions = 4

// EmbeddedOptions configures an embedded broker.
type EmbeddedOptions struct {
	// Dir is the broker's directory; required. It is created if it does not exist, and gets mode 0700.
	Dir string
	// Topics must exist when OpenEmbedded returns: name to number of partitions, 0 for DefaultPartitions. An existing
	// topic keeps the partitions it has.
	Topics map[string]int
	// Discard names topics whose messages may be removed once every group that has committed offsets there has read them.
	// The process that runs the broker removes them every minute and at Close, from partitions of more than 8 MiB.
	Discard []string
	// Serve lets other processes of this user that Join use the broker while it is open: it listens on a Unix socket in
	// Dir. If that is not possible, a warning is logged and the broker serves this process only.
	Serve bool
	// Join connects to the process that has locked Dir, if it serves. The broker then ends with that process.
	Join   bool
	Wait   time.Duration // how long Join retries while that process accepts connections and does not answer
	Logger *slog.Logger  // nil: silent
}

// Embedded is a Kafka broker inside this process, or with EmbeddedOptions.Join in another process. It listens on no
// port. It is reached through its Cluster, and with EmbeddedOptions.Serve through a socket in its directory.
type Embedded struct {
	*Cluster
	broker *kfake.Cluster // nil: it is in another process
	socket *socket        // nil: it serves this process only
	lock   *lockfile.Lock
	log    *embeddedLog
	dir    string
	tidy   func() // ends the discarding, and discards once more; nil: the broker is in another process
	once   sync.Once
	err    error
}

// OpenEmbedded locks the directory, starts the broker and creates missing topics. It returns a *LockedError if another
// process uses the directory (with EmbeddedOptions.Join: and accepts no connections), and a *DirError if this user
// cannot use it.
//
// All acknowledged messages and commits survive a kill of the process: each batch is written and synced before it is
// acknowledged. Messages are never deleted, except those that EmbeddedOptions.Discard allows. After an unclean stop the
// broker is opened, closed and opened again: a torn tail of its commit log would otherwise hide commits that are
// appended after it.
//
// The broker outlives ctx; the caller must Close it.
func OpenEmbedded(ctx context.Context, o EmbeddedOptions) (*Embedded, error) {
	if o.Dir == "" {
		return nil, errors.New("the embedded broker needs a directory")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir := o.Dir
	err := lockfile.MakeDir(dir)
	if err == nil {
		// A symbolic link may be changed during the run.
		o.Dir, err = filepath.EvalSymlinks(o.Dir)
	}
	if err == nil {
		err = os.Chmod(o.Dir, 0o700)
	}
	if err != nil {
		return nil, dirError(dir, err)
	}
	lock, err := lockDir(o.Dir)
	var locked *LockedError
	if o.Join && errors.As(err, &locked) {
		joined, e := join(ctx, o, locked)
		if !errors.As(e, new(*GoneError)) {
			return joined, e
		}
		lock, err = lockDir(o.Dir) // that process may just have ended
	}
	if err != nil {
		return nil, dirError(o.Dir, err)
	}
	e := &Embedded{dir: o.Dir, lock: lock, log: &embeddedLog{log: o.Logger}}
	removeSocket(o.Dir)
	if o.Serve { // before the start, which may take long: a process that joins meanwhile waits
		if e.socket, err = listenSocket(ctx, o.Dir, o.Logger); err != nil {
			o.Logger.Warn("no other process can use the embedded broker while this one runs: its socket cannot be opened",
				"dir", o.Dir, "error", err)
		}
	}
	listener, err := e.start(o.Topics)
	if err != nil {
		e.closeSocket()
		return nil, errors.Join(dirError(o.Dir, err), lock.Release())
	}
	if e.socket != nil {
		e.socket.forward(listener)
	}
	e.Cluster = newCluster(ctx, Options{Brokers: []string{embeddedAddr}, Logger: o.Logger}, listener.dial)
	e.Cluster.explain = e.explain
	e.tidy = e.startDiscarding(context.WithoutCancel(ctx), o.Discard)
	return e, nil
}

// join connects to the broker of the process that has the directory, and creates the topics that are missing there. A
// *GoneError says that it accepts no connections.
func join(ctx context.Context, o EmbeddedOptions, holder *LockedError) (*Embedded, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialSocket(ctx, o.Dir, holder.PID) }
	e := &Embedded{dir: o.Dir}
	e.Cluster = newCluster(ctx, Options{Brokers: []string{embeddedAddr}, Wait: o.Wait, Logger: o.Logger}, dial)
	e.Cluster.explain = func(err error) error {
		if isUnknown(err) {
			err = fmt.Errorf("the embedded broker in %s failed: see the log of process %d, which runs it: %w", o.Dir,
				holder.PID, err)
		}
		return err
	}
	topics := make([]Topic, 0, len(o.Topics))
	for name, partitions := range o.Topics {
		topics = append(topics, Topic{Name: name, Partitions: cmp.Or(partitions, DefaultPartitions)})
	}
	if _, err := e.CreateTopics(ctx, topics...); err != nil {
		e.disconnect()
		return nil, fmt.Errorf("embedded broker of process %d in %s: %w", holder.PID, o.Dir, err)
	}
	o.Logger.Info("using the embedded broker of a running process", "process", holder.PID, "dir", o.Dir)
	return e, nil
}

// dirError makes an error a *DirError if this user cannot use the directory.
func dirError(dir string, err error) error {
	if errors.As(err, new(*LockedError)) {
		return err
	}
	if errors.As(err, new(*lockfile.UnsafeError)) {
		return &DirError{Dir: dir, Err: err}
	}
	for _, cause := range []error{syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOTDIR} {
		if errors.Is(err, cause) {
			return &DirError{Dir: dir, Err: err}
		}
	}
	if strings.Contains(err.Error(), "is newer than supported") { // kfake's error has no type
		return &DirError{Dir: dir, Err: fmt.Errorf("a newer program wrote it (%w): use that program, or move the directory "+
			"away and import the exports again", err)}
	}
	return fmt.Errorf("embedded broker in %s: %w", dir, err)
}

func (e *Embedded) start(topics map[string]int) (*memoryListener, error) {
	if _, err := os.Stat(e.marker()); err == nil {
		e.log.log.Warn("the embedded broker was not closed properly last time; recovering", "dir", e.dir)
		again, _, err := e.open()
		if err != nil {
			return nil, err
		}
		e.log.failure() // recovery logs a torn file that it repairs: not a failure
		again.Close()
		if f := e.log.failure(); f != nil {
			return nil, &StorageError{Dir: e.dir, Detail: f.text, Cause: f.err}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := writeMarker(e.marker()); err != nil {
		return nil, err
	}
	broker, listener, err := e.open()
	if err != nil {
		return nil, err
	}
	for topic, partitions := range topics {
		err := broker.CreateTopic(topic, int32(cmp.Or(partitions, DefaultPartitions)), nil)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			broker.Close()
			return nil, fmt.Errorf("creating topic %q: %w", topic, err)
		}
	}
	e.broker = broker
	return listener, nil
}

func (e *Embedded) open() (*kfake.Cluster, *memoryListener, error) {
	data := filepath.Join(e.dir, "data")
	// A clean close saves the members of the groups. They were goroutines of a process that has ended, and the first
	// member to join would wait for their sessions to time out.
	if err := os.Remove(filepath.Join(data, "session_state.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	listener := newMemoryListener()
	broker, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ClusterID("purser"),
		kfake.DataDir(data),
		kfake.SyncWrites(),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return listener, nil }),
		kfake.WithLogger(e.log),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.ms":          "-1",
			"log.retention.bytes":       "-1",
			"offsets.retention.minutes": strconv.Itoa(365 * 24 * 60),
			"log.segment.bytes":         strconv.Itoa(segmentSize),
			// All members are in this process, so short sessions do no harm.
			"group.min.session.timeout.ms": "1000",
		}),
	)
	if err != nil {
		return nil, nil, err
	}
	return broker, listener, nil
}

// closeSocket closes and removes the socket, if there is one.
func (e *Embedded) closeSocket() {
	if e.socket == nil {
		return
	}
	e.socket.close()
	if e.lock.Check() == nil { // otherwise another directory may be at the path
		removeSocket(e.dir)
	}
}

// Close stops the broker. Producers and consumers of this process must have ended; those of other processes get a
// *GoneError. It removes the socket, closes the client's connections, has the broker write its snapshots, removes the
// marker of an unclean stop, and releases the lock, in this order. If the broker was joined, Close only disconnects. It
// may be called more than once.
func (e *Embedded) Close() error {
	e.once.Do(func() {
		if e.broker == nil {
			e.disconnect()
			return
		}
		e.closeSocket()
		e.tidy()
		e.disconnect()
		e.err = errors.Join(e.stop(), e.lock.Release())
	})
	return e.err
}

// stop has the broker write its snapshots, and removes the marker.
func (e *Embedded) stop() error {
	if err := e.lock.Check(); err != nil {
		// The broker runs until the process ends: it cannot stop without writing its snapshots, and with them the committed
		// offsets, to a path where another directory may be. The marker is in our directory still: its next start recovers.
		return fmt.Errorf("the embedded broker's directory %s was replaced during the run: %w: rows that were queued since "+
			"are lost; import the export again", e.dir, err)
	}
	e.log.failure() // earlier failures have been returned by the requests that failed
	e.broker.Close()
	if f := e.log.failure(); f != nil {
		return &StorageError{Dir: e.dir, Detail: f.text, Cause: f.err} // the marker stays: the next start recovers
	}
	if err := os.Remove(e.marker()); err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	return nil
}

// explain returns the disk failure, or the lack of file descriptors, where the client got only "unknown server error".
func (e *Embedded) explain(err error) error {
	if !isUnknown(err) {
		return err
	}
	if f := e.log.failed.Load(); f != nil {
		return &StorageError{Dir: e.dir, Detail: f.text, Cause: f.err, Err: err}
	}
	if cause := tryOpen(e.dir); outOfFiles(cause) { // the broker does not log that it cannot open a segment for reading
		return &StorageError{Dir: e.dir, Detail: cause.Error(), Cause: cause, Err: err}
	}
	return err
}

// tryOpen opens as many files as reading a segment needs, and returns the error if that fails.
func tryOpen(dir string) error {
	for range 4 {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer f.Close()
	}
	return nil
}

func (e *Embedded) marker() string { return filepath.Join(e.dir, "running") }

func lockDir(dir string) (*lockfile.Lock, error) {
	lock, pid, err := lockfile.Acquire(filepath.Join(dir, "lock"))
	if errors.Is(err, lockfile.ErrHeld) {
		return nil, &LockedError{Dir: dir, PID: pid}
	}
	return lock, err
}

func writeMarker(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("The embedded broker is running, or was not closed properly; it recovers when it is opened.\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// embeddedLog writes the broker's warnings to slog and keeps the latest failure: its cause is not part of the Kafka
// protocol.
type embeddedLog struct {
	log    *slog.Logger
	failed atomic.Pointer[brokerFailure]
}

type brokerFailure struct {
	text string
	err  error
}

// Logf implements kfake.Logger.
func (l *embeddedLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError, kfake.LogLevelWarn:
		text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
		for _, arg := range args {
			if err, ok := arg.(error); ok {
				l.failed.Store(&brokerFailure{text, err})
			}
		}
		l.log.Warn("embedded broker", "detail", text)
	}
}

// failure returns and clears the latest failure; nil: there was none.
func (l *embeddedLog) failure() *brokerFailure { return l.failed.Swap(nil) }
