package csvimport

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/purser-onboard/purser/pipeline"
)

// imported imports a text and returns the results in the order of its lines: "3" is a published row that begins on line
// 3, "5!" an invalid row, "2-4!" an invalid row whose quotes span three lines.
func imported(ctx context.Context, text string, batch int) (outcomes []string, stats ImportStats, err error) {
	e, err := newReader(strings.NewReader(text), "e.csv")
	if err != nil {
		return nil, stats, err
	}
	type outcome struct {
		line int
		text string
	}
	var all []outcome
	p := &published{}
	im := Importer{
		Publisher: p, Rejects: NewRejectsWriter(io.Discard), BatchSize: batch,
		OnReject: func(r *Reject) {
			lines := strconv.Itoa(r.Line)
			if r.Last > r.Line {
				lines = fmt.Sprintf("%d-%d", r.Line, r.Last)
				if !strings.HasSuffix(r.Reason, "(lines "+lines+")") {
					lines += " with the reason " + r.Reason
				}
			}
			all = append(all, outcome{r.Line, lines + "!"})
		},
	}
	if err := im.Import(ctx, e); err != nil {
		return nil, stats, err
	}
	for _, batch := range p.batches {
		for _, m := range batch {
			row, err := pipeline.ParseMessage(m.Value)
			if err != nil {
				return nil, stats, err
			}
			all = append(all, outcome{row.Line, strconv.Itoa(row.Line)})
		}
	}
	slices.SortStableFunc(all, func(a, b outcome) int { return a.line - b.line })
	for _, o := range all {
		outcomes = append(outcomes, o.text)
	}
	return outcomes, im.Stats(), nil
}

// cleanLine returns a valid row of the columns address, externalId and name for line n.
func cleanLine(n int) string { return goodAddress + ",c-" + strconv.Itoa(n) + ",Ann\n" }

func cleanLines(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		b.WriteString(cleanLine(n))
	}
	return b.String()
}

// TestQuotesSwallowNoRow: a missing or stray quote makes its own row invalid and no other. A record that does span
// lines is a single row.
func TestQuotesSwallowNoRow(t *testing.T) {
	const header = "address,externalId,name\n"
	stray := goodAddress + ",s,\"Ann\n"
	numbers := func(from, to int) (lines []string) {
		for n := from; n <= to; n++ {
			lines = append(lines, strconv.Itoa(n))
		}
		return lines
	}
	tests := []struct {
		name, text string
		want       []string
	}{
		{"closed behind a row", header + stray + cleanLine(3) + goodAddress + ",c,Cleo \"\n", []string{"2-4!", "3", "4"}},
		{"closed by a line that is no row", header + stray + cleanLine(3) + "end\"\n" + cleanLine(5), []string{"2-4!", "3", "4!", "5"}},
		{"its counterpart is in a column that is read", header + stray + cleanLine(3) + goodAddress + ",c\",Cleo\n", []string{"2-4!", "3", "4!"}},
		{"its counterpart opens a field", header + stray + cleanLine(3) + goodAddress + ",c,\"Cleo\n" + cleanLine(5), []string{"2-4!", "3", "4-5!", "5"}},
		{"the row is the last line", header + stray + goodAddress + ",c,Cleo\"", []string{"2-3!", "3"}},
		{"the row is a CAIP-10 account", header + stray + "eip155:1:" + cleanLine(3) + "\"\n", []string{"2-4!", "3", "4!"}},
		{"the row is a bad one", header + stray + "0x12,c,Bea\n" + "x\"\n", []string{"2-4!", "3!", "4!"}},
		{"the row has quotes", "name,address,externalId\n\"Ann," + goodAddress + ",s\n\",\"," + goodAddress + ",c\nx\",y,z\n", []string{"2-4!", "3", "4!"}},
		{"two quotes", header + stray + cleanLine(3) + goodAddress + ",c,Cleo \"\n" + stray + cleanLine(6) + goodAddress + ",c,\" \"Cleo\n" + cleanLine(8),
			[]string{"2-4!", "3", "4", "5-8!", "6", "7!", "8"}},
		{"never closed", header + stray + cleanLines(3, 5), append([]string{"2-5!"}, numbers(3, 5)...)},
		{"never closed, over-long line", header + stray + strings.Repeat("x", 2*maxLine) + "\n" + cleanLine(4), []string{"2-3!", "3!", "4"}},
		{"closed too late", header + stray + cleanLines(3, 150) + goodAddress + ",c,Cleo \"\n" + cleanLine(152),
			slices.Concat([]string{"2-102!"}, numbers(3, 150), []string{"151!", "152"})},
		{"CRLF", strings.ReplaceAll(header+stray+cleanLine(3)+goodAddress+",c,Cleo \"\n"+cleanLine(5), "\n", "\r\n"),
			[]string{"2-4!", "3", "4", "5"}},
		{"CR in the quotes", header + goodAddress + ",s,\"Ann\r" + goodAddress + ",c,Bea\r\"\n" + cleanLine(3), []string{"2!", "3"}},
		{"CR without quotes", header + goodAddress + ",s,Ann\r" + goodAddress + ",c,Bea\n" + cleanLine(3), []string{"2!", "3"}},
		{"too many fields around a row", header + stray + cleanLine(3) + "\",x,y\n", []string{"2-4!", "3", "4!"}},
		{"a note of two lines", header + stray + "lives at 5, Some Road, Town\"\n" + cleanLine(4), []string{"2", "4"}},
		{"a note with addresses", header + stray + "0x12\n\nher old ones: 0x13,0x14\"\n" + cleanLine(6), []string{"2", "6"}},
		{"an invalid note", header + goodAddress + ",\"a\nb\",Ann\n" + cleanLine(4), []string{"2-3!", "4"}},
		{"a note in Latin-1", header + stray + "M\xfcller\"\n" + cleanLine(4), []string{"2-3!", "4"}},
		{"spaces, and far behind them a row", header + strings.Repeat(" ", maxLine) + cleanLine(2) + " \n\t\n", []string{"2!"}},
		{"CRLF after CR", "address,externalId,name\r\r\n" + goodAddress + ",c,Ann\r\r\n\r\r\n", []string{"2"}},
	}
	for at := chunkRecords - 2; at <= chunkRecords+2; at++ { // the border of two chunks before, in and behind the quotes
		tests = append(tests, struct {
			name, text string
			want       []string
		}{
			fmt.Sprintf("at row %d", at),
			header + cleanLines(2, at) + stray + cleanLine(at+2) + goodAddress + ",c,Cleo \"\n" + cleanLines(at+4, at+9),
			slices.Concat(numbers(2, at), []string{fmt.Sprintf("%d-%d!", at+1, at+3)}, numbers(at+2, at+9)),
		})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, stats, err := imported(t.Context(), tt.text, 0)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
			if want := int64(len(strings.SplitAfter(strings.TrimSuffix(tt.text, "\n"), "\n"))); stats.Lines != want {
				t.Errorf("got %d lines, want %d", stats.Lines, want)
			}
		})
	}
}

