package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const opList = "GET /customers"

// Customers sends GET /customers and calls yield with every customer as it arrives; an error of yield ends the reading
// and is returned unchanged. Memory does not grow with the list. The list is an array, or an object that holds one as
// "customers", "data" or "items". took is how long the partner was busy with it, from each request to the end of its
// answer, without the waits for the rate limiter; it is returned with an error, too.
//
// A page is never taken for the whole list. If an answer has a Link field with the relation "next" (RFC 8288), that
// page is read, too, by a request of its own that waits for the rate limiter: at most 10,000 pages, of this API only.
// Any other announcement of more than was read is a *PartialListError: a cursor, a total, or a link in the body, at
// most three objects deep, or a header in use for them; a page as long as its limit, unless the answer says that it
// is the last; a 206. The customers that were yielded exist then, but others may exist, too.
//
// After any other error the customers that were yielded are not the list and must be discarded. The error is
// Malformed when a page is truncated or not JSON, reports an error, or has an element larger than MaxBody. It is
// Unrecognized when a page is complete and has no list, or an element without a UUID, which the error names by its
// index.
func (c *Client) Customers(ctx context.Context, yield func(Customer) error) (took time.Duration, err error) {
	var all extent
	path := "/customers"
	all.visit(path)
	each := func(customer Customer) error { return yield(c.shown(customer)) }
	for path != "" {
		if path, err = c.customers(ctx, path, &all, &took, each); err != nil {
			if partial := (*PartialListError)(nil); errors.As(err, &partial) {
				partial.Announced = c.redact(partial.Announced)
			}
			return took, err
		}
	}
	return took, nil
}

// customers reads the page at path and returns the path of the next one.
func (c *Client) customers(
	ctx context.Context, path string, all *extent, took *time.Duration, yield func(Customer) error,
) (string, error) {
	r, err := c.open(ctx, call{op: opList, name: List, method: http.MethodGet, path: path, stream: true, took: took})
	if err != nil {
		if e := (*Error)(nil); all.pages > 0 && errors.As(err, &e) && noSuchPage(e.Kind) {
			c.logger.WarnContext(ctx, "the next page of the customer list cannot be fetched", "error", err)
			return "", all.partial("Link")
		}
		return "", err
	}
	body := &meter{r: r.Body, most: c.config.MaxBody, patience: c.config.Timeout}
	body.timer = time.AfterFunc(c.config.Timeout, func() { r.abort(errStuck) })

	all.latest = hints{}
	list := listReader{decoder: json.NewDecoder(body), body: body, yield: yield, extent: all}
	err = list.read()
	body.timer.Stop()
	ended := r.finish()
	switch {
	case err == nil:
		all.pages++
		all.noteHeader(r.Header)
		if r.StatusCode == http.StatusPartialContent {
			all.part(r.Header)
		}
		return all.next(c.base, path, r.Header)
	case list.stopped:
		return "", err
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(ended, ErrStopped):
		return "", ErrStopped
	case errors.Is(err, errAgain):
		return "", all.partial("Link")
	case ended != nil:
		err = ended
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("the list is truncated: %w", io.ErrUnexpectedEOF)
	}
	return "", c.malformed(opList, answer{status: r.StatusCode, header: r.Header, broken: body.broken}, err)
}

// noSuchPage reports whether a failure to follow a link is about the link and not about the API.
func noSuchPage(k Kind) bool {
	switch k {
	case NotFound, Invalid, KeyReused, Redirected, Unexpected:
		return true
	}
	return false
}

var (
	errStuck    = errors.New("no more of the list arrived in time")
	errTooLarge = errors.New("the element is too large")
	errAgain    = errors.New("the page begins with the same customer as an earlier one")
)

// meter bounds the size of an element, and the time of each read. It keeps the element's text.
type meter struct {
	r        io.Reader
	most     int64
	used     int64
	patience time.Duration
	timer    *time.Timer // ends the attempt
	broken   error       // why no more can be read, before the end

	kept  []byte // the latest bytes that were read
	begin int64  // offset in the stream at which kept begins
	from  int64  // offset at which the element begins; earlier bytes are dropped
}

