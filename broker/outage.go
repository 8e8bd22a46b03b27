package broker

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

// outageLog counts the failures of operations that are retried. However many operations fail and however long, the log
// gets one warning when an outage begins and one when it is over. It is safe for concurrent use.
type outageLog struct {
	log  *slog.Logger
	wait time.Duration // how long operations are retried, for the log; 0: not logged

	mu      sync.Mutex
	failing map[string]int // failures in a row, by operation
	warned  bool
	began   time.Time // when the first of the operations in failing failed; zero: none fails
}

// failed counts a failure of an operation that is about to be retried. A single dropped connection and a leader that
// has just moved are ordinary: they are logged only when they last.
func (o *outageLog) failed(operation string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failing == nil {
		o.failing = make(map[string]int)
	}
	o.failing[operation]++
	if o.began.IsZero() {
		o.began = time.Now() //nolint:forbidigo // only its monotonic reading is used
	}
	n, threshold := o.failing[operation], 2
	switch {
	case errors.As(err, new(*DialError)), errors.As(err, new(*UnreachableError)):
		threshold = 1
	case answered(err):
		threshold = 4
	}
	if o.warned || n < threshold {
		o.log.Debug("a request to Kafka failed; retrying", "operation", operation, "tries", n, "error", err)
		return
	}
	o.warned = true
	attrs := []any{"operation", operation, "error", err}
	if o.wait > 0 {
		attrs = append(attrs, "gives_up_after", o.wait)
	}
	o.log.Warn("Kafka cannot be reached or does not answer; retrying", attrs...)
}

// succeeded ends the failures of an operation.
func (o *outageLog) succeeded(operation string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.failing, operation)
	if len(o.failing) > 0 {
		return
	}
	o.began = time.Time{}
	if o.warned {
		o.warned = false
		o.log.Warn("Kafka answers again; the run continues")
	}
}

// duration returns how long any operation has been failing; 0: none fails.
func (o *outageLog) duration() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.began.IsZero() {
		return 0
	}
	return time.Since(o.began) //nolint:forbidigo // only the monotonic reading is used
}

// forget drops an operation that is not retried any more. That does not end the outage.
func (o *outageLog) forget(operation string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.failing, operation)
}
