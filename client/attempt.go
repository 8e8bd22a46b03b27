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

// errTimeout is the cause of an attempt's own end. It is not context.DeadlineExceeded, so that nobody takes it for the
// end of the caller's context.
var errTimeout = errors.New("no complete answer in time")

// call is one request as the caller means it; attempts are made from it.
type call struct {
	op     string // "GET /customers/{id}"
	method string
	path   string // below the base URL
	key    uuid.UUID
	body   []byte
	token  bool // this is the request for a token: neither authorized nor signed
	stream bool // the body is read as it comes, under ListTimeout

	sign RequestSigner // in place of Config.Sign; nil: that one
	once bool          // not to be sent a second time

	latency *time.Duration // is told how long the last attempt waited for its answer; may be nil
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

// checkID keeps anything that is not a UUID out of the path.
func checkID(op, id string) error {
	if !isUUID(id) {
		return &Error{Op: op, Kind: Unsendable, Message: "the customer id is not a UUID"}
	}
	return nil
}

// isUUID accepts the 36-character form only.
func isUUID(s string) bool { return len(s) == 36 && uuid.Validate(s) == nil }

// answer is a response whose body was read, as far as it went.
type answer struct {
	status int
	header http.Header
	body   []byte
	broken error // why the body is not whole; nil when it is
	bodied bool  // the header announces a body, which net/http does not read from a 204
}

// reply is a response whose body is still to be read.
type reply struct {
	*http.Response
	sent     time.Time     // by the local clock
	took     time.Duration // from then until the header was there
	closings uint64        // of the pace, when the attempt left
	abort    context.CancelCauseFunc
	finish   func() error // closes; says why the attempt was ended early, if this package did it
}

// do sends the call and reads its 2xx answer whole; everything else is an error.
func (c *Client) do(ctx context.Context, k call) (answer, error) {
	r, err := c.open(ctx, k)
	if err != nil {
		return answer{}, err
	}
	a := c.read(r)
	if a.broken != nil {
		if err := ctx.Err(); err != nil {
			return answer{}, err
		}
		return answer{}, c.malformed(k.op, a, a.broken)
	}
	return a, nil
}

// open sends the call and returns its 2xx answer unread; everything else is an error, also a 206 (RFC 9110, section
// 15.3.7) unless the call streams: it answers a Range, which was not asked for.
//
// It is sent a second time, with a new token, after a 401 (the token may have ended early), and when the partner
// refuses the request's signature (the clock may have been wrong, which that very answer corrects).
func (c *Client) open(ctx context.Context, k call) (*reply, error) {
	for again := k.once; ; again = true {
		token, closings, err := c.place(ctx)
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
		case r.StatusCode == http.StatusPartialContent && !k.stream: // RFC 9110 §15.3.7: to a Range, which was not asked for
			return nil, c.malformed(k.op, c.read(r), errPart)
		case r.StatusCode >= 200 && r.StatusCode < 300:
			return r, nil
		}
		failure := c.refusal(k, r)
		if again || failure.Kind != Unauthorized && failure.Kind != RequestSignature {
			return nil, c.confirmed(ctx, k, failure)
		}
		c.tokens.refuse(token)
		if failure.Kind == RequestSignature {
			c.clock.restart(r.Header, r.sent, r.sent.Add(r.took))
			c.logger.WarnContext(ctx, "the partner refused the signature of a request; measured its clock again and trying "+
				"once more", "op", k.op, "answer", failure)
		}
	}
}

// confirmed asks, when the signature of a request that changes something seems to be refused for good, whether a
// request signed alike is accepted. Then the words were about something else, and the failure is what its status says.
func (c *Client) confirmed(ctx context.Context, k call, failure *Error) *Error {
	if failure.Kind == RequestSignature && k.key != uuid.Nil && c.probe(ctx, call{once: true}) == nil {
		failure.Kind = kindOf(failure.Status, false)
	}
	return failure
}

// send makes one attempt. It does not wait for a place: that was taken before.
func (c *Client) send(ctx context.Context, k call, token Token, closings uint64) (*reply, error) {
	timeout := c.config.Timeout
	if k.stream {
		timeout = c.config.ListTimeout
	}
	begun := c.config.Now()
	timed, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	watched, stop := watch(timed)
	// end frees the attempt's context and says why it had ended before, if this package ended it.
	end := func() error {
		cause := context.Cause(watched)
		stop(nil)
		cancel()
		switch {
		case errors.Is(cause, errTimeout):
			return fmt.Errorf("%w (%v)", errTimeout, c.config.Now().Sub(begun).Round(time.Millisecond))
		case errors.Is(cause, errNotResent), errors.Is(cause, errStuck):
			return cause
		}
		return nil
	}
	request, err := c.request(watched, k, token)
	if err != nil {
		_ = end()
		return nil, &Error{Op: k.op, Kind: Unsendable, Err: err}
	}
	c.sent.Add(1)
	header := time.AfterFunc(c.config.Timeout, func() { stop(errTimeout) }) // which a list, too, has to keep
	sent := c.config.Now()
	response, err := c.transport.RoundTrip(request) //nolint:bodyclose // reply.finish does
	took := c.config.Now().Sub(sent)
	header.Stop()
	if err != nil {
		if ended := end(); ended != nil {
			err = ended
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
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
		return ended
	}}, nil
}

// request builds and signs one attempt: the same call gives the same body, digest and key, and a new signature.
func (c *Client) request(ctx context.Context, k call, token Token) (*http.Request, error) {
	var body io.Reader
	if k.body != nil {
		// Wrapped, so that http.NewRequest sets no GetBody; in io.NopCloser and nothing else, so that net/http still sees
		// that it is in memory, and header and body leave in one write.
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

// read takes in the body up to MaxBody and closes it. Reading to the end is what lets the connection be used again.
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
		a.broken = fmt.Errorf("the answer is larger than %d bytes", c.config.MaxBody)
	}
	return a
}
