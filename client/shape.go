package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/purser-onboard/purser/printable"
)

// shapeError is a 2xx answer that is a complete JSON object or array, but not of the expected form: the API is not the
// one that this package was written for. A truncated answer, or one that is not JSON, is not a shapeError.
type shapeError struct {
	Endpoint string   // "GET /customers/{id}"
	Want     string   // the member that is missing or unusable
	Have     []string // names of members, as from memberNames; never values
	Twice    bool     // the member is there with two different values
}

func (e *shapeError) Error() string {
	lack := "no"
	switch {
	case e.Twice:
		lack = "two different values of"
	case slices.Contains(e.Have, e.Want):
		lack = "no usable"
	}
	have := "no members"
	if len(e.Have) > 0 {
		have = quoted(e.Have)
	}
	return fmt.Sprintf("the response to %s has %s %q; it has %s", e.Endpoint, lack, e.Want, have)
}

func quoted(names []string) string {
	quotes := make([]string, len(names))
	for i, name := range names {
		quotes[i] = fmt.Sprintf("%q", name)
	}
	return strings.Join(quotes, ", ")
}

// Bounds of the names that are shown: a hostile answer must not fill the log.
const (
	mostNames = 20
	mostName  = 40 // bytes
)

// memberNames returns the names of an object's members, sorted, and after them the names one level down, as
// "data.token". The members of an array are those of its first element, "[].id". There are at most 20 names, each
// printable and cut to 40 bytes; values are never shown.
func memberNames(body []byte) []string {
	var names nameList
	prefix := ""
	if elements := []json.RawMessage(nil); json.Unmarshal(body, &elements) == nil && len(elements) > 0 {
		body, prefix = elements[0], "[]."
	}
	members := membersOf(body)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		shown := prefix + memberName(name)
		names.add(shown, 1)
		for _, inner := range slices.Sorted(maps.Keys(membersOf(members[name]))) {
			names.add(shown+"."+memberName(inner), 2)
		}
	}
	return names.sorted()
}

// membersOf returns the members of an object, and nil for another value.
func membersOf(value json.RawMessage) (members map[string]json.RawMessage) {
	if bytes.HasPrefix(bytes.TrimSpace(value), []byte("{")) && json.Unmarshal(value, &members) != nil {
		return nil
	}
	return members
}

// memberName returns the name of a member as it may be shown: a name that looks like a token is redacted.
func memberName(name string) string {
	return printable.Line(bearer.ReplaceAllLiteralString(name, redacted), mostName)
}

// nameList collects names in bounded memory.
type nameList struct{ top, inner []string }

func (l *nameList) add(name string, depth int) {
	list := &l.top
	if depth > 1 {
		list = &l.inner
	}
	if len(*list) < mostNames && !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
}

func (l *nameList) sorted() []string {
	slices.Sort(l.top)
	slices.Sort(l.inner)
	names := append(l.top, l.inner...)
	return names[:min(len(names), mostNames)]
}
