// Package notify reports the start and the end of a run to a dead man's switch in the manner of healthchecks.io, and to
// a webhook. It never changes the result of the run, and delays its end by at most Patience. The URLs contain tokens;
// no error of this package shows them or a server's response.
package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sethvargo/go-retry"
)

// Bounds of a delivery.
const (
	// Patience is how long the end of a run waits for its deliveries, retries included.
	Patience = 15 * time.Second
	// attemptTimeout bounds one request.
	attemptTimeout = 5 * time.Second
	// startGrace is how long the delivery of the start is waited for when the run has ended.
	startGrace = 2 * time.Second
	// stoppedGrace is how long one last request may take after a hard stop.
	stoppedGrace = time.Second

	firstRetry, retries = 500 * time.Millisecond, 3
)

// Options configure a Notifier.
type Options struct {
	Ping      *url.URL // of the dead man's switch; nil: none
	Webhook   *url.URL // nil: none
	Run       string   // id of the run, a UUID
	UserAgent string
	Transport http.RoundTripper // nil: HTTP with the proxy of the environment
	// OnFailure is called with the flag of the URL when a delivery failed. It must not block.
	OnFailure func(setting string, err error)
}

// Notice is a notification: Text for people, and JSON for the webhook.
type Notice struct {
	Exit int // exit code of the run; of its start: not used
	Text string
	JSON []byte
}

// Notifier sends the pings and webhooks of one run. A nil Notifier sends none.
type Notifier struct {
	Options
	client  *http.Client
	targets []*target
}

// target is one receiver.
type target struct {
	setting     string
	contentType string
	begun       chan struct{} // closed when the delivery of the start has ended; nil: it was never begun
	cancelStart context.CancelFunc
	url         func(path string) string // of "start" or "end"
	body        func(Notice) []byte
}

// New returns a Notifier, or nil if there is no receiver.
func New(o Options) *Notifier {
	if o.Ping == nil && o.Webhook == nil {
		return nil
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		}
	}
	n := &Notifier{Options: o, client: &http.Client{Transport: o.Transport, CheckRedirect: sameHost}}
	if o.Ping != nil {
		n.targets = append(n.targets, &target{
			setting: "--ping-url", contentType: "text/plain; charset=utf-8", url: n.pingURL,
			body: func(m Notice) []byte { return []byte(m.Text) },
		})
	}
	if o.Webhook != nil {
		n.targets = append(n.targets, &target{
			setting: "--webhook-url", contentType: "application/json", url: func(string) string { return o.Webhook.String() },
			body: func(m Notice) []byte { return m.JSON },
		})
	}
	return n
}

// pingURL returns the URL for an event: path below the switch's own, and the run's id, by which the switch measures how
// long the run took.
func (n *Notifier) pingURL(path string) string {
	u := *n.Ping
	if path != "" {
		u = *u.JoinPath(path)
	}
	query := u.Query()
	query.Set("rid", n.Run)
	u.RawQuery = query.Encode()
	return u.String()
}

// Begin reports the start of the run, in the background, until ctx ends.
func (n *Notifier) Begin(ctx context.Context, m Notice) {
	if n == nil {
		return
	}
	for _, t := range n.targets {
		t.begun = make(chan struct{})
		var starting context.Context
		starting, t.cancelStart = context.WithCancel(ctx)
		go func() {
			defer close(t.begun)
			n.deliver(starting, t, "start", m)
		}()
	}
}

// End reports the end of the run, in the background, and returns a function that waits for the deliveries: at most
// Patience, and much less if ctx has ended or ends meanwhile. The start is delivered before the end, or not at all.
func (n *Notifier) End(ctx context.Context, m Notice) (wait func()) {
	if n == nil {
		return func() {}
	}
	patience := Patience
	if ctx.Err() != nil {
		ctx, patience = context.WithoutCancel(ctx), stoppedGrace
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	path := ""
	if m.Exit != 0 {
		path = strconv.Itoa(m.Exit)
	}
	done := make(chan struct{}, len(n.targets))
	for _, t := range n.targets {
		go func() {
			t.awaitStart(min(startGrace, patience/2))
			n.deliver(ctx, t, path, m)
			done <- struct{}{}
		}()
	}
	return func() {
		for range n.targets {
			<-done
		}
		cancel()
	}
}

// awaitStart waits for the delivery of the start, and ends it after the grace.
func (t *target) awaitStart(grace time.Duration) {
	if t.begun == nil {
		return
	}
	timer := time.AfterFunc(grace, t.cancelStart)
	<-t.begun
	timer.Stop()
	t.cancelStart()
}

// deliver sends a notice, and again when that failed in a way that may pass.
func (n *Notifier) deliver(ctx context.Context, t *target, path string, m Notice) {
	last := errors.New("the run was stopped")
	backoff := retry.WithMaxRetries(retries, retry.NewExponential(firstRetry))
	err := retry.Do(ctx, backoff, func(ctx context.Context) error {
		passing, err := n.send(ctx, t, path, m)
		if err == nil {
			return nil
		}
		last = err
		if passing {
			return retry.RetryableError(err)
		}
		return err
	})
	if err != nil {
		n.OnFailure(t.setting, last)
	}
}

var errRedirect = errors.New("the response is a redirect to another host or to GET, which is not followed")

// sameHost follows redirects of a POST to the same scheme and host only: the URL's token is not for others.
func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0]
	if r.URL.Scheme != first.URL.Scheme || r.URL.Host != first.URL.Host || r.Method != first.Method || len(via) > 3 {
		return errRedirect
	}
	return nil
}

// send makes one attempt, and says whether another may succeed where it fails.
func (n *Notifier) send(ctx context.Context, t *target, path string, m Notice) (passing bool, err error) {
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(attempt, http.MethodPost, t.url(path), bytes.NewReader(t.body(m)))
	if err != nil {
		return false, errors.New("the URL cannot be used")
	}
	r.Header.Set("Content-Type", t.contentType)
	r.Header.Set("User-Agent", n.UserAgent)
	answer, err := n.client.Do(r)
	switch {
	case errors.Is(err, errRedirect):
		return false, errRedirect
	case err != nil:
		return true, reason(attempt, err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // what it says is of no use
	answer.Body.Close()
	status := answer.StatusCode
	if status >= 200 && status < 300 {
		return false, nil
	}
	passing = status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
	return passing, fmt.Errorf("the response is %d %s", status, http.StatusText(status))
}

// reason says why there was no answer, in words that hold nothing of the URL's path and query, nor of what a server
// sent: net/http quotes both.
func reason(attempt context.Context, err error) error {
	var dial *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case attempt.Err() != nil:
		return errors.New("no response in time")
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &dial):
		return dial
	}
	return errors.New("the connection failed")
}
