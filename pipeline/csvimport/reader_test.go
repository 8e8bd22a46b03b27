package csvimport

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

func readAll(t *testing.T, text string) (rows []pipeline.Row, rejects []*Reject) {
	t.Helper()
	e, err := newReader(strings.NewReader(text), "export.csv")
	if err != nil {
		t.Fatal(err)
	}
	return drain(t, e)
}

// newReader reads a text that is recognised.
func newReader(r io.Reader, name string) (*Reader, error) {
	return NewReader(Input{Reader: r}, Options{Name: name, Chain: 300, ImportID: "import-1"})
}

func drain(t *testing.T, e *Reader) (rows []pipeline.Row, rejects []*Reject) {
	t.Helper()
	for {
		row, reject, err := e.Read()
		switch {
		case errors.Is(err, io.EOF):
			return rows, rejects
		case err != nil:
			t.Fatal(err)
		case reject != nil:
			rejects = append(rejects, reject)
		default:
			rows = append(rows, row)
		}
	}
}

// TestMessyExport reads the shipped export with all kinds of mistakes, and compares each line's result with
// messy-expected.csv.
func TestMessyExport(t *testing.T) {
	f, err := os.Open("../../testdata/messy.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	e, err := newReader(f, "messy.csv")
	if err != nil {
		t.Fatal(err)
	}
	rows, rejects := drain(t, e)
	got := map[int]string{}
	for _, r := range rows {
		got[r.Line] = "published"
	}
	for _, r := range rejects {
		got[r.Line] = "invalid " + r.Field
		if r.Reason == "" || r.Raw == "" {
			t.Errorf("line %d: got %+v, want a reason and the record", r.Line, r)
		}
	}
	list, err := os.ReadFile("../../testdata/messy-expected.csv")
	if err != nil {
		t.Fatal(err)
	}
	records, err := csv.NewReader(strings.NewReader(string(list))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records[1:] {
		line, err := strconv.Atoi(r[0])
		if err != nil {
			t.Fatal(err)
		}
		want := "published"
		switch r[1] {
		case "invalid":
			want = "invalid " + r[2]
		case "blank":
			want = ""
		}
		if got[line] != want {
			t.Errorf("line %d (%s): got %q, want %q", line, r[3], got[line], want)
		}
		delete(got, line)
	}
	for line, what := range got {
		t.Errorf("line %d: got %q, want nothing: it is not in the list", line, what)
	}
}

func TestHeader(t *testing.T) {
	tests := []struct{ name, text, problem string }{
		{"empty", "", "the file is empty"},
		{"blank", "\n  \n", "the file is empty"},
		{"no externalId", "address,id\n", "want the columns address and externalId"},
		{"semicolons", "address;id\n", "found \"address\", \"id\""},
		{"two separators", "address,externalId,x;address;externalId\n", "with both commas and semicolons"},
		{"twice", "address,externalId,ADDRESS\n", `column "ADDRESS" appears twice`},
		{"two usual names", "address,externalId,external_id\n", `"externalId", "external_id" may both be externalId`},
		{"utf-16", "a\x00d\x00", "UTF-16 LE: use --encoding"},
		{"bad quote", "\"address,externalId\n", "not closed"},
		{"quote swallows rows", "address,externalId,\"name\n" + goodAddress + ",c,Ann\n" + goodAddress + ",c,Bea\"\n", "includes line 2"},
		{"quote closed too late", "address,externalId,\"name\n" + strings.Repeat("\n", 120) + "\"\n", "not closed"},
		{"CR", "address,externalId\r" + goodAddress + ",c\r", "the lines end in CR"},
		{"CR behind a byte order mark", "\ufeffaddress,externalId\r" + goodAddress + ",c\r", "the lines end in CR"},
		{"over-long", strings.Repeat("x", 2*maxLine) + "\n", "the header is longer than"},
		{"Latin-1", "address,externalId,Stra\xdfe\n", "not valid UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newReader(strings.NewReader(tt.text), "e.csv")
			var header *HeaderError
			if !errors.As(err, &header) || !strings.Contains(err.Error(), tt.problem) || !strings.HasPrefix(err.Error(), "e.csv:") {
				t.Errorf("got %v, want a *HeaderError of e.csv with %q", err, tt.problem)
			}
		})
	}
}

const goodAddress = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"

// TestStrayQuote: a quote that is not closed costs its own line and no other.
func TestStrayQuote(t *testing.T) {
	text := "address,externalId\n" +
		goodAddress + ",\"stray\n" +
		goodAddress + ",a\n" +
		goodAddress + ",\"b\"\n" +
		goodAddress + ",x\"y\n" +
		goodAddress + ",c"
	rows, rejects := readAll(t, text)
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.ExternalID)
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(ids, want) {
		t.Errorf("got rows %q, want %q", ids, want)
	}
	if len(rejects) != 2 || rejects[0].Line != 2 || rejects[1].Line != 5 || rejects[0].Raw != goodAddress+",\"stray" {
		t.Errorf("got rejects %+v, want lines 2 and 5 with their text", rejects)
	}
}

// TestMissingValues: what an export has in place of a missing value is not an externalId.
func TestMissingValues(t *testing.T) {
	var text strings.Builder
	text.WriteString("address,externalId\n")
	missing := []string{"NULL", "null", "(null)", "<NULL>", `\N`, "None", "nil", "NaN", "n/a", "N/A", "undefined"}
	kept := []string{"nully", "none-1", "N", "na", "0", "undefined1"}
	for _, id := range slices.Concat(missing, kept) {
		text.WriteString(goodAddress + "," + id + "\n")
	}
	rows, rejects := readAll(t, text.String())
	if len(rows) != len(kept) || rows[0].ExternalID != kept[0] {
		t.Errorf("got rows %+v, want %q", rows, kept)
	}
	for n, r := range rejects {
		if want := "for a missing value"; r.Field != "externalId" || r.Line != n+2 || !strings.Contains(r.Reason, want) {
			t.Errorf("got %+v, want line %d invalid, %s", r, n+2, want)
		}
	}
	if len(rejects) != len(missing) {
		t.Errorf("got %d rejects, want %d", len(rejects), len(missing))
	}
}

