package sandbox

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// listing is the body of an answer to GET /customers, which is written while it is sent.
type listing struct {
	of         []*customer
	show       func(Status) Status // nil: unchanged
	head, tail string              // what surrounds the array
}

// pieces calls yield with the JSON of one customer after the other.
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

// list answers GET /customers: all customers, oldest first [inferred], or the page that was linked.
func (x *exchange) list() (reply, *refusal) {
	r := reply{status: 200, contentType: "application/json", list: &listing{of: x.st.customers.all()}}
	if x.page.size > 0 {
		return x.linked(r), nil
	}
	return r, nil
}

// page is a part of the customer list: size customers after the first from. No size: no page.
type page struct{ from, size int }

// linked reduces the list to the page and links the next, in one of two forms of a link (RFC 8288 §3).
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

// cursor returns the parameter of a link to a page, which a client cannot make itself.
func (s *Server) cursor(p page) string {
	place := strconv.Itoa(p.from) + "." + strconv.Itoa(p.size)
	sum := s.seed.sum("cursor", place)
	return place + "." + hex.EncodeToString(sum[:8])
}

// readCursor reads the only query parameter, the cursor, and reports whether it is from a link.
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
