package client

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// mostPages bounds a list whose links do not end.
const mostPages = 10_000

// PartialListError means that the partner announces more customers than were read, in a way that cannot be followed.
// The customers that were read exist; others may exist, too.
type PartialListError struct {
	Announced string // the member ("meta.nextCursor") or header ("Link") that announces more; never its value
	Read      int    // customers that were read
}

func (e *PartialListError) Error() string {
	return fmt.Sprintf("the customer list is incomplete: %d were read, and %q announces more, which cannot be fetched",
		e.Read, e.Announced)
}

// extent is how much of the list was read, and how much there is according to the responses.
type extent struct {
	read, pages int // customers, and complete answers
	total       claim
	stated      float64 // the greatest total that cannot be that of the page alone
	totalPages  claim
	visited     map[[sha256.Size]byte]struct{} // paths, and the ids with which pages begin
	latest      hints
}

// hints are the latest response's statements about itself and other pages.
type hints struct {
	read     int      // customers in it
	more     string   // what announces another page; empty: nothing does
	mark     string   // what says where it ends, which announces another page unless denied
	denied   bool     // "hasMore":false
	ended    bool     // it is called the last page, also by {"next":null}
	page     claim    // its number, from 0 or 1
	lastPage claim    // the number of the last page
	of       claim    // pages or customers
	limit    claim    // customers in a page; the smallest
	here     []string // links to it and to the first page
	last     []place  // links to the last page
}

// claim is a number in an answer, and the member or header that holds it.
type claim struct {
	n  float64
	by string
}

func (c *claim) raise(n float64, by string) {
	if n > c.n {
		*c = claim{n, by}
	}
}

// place is the target of a link to the last page, and the member or header that holds it.
type place struct{ target, by string }

// visit reports whether it is the first visit of a path, or of a page that begins with a customer id.
func (e *extent) visit(place string) bool {
	key := sha256.Sum256([]byte(place))
	if _, again := e.visited[key]; again {
		return false
	}
	if e.visited == nil {
		e.visited = make(map[[sha256.Size]byte]struct{})
	}
	e.visited[key] = struct{}{}
	return true
}

// next returns the path of the page after the one at base+path, and "" after the last. It follows Link fields only.
func (e *extent) next(base, path string, header http.Header) (string, error) {
	links, odd := parseLinks(header.Values("Link"))
	var targets []string
	for _, l := range links {
		if l.is("next") && !slices.Contains(targets, l.target) {
			targets = append(targets, l.target)
		}
		e.link("Link", l)
	}
	if len(targets) == 0 && !odd {
		return "", e.end(base, path)
	}
	if len(targets) == 1 && !odd && e.pages < mostPages {
		if next, ok := below(base, path, targets[0]); ok && e.visit(next) {
			return next, nil
		}
	}
	return "", e.partial("Link")
}

// end returns nil when nothing announces more than was read up to the answer at base+path.
func (e *extent) end(base, path string) error {
	h := &e.latest
	switch {
	case h.more != "":
		return e.partial(h.more)
	case h.mark != "" && !h.denied:
		return e.partial(h.mark)
	case e.total.n > float64(e.read):
		return e.partial(e.total.by)
	case e.totalPages.n > float64(e.pages):
		return e.partial(e.totalPages.by)
	case h.page.by != "" && h.lastPage.n > h.page.n: // both may count from 0
		return e.partial(h.lastPage.by)
	case h.of.n > float64(e.read), h.page.by != "" && h.of.n > float64(e.pages):
		return e.partial(h.of.by)
	}
	here := []string{resolved(base, path, base+path)}
	for _, target := range h.here {
		here = append(here, resolved(base, path, target))
	}
	for _, last := range h.last {
		if !slices.Contains(here, resolved(base, path, last.target)) {
			return e.partial(last.by)
		}
	}
	// A full page may be followed by another, unless the pages are linked.
	ended := h.ended || len(h.last) > 0 || e.totalPages.n > 0 || e.stated == float64(e.read) || e.pages > 1
	if h.limit.by != "" && float64(h.read) >= h.limit.n && !ended {
		return e.partial(h.limit.by)
	}
	return nil
}

func (e *extent) partial(announced string) error {
	return &PartialListError{Announced: announced, Read: e.read}
}

// announce notes what announces another page.
func (e *extent) announce(by string) {
	if e.latest.more == "" {
		e.latest.more = by
	}
}

