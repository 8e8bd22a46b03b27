package csvimport

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/purser-onboard/purser/editdistance"
	"github.com/purser-onboard/purser/printable"
)

// Columns names the columns of an export where they are not named address, externalId (or external_id) and chainId (or
// chain_id). An empty name stands for the usual ones. Names are compared without case, and a run of white space, line
// breaks included, counts as one space.
type Columns struct {
	Address, ExternalID, ChainID string
	NoChainID                    bool // no column has the chain, whatever its name is
}

// The columns by their index in what Columns.find returns.
const (
	addressColumn = iota
	externalIDColumn
	chainIDColumn
	columnCount
)

func columnName(i int) string { return [columnCount]string{"address", "externalId", "chainId"}[i] }

// required reports whether every export must have a column.
func required(i int) bool { return i != chainIDColumn }

// names returns the folded names of a column.
func (c Columns) names(i int) []string {
	if i == chainIDColumn && c.NoChainID {
		return nil
	}
	if given := c.given(i); given != "" {
		return []string{fold(given)}
	}
	return [columnCount][]string{{"address"}, {"externalid", "external_id"}, {"chainid", "chain_id"}}[i]
}

func (c Columns) given(i int) string {
	return [columnCount]string{c.Address, c.ExternalID, c.ChainID}[i]
}

// fold is a name as it is compared.
func fold(name string) string { return strings.ToLower(strings.Join(strings.Fields(name), " ")) }

// place is the index of each column in a header; -1: there is no such column.
type place [columnCount]int

// find looks the columns up in a header. It returns an error if a column appears twice. For missing columns, see
// missing.
func (c Columns) find(header []string) (place, error) {
	at := place{-1, -1, -1}
	for i, field := range header {
		name := fold(field)
		for column := range columnCount {
			if !slices.Contains(c.names(column), name) {
				continue
			}
			if other := at[column]; other >= 0 && fold(header[other]) != name {
				return at, fmt.Errorf("the columns %s may both be %s: select one with --columns %s",
					quoteAll([]string{header[other], field}), columnName(column),
					quoteShell(columnName(column)+"="+quoteName(header[other])))
			} else if other >= 0 {
				return at, fmt.Errorf("column %s appears twice", printable.Quote(field, 40))
			}
			at[column] = i
		}
	}
	return at, nil
}

// lacks reports whether the header does not have all columns that are required or named.
func (c Columns) lacks(at place) bool {
	for i := range columnCount {
		if at[i] < 0 && (required(i) || c.given(i) != "") {
			return true
		}
	}
	return false
}

// missing reports which columns a header lacks, and suggests the flag for similar names.
func (c Columns) missing(header []string, at place) string {
	var b strings.Builder
	var want []string
	for i := range columnCount {
		if name := c.given(i); name != "" {
			want = append(want, fmt.Sprintf("%s (for %s)", printable.Quote(name, 40), columnName(i)))
		} else if required(i) {
			want = append(want, columnName(i))
		}
	}
	fmt.Fprintf(&b, "want the columns %s, found %s", strings.Join(want, " and "), quoteAll(header))
	if slices.ContainsFunc(header, looksLikeAddress) {
		b.WriteString("; this looks like a row: is the header missing?")
		return b.String()
	}
	b.WriteString(c.suggest(header, at))
	return b.String()
}

