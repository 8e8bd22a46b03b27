package client

import (
	"net/url"
	"slices"
	"strings"
)

// parseLinks returns the links in Link fields (RFC 8288, section 3, parsed as in appendix B.2). odd reports that
// there is a link to another page that cannot be followed: it is malformed, or its context is another resource.
func parseLinks(fields []string) (links []link, odd bool) {
	for _, rest := range fields {
		for {
			rest = strings.TrimLeft(rest, ", \t")
			if rest == "" {
				break
			}
			l, after, ok := cutLink(rest)
			if !ok {
				text := strings.ToLower(rest)
				odd = odd || strings.Contains(text, "next") || strings.Contains(text, "last")
				break
			}
			rest = after
			if l.anchored {
				odd = odd || l.is("next") || l.is("last")
				continue
			}
			links = append(links, l)
		}
	}
	return links, odd
}

type link struct {
	target, rel string
	anchored    bool
}

// is reports whether relation is among the link's relations, which are separated by spaces.
func (l link) is(relation string) bool {
	return slices.ContainsFunc(strings.Fields(l.rel), func(r string) bool { return strings.EqualFold(r, relation) })
}

// cutLink takes the first link off s, which begins with it.
func cutLink(s string) (l link, rest string, ok bool) {
	if s[0] != '<' {
		return l, "", false
	}
	if l.target, s, ok = strings.Cut(s[1:], ">"); !ok {
		return l, "", false
	}
	named := false // the first of several "rel" counts
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] == ',' {
			return l, s, true
		}
		if s[0] != ';' {
			return l, "", false
		}
		s = strings.TrimLeft(s[1:], "; \t")
		end := strings.IndexAny(s+",", "=;, \t")
		name := strings.ToLower(s[:end])
		s = strings.TrimLeft(s[end:], " \t")
		value := ""
		if strings.HasPrefix(s, "=") {
			if value, s, ok = cutValue(strings.TrimLeft(s[1:], " \t")); !ok {
				return l, "", false
			}
		}
		switch {
		case name == "anchor":
			l.anchored = true
		case name == "rel" && !named:
			l.rel, named = value, true
		}
	}
}

// cutValue takes a parameter's value off s, a token or a quoted string (RFC 9110, section 5.6.4).
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s+",", ";,")
		return strings.TrimRight(s[:end], " \t"), s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// below resolves a link in the answer to base+path, and returns its path below base with the query. ok is false when
// the link leads to another origin, which must not learn the token, or out of this API.
func below(base, path, target string) (next string, ok bool) {
	from, err := url.Parse(base + path)
	if err != nil {
		return "", false
	}
	to, err := from.Parse(target)
	if err != nil || to.User != nil || origin(to) != origin(from) {
		return "", false
	}
	root, err := url.Parse(base)
	if err != nil {
		return "", false
	}
	next, ok = strings.CutPrefix(to.EscapedPath(), root.EscapedPath())
	if !ok || !strings.HasPrefix(next, "/") {
		return "", false
	}
	if to.RawQuery != "" {
		next += "?" + to.RawQuery
	}
	// net/url does not escape a query; net/http would write its spaces into the request line.
	return next, !strings.ContainsFunc(next, func(r rune) bool { return r <= ' ' || r > '~' })
}

// resolved returns a link in the answer to base+path in a form that can be compared.
func resolved(base, path, target string) string {
	from, err := url.Parse(base + path)
	if err != nil {
		return target
	}
	to, err := from.Parse(target)
	if err != nil {
		return target
	}
	return origin(to) + strings.TrimSuffix(to.EscapedPath(), "/") + "?" + to.Query().Encode()
}

// origin returns scheme, host and port (RFC 6454) in a form that can be compared.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}