// TestReasons: the reason of an invalid record names the cause and the lines that its quotes span.
func TestReasons(t *testing.T) {
	const swallows = "a quoted field includes line 4, which looks like a row: is a quote missing or stray? (lines 2-5)"
	const cr = "contains a carriage return (CR)"
	for text, want := range map[string]string{
		",s,\"Ann\nnote\n" + cleanLine(4) + "\"\n":            swallows,
		",s,\"Ann\nnote\n":                                    "a quoted field is not closed (lines 2-3)",
		",s,\"Ann\r" + goodAddress + ",c,Bea\"\n":             "a quoted field " + cr + " followed by a row: are the line ends CR?",
		",s,Ann\r" + goodAddress + ",c,Bea\n":                 "record has 5 fields, the header has 3, and it " + cr + ": are the line ends CR?",
		",s,M\xfcller\n":                                      "line is not valid UTF-8: a file in another encoding needs --encoding",
		",s,5\" screen\n" + cleanLine(3) + cleanLine(4):       "a quote inside an unquoted field (column 47)",
		",s,\"Ann\" Lee \" B\n" + cleanLine(3) + cleanLine(4): "a quoted field is not closed, or has text after its closing quote (column 50)",
	} {
		text = "address,externalId,name\n" + goodAddress + text
		if _, rejects := readAll(t, text); len(rejects) == 0 {
			t.Errorf("%q: got no invalid row, want one for the reason %q", text, want)
		} else if got := rejects[0].Reason; got != want {
			t.Errorf("%q: got the reason %q, want %q", text, got, want)
		}
	}
}

// TestCases: small exports that former versions failed on.
func TestCases(t *testing.T) {
	for name, want := range map[string][]string{
		"swallowed.csv":        {"2-4!", "3", "4"},
		"header-linebreak.csv": {"3"},
	} {
		text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "cases", name))
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := imported(t.Context(), string(text), 0); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "cases", "cr-only.csv"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(text), strings.ReplaceAll(cleanLines(0, 5000), "\n", "\r")} { // the header, and more than maxLine
		_, _, err := imported(t.Context(), text, 0)
		if header := new(HeaderError); !errors.As(err, &header) || !strings.Contains(header.Reason, "the lines end in CR") {
			t.Errorf("CR line ends: got %v, want a *HeaderError that names them", err)
		}
	}
}

