package night

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// quoted is a text between quotes.
const quoted = `"(?:[^"\\]|\\.)*"`

var (
	addressText = regexp.MustCompile(`0[xX][0-9a-fA-F]{12,}`)
	uuidText    = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)
	// Of the partner's answers, and the ledger's of a duplicate, whose externalId may have spaces.
	quotedText = regexp.MustCompile(`(externalI[dD] )(` + quoted + `)(, want (` + quoted + `))?`)
	restText   = regexp.MustCompile(`(the same account with externalId )(.+)$`)
)

// shortest is the length from which an id keeps its ends when it is masked.
const shortest = 8

// Mask hides an id or an address except its ends, which identify it; a short id is hidden completely.
func Mask(id string) string {
	if id == "" {
		return ""
	}
	begin, end := 2, 2
	if strings.HasPrefix(id, "eip155:") {
		at := strings.LastIndex(id, ":") + 1
		return id[:at] + Mask(id[at:])
	}
	if strings.HasPrefix(strings.ToLower(id), "0x") {
		begin, end = 6, 4
	}
	runes := []rune(id)
	if utf8.RuneCountInString(id) < max(shortest, begin+end+2) {
		return "•••"
	}
	return string(runes[:begin]) + "…" + string(runes[len(runes)-end:])
}

// MaskText masks the ids and addresses in a reason; ids are those that belong to its row.
func MaskText(text string, ids ...string) string {
	text = quotedText.ReplaceAllStringFunc(text, func(s string) string {
		m := quotedText.FindStringSubmatch(s)
		s = m[1] + maskQuoted(m[2])
		if m[4] != "" {
			s += ", want " + maskQuoted(m[4])
		}
		return s
	})
	text = restText.ReplaceAllStringFunc(text, func(s string) string {
		m := restText.FindStringSubmatch(s)
		return m[1] + Mask(m[2])
	})
	for _, id := range ids {
		if len(id) > 2 {
			text = strings.ReplaceAll(text, id, Mask(id))
		}
	}
	text = addressText.ReplaceAllStringFunc(text, Mask)
	return uuidText.ReplaceAllStringFunc(text, Mask)
}

// maskQuoted masks a text between quotes.
func maskQuoted(text string) string { return `"` + Mask(text[1:len(text)-1]) + `"` }
