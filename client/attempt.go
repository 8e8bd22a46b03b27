package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/httpsig"
)

// errTimeout ends an attempt that took too long. It is not context.DeadlineExceeded, which would look like the end of
// the caller's context.
var errTimeout = errors.New("no complete response in time")

// call is a request; attempts are made from it.
type call struct {
	op     string // "GET /customers/{id}"
	name   Operation
	method string
	path   string // below the base URL
	key    uuid.UUID
	body   []byte
	token  bool // a request for a token: neither authorized nor signed
	stream bool // the body is read as it arrives, under ListTimeout

	sign RequestSigner // nil: Config.Sign
	once bool          // never sent a second time

	latency *time.Duration // set to the time from the last attempt to its answer; may be nil
	took    *time.Duration // grows by the time from each attempt to the end of its answer; may be nil
}

func (k call) ended(took time.Duration) {
	if k.took != nil {
		*k.took += took
	}
}

func (k call) check() error {
	switch {
	case k.key == uuid.Nil:
		return &Error{Op: k.op, Kind: Unsendable, Message: "no idempotency key"}
	case len(k.body) == 0:
		return &Error{Op: k.op, Kind: Unsendable, Message: "no body"}
	}
	return nil
}

// checkID returns an error unless id is a UUID and so may be part of a path.
func checkID(op, id string) error {
	if !isUUID(id) {
		return &Error{Op: op, Kind: Unsendable, Message: "the customer id is not a UUID"}
	}
	return nil
}

// isUUID accepts the 36-character form only.
func isUUID(s string) bool { return len(s) == 36 && uuid.Validate(s) == nil }

// answer is a response whose body was read, completely or up to a failure.
type answer struct {
	status int
	header http.Header
	body   []byte
	broken error // why the body is incomplete; nil: it is complete
	bodied bool  // the header announces a body, which net/http does not read from a 204
}

// reply is a response whose body is still to be read.
type reply struct {
	*http.Response
	sent     time.Time     // by the local clock
	took     time.Duration // from then until the header was received
	closings uint64        // of the rate limiter, when the attempt passed it
	abort    context.CancelCauseFunc
	finish   func() error // closes the response; the error says why this package ended the attempt early
}

// do sends the call and reads its 2xx answer completely; everything else is an error.
func (c *Client) do(ctx context.Context, k call) (answer, error) {
	r, err := c.open(ctx, k)
	if err != nil {
		return answer{}, err
	}
	a := c.read(r)
	if a.broken != nil {
		return answer{}, c.incomplete(ctx, k.op, a)
	}
	return a, nil
}

// incomplete returns the error of a 2xx answer whose body is not complete: ctx's, ErrStopped, or an *Error.
func (c *Client) incomplete(ctx context.Context, op string, a answer) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(a.broken, ErrStopped):
		return ErrStopped
	}
	return c.malformed(op, a, a.broken)
}

// open sends the call and returns its 2xx answer unread; everything else is an error, also a 206 (RFC 9110, section
// 15.3.7) unless the call streams: it answers a Range, which was not asked for.
//
// It is sent a second time, with a new token, after a 401 (the token may have expired early), and after an answer about
// the request's signature (the clock may have been wrong, and that answer corrects it).
func (c *Client) open(ctx context.Context, k call) (*reply, error) {
	var refused bearerToken
	for again := k.once; ; again = true {
		token, closings, err := c.waitForToken(ctx, k.name, refused)
		if err != nil {
			return nil, noToken(ctx, k.op, err)
		}
		if again && !k.once {
			c.resent.Add(1)
		}
		r, err := c.send(ctx, k, token, closings)
		switch {
		case err != nil:
			return nil, err
		case r.StatusCode == http.StatusPartialContent && !k.stream:
			return nil, c.malformed(k.op, c.read(r), errPart)
		case r.StatusCode >= 200 && r.StatusCode < 300:
			c.tokens.confirm(token)
			return r, nil
		}
		failure := c.failed(k, r)
		if failure.Kind != Unauthorized && failure.Kind != RequestSignature {
			return nil, failure
		}
		c.tokens.refuse(token) // also of the last attempt: it may be the second in a row
		if again {
			return nil, c.confirmed(ctx, k, failure)
		}
		refused = token
		if failure.Kind == RequestSignature {
			c.clock.restart(r.Header, r.sent, r.sent.Add(r.took))
			c.logger.WarnContext(ctx, "the partner did not accept the signature of a request; measured its clock "+
				"again and sending the request once more", "op", k.op, "answer", failure)
		}
	}
}

// confirmed checks a failure that seems to be about the signature of a request that changes something: it sends a GET
// with the same kind of signature. If that is accepted, the failure is about something else, and is what its status
// says. It is ErrStopped if a stop or recall has ended the GET: then nothing is known of the set-up, which must not
// halt the run.
func (c *Client) confirmed(ctx context.Context, k call, failure *Error) error {
	if failure.Kind == RequestSignature && k.key != uuid.Nil {
		switch err := c.probe(ctx, call{once: true}); {
		case err == nil:
			failure.Kind = kindOf(failure.Status, false)
		case errors.Is(err, ErrStopped):
			return ErrStopped
		}
	}
	return failure
}