// part notes that the answer was a 206. Its Content-Range may prove that it is the last part.
func (e *extent) part(header http.Header) {
	if header.Get("Content-Range") == "" {
		e.announce("206")
	} else if e.stated != float64(e.read) {
		e.announce("Content-Range")
	}
}

// Bounds of the links that are kept for comparison.
const (
	mostLinks = 100
	mostLink  = 4 << 10 // bytes
)

// link notes links to the last, the first and the same page: if the first is the last, there is no other.
func (e *extent) link(by string, l link) {
	h := &e.latest
	if l.is("last") {
		if len(l.target) > mostLink || len(h.last) == mostLinks {
			e.announce(by)
			return
		}
		h.last = append(h.last, place{l.target, by})
	}
	if (l.is("self") || l.is("first")) && len(l.target) <= mostLink && len(h.here) < mostLinks {
		h.here = append(h.here, l.target)
	}
}

// note evaluates one member: its name, its value if that is a scalar or a link, and whether it holds anything. It
// reports whether the name is known. The names are those in common use. Where a name may also mean something else,
// the list is taken for incomplete: that costs requests, and the opposite error would cost customers.
func (e *extent) note(by, name string, value json.Token, holds bool) bool {
	if ofRate(by) {
		return true
	}
	h := &e.latest
	name = plain(name)
	n, isNumber := number(value)
	text, _ := value.(string)
	parts := outOf.FindStringSubmatch(text)
	switch {
	case isNumber && isPageTotal(name):
		e.totalPages.raise(n, by)
		if name == "lastpage" || name == "maxpage" {
			h.lastPage.raise(n, by)
		}
	case isNumber && isPageNumber(name):
		h.page = claim{n, by}
	case isNumber && (name == "of" || name == "outof"):
		h.of.raise(n, by)
	case isNumber && isLimit(name):
		if n > 0 && (h.limit.by == "" || n < h.limit.n) && ofPages(by) {
			h.limit = claim{n, by}
		}
	case parts != nil && (strings.Contains(name, "page") || strings.Contains(name, "range")):
		n, _ = number(parts[2])
		if parts[1] == "" && strings.Contains(name, "page") { // "1 of 4", and not "1-2 of 319"
			e.totalPages.raise(n, by)
		} else {
			e.total.raise(n, by)
		}
	case relation(name) != "" && strings.ContainsAny(text, "/?"):
		e.link(by, link{target: text, rel: relation(name)})
	case saysEnd(name):
		if denies(value) {
			e.announce(by)
		} else if value == true && ofPages(by) {
			h.ended = true
		}
	case saysMore(name) || name == "offset" && !isNumber:
		switch {
		case holds && !isMark(name):
			e.announce(by)
		case holds:
			h.mark = cmp.Or(h.mark, by)
		case ofNext(name) && ofPages(by):
			h.ended = true
			h.denied = h.denied || denies(value)
		}
	case isNumber && isTotal(name):
		e.total.raise(n, by)
		if ofPages(by) && (!strings.HasSuffix(name, "count") || strings.Contains(name, "total")) {
			e.stated = max(e.stated, n)
		}
	case text != "" && holds && (isTotal(name) || isPageTotal(name)): // "1,200", "200+": cannot be compared
		e.announce(by)
	default:
		return false
	}
	return true
}

// noteHeader evaluates the header fields in common use, except Link.
func (e *extent) noteHeader(header http.Header) {
	for _, field := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[field] {
			e.noteField(field, strings.TrimSpace(value))
		}
	}
}

func (e *extent) noteField(field, value string) {
	name, custom := strings.CutPrefix(plain(field), "x")
	aspect, paging := strings.CutPrefix(name, "pagination")
	switch {
	case paging && aspect == "": // JSON
		l := listReader{decoder: json.NewDecoder(strings.NewReader(value)), body: &meter{}, extent: e}
		if _, _, err := l.value("", field, 1); err != nil {
			e.announce(field)
		}
	case paging:
		if !e.note(field, aspect, value, holds(value)) && !ofOther(aspect) && holds(value) {
			e.announce(field)
		}
	case name == "contentrange": // RFC 9110, section 14.4: "items 0-24/319"; an unknown total, "*", proves nothing
		_, total, _ := strings.Cut(value, "/")
		if n, ok := number(total); ok {
			e.total.raise(n, field)
			e.stated = max(e.stated, n)
		} else {
			e.announce(field)
		}
	default:
		if name = fieldName(name, custom); name != "" {
			e.note(field, name, value, holds(value))
		}
	}
}