func TestOverLongLine(t *testing.T) {
	text := "address,externalId\n" + goodAddress + "," + strings.Repeat("x", 3*maxLine) + "\n" + goodAddress + ",a\n"
	rows, rejects := readAll(t, text)
	if len(rows) != 1 || rows[0].Line != 3 || len(rejects) != 1 || rejects[0].Line != 2 || len(rejects[0].Raw) != clipRaw {
		t.Errorf("got rows %+v, %d rejects; want row 3, and reject 2 with %d bytes", rows, len(rejects), clipRaw)
	}
}

// FuzzExport: of any bytes, each line that is not blank belongs to a published or an invalid row.
func FuzzExport(f *testing.F) {
	messy, err := os.ReadFile("../../testdata/messy.csv")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(messy)
	f.Add([]byte("address,externalId\n\"" + goodAddress + "\",\"a\nb\"\n" + goodAddress + ",c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := newReader(strings.NewReader(string(text)), "f.csv")
		if err != nil {
			return
		}
		last := 0
		rows, rejects := drain(t, e)
		seen := map[int]bool{}
		for _, r := range rows {
			if seen[r.Line] {
				t.Fatalf("got line %d twice, want it once", r.Line)
			}
			seen[r.Line] = true
			last = max(last, r.Line)
			again, err := pipeline.ParseMessage(pipeline.AppendMessage(nil, pipeline.Row{
				Account: r.Account, ExternalID: r.ExternalID, ImportID: "i", File: "f.csv", Line: r.Line,
			}))
			if err != nil || again.ExternalID != r.ExternalID || again.Account != r.Account {
				t.Fatalf("line %d, published and read: got %+v, %v; want %+v", r.Line, again, err, r)
			}
		}
		for _, r := range rejects {
			if seen[r.Line] {
				t.Fatalf("got line %d twice, want it once", r.Line)
			}
			seen[r.Line] = true
		}
		_, s, err := imported(t.Context(), string(text), 0)
		if err != nil || s.Missing() != 0 {
			t.Fatalf("got %v, %+v, want every line accounted for", err, s)
		}
	})
}

// FuzzFields: a record without quotes is split as by package csv.
func FuzzFields(f *testing.F) {
	f.Add("a,b,c")
	f.Add("a,,\r")
	f.Add(",")
	f.Add("a\rb,c ")
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" || strings.ContainsAny(text, "\n\"") { // a line, and not a blank one
			return
		}
		r := csv.NewReader(strings.NewReader(text))
		want, err := r.Read()
		if err != nil {
			return
		}
		e, err := newReader(strings.NewReader("address,externalId\n"), "f.csv")
		if err != nil {
			t.Fatal(err)
		}
		c := e.source.(*csvSource)
		c.record = []byte(text)
		if got, err := c.fields(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	})
}

// published is a Publisher that keeps what it is given.
type published struct {
	batches [][]pipeline.Message
	fail    int // the batch that fails, from 1
}

func (p *published) Publish(_ context.Context, _ string, messages []pipeline.Message) error {
	if len(p.batches)+1 == p.fail {
		return errors.New("the broker is gone")
	}
	p.batches = append(p.batches, messages)
	return nil
}

// TestImportKeepsTheOrder: rows are published and rejects reported in the order of the export.
func TestImportKeepsTheOrder(t *testing.T) {
	const records = 5*chunkRecords + 17
	text, bad := []byte("address,externalId\n"), 0
	for n := range records {
		id := strconv.Itoa(n)
		if n%7 == 3 {
			id = "" // invalid
			bad++
		}
		text = append(text, goodAddress+","+id+"\n"...)
	}
	for _, fail := range []int{0, 3} {
		e, err := newReader(strings.NewReader(string(text)), "e.csv")
		if err != nil {
			t.Fatal(err)
		}
		p := &published{fail: fail}
		var rejects []int
		im := Importer{
			Publisher: p, Rejects: NewRejectsWriter(io.Discard), BatchSize: 1000,
			OnReject: func(r *Reject) { rejects = append(rejects, r.Line) },
		}
		err = im.Import(t.Context(), e)
		line := 2
		for _, batch := range p.batches {
			for _, m := range batch {
				for (line-2)%7 == 3 {
					line++
				}
				row, err := pipeline.ParseMessage(m.Value)
				if err != nil || row.Line != line || row.ExternalID != strconv.Itoa(line-2) ||
					string(m.Key) != row.Account.String() {
					t.Fatalf("got %+v with key %s, %v, want line %d with its account as key", row, m.Key, err, line)
				}
				line++
			}
		}
		if fail > 0 {
			var failed *PublishError
			if !errors.As(err, &failed) || failed.FirstLine != line && failed.FirstLine != line+1 || failed.Published != 2000 {
				t.Errorf("got %v, want a *PublishError from line %d on, after 2000 rows", err, line)
			}
			continue
		}
		if err != nil || len(rejects) != bad || !slices.IsSorted(rejects) {
			t.Errorf("got %v, rejects %v, want %d in order", err, rejects, bad)
		}
		if s := im.Stats(); s.Read != records || s.Published+s.Invalid != records || s.Invalid != int64(len(rejects)) {
			t.Errorf("got %+v, want %d read, %d of them invalid, the rest published", s, records, len(rejects))
		}
	}
}
