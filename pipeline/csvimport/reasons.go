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
	// Numbers of a rule stay (want 40, EIP-55, 0x), those of a row go.
	reasonNumber = regexp.MustCompile(`(?:want |at most |-|U\+[0-9A-F]*)?\d+x?`)
)

// Kind is the reason without what is particular to the record: its numbers become N, and quoted text an ellipsis. It
// holds no customer's data.
func (r *Reject) Kind() string {
	kind := reasonQuoted.ReplaceAllString(reasonLines.ReplaceAllString(r.Reason, ""), "…")
	return reasonNumber.ReplaceAllStringFunc(kind, func(number string) string {
		if c := number[0]; c < '0' || c > '9' || strings.HasSuffix(number, "x") {
			return number
		}
		return "N"
	})
}

// mostReasons bounds the kinds of reasons that are told apart.
const mostReasons = 100

// Reasons counts rejects by field and kind, in bounded memory. The zero value is ready to use. It is not for concurrent
// use.
type Reasons struct {
	rows map[[2]string]int64
}

// Add counts a reject.
func (s *Reasons) Add(r *Reject) {
	if s.rows == nil {
		s.rows = make(map[[2]string]int64)
	}
	key := [2]string{r.Field, r.Kind()}
	if _, known := s.rows[key]; !known && len(s.rows) >= mostReasons {
		key[1] = "other reasons"
	}
	s.rows[key]++
}

// Take returns the counts, the most frequent first, and begins again.
func (s *Reasons) Take() []pipeline.InvalidReason {
	list := make([]pipeline.InvalidReason, 0, len(s.rows))
	for key, n := range s.rows {
		list = append(list, pipeline.InvalidReason{Field: key[0], Reason: key[1], Rows: n})
	}
	s.rows = nil
	slices.SortFunc(list, func(a, b pipeline.InvalidReason) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	return list
}