// send makes one attempt. It does not wait for the rate limiter: the caller has.
func (c *Client) send(ctx context.Context, k call, token bearerToken, closings uint64) (*reply, error) {
	timeout := c.config.Timeout
	if k.stream {
		timeout = c.config.ListTimeout
	}
	begun := c.config.Now()
	timed, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	watched, stop := watch(timed)
	// end frees the attempt's context and returns why this package ended it before, or nil.
	end := func() error {
		cause := context.Cause(watched)
		stop(nil)
		cancel()
		switch {
		case errors.Is(cause, errTimeout):
			return fmt.Errorf("%w (%v)", errTimeout, c.config.Now().Sub(begun).Round(time.Millisecond))
		case errors.Is(cause, errNotResent), errors.Is(cause, errStuck), errors.Is(cause, ErrStopped):
			return cause
		}
		return nil
	}
	request, err := c.request(watched, k, token)
	if err != nil {
		_ = end()
		return nil, &Error{Op: k.op, Kind: Unsendable, Err: err}
	}
	if k.method == http.MethodGet || k.token {
		go func() {
			select {
			case <-c.config.RateLimiter.halted():
				stop(ErrStopped)
			case <-watched.Done():
			}
		}()
	}
	c.sent.Add(1)
	header := time.AfterFunc(c.config.Timeout, func() { stop(errTimeout) }) // for a list, too
	c.config.Observer.Began(k.name)
	sent := c.config.Now()
	response, err := c.around.RoundTrip(request) //nolint:bodyclose // reply.finish does
	took := c.config.Now().Sub(sent)
	header.Stop()
	if err != nil {
		k.ended(took)
		c.config.Observer.Ended(k.name, 0, took)
		if ended := end(); ended != nil {
			err = ended
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, ErrStopped):
			return nil, ErrStopped
		}
		c.logger.DebugContext(ctx, "no answer", "op", k.op, "took", took, "error", c.clean(err))
		return nil, c.unanswered(k.op, err)
	}
	c.answered.Store(true)
	if k.latency != nil {
		*k.latency = took
	}
	c.logger.DebugContext(ctx, "answer", "op", k.op, "status", response.StatusCode, "took", took)
	if skew, first := c.clock.see(response.Header, sent, sent.Add(took)); first {
		c.logger.WarnContext(ctx, "this machine's clock differs from the partner's", "ahead", skew)
	}
	return &reply{Response: response, sent: sent, took: took, closings: closings, abort: stop, finish: func() error {
		ended := end()
		response.Body.Close()
		took := c.config.Now().Sub(sent)
		k.ended(took)
		c.config.Observer.Ended(k.name, response.StatusCode, took)
		return ended
	}}, nil
}

// request builds and signs one attempt. All attempts of a call have the same body, digest and idempotency key, and each
// has a signature of its own.
func (c *Client) request(ctx context.Context, k call, token bearerToken) (*http.Request, error) {
	var body io.Reader
	if k.body != nil {
		// Wrapped, so that http.NewRequest sets no GetBody. In io.NopCloser, because net/http recognises it: it knows then
		// that the body is in memory and sends header and body in one write.
		body = io.NopCloser(bytes.NewReader(k.body))
	}
	r, err := http.NewRequestWithContext(ctx, k.method, c.base+k.path, body)
	if err != nil {
		return nil, errors.New("the URL cannot be used")
	}
	r.ContentLength = int64(len(k.body))
	r.Header.Set("Accept", "application/json, application/problem+json")
	r.Header.Set("User-Agent", c.config.UserAgent)
	if k.key != uuid.Nil {
		r.Header.Set("Idempotency-Key", k.key.String())
	}
	if k.body != nil {
		digest, err := httpsig.ContentDigest(c.config.Digest, k.body)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Content-Digest", digest)
	}
	if k.token {
		return r, nil
	}
	r.Header.Set("Authorization", "Bearer "+token.reveal())
	sign := c.config.Sign
	if k.sign != nil {
		sign = k.sign
	}
	if err := sign.Sign(r); err != nil {
		return nil, fmt.Errorf("sign the request: %w", err)
	}
	return r, nil
}

// read reads the body up to MaxBody and closes it. A connection can be used again only after a body was read to its
// end.
func (c *Client) read(r *reply) answer {
	a := answer{status: r.StatusCode, header: r.Header}
	length := r.Header.Get("Content-Length")
	a.bodied = length != "" && length != "0" || len(r.TransferEncoding) > 0
	a.body, a.broken = io.ReadAll(io.LimitReader(r.Body, c.config.MaxBody+1))
	if ended := r.finish(); ended != nil && a.broken != nil {
		a.broken = ended
	}
	if int64(len(a.body)) > c.config.MaxBody {
		a.body = a.body[:c.config.MaxBody]
		a.broken = fmt.Errorf("the response is larger than %d bytes", c.config.MaxBody)
	}
	return a
}
