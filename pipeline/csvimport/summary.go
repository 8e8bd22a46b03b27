package csvimport

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/purser-onboard/purser/pipeline"
)

var (
	reasonLines  = regexp.MustCompile(` \(lines \d+-\d+\)$`)
	reasonQuoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	// Numbers of a rule stay (want 40, EIP-55, eip155, 0x), those of a row go.
	reasonNumber = regexp.MustCompile(`(?:want |at most |-|U\+[0-9A-F]*|[a-z]+)?\d+x?`)
)

// Kind is the reason without the record's own values: numbers become N, and quoted text an ellipsis. It contains no
// customer data.
func (r *Reject) Kind() string {
	kind := reasonQuoted.ReplaceAllString(reasonLines.ReplaceAllString(r.Reason, ""), "…")
	return reasonNumber.ReplaceAllStringFunc(kind, func(number string) string {
		if c := number[0]; c < '0' || c > '9' || strings.HasSuffix(number, "x") {
			return number
		}
		return "N"
	})
}

// mostReasons limits the number of kinds that are counted separately.
const mostReasons = 100

// Kind is a kind of invalid rows: the same field and, apart from a row's own values, the same reason.
type Kind struct {
	Rows  int64
	First Reject // the first row of the kind, without its Raw
}

// Summary counts the invalid rows of an import by kind, in bounded memory, and keeps an example of each. The zero value
// is ready to use. It is not for concurrent use.
type Summary struct {
	kinds map[[2]string]*Kind
}

// Add counts a row.
func (s *Summary) Add(r *Reject) {
	if s.kinds == nil {
		s.kinds = map[[2]string]*Kind{}
	}
	key := [2]string{r.Field, r.Kind()}
	if _, known := s.kinds[key]; !known && len(s.kinds) >= mostReasons {
		key = [2]string{"record", "other reasons"}
	}
	kind := s.kinds[key]
	if kind == nil {
		kind = &Kind{First: *r}
		kind.First.Raw = ""
		if key[1] == "other reasons" {
			kind.First.Field, kind.First.Reason = key[0], key[1]
		}
		s.kinds[key] = kind
	}
	kind.Rows++
}

// Kinds returns the kinds, the most frequent first.
func (s *Summary) Kinds() []Kind {
	kinds := make([]Kind, 0, len(s.kinds))
	for _, k := range s.kinds {
		kinds = append(kinds, *k)
	}
	slices.SortFunc(kinds, func(a, b Kind) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.First.File, b.First.File),
			cmp.Compare(a.First.Line, b.First.Line))
	})
	return kinds
}

// Reasons returns the kinds without their examples, so without customers' data, the most frequent first.
func (s *Summary) Reasons() []pipeline.InvalidReason {
	reasons := make([]pipeline.InvalidReason, 0, len(s.kinds))
	for key, k := range s.kinds {
		reasons = append(reasons, pipeline.InvalidReason{Field: key[0], Reason: key[1], Rows: k.Rows})
	}
	slices.SortFunc(reasons, func(a, b pipeline.InvalidReason) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	return reasons
}
