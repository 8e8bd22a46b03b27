package client

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// mostPages bounds a list whose links never end.
const mostPages = 10_000

// PartialListError says that the partner announces more customers than were read, in a way that cannot be followed. The
// customers that were read exist; one that was not read may exist all the same.
type PartialListError struct {
	Announced string // the member ("meta.nextCursor") or header ("Link") that announces more; never its value
	Read      int    // customers that were read
}

func (e *PartialListError) Error() string {
	return fmt.Sprintf("the list of customers is incomplete: %d were read, and %q announces more, which cannot be fetched",
		e.Read, e.Announced)
}

// extent is how far the list was read, and how far it goes by what the answers say.
type extent struct {
	read, pages int    // customers, and whole answers
	more        string // what in the latest answer announces another; empty if nothing does
	total       claim  // of customers
	totalPages  claim
	visited     map[[sha256.Size]byte]struct{} // paths, and the ids with which pages begin
}

// claim is the greatest number that an answer gave, and where.
type claim struct {
	n  float64
	by string
}

func (c *claim) raise(n float64, by string) {
	if n > c.n {
		*c = claim{n, by}
	}
}

// visit reports whether it is the first visit.
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

// next returns the path of the page after the one at base+path, and "" after the last. Only Link fields are followed.
func (e *extent) next(base, path string, header http.Header) (string, error) {
	targets, odd := nextLinks(header.Values("Link"))
	slices.Sort(targets)
	targets = slices.Compact(targets)
	if len(targets) == 0 && !odd {
		return "", e.end()
	}
	if len(targets) == 1 && !odd && e.pages < mostPages {
		if next, ok := below(base, path, targets[0]); ok && e.visit(next) {
			return next, nil
		}
	}
	return "", e.partial("Link")
}

// end is nil when nothing announces more than was read.
func (e *extent) end() error {
	switch {
	case e.more != "":
		return e.partial(e.more)
	case e.total.n > float64(e.read):
		return e.partial(e.total.by)
	case e.totalPages.n > float64(e.pages):
		return e.partial(e.totalPages.by)
	}
	return nil
}

func (e *extent) partial(announced string) error {
	return &PartialListError{Announced: announced, Read: e.read}
}

// announce notes what announces a further page.
func (e *extent) announce(by string) {
	if e.more == "" {
		e.more = by
	}
}

// note takes in one member: its name, its value where that is a scalar, and whether it holds anything. The names are
// those in common use. Some mean something else now and then: a list that is wrongly taken for a part costs requests, a
// part that is taken for the whole costs customers.
func (e *extent) note(by, name string, value json.Token, holds bool) {
	name = plain(name)
	n, isNumber := number(value)
	switch {
	case isNumber && isPageTotal(name):
		e.totalPages.raise(n, by)
	case saysEnd(name):
		if value == false || value == "false" {
			e.announce(by)
		}
	case saysMore(name) || name == "offset" && !isNumber:
		if holds {
			e.announce(by)
		}
	case isNumber && isTotal(name):
		e.total.raise(n, by)
	}
}

// noteHeader takes in the fields in common use; Link is left to next.
func (e *extent) noteHeader(header http.Header) {
	for _, field := range slices.Sorted(maps.Keys(header)) {
		value := strings.TrimSpace(header.Get(field))
		name := strings.TrimPrefix(plain(field), "x")
		name = strings.TrimPrefix(strings.TrimPrefix(name, "ms"), "pagination")
		switch name {
		case "": // "X-Pagination", which holds JSON
			l := listReader{decoder: json.NewDecoder(strings.NewReader(value)), body: &meter{}, extent: e}
			if _, _, err := l.value("", field, 1); err != nil {
				e.announce(field)
			}
		case "contentrange": // RFC 9110, section 14.4: "items 0-24/319"; an unknown total, "*", proves nothing
			_, total, _ := strings.Cut(value, "/")
			if n, ok := number(total); ok {
				e.total.raise(n, field)
			} else {
				e.announce(field)
			}
		case "total", "count", "totalcount", "totalitems", "totalrecords", "totalresults", "totalelements",
			"totalpages", "pagecount", "lastpage", "pages",
			"next", "nextpage", "nextcursor", "nexttoken", "nextpagetoken", "nextlink", "nextoffset", "nextmarker",
			"cursor", "continuation", "continuationtoken", "hasmore", "hasnext", "hasnextpage", "more", "truncated",
			"istruncated":
			e.note(field, name, value, holds(value))
		}
	}
}

// plain makes "total_count", "totalCount" and "X-Total-Count" comparable.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return -1
	}, name)
}

func isPageTotal(name string) bool {
	switch name {
	case "pages", "totalpages", "totalpage", "pagestotal", "pagetotal", "pagecount", "pagescount", "numpages",
		"numberofpages", "lastpage", "maxpage":
		return true
	}
	return false
}

func isTotal(name string) bool {
	if strings.Contains(name, "page") { // "totalPerPage"
		return false
	}
	counts := strings.HasSuffix(name, "count") && !strings.HasSuffix(name, "account")
	return counts || strings.Contains(name, "total") || name == "numfound" || name == "hits"
}

// saysEnd: true means that this is the last page.
func saysEnd(name string) bool {
	switch name {
	case "last", "islast", "lastpage", "islastpage", "done", "isdone", "complete", "iscomplete", "completed", "finished",
		"exhausted", "nomore", "end", "isend", "eof":
		return true
	}
	return false
}

// saysMore: a value means that there is another page.
func saysMore(name string) bool {
	switch name {
	case "continue", "lastevaluatedkey", "lastkey", "pagetoken", "after", "marker", "bookmark", "scrollid", "resumetoken",
		"resumptiontoken", "partial", "incomplete", "incompleteresults":
		return true
	}
	for _, word := range [...]string{"next", "more", "truncated", "continuation"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	if strings.HasPrefix(name, "remaining") { // not "rateLimitRemaining"
		return true
	}
	if !strings.Contains(name, "cursor") {
		return false
	}
	for _, word := range [...]string{"prev", "start", "before", "first", "current"} {
		if strings.HasPrefix(name, word) {
			return false
		}
	}
	return true
}

// number reads a number, also one that was sent as a string.
func number(value json.Token) (float64, bool) {
	switch v := value.(type) {
	case float64:
		return v, true
	case string:
		n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		return n, err == nil
	}
	return 0, false
}

// holds reports whether a scalar is anything but the usual ways to say nothing or no. Zero is among them: no page after
// the first begins there.
func holds(value json.Token) bool {
	switch v := value.(type) {
	case bool:
		return v
	case float64:
		return v != 0
	case string:
		return v != "" && v != "0" && !strings.EqualFold(v, "false") && !strings.EqualFold(v, "null")
	}
	return value != nil
}
