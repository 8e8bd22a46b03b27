package csvimport

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/klauspost/compress/zstd"

	"github.com/purser-onboard/purser/pipeline"
)

// input is content that can be read from front to back and out of order.
func input(content []byte) Input {
	return Input{Reader: bytes.NewReader(content), At: bytes.NewReader(content), Size: int64(len(content))}
}

// read returns the externalIds of the good rows, and the reasons of the others.
func read(in Input, o Options) (ids, reasons []string, format string, err error) {
	o.Name, o.Chain, o.ImportID = "e", 300, "i"
	e, err := NewReader(in, o)
	if err != nil {
		return nil, nil, "", err
	}
	defer e.Close()
	for {
		rec, err := e.source.read()
		row, reject := pipeline.Row{}, rec.reject
		if err == nil && reject == nil {
			e.trimFields(&rec)
			row, _, reject = e.check(&rec, nil)
		}
		switch {
		case errors.Is(err, io.EOF):
			return ids, reasons, e.Format(), nil
		case err != nil:
			return ids, reasons, e.Format(), err
		case reject != nil:
			reasons = append(reasons, reject.Field+": "+reject.Reason)
		default:
			ids = append(ids, row.ExternalID)
		}
	}
}

// TestRecognisedCases: exports that were once read wrongly.
func TestRecognisedCases(t *testing.T) {
	const plain = "CSV in UTF-8, separated by commas, lines end in LF"
	for _, tt := range []struct {
		file, format string
		ids          []string
		reasons      []string // parts of them
		problem      string   // part of the error
	}{
		{file: "swallowed.csv", format: plain, ids: []string{"cust-2", "cust-3"}, reasons: []string{"(lines 2-4)"}},
		{file: "cr-only.csv", problem: "the lines end in CR"},
		{file: "sep-line.csv", format: "CSV in UTF-8, separated by commas (by its sep= line), lines end in LF", ids: []string{"cust-1"}},
		{file: "header-linebreak.csv", format: plain, ids: []string{"cust-1"}},
		{file: "excel-sci.csv", format: plain, reasons: []string{"scientific notation", "scientific notation"}},
		{file: "upload-partial.csv", format: plain, ids: []string{"cust-10"}},
		{file: "unicode-ids.csv", format: plain, ids: []string{"caf\u00e9", "cafe\u0301"},
			reasons: []string{"typographic quotes", "looks like '1'", "U+2800", "U+3164", "U+FE0F"}},
		{file: "gz-named.csv", format: "gzip, " + plain, ids: make([]string, 100)},
		{file: "xlsx-named.csv", problem: "begins like an Excel workbook (.xlsx)"},
		{file: "gz-zero-padded.csv.gz", format: "gzip, " + plain, ids: make([]string, 100)},
		{file: "utf16-bom.csv", format: "CSV in UTF-16 LE with a byte order mark, separated by commas, lines end in LF", ids: []string{"c1"}},
		{file: "semicolons.csv", format: "CSV in UTF-8, separated by semicolons, lines end in LF", ids: []string{"cust-1"}},
	} {
		content, err := os.ReadFile(filepath.Join("../../testdata/cases", tt.file))
		if err != nil {
			t.Fatal(err)
		}
		ids, reasons, format, err := read(input(content), Options{})
		if tt.problem != "" {
			if header := new(HeaderError); !errors.As(err, &header) || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("%s: got %v, want a *HeaderError with %q", tt.file, err, tt.problem)
			}
			continue
		}
		if err != nil || format != tt.format || len(ids) != len(tt.ids) || len(reasons) != len(tt.reasons) {
			t.Errorf("%s: got %v, %q, rows %q, reasons %q; want %+v", tt.file, err, format, ids, reasons, tt)
			continue
		}
		for i, want := range tt.ids {
			if want != "" && ids[i] != want {
				t.Errorf("%s: got the row %q, want %q", tt.file, ids[i], want)
			}
		}
		for i, want := range tt.reasons {
			if !strings.Contains(reasons[i], want) {
				t.Errorf("%s: got the reason %q, want %q in it", tt.file, reasons[i], want)
			}
		}
	}
}

// TestUnterminated: a last line without a line end is valid only if Options.Unterminated accepts it.
func TestUnterminated(t *testing.T) {
	for _, text := range []string{
		"address,externalId,name\n" + goodAddress + ",a,Ann\n" + goodAddress + ",b,Bea",
		"address,externalId,name\n" + goodAddress + ",a,Ann\n" + goodAddress + ",b,\"Bea\nM\"",
		`{"address":"` + goodAddress + `","externalId":"a"}` + "\n" + `{"address":"` + goodAddress + `","externalId":"b"}`,
	} {
		for _, reason := range []string{"", "still being written?"} {
			o := Options{Unterminated: func() string { return reason }}
			ids, reasons, _, err := read(input([]byte(text)), o)
			if err != nil || len(ids)+len(reasons) != 2 || len(reasons) == 1 != (reason != "") {
				t.Errorf("%q with %q: got %v, rows %q and reasons %q", text, reason, err, ids, reasons)
			}
			ids, _, _, err = read(input([]byte(text+"\n")), o)
			if err != nil || len(ids) != 2 {
				t.Errorf("%q with a line end: got %v and rows %q, want 2", text, err, ids)
			}
		}
	}
}

