package csvimport

import (
	"cmp"
	"slices"
)

// Kind is a kind of invalid rows: those with the same field and, but for what is particular to a row, the same reason.
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
