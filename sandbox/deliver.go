package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// errCut stops a body where a fault wants it to end.
var errCut = errors.New("cut")

// deliver sends the response, or the part that a fault leaves. The history is written first, so that a client that has
// the response finds it there. A response that could not be sent is then marked as incomplete.
func (x *exchange) deliver(r reply) {
	x.entry.Outcome = r.status
	var fault Fault
	if !r.cut && x.plan.table != nil {
		if fault = x.plan.useOne(x, dropAfter, truncated); fault == "" && r.status/100 == 2 {
			if fault = x.plan.useOne(x, malformed); fault == "" {
				fault = x.plan.useOne(x, x.reshaping(r)...)
			}
		}
		if fault == "" && (len(r.body) > 0 || r.list != nil) {
			fault = x.plan.useOne(x, trickle)
		}
	}
	if r.cut || fault == dropAfter {
		x.st.history.finish(x.record, x.entry, false)
		panic(http.ErrAbortHandler)
	}
	switch fault {
	case malformed:
		r = x.garbled(r)
	case truncated:
		if len(r.body) == 0 && r.list == nil { // there is nothing to truncate: announce a body
			r.body, r.contentType = []byte(`{"id":`), "application/json"
			if r.status == http.StatusNoContent {
				r.status = http.StatusOK
			}
		}
	case "", trickle:
	default:
		r = x.reshaped(r, fault)
	}
	x.entry.Status = r.status
	x.entry.InFlight = r.inFlight
	x.entry.Throttled = r.retryAfter != ""
	x.entry.Complete = !fault.unreadable() && x.r.Context().Err() == nil
	x.entry.Answered = x.st.history.events.Add(1)
	x.st.history.finish(x.record, x.entry, false)

	err := x.send(r, fault)
	if err != nil && x.entry.Complete {
		x.entry.Complete = false
		x.st.history.finish(x.record, x.entry, true)
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (x *exchange) send(r reply, fault Fault) error {
	h := x.w.Header()
	h.Set("Date", x.s.now().UTC().Format(http.TimeFormat))
	h.Set("X-Request-Id", "sandbox-"+strconv.FormatUint(x.entry.Seq, 10))
	for name, value := range map[string]string{
		"Content-Type": r.contentType, "Retry-After": r.retryAfter, "Location": r.location, "Allow": r.allow,
		"Link": r.link, "X-Total-Count": r.total,
	} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if r.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if r.list != nil {
		x.w.WriteHeader(r.status)
		return x.sendStream(r, fault)
	}
	if r.status != http.StatusNoContent {
		length := len(r.body)
		if fault == truncated { // half of it, or all of it and still less than was announced
			length++
			if x.s.seed.pick(2, "truncate", string(x.op), x.subject, strconv.Itoa(x.attempt)) == 0 {
				r.body = r.body[:len(r.body)/2]
			}
		}
		h.Set("Content-Length", strconv.Itoa(length))
	}
	x.w.WriteHeader(r.status)
	if fault == trickle {
		return x.trickle(r.body)
	}
	if len(r.body) > 0 {
		if _, err := x.w.Write(r.body); err != nil {
			return err
		}
	}
	if err := x.flush(); err != nil {
		return err
	}
	if fault == truncated {
		return errCut
	}
	return nil
}

// sendStream sends the customer list in pieces of some kilobytes.
func (x *exchange) sendStream(r reply, fault Fault) error {
	buffered := bufio.NewWriterSize(x.w, 4<<10)
	var out io.Writer = buffered
	if fault == truncated {
		out = &cutWriter{buffered, 1 + x.s.seed.pick(400, "truncate", string(x.op), strconv.Itoa(x.attempt))}
	}
	err := r.list.pieces(func(piece []byte) error {
		if fault == trickle {
			fault = "" // only the first piece: a long list would take too long
			return x.trickle(piece)
		}
		_, err := out.Write(piece)
		return err
	})
	if fault == truncated {
		err = errCut // a shorter list still ends without its last chunk
	}
	for _, step := range []func() error{buffered.Flush, x.flush} {
		if failed := step(); err == nil {
			err = failed
		}
	}
	return err
}

// cutWriter writes the first left bytes and then fails with errCut.
type cutWriter struct {
	w    io.Writer
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.w.Write(p)
	}
	n, err := c.w.Write(p[:c.left])
	c.left -= n
	return n, errors.Join(err, errCut)
}

// trickle sends up to two thousand bytes one by one, and the rest at once.
func (x *exchange) trickle(body []byte) error {
	for i := range body {
		if i >= 2000 {
			_, err := x.w.Write(body[i:])
			return errors.Join(err, x.flush())
		}
		if _, err := x.w.Write(body[i : i+1]); err != nil {
			return err
		}
		if err := x.flush(); err != nil {
			return err
		}
		x.pause(x.plan.table.Pause)
	}
	return nil
}

func (x *exchange) flush() error {
	err := http.NewResponseController(x.w).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil // it is sent when the handler returns
	}
	return err
}

// garbled returns a 2xx with an unusable body.
func (x *exchange) garbled(r reply) reply {
	if r.status == http.StatusNoContent || r.status == http.StatusAccepted {
		r.status = http.StatusOK
	}
	r.list = nil
	bodies := []string{
		`{"id":"`,
		"",
		"null",
		`{"id":42,"token":42,"challenge":42}`,
		"<html><body>Welcome</body></html>",
		`{"error":"upstream"`,
	}
	i := x.s.seed.pick(len(bodies), "malformed", string(x.op), x.subject, strconv.Itoa(x.attempt))
	r.body, r.contentType = []byte(bodies[i]), "application/json"
	if i == 4 {
		r.contentType = "text/html"
	}
	return r
}

func (s *Server) canaryURL(seq uint64) string {
	return fmt.Sprintf("%s%s%d", *s.canary.Load(), canaryPath, seq)
}