// next begins another element, at this offset of the stream.
func (m *meter) next(offset int64) { m.used, m.from = 0, offset }

func (m *meter) Read(p []byte) (int, error) {
	if m.used >= m.most {
		return 0, errTooLarge
	}
	p = p[:min(int64(len(p)), m.most-m.used)]
	m.timer.Reset(m.patience) // stopped between reads, because yield may be slow
	n, err := m.r.Read(p)
	m.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		m.broken = err
	}
	m.used += int64(n)
	m.kept = append(m.kept[:copy(m.kept, m.kept[m.from-m.begin:])], p[:n]...)
	m.begin = m.from
	return n, err
}

// element returns the text of the element up to offset.
func (m *meter) element(offset int64) []byte {
	return bytes.TrimLeft(m.kept[m.from-m.begin:offset-m.begin], ", \t\r\n")
}

// listReader walks one answer token by token.
type listReader struct {
	decoder *json.Decoder
	body    *meter
	yield   func(Customer) error
	extent  *extent
	stopped bool // by yield

	names    nameList
	reported error       // by the answer
	shape    *shapeError // the first deviation from the expected form; the rest is only read to see that it is complete
	found    string      // the name of the member that is the list
	rels     string      // the relations in the object that is being read, which may be a link
}

func (l *listReader) read() error {
	token, err := l.decoder.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('['):
		err = l.elements("")
	case json.Delim('{'):
		err = l.object()
	default:
		return errors.New("the response is not a list")
	}
	if err != nil {
		return err
	}
	l.step()
	if _, err := l.decoder.Token(); err == nil {
		return errors.New("unexpected data after the list")
	} else if err != io.EOF {
		return err
	}
	switch {
	case l.reported != nil:
		return l.reported
	case l.shape != nil:
		if l.shape.Have == nil {
			l.shape.Have = l.names.sorted()
		}
		return l.shape
	}
	return nil
}

// step begins another element, which may have MaxBody bytes.
func (l *listReader) step() { l.body.next(l.decoder.InputOffset()) }

// odd notes that the answer does not have the expected form.
func (l *listReader) odd(want string, have []string) {
	if l.shape == nil {
		l.shape = &shapeError{Endpoint: opList, Want: want, Have: have}
	}
}

// elements reads the list including its closing bracket.
func (l *listReader) elements(name string) error {
	var mistyped *json.UnmarshalTypeError
	for i := 0; ; i++ {
		l.step()
		if !l.decoder.More() {
			break
		}
		var w wireCustomer
		err := l.decoder.Decode(&w)
		switch {
		case errors.As(err, &mistyped): // and complete: Decode reads all of a value before it fails like this
			l.oddElement(name, i, cmp.Or(mistyped.Field, "id"), mistyped.Value == twoValues)
			continue
		case err != nil:
			return fmt.Errorf("customer %d of the list: %w", i, err)
		case !isUUID(w.ID.text):
			l.oddElement(name, i, "id", false)
			continue
		case l.shape != nil:
			continue
		case i == 0 && !l.extent.visit(w.ID.text):
			return errAgain
		}
		l.extent.read++
		l.extent.latest.read++
		if err := l.yield(w.customer()); err != nil {
			l.stopped = true
			return err
		}
	}
	_, err := l.decoder.Token()
	return err
}

func (l *listReader) oddElement(name string, i int, want string, twice bool) {
	if l.shape != nil {
		return
	}
	prefix := fmt.Sprintf("%s[%d].", name, i)
	have := []string{}
	for _, member := range memberNames(l.body.element(l.decoder.InputOffset())) {
		have = append(have, prefix+member)
	}
	l.odd(prefix+want, have)
	l.shape.Twice = twice
}