const small = "address,externalId\n" + goodAddress + ",a\n"

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zstdFrame is a frame with a raw block whose header names a window of 2^window bytes (RFC 8878, section 3.1.1).
func zstdFrame(window int, text string) []byte {
	block := len(text)<<3 | 1
	head := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte(window-10) << 3, byte(block), byte(block >> 8), byte(block >> 16)}
	return append(head, text...)
}

func zstded(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCompressed: members and frames one behind the other, zeros behind them, and what is none of it.
func TestCompressed(t *testing.T) {
	row := goodAddress + ",b\n"
	zeros := make([]byte, 5000)
	for name, tt := range map[string]struct {
		content []byte
		rows    int
		problem string
	}{
		"gzip, two members":         {append(zipped(t, small), zipped(t, row)...), 2, ""},
		"gzip, a zero":              {append(zipped(t, small), 0), 1, ""},
		"gzip, zeros":               {append(zipped(t, small), zeros...), 1, ""},
		"gzip, zeros and text":      {append(append(zipped(t, small), 0), 'x'), 0, "unexpected data after the zeros"},
		"gzip, text":                {append(zipped(t, small), "text"...), 0, "unexpected data after the compressed data"},
		"gzip, cut off":             {zipped(t, small)[:40], 0, "ends early"},
		"gzip, twice":               {zipped(t, string(zipped(t, small))), 0, "compressed more than once"},
		"zstd, two frames":          {append(zstded(t, small), zstded(t, row)...), 2, ""},
		"zstd, zeros":               {append(zstded(t, small), zeros...), 1, ""},
		"zstd, zeros and text":      {append(append(zstded(t, small), zeros...), 'x'), 0, "unexpected data after the zeros"},
		"zstd, text":                {append(zstded(t, small), "text"...), 0, "unexpected data after the compressed data"},
		"zstd, cut off":             {zstded(t, small)[:40], 0, "ends early"},
		"zstd, a window of 512 MiB": {zstdFrame(29, small), 0, "more than 128 MiB"},
		"zstd, a window of 128 MiB": {zstdFrame(27, small), 1, ""},
		"gzip of a workbook":        {zipped(t, "PK\x03\x04"), 0, "pass the file itself"},
		"gzip of a program":         {zipped(t, "\x7fELF"), 0, "is an ELF program"},
	} {
		ids, _, _, err := read(input(tt.content), Options{})
		if tt.problem == "" && err != nil || tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.problem)
		}
		if len(ids) != tt.rows {
			t.Errorf("%s: got rows %q, want %d", name, ids, tt.rows)
		}
	}
}

// TestUnreadable: what cannot be read is named for what it is.
func TestUnreadable(t *testing.T) {
	tar := string(make([]byte, 257)) + "ustar\x0000"
	for content, want := range map[string]string{
		"%PDF-1.7\n":                            "is a PDF document",
		"\x7fELF\x02\x01\x01\x00":               "is an ELF program, not an export",
		"<!DOCTYPE html>\n<html>":               "is an HTML page",
		"\n <html lang=en>":                     "is an HTML page",
		"<?xml version=\"1.0\"?>":               "is an XML document",
		"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00":  "is an old Excel workbook (.xls)",
		"PK\x05\x06" + string(make([]byte, 18)): "is an empty zip archive",
		"BZh91AY&SY":                            "is bzip2 data",
		tar:                                     "is a tar archive",
		"[{\"address\":\"0x\"}]":                "is a JSON array",
		"{\n  \"address\": \"0x\"\n}":           "not a whole object",
		"PAR1\x15\x00":                          "begins like a Parquet file",
		"\xff\xfe\x00\x00a\x00\x00\x00":         "UTF-32's, or UTF-16's",
		"a\x00d\x00d\x00":                       "--encoding utf-16le",
		"\x00a\x00d\x00d":                       "--encoding utf-16be",
		"\x01\x02\x00\x00\x00\x03":              "neither text nor",
		"address,externalId,Stra\xdfe\n":        "--encoding",
		"sep=;\naddress,externalId\n":           "the sep= line says that semicolons",
		goodAddress + ",a\n":                    "is the header missing?",
	} {
		_, _, _, err := read(input([]byte(content)), Options{})
		if header := new(HeaderError); !errors.As(err, &header) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want a *HeaderError with %q", content, err, want)
		}
	}
}

