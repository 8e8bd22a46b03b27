package client

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// ShapeError says that an answer is complete JSON, but not of the form that it should have. It shows the names of
// members, never their values.
type ShapeError struct {
	Endpoint string   // "POST /auth/token"
	Want     string   // the member that was missed
	Have     []string // the names that were there; "data.token" is the member token of the object data
}

func (e *ShapeError) Error() string {
	problem := "no"
	if slices.Contains(e.Have, e.Want) {
		problem = "an unusable"
	}
	if len(e.Have) == 0 {
		return fmt.Sprintf("the answer to %s has %s %q; it has no named members", e.Endpoint, problem, e.Want)
	}
	quoted := make([]string, len(e.Have))
	for i, name := range e.Have {
		quoted[i] = fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("the answer to %s has %s %q; it has %s", e.Endpoint, problem, e.Want, strings.Join(quoted, ", "))
}

const (
	mostNames = 20
	mostName  = 60 // bytes
)

// memberNames returns the names of an object's members, those of the objects in it as "data.token", sorted, at most 20,
// each printable and short. Of anything but an object it returns none.
func memberNames(body []byte) []string {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return nil
	}
	var names []string
	add := func(name string) { names = append(names, clip(printable(name), mostName)) }
	for name, value := range members {
		add(name)
		var inner map[string]json.RawMessage
		if json.Unmarshal(value, &inner) == nil {
			for nested := range inner {
				add(name + "." + nested)
			}
		}
	}
	slices.Sort(names)
	return names[:min(len(names), mostNames)]
}