// TestEveryLineIsAccountedFor: each line of any export belongs to the header or to a published or invalid row, or is
// blank. A line that is a valid row by itself is published.
func TestEveryLineIsAccountedFor(t *testing.T) {
	pieces := []string{
		"\n", "\n", "\n", "\r\n", "\r", ",", ",", `"`, `"`, `""`, " ", "x", "c-1", "é", "\xfc", "\ufeff", "Ann", "0x12",
		goodAddress, goodAddress + ",c-2,Bea\n", goodAddress + ",c-2,Bea\n", `"` + goodAddress + "\",\"c-3\",\"C, \"\"D\"\"\"\r\n",
		goodAddress + ",c-4,\"Ann\n", goodAddress + ",c-5,\"two\nlines\"\n", "eip155:1:" + goodAddress + ",c-6,\n", strings.Repeat("\n", 120),
	}
	rapid.Check(t, func(rt *rapid.T) {
		header := rapid.SampledFrom([]string{
			"address,externalId,name\n", "\n \naddress,externalId,name\r\n", "address,externalId,\"full\nname\"\n", "\ufeffaddress,externalId,name\n",
		}).Draw(rt, "header")
		body := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 60).Draw(rt, "pieces"), "")
		text := header + body
		outcomes, s, err := imported(t.Context(), text, rapid.IntRange(1, 5).Draw(rt, "batch"))
		if err != nil {
			rt.Fatalf("%q: got %v, want no error", text, err)
		}
		lines := strings.SplitAfter(text, "\n")
		if lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		if got := s.Header + s.Blank + s.PublishedLines + s.InvalidLines; s.Lines != int64(len(lines)) || got != s.Lines {
			rt.Errorf("%q: got %d lines read and %d accounted for, want %d: %+v", text, s.Lines, got, len(lines), s)
		}
		rows := map[string]bool{}
		for _, o := range outcomes {
			rows[o] = true
		}
		for i, line := range lines {
			if isRow(line) && !rows[strconv.Itoa(i+1)] {
				rt.Errorf("%q: got %q, want the row of line %d published", text, outcomes, i+1)
			}
		}
	})
}

// isRow reports whether a line is a valid row for package csv and the rules of rows.
func isRow(line string) bool {
	r := csv.NewReader(strings.NewReader(line))
	fields, err := r.Read()
	if err != nil || len(fields) != 3 || strings.ToValidUTF8(line, "") != line {
		return false
	}
	_, _, _, err = (&Reader{chain: 300}).row(&record{address: fields[0], id: fields[1]}, nil)
	return err == nil
}

// TestAccountingError: an import that cannot account for a line fails.
func TestAccountingError(t *testing.T) {
	e, err := newReader(strings.NewReader("address,externalId,name\n"+cleanLines(2, 9)), "e.csv")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.source.(*csvSource).nextLine(); err != nil { // a line that is read and not accounted for
		t.Fatal(err)
	}
	im := Importer{Publisher: &published{}, Rejects: NewRejectsWriter(io.Discard)}
	err = im.Import(t.Context(), e)
	var accounting *AccountingError
	if !errors.As(err, &accounting) || accounting.Stats.Lines != 9 || accounting.Stats.Missing() != 1 {
		t.Fatalf("got %v, want an *AccountingError with 1 of 9 lines missing", err)
	}
	if !strings.Contains(err.Error(), "this is a bug; do not rely on this import") {
		t.Errorf("got %q, want in it that this is a bug and that the import is not to be relied on", err)
	}
}

// TestPublishedIsAcknowledged: rows count as published when the broker has acknowledged them.
func TestPublishedIsAcknowledged(t *testing.T) {
	e, err := newReader(strings.NewReader("address,externalId,name\n"+cleanLines(2, 9)), "e.csv")
	if err != nil {
		t.Fatal(err)
	}
	im := Importer{Publisher: &published{fail: 2}, Rejects: NewRejectsWriter(io.Discard), BatchSize: 3}
	err = im.Import(t.Context(), e)
	s := im.Stats()
	if failed := new(PublishError); !errors.As(err, &failed) || s.Published != 3 || s.PublishedLines != 3 || s.Missing() == 0 {
		t.Errorf("got %v, %+v, want a *PublishError, 3 rows published and lines missing", err, s)
	}
	if err != nil && !strings.Contains(err.Error(), "at least 3 are in it") { // the broker may have written others
		t.Errorf("got %v, want that at least 3 rows are in the queue", err)
	}
}

// TestLineCounter: the count does not depend on the sizes of the reads.
func TestLineCounter(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "a": 1, "\n": 1, "a\nb": 2, "a\nb\n": 2, "\n\n": 2, "a\r\nb\r": 2} {
		for name, r := range map[string]io.Reader{
			"at once": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text)),
			"with the error": iotest.DataErrReader(strings.NewReader(text)),
		} {
			c := lineCounter{r: r}
			if _, err := io.Copy(io.Discard, &c); err != nil || c.lines() != want {
				t.Errorf("%q %s: got %d lines, %v, want %d", text, name, c.lines(), err, want)
			}
		}
	}
}

// TestExportName: the file's name is cleaned when the reader gets it.
func TestExportName(t *testing.T) {
	const name, want = "export\t27 Nov 2026, 10.15\u202fAM.csv", "export\\t27 Nov 2026, 10.15\u202fAM.csv"
	e, err := newReader(strings.NewReader("address,externalId\n"+goodAddress+",c\n"+goodAddress+",\n"), name)
	if err != nil {
		t.Fatal(err)
	}
	rows, rejects := drain(t, e)
	if len(rows) != 1 || rows[0].File != want || len(rejects) != 1 || rejects[0].File != want {
		t.Errorf("got rows %+v and rejects %+v, want the file %q", rows, rejects, want)
	}
}
