package client

import (
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// outOf matches "1 of 4", "1/4", "1-2 of 319", "items 0-1/319".
var outOf = regexp.MustCompile(`(?i)^(?:[a-z]+ )?\d+(\s*(?:-|–|to)\s*\d+)?\s*(?:/|of|out of)\s*(\d+)(?: [a-z]+)?$`)

// fieldName returns the name under which a header field is noted, without a leading "x" or vendor's name. It is empty
// for a field that says nothing about pages.
func fieldName(name string, custom bool) string {
	switch name {
	case "total", "wptotal", "count", "totalcount", "totalitems", "totalrecords", "totalresults", "totalelements",
		"totalpages", "pagecount", "lastpage", "pages", "page", "currentpage", "pagenumber",
		"perpage", "pagesize", "itemsperpage", "limit",
		"cursor", "continuation", "continuationtoken", "hasmore", "hasnext", "hasnextpage", "more", "truncated",
		"istruncated":
		return name
	}
	switch {
	case strings.HasPrefix(name, "nextjs"):
		return ""
	case strings.HasPrefix(name, "next"):
		return name
	case !custom:
		return ""
	}
	for _, known := range [...]string{"totalcount", "totalitems", "totalrecords", "totalresults", "totalelements",
		"totalpages", "pagecount", "hasmore", "lastevaluatedkey", "lastkey", "pagetoken", "scrollid", "bookmark",
		"resumetoken", "resumptiontoken", "incompleteresults"} {
		if strings.HasSuffix(name, known) {
			return known
		}
	}
	for _, word := range [...]string{"next", "cursor", "continuation", "truncated"} {
		if strings.Contains(name, word) {
			return name
		}
	}
	return ""
}

// plain returns the form in which names are compared: "total_count", "totalCount" and "Total-Count" are one.
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

// isPageTotal reports whether a number of this name counts pages.
func isPageTotal(name string) bool {
	switch name {
	case "pages", "totalpages", "totalpage", "pagestotal", "pagetotal", "pagecount", "pagescount", "numpages",
		"numberofpages", "lastpage", "maxpage":
		return true
	}
	return false
}

// isTotal reports whether a number of this name counts customers.
func isTotal(name string) bool {
	if strings.Contains(name, "page") { // "totalPerPage"
		return false
	}
	counts := strings.HasSuffix(name, "count") && !strings.HasSuffix(name, "account")
	return counts || strings.Contains(name, "total") || name == "numfound" || name == "hits"
}

// isPageNumber reports whether a number of this name numbers the page that was read.
func isPageNumber(name string) bool {
	switch name {
	case "page", "pagenumber", "pageno", "pagenum", "pageindex", "currentpage", "curpage", "number":
		return true
	}
	return false
}

// isLimit reports whether a number of this name bounds the customers of a page.
func isLimit(name string) bool {
	switch name {
	case "limit", "pagelimit", "pagesize", "perpage", "size", "itemsperpage", "resultsperpage", "recordsperpage",
		"entriesperpage", "countperpage", "maxresults", "maxitems", "maxkeys", "maxpagesize", "batchsize", "pagelength",
		"take", "top":
		return true
	}
	return false
}

// relation returns the link relation that a member is named after ("last" for "last_page_url"), or "".
func relation(name string) string {
	for _, suffix := range [...]string{"url", "uri", "href", "link", "page"} {
		name = strings.TrimSuffix(name, suffix)
	}
	switch name {
	case "last", "first", "self":
		return name
	case "current", "this":
		return "self"
	}
	return ""
}

// ofOther reports whether a field of this name is about a page that does not follow.
func ofOther(name string) bool {
	for _, word := range [...]string{"prev", "first", "current", "self", "start", "from", "to", "offset", "order",
		"sort"} {
		if strings.HasPrefix(name, word) {
			return true
		}
	}
	return false
}

// ofRate reports whether a member is about limits on the number of requests.
func ofRate(by string) bool {
	by = plain(by)
	return strings.Contains(by, "ratelimit") || strings.Contains(by, "quota")
}

// ofPages reports whether a member with this path describes the list. A member elsewhere is not believed when it says
// that there is no further page.
func ofPages(by string) bool {
	path := strings.Split(by, ".")
	for _, object := range path[:len(path)-1] {
		object = plain(object)
		described := false
		for _, word := range [...]string{"page", "pagin", "paging", "link", "meta", "cursor", "next", "result", "response",
			"list", "query", "request", "param", "info", "odata"} {
			described = described || strings.Contains(object, word)
		}
		if !described {
			return false
		}
	}
	return true
}

// saysEnd reports whether true under this name means that the page is the last.
func saysEnd(name string) bool {
	switch name {
	case "last", "islast", "lastpage", "islastpage", "done", "isdone", "complete", "iscomplete", "completed", "finished",
		"exhausted", "nomore", "end", "isend", "eof":
		return true
	}
	return false
}

// saysMore reports whether a value under this name means that there is another page.
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

// ofNext reports whether the absence of a value under this name means that there is no other page. A cursor without a
// value does not: it may be the request's.
func ofNext(name string) bool {
	return strings.Contains(name, "next") || strings.Contains(name, "more") || strings.Contains(name, "truncated")
}

// isMark reports whether saysMore holds for the name, but some APIs send it with the last page, too ("endCursor").
func isMark(name string) bool {
	if ofNext(name) {
		return false
	}
	switch name {
	case "after", "marker", "bookmark", "scrollid", "continuationtoken":
		return true
	}
	return strings.Contains(name, "cursor")
}

// denies reports whether a value is an explicit false.
func denies(value json.Token) bool {
	text, _ := value.(string)
	return value == false || strings.EqualFold(text, "false")
}

// number reads a number, also one that was sent as a string.
func number(value json.Token) (float64, bool) {
	switch v := value.(type) {
	case float64:
		return v, true
	case string:
		n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		return n, (err == nil || errors.Is(err, strconv.ErrRange)) && !math.IsNaN(n) // out of range is infinite
	}
	return 0, false
}

// holds reports whether a scalar is more than null, false, "" or zero. Zero counts as nothing, because no page after
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
