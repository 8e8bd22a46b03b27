package sandbox

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// listing is the customers of an answer to GET /customers, written when it is sent.
type listing struct {
	of         []*customer
	show       func(Status) Status // nil: as it is
	head, tail string              // what surrounds the array
}

// pieces hands out the JSON one customer at a time, each read when it is written.
func (l *listing) pieces(yield func([]byte) error) error {
	lead := l.head + "["
	for _, c := range l.of {
		v := c.view()
		if l.show != nil {
			v.Status = l.show(v.Status)
		}
		if err := yield(append([]byte(lead), mustJSON(v)...)); err != nil {
			return err
		}
		lead = ","
	}
	if len(l.of) > 0 {
		lead = ""
	}
	return yield([]byte(lead + "]" + l.tail))
}

// list answers GET /customers: all of them, oldest first [inferred], or the page that a link of ours led to.
func (x *exchange) list() (reply, *refusal) {
	r := reply{status: 200, contentType: "application/json", list: &listing{of: x.st.customers.all()}}
	if x.page.size > 0 {
		return x.linked(r), nil
	}
	return r, nil
}

// page is a part of the customer list: size customers after the first from. No size: no page.
type page struct{ from, size int }

// linked cuts the page out of the list and links the next one, in one of two ways to write a link (RFC 8288 §3).
func (x *exchange) linked(r reply) reply {
	all, from := r.list.of, min(x.page.from, len(r.list.of))
	to := min(from+x.page.size, len(all))
	r.list.of = all[from:to]
	if to == len(all) {
		return r
	}
	next := x.r.URL.Path + "?cursor=" + x.s.cursor(page{to, x.page.size})
	if x.s.seed.pick(2, "link", strconv.Itoa(to)) == 0 {
		r.link = fmt.Sprintf(`<%s>; rel="first", <%s>; rel="next"; title="more, next"`, x.r.URL.Path, next)
		return r
	}
	scheme := "http"
	if x.r.TLS != nil {
		scheme = "https"
	}
	r.link = fmt.Sprintf(`<%s://%s%s>; rel="next"`, scheme, x.r.Host, next)
	return r
}

// cursor names a page so that only a link can have led to it.
func (s *Server) cursor(p page) string {
	place := strconv.Itoa(p.from) + "." + strconv.Itoa(p.size)
	sum := s.seed.sum("cursor", place)
	return place + "." + hex.EncodeToString(sum[:8])
}

// readCursor takes the one query parameter that the sandbox knows, in the one form in which it hands it out.
func (x *exchange) readCursor() bool {
	text, ok := strings.CutPrefix(x.r.URL.RawQuery, "cursor=")
	from, rest, _ := strings.Cut(text, ".")
	size, _, _ := strings.Cut(rest, ".")
	var p page
	var errs [2]error
	p.from, errs[0] = strconv.Atoi(from)
	p.size, errs[1] = strconv.Atoi(size)
	if !ok || x.op != OpList || errs != [2]error{} || p.from < 0 || p.size < 1 || text != x.s.cursor(p) {
		return false
	}
	x.page = p
	return true
}
