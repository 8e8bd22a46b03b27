package consumecmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" // also registers with the default mux, which is not served
	"sync"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/outfile"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/metrics"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// watch lets the metrics read the counts of the parts of the run.
func (r *run) watch() {
	r.metrics.Watch(metrics.Sources{
		Tally: r.dispatcher.Tally, Client: r.partner.client.Stats, Limiter: r.partner.limiter.State,
		Closed: r.partner.limiter.ClosedInAll, Positions: r.positions,
		Reachable: r.consumer.Reachable, Oldest: r.dispatcher.Oldest, Follows: !r.drain,
	})
}

func (r *run) positions() []metrics.Position {
	var all []metrics.Position
	for _, p := range r.consumer.Positions() {
		all = append(all, metrics.Position(p))
	}
	return all
}

// serveMetrics begins to serve --metrics-listen, if it is set, until the run is closed.
func (r *run) serveMetrics() error {
	if r.c.MetricsListen == "" {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(r.soft, "tcp", r.c.MetricsListen)
	if err != nil {
		return &config.Error{Setting: "--metrics-listen", Value: r.c.MetricsListen, Problem: err.Error()}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", r.metrics.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "alive\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := r.metrics.Ready(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	if r.c.MetricsPprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	server := &http.Server{
		Handler: mux, ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug), MaxHeaderBytes: 16 << 10,
		ReadTimeout: 10 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends with Close, and is not worth ending a run for
	}()
	r.opened("metrics", func() error {
		err := server.Close()
		<-served
		return err
	})
	r.log.Info("metrics are served", "address", listener.Addr().String())
	return nil
}

// textfileInterval is how often --metrics-textfile is written.
const textfileInterval = 15 * time.Second

// textfile is --metrics-textfile during the run.
type textfile struct {
	path    string
	metrics *metrics.Metrics
	log     *slog.Logger
	stop    context.CancelFunc
	done    sync.WaitGroup
	failed  bool // the latest write; only one goroutine writes at a time
}

// textfileReplaces returns a *config.Error if --metrics-textfile would replace anything but metrics of this program.
func (r *run) textfileReplaces() error {
	if r.c.MetricsTextfile == "" {
		return nil
	}
	return replaceable("--metrics-textfile", r.c.MetricsTextfile, fileKind{"a metrics file", metrics.IsText})
}

// beginTextfile writes the file for the first time, which must succeed, and keeps it up to date until endMetrics.
func (r *run) beginTextfile() error {
	list, err := r.ledger.Runs(r.soft, allRuns)
	if err != nil {
		return err
	}
	r.metrics.Settled(lastSuccess(list, r.drain))
	if r.c.MetricsTextfile == "" {
		return nil
	}
	f := &textfile{path: r.c.MetricsTextfile, metrics: r.metrics, log: r.log}
	if err := f.write(); err != nil {
		return console.Unusable(fmt.Errorf("--metrics-textfile: %w", err))
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(r.hard))
	f.stop = stop
	f.done.Go(func() { f.keep(ctx) })
	r.textfile = f
	return nil
}

// lastSuccess says, by the ledger's runs, when all rows of the queue were last settled (metrics.Metrics.Settled). Runs
// that follow the queue do not tell it by their end: they begin to count when they begin.
func lastSuccess(list []ledger.Run, drain bool) (at time.Time) {
	for i, r := range list { // the latest first, this one included
		if drain && r.Drain && r.Ended() && settledAll(r.Exit) {
			return r.EndedAt
		}
		if i == 0 || drain {
			at = r.StartedAt
		}
	}
	return at
}

// settledAll reports whether a drain with this exit code has settled all rows.
func settledAll(exit int) bool { return exit == console.ExitWell || exit == console.ExitRowsBad }

func (f *textfile) keep(ctx context.Context) {
	tick := time.NewTicker(textfileInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.update()
		case <-ctx.Done():
			return
		}
	}
}

// update writes the file. A failure does not concern the run; the first of several is logged.
func (f *textfile) update() {
	err := f.write()
	if err != nil && !f.failed {
		f.log.Warn("cannot write the metrics", "setting", "--metrics-textfile", "error", err)
	}
	f.failed = err != nil
}

func (f *textfile) write() error {
	var text bytes.Buffer
	if err := f.metrics.WriteText(&text); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return outfile.WriteReadable(f.path, text.Bytes())
}

// endMetrics notes how the run has ended, and writes --metrics-textfile for the last time.
func (r *run) endMetrics(err, cause error) {
	exit := console.Code(err)
	r.metrics.End(exit, errors.As(cause, new(*onboard.HaltError)))
	if r.drain && settledAll(exit) {
		r.metrics.Settled(r.report.FinishedAt)
	}
	if f := r.textfile; f != nil {
		f.stop()
		f.done.Wait()
		f.update()
	}
}
