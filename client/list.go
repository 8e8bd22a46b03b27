package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Customers sends GET /customers and hands every customer to yield as it arrives; an error of yield ends it and is
// returned as it is. Memory does not grow with the list. The list is an array, or an object that holds one as
// "customers", "data" or "items".
//
// Any other error may come after yield was called, and then what was yielded is not the list: discard it. A truncated
// list, an element without a UUID (its index is named) or one larger than MaxBody are Malformed; so is an object that
// announces a further page, because a part of the list must not be taken for the whole.
func (c *Client) Customers(ctx context.Context, yield func(Customer) error) error {
	k := call{op: "GET /customers", method: http.MethodGet, path: "/customers", stream: true}
	r, err := c.open(ctx, k)
	if err != nil {
		return err
	}
	body := &meter{r: r.Body, most: c.config.MaxBody, patience: c.config.Timeout}
	body.timer = time.AfterFunc(c.config.Timeout, func() { r.abort(errStuck) })

	list := listReader{decoder: json.NewDecoder(body), body: body, yield: yield}
	err = list.read()
	body.timer.Stop()
	ended := r.finish()
	switch {
	case err == nil:
		return nil
	case list.stopped:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case ended != nil:
		err = ended
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("the list is cut off: %w", io.ErrUnexpectedEOF)
	}
	return c.malformed(k.op, answer{status: r.StatusCode, header: r.Header}, err)
}

var (
	errStuck    = errors.New("the list stopped coming")
	errTooLarge = errors.New("it is too large")
)

// meter bounds what is read for one element, and how long each read may take.
type meter struct {
	r        io.Reader
	most     int64
	used     int64
	patience time.Duration
	timer    *time.Timer // ends the attempt
}

// next begins another element.
func (m *meter) next() { m.used = 0 }

func (m *meter) Read(p []byte) (int, error) {
	if m.used >= m.most {
		return 0, errTooLarge
	}
	p = p[:min(int64(len(p)), m.most-m.used)]
	m.timer.Reset(m.patience) // the clock stands still between reads: yield may take its time
	n, err := m.r.Read(p)
	m.timer.Stop()
	m.used += int64(n)
	return n, err
}

// listReader walks the answer token by token.
type listReader struct {
	decoder *json.Decoder
	body    *meter
	yield   func(Customer) error
	stopped bool // by yield
	index   int
}

func (l *listReader) read() error {
	token, err := l.decoder.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('['):
		err = l.elements()
	case json.Delim('{'):
		err = l.object()
	default:
		return errors.New("the answer is no list")
	}
	if err != nil {
		return err
	}
	l.body.next()
	if _, err := l.decoder.Token(); err == nil {
		return errors.New("something follows the list")
	} else if err != io.EOF {
		return err
	}
	return nil
}

// elements reads the array up to and with its closing bracket.
func (l *listReader) elements() error {
	for {
		l.body.next()
		if !l.decoder.More() {
			break
		}
		var w wireCustomer
		if err := l.decoder.Decode(&w); err != nil {
			return fmt.Errorf("customer %d of the list: %w", l.index, err)
		}
		if !isUUID(w.ID) {
			return fmt.Errorf("customer %d of the list has no UUID as its id", l.index)
		}
		l.index++
		if err := l.yield(w.customer()); err != nil {
			l.stopped = true
			return err
		}
	}
	_, err := l.decoder.Token()
	return err
}

// object looks for the array among the members.
func (l *listReader) object() error {
	found := false
	for {
		l.body.next()
		if !l.decoder.More() {
			break
		}
		name, err := l.decoder.Token()
		if err != nil {
			return err
		}
		switch name {
		case "customers", "data", "items":
			token, err := l.decoder.Token()
			if err != nil {
				return err
			}
			if token != json.Delim('[') || found {
				return fmt.Errorf("the answer's member %q is not the one list", name)
			}
			found = true
			if err := l.elements(); err != nil {
				return err
			}
		default:
			var value json.RawMessage
			if err := l.decoder.Decode(&value); err != nil {
				return err
			}
			if announcesPage(name, value) {
				return fmt.Errorf("the list has further pages (member %q), which is not documented and not supported", name)
			}
		}
	}
	if _, err := l.decoder.Token(); err != nil {
		return err
	}
	if !found {
		return errors.New("the answer holds no list of customers")
	}
	return nil
}

// announcesPage recognises the usual ways to say that there is more.
func announcesPage(name json.Token, value json.RawMessage) bool {
	switch name {
	case "next", "nextPage", "next_page", "nextCursor", "next_cursor", "nextPageToken", "hasMore", "has_more":
		switch string(value) {
		case "null", `""`, "false":
			return false
		}
		return true
	}
	return false
}