// suggest returns the --columns for columns that the header seems to have under other names. The operator decides;
// nothing is guessed.
func (c Columns) suggest(header []string, at place) string {
	if len(header) == 1 { // it is separated by something else
		return ""
	}
	var pairs, doubts, taken []string
	for i := range columnCount {
		if at[i] >= 0 && c.given(i) != "" {
			pairs = append(pairs, columnName(i)+"="+quoteName(header[at[i]]))
		}
		if at[i] >= 0 {
			continue
		}
		switch found := alike(header, at, i); {
		case len(found) == 0 || slices.Contains(taken, found[0]): // one column cannot be two
		case len(found) == 1:
			taken = append(taken, found[0])
			pairs = append(pairs, columnName(i)+"="+quoteName(found[0]))
		default:
			doubts = append(doubts, fmt.Sprintf("%s may be %s", columnName(i), quoteAll(found)))
		}
	}
	var text string
	if len(pairs) > 0 {
		text = "; did you mean --columns " + quoteShell(strings.Join(pairs, ",")) + "?"
	}
	if len(doubts) > 0 {
		text += "; " + strings.Join(doubts, ", ") + ": select one with --columns"
	}
	if text == "" {
		return "; name them with --columns address=NAME,externalId=NAME"
	}
	return text
}

// doubt returns an objection to a header with all required columns: a column that may be the chain would be ignored,
// and its rows would go to the default chain.
func (c Columns) doubt(header []string, at place) string {
	if at[chainIDColumn] >= 0 || c.NoChainID {
		return ""
	}
	found := alike(header, at, chainIDColumn)
	if len(found) == 0 {
		return ""
	}
	return fmt.Sprintf("may %s be the chain? If so, use --columns %s; if no column is the chain, --columns chainId=",
		quoteAll(found), quoteShell(c.with(header, at, "chainId="+quoteName(found[0]))))
}

// with returns a --columns with the given names and another.
func (c Columns) with(header []string, at place, pair string) string {
	var pairs []string
	for i := range columnCount {
		if at[i] >= 0 && c.given(i) != "" {
			pairs = append(pairs, columnName(i)+"="+quoteName(header[at[i]]))
		}
	}
	return strings.Join(append(pairs, pair), ",")
}

// alike returns the columns of a header that may be meant for a missing one, the closest kind of likeness only.
func alike(header []string, at place, column int) []string {
	synonyms := [columnCount][]string{
		{"wallet", "walletaddress", "addr", "evmaddress", "ethaddress", "ethereumaddress", "accountaddress",
			"publicaddress", "walletaddr", "account"},
		{"customerid", "userid", "clientid", "customer", "customernumber", "customerno", "customerref", "externalref",
			"reference", "extid", "id"},
		{"chain", "network", "networkid", "chainname", "blockchain", "caip2"},
	}[column]
	bare := letters(columnName(column))
	best, found := 3, []string(nil)
	for i, field := range header {
		if slices.Contains(at[:], i) {
			continue
		}
		name, likeness := letters(field), 3
		switch {
		case name == "":
			continue
		case name == bare || editdistance.Between(name, bare) <= 2:
			likeness = 0
		case slices.Contains(synonyms, name):
			likeness = 1
		case column != chainIDColumn && strings.Contains(name, bare):
			likeness = 2
		}
		switch {
		case likeness < best:
			best, found = likeness, []string{field}
		case likeness == best && likeness < 3:
			found = append(found, field)
		}
	}
	return found
}

// letters is a name without anything but letters and digits, in lower case.
func letters(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
}

// quoteName is a column's name as --columns takes it.
func quoteName(name string) string {
	name = strings.Join(strings.Fields(name), " ")
	if strings.ContainsAny(name, `,="`) {
		return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	return name
}

// quoteShell is a text as a shell takes it, unless it is too long to be shown as a whole.
func quoteShell(text string) string {
	const most = 400
	if len(text) > most {
		text = printable.Line(text, most)
	}
	return printable.ShellWord(text)
}

func quoteAll(fields []string) string {
	const most = 10
	var b strings.Builder
	for i, f := range fields {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(fields)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(printable.Quote(f, 40))
	}
	return b.String()
}

// looksLikeAddress reports whether a text is an address, right or wrong, with or without a chain.
func looksLikeAddress(text string) bool {
	text = strings.ToLower(strings.Trim(text, " \t\"'\ufeff"))
	return strings.HasPrefix(text, "0x") || strings.Contains(text, ":0x")
}