// object reads the answer as an object and looks for the list among its members.
func (l *listReader) object() error {
	if _, _, err := l.members("", 1); err != nil {
		return err
	}
	if l.found == "" {
		l.odd("customers", nil)
	}
	return nil
}

// members reads an object including its closing brace, notes what announces another page, and reports whether the
// object holds anything: null, false, "" and containers of only those are nothing. It returns the target if the
// object is a link. At depth 1 the object is the answer.
func (l *listReader) members(path string, depth int) (target string, filled bool, err error) {
	outer := l.rels
	defer func() { l.rels = outer }()
	l.rels = ""
	leads := true // a link without a member for its target announces a page, too
	for {
		l.step()
		if !l.decoder.More() {
			break
		}
		token, err := l.decoder.Token()
		if err != nil {
			return "", false, err
		}
		name, _ := token.(string)
		shown := path + memberName(name)
		if depth <= 2 {
			l.names.add(shown, depth)
		}
		value, held, err := l.value(name, shown, depth)
		if err != nil {
			return "", false, err
		}
		l.extent.note(shown, name, value, held)
		switch plain(name) {
		case "href", "url", "uri":
			target, _ = value.(string)
			leads = held
		}
		filled = filled || held
	}
	found, by := link{target: target, rel: l.rels}, strings.TrimSuffix(path, ".")
	if leads && found.is("next") {
		l.extent.announce(by)
	}
	if target != "" {
		l.extent.link(by, found)
	}
	_, err = l.decoder.Token()
	return target, filled, err
}

// Bounds of the search for announcements. The deepest in use are {"meta":{"page":{"cursors":{"after":…}}}} and
// {"links":[{"rel":["next"]}]}; deeper values are only checked for whether they hold anything.
const (
	mostDepth    = 4
	mostElements = 100
)

// value reads the value of a member, or an element of it. It returns a scalar or the target of a link, and reports
// whether the value holds anything.
func (l *listReader) value(name, shown string, depth int) (value json.Token, filled bool, err error) {
	l.step()
	reported := depth == 1 && (name == "error" || name == "errors")
	if reported || depth > mostDepth {
		var raw json.RawMessage
		if err := l.decoder.Decode(&raw); err != nil {
			return nil, false, err
		}
		if reported && l.reported == nil {
			l.reported = reportedError(raw)
		}
		return nil, !empty(raw), nil
	}
	if value, err = l.decoder.Token(); err != nil {
		return nil, false, err
	}
	switch v := value.(type) {
	case json.Delim:
		if v == '{' {
			target, filled, err := l.members(shown+".", depth+1)
			if target != "" {
				return target, filled, err
			}
			return nil, filled, err
		}
		filled, err = l.array(name, shown, depth)
		return nil, filled, err
	case string:
		switch plain(name) {
		case "rel", "label":
			if len(l.rels) < mostLink {
				l.rels += " " + v
			}
		case "link", "links":
			links, odd := parseLinks([]string{v})
			for _, found := range links {
				odd = odd || found.is("next")
				l.extent.link(shown, found)
			}
			if odd {
				l.extent.announce(shown)
			}
		}
	}
	return value, holds(value), nil
}

// array reads an array including its closing bracket: the list, or another member.
func (l *listReader) array(name, shown string, depth int) (filled bool, err error) {
	if depth == 1 && (name == "customers" || name == "data" || name == "items") {
		if l.found == "" {
			l.found = name
			return true, l.elements(name)
		}
		l.odd(name, nil) // it is unknown which of them is the list
	}
	for i := 0; ; i++ {
		l.step()
		if !l.decoder.More() {
			break
		}
		if i >= mostElements {
			var skipped struct{}
			mistyped := (*json.UnmarshalTypeError)(nil)
			if err := l.decoder.Decode(&skipped); err != nil && !errors.As(err, &mistyped) {
				return false, err
			}
			continue
		}
		_, held, err := l.value(name, shown+"[]", depth+1)
		if err != nil {
			return false, err
		}
		filled = filled || held
	}
	_, err = l.decoder.Token()
	return filled, err
}
