package client

import (
	"fmt"
	"strings"
)

// ShapeError says that a whole 2xx answer is not of a shape that this client knows. It names members, never their
// values.
type ShapeError struct {
	Endpoint string   // "POST /customers"
	Want     string   // the member that was missed
	Have     []string // the members that were there
}

func (e *ShapeError) Error() string {
	quoted := make([]string, len(e.Have))
	for i, name := range e.Have {
		quoted[i] = fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("the answer to %s has no %q; it has %s", e.Endpoint, e.Want, strings.Join(quoted, ", "))
}