// TestDialects: separators, encodings and line ends are recognised, and can be named.
func TestDialects(t *testing.T) {
	sixteen := func(text string, big bool) string {
		var b []byte
		for _, unit := range utf16.Encode([]rune(text)) {
			if big {
				b = append(b, byte(unit>>8), byte(unit))
			} else {
				b = append(b, byte(unit), byte(unit>>8))
			}
		}
		return string(b)
	}
	for name, tt := range map[string]struct {
		text   string
		o      Options
		id     string
		format string
	}{
		"tabs":               {"address\texternalId\n" + goodAddress + "\ta,b\n", Options{}, "a,b", "separated by tabs, lines end in LF"},
		"pipes, CRLF":        {"address|externalId\r\n" + goodAddress + "|a\r\n", Options{}, "a", "separated by pipes, lines end in CRLF"},
		"sep= and quotes":    {"\"sep=|\"\naddress|externalId\n" + goodAddress + "|a\n", Options{}, "a", "separated by pipes (by its sep= line)"},
		"sep=, saved again":  {"\ufeffsep=;;\naddress;externalId\n" + goodAddress + ";a\n", Options{}, "a", "separated by semicolons (by its"},
		"an unusual one":     {"address^externalId\n" + goodAddress + "^a\n", Options{Delimiter: '^'}, "a", `separated by "^"`},
		"UTF-8 with BOM":     {"\ufeff" + small, Options{}, "a", "CSV in UTF-8 with a byte order mark"},
		"UTF-16 LE":          {sixteen("\ufeff"+strings.ReplaceAll(small, "\na", "\u00e4"), false), Options{}, "a", "CSV in UTF-16 LE with"},
		"UTF-16 BE":          {sixteen("\ufeff"+strings.ReplaceAll(small, ",a", ",\U00020b9f"), true), Options{}, "\U00020b9f", "CSV in UTF-16 BE with"},
		"UTF-16 LE, no BOM":  {sixteen(small, false), Options{Encoding: "utf-16le"}, "a", "CSV in UTF-16 LE,"},
		"Windows-1252":       {strings.ReplaceAll(small, ",a", ",\x80\xfc"), Options{Encoding: "windows-1252"}, "€ü", "CSV in Windows-1252"},
		"ISO 8859-1":         {strings.ReplaceAll(small, ",a", ",\xfc"), Options{Encoding: "iso-8859-1"}, "ü", "CSV in ISO 8859-1"},
		"a header like JSON": {"{x},address,externalId\n1," + goodAddress + ",a\n", Options{}, "a", "CSV in UTF-8, separated by commas"},
		"JSON Lines":         {`{"address":"` + goodAddress + `","externalId":"a"}` + "\n", Options{}, "a", "JSON Lines in UTF-8"},
	} {
		ids, reasons, format, err := read(input([]byte(tt.text)), tt.o)
		if err != nil || len(ids) != 1 || ids[0] != tt.id || !strings.Contains(format, tt.format) {
			t.Errorf("%s: got %v, rows %q, reasons %q, %q; want the row %q and %q", name, err, ids, reasons, format, tt.id, tt.format)
		}
	}
	for text, given := range map[string]string{"\xff\xfea\x00": "utf-8", "\ufeffa": "windows-1252", "\xfe\xff\x00a": "utf-16le"} {
		if _, _, _, err := read(input([]byte(text)), Options{Encoding: given}); err == nil || !strings.Contains(err.Error(), "but --encoding is "+given) {
			t.Errorf("%q as %s: got %v, want an error that names both", text, given, err)
		}
	}
	ids, reasons, _, err := read(input([]byte(sixteen("\ufeff"+small+goodAddress+",b\xd8", false)+"\x00\xd8")), Options{})
	if err != nil || len(ids) != 1 || len(reasons) != 1 {
		t.Errorf("half of a surrogate pair: got %v, rows %q, reasons %q; want a row and an invalid one", err, ids, reasons)
	}
}

// FuzzRecognise: any input is an export or an error, and every line of it is accounted for.
func FuzzRecognise(f *testing.F) {
	files, err := filepath.Glob("../../testdata/cases/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte(`{"address":"` + goodAddress + `","externalId":"a"}` + "\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		e, err := NewReader(input(content), Options{Name: "f", Chain: 300, ImportID: "i"})
		if err != nil {
			return
		}
		defer e.Close()
		im := Importer{Publisher: &published{}, Rejects: NewRejectsWriter(io.Discard)}
		err = im.Import(t.Context(), e)
		if accounting := new(AccountingError); errors.As(err, &accounting) {
			t.Errorf("got %v, want every line accounted for", err)
		}
	})
}
