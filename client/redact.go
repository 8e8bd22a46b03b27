package client

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
)

const (
	redacted = "[redacted]"

	shortestSecret = 4  // bytes; anything shorter is no secret, and redacting it would make messages unreadable
	shortestRun    = 16 // bytes; a shorter part of a secret may be shown
)

// bearer matches a JSON Web Token, and what follows the word "bearer".
var bearer = regexp.MustCompile(`(?i:bearer)[^!-~]+[-A-Za-z0-9._~+/=]{8,}|\beyJ[-A-Za-z0-9_]{8,}(?:\.[-A-Za-z0-9_]*)*`)

// redactor finds secrets in texts of the partner (or a proxy's debug page): whole, or any 16 consecutive bytes of them,
// in clear, quoted for a URL, escaped for JSON, or in base64. It does not change after newRedactor.
type redactor struct {
	short []string            // forms of secrets that are shorter than shortestRun
	runs  map[string]struct{} // all parts of length shortestRun of the longer forms
}

func newRedactor(secrets ...string) *redactor {
	r := &redactor{runs: make(map[string]struct{})}
	for _, secret := range secrets {
		if len(secret) < shortestSecret {
			continue
		}
		for _, form := range forms(secret) {
			if len(form) < shortestRun {
				r.short = append(r.short, form)
			}
			for i := range max(0, len(form)-shortestRun+1) {
				r.runs[form[i:i+shortestRun]] = struct{}{}
			}
		}
	}
	return r
}

// forms returns the encodings of a secret that are searched for. Its base64 (RFC 4648, sections 4 and 5) depends on how
// many bytes come before it, modulo 3; the characters that those bytes decide, too, are left out.
func forms(secret string) []string {
	all := []string{secret, url.QueryEscape(secret), url.PathEscape(secret)}
	html, _ := json.Marshal(secret) // escapes <, > and &, too; a string cannot fail
	for _, quoted := range [][]byte{appendString(nil, secret), html} {
		all = append(all, string(quoted[1:len(quoted)-1]))
	}
	for before, mixed := range [...]int{0, 2, 3} {
		text := append(make([]byte, before), secret...)
		all = append(all, base64.StdEncoding.EncodeToString(text)[mixed:], base64.URLEncoding.EncodeToString(text)[mixed:])
	}
	return all
}

// redact replaces each secret, and each run of one, by "[redacted]".
func (r *redactor) redact(s string) string {
	for _, form := range r.short {
		s = strings.ReplaceAll(s, form, redacted)
	}
	var shown strings.Builder
	end := 0 // of the latest run, in s
	for i := range max(0, len(s)-shortestRun+1) {
		if _, found := r.runs[s[i:i+shortestRun]]; !found {
			continue
		}
		if i > end || end == 0 {
			shown.WriteString(s[end:i] + redacted)
		}
		end = i + shortestRun
	}
	shown.WriteString(s[end:])
	return bearer.ReplaceAllLiteralString(shown.String(), redacted)
}
