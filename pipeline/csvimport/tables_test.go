package csvimport

import (
	"archive/zip"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/xuri/excelize/v2"
)

// sheetOf writes a workbook with excelize, which is not what reads it.
func sheetOf(t *testing.T, name string, rows ...[]any) []byte {
	t.Helper()
	f := excelize.NewFile()
	defer f.Close()
	if err := f.SetSheetName("Sheet1", name); err != nil {
		t.Fatal(err)
	}
	for i, row := range rows {
		if err := f.SetSheetRow(name, fmt.Sprintf("A%d", i+1), &row); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bookOf is a workbook of one sheet, in the form that the least writers give it.
func bookOf(t *testing.T, sheetData string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range map[string]string{
		"xl/workbook.xml": `<workbook xmlns:r="r"><sheets><sheet name="Ann &amp; Co" r:id="rId7"/></sheets></workbook>`,
		"xl/_rels/workbook.xml.rels": `<Relationships><Relationship Id="rId7" Target="/xl/worksheets/sheet1.xml"
			Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"/></Relationships>`,
		"xl/worksheets/sheet1.xml": sheetData,
	} {
		part, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(part, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestWorkbook: text cells are read, and cells of other types are invalid: Excel may have eaten digits.
func TestWorkbook(t *testing.T) {
	book := sheetOf(t, "Customers",
		[]any{"name", "Address", "External\nId", "note"},
		[]any{"Ann", goodAddress, "007", 12.5},
		[]any{"Bea", goodAddress, 1234567890123456},
		[]any{},
		[]any{"Cleo", 0x1234, "c"},
		[]any{"Dan", goodAddress, true},
		[]any{"Eve", goodAddress, "e"},
		[]any{nil, "eip155:1:" + goodAddress, "Ünï & <co>"},
	)
	columns := Columns{ExternalID: "external id"}
	ids, reasons, format, err := read(input(book), Options{Columns: columns})
	if err != nil || format != `Excel workbook, sheet "Customers"` || !slices.Equal(ids, []string{"007", "e", "Ünï & <co>"}) {
		t.Errorf("got %v, %q and rows %q", err, format, ids)
	}
	want := []string{"externalId: externalId is a number in the workbook (\"1234567890123456\")",
		"address: address is a number in the workbook", "externalId: externalId is true or false"}
	for i, reason := range want {
		if len(reasons) != len(want) || !strings.HasPrefix(reasons[i], reason) {
			t.Fatalf("got reasons %q, want %q", reasons, want)
		}
	}
	e, err := NewReader(input(book), Options{Name: "b.xlsx", Columns: columns, Chain: 300, ImportID: "i"})
	if err != nil {
		t.Fatal(err)
	}
	var rejects bytes.Buffer
	im := Importer{Publisher: &published{}, Rejects: NewRejectsWriter(&rejects)}
	if err := im.Import(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if s := im.Stats(); s.Lines != s.Header+s.Blank+6 || s.Published != 3 || s.Invalid != 3 {
		t.Errorf("got %+v, want a header, 3 rows published and 3 invalid", s)
	}
	if want := "b.xlsx,5,address,"; !strings.Contains(rejects.String(), want) {
		t.Errorf("got rejects %q, want %q in them", rejects.String(), want)
	}
	for want, options := range map[string]Options{
		`no sheet "Orders" (--sheet): it has "Customers"`:  {Sheet: "Orders"},
		`did you mean --columns 'externalId=External Id'?`: {},
		"want the columns \"wallet\"":                      {Columns: Columns{Address: "wallet", ExternalID: "External Id"}},
	} {
		if _, _, _, err := read(input(book), options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", options, err, want)
		}
	}
	if _, _, _, err := read(Input{Reader: bytes.NewReader(book)}, Options{}); err == nil || !strings.Contains(err.Error(), "from a pipe") {
		t.Errorf("from a pipe: got %v, want an error that says so", err)
	}
}

// TestWorkbookSheets: an error of the first sheet, such as a cover, names the sheets that may be meant.
func TestWorkbookSheets(t *testing.T) {
	for cover, want := range map[string]string{
		"cover": `found "cover"; --sheet NAME reads another sheet: "Data", "Notes"`,
		"":      `the sheet "Cover" is empty: want a header with the columns address and externalId; --sheet NAME reads`,
	} {
		f := excelize.NewFile()
		errs := []error{f.SetSheetName("Sheet1", "Cover"), f.SetCellStr("Cover", "A1", cover)}
		if cover == "" {
			errs = errs[:1]
		}
		for _, name := range []string{"Data", "Notes"} {
			_, err := f.NewSheet(name)
			errs = append(errs, err, f.SetSheetRow(name, "A1", &[]any{"address", "externalId"}),
				f.SetSheetRow(name, "A2", &[]any{goodAddress, name}))
		}
		var book bytes.Buffer
		if err := errors.Join(append(errs, f.Write(&book), f.Close())...); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := read(input(book.Bytes()), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("cover %q: got %v, want %q", cover, err, want)
		}
		if ids, _, _, err := read(input(book.Bytes()), Options{Sheet: "Data"}); err != nil || !slices.Equal(ids, []string{"Data"}) {
			t.Errorf("--sheet Data: got %q, %v", ids, err)
		}
	}
}

// TestWorkbookXML: what other writers than Excel put into a sheet, and what none should.
func TestWorkbookXML(t *testing.T) {
	head := `<worksheet><sheetData><row><c t="inlineStr"><is><t>address</t></is></c>` +
		`<c t="inlineStr"><is><r><t>external</t></r><r><rPr/><t>Id</t></r><rPh><t>x</t></rPh></is></c></row>`
	row := `<row><c t="str"><f>A1</f><v>` + goodAddress + `</v></c><c t="str"><v>%s</v></c></row>`
	const end = `</sheetData></worksheet>`
	for name, tt := range map[string]struct{ sheet, id, problem string }{
		"no references": {head + fmt.Sprintf(row, "a") + end, "a", ""},
		"an escape":     {head + fmt.Sprintf(row, "a_x0042__x005F_") + end, "aB_", ""},
		"an error":      {head + `<row><c t="str"><v>` + goodAddress + `</v></c><c t="e"><v>#N/A</v></c></row>` + end, "", ""},
		"cut off":       {head + fmt.Sprintf(row, "a"), "a", "unexpected EOF"},
		"column 16385":  {head + `<row><c r="XFE2"/></row>` + end, "", "beyond the last column"},
		"rows swapped":  {head + `<row r="5"/><row r="3"/>` + end, "", `has the number "3"`},
		"cells swapped": {head + `<row><c r="B2" t="str"><v>b</v></c><c r="A2"/></row>` + end, "", "out of order"},
		"a shared text": {head + `<row><c t="s"><v>7</v></c></row>` + end, "", "shared text 7, but there are 0"},
		"a bomb":        {head + `<row><c t="str"><v>` + strings.Repeat("x", 5<<20), "", "longer than 262144 bytes"},
		"a deep one":    {head + strings.Repeat("<x>", 100), "", "nested more than 64 deep"},
		"a directive":   {`<!DOCTYPE x [<!ENTITY a "b">]>` + head + end, "", "XML directives"},
		"a type":        {head + `<row><c t="x"><v>1</v></c></row>` + end, "", `unknown type "x"`},
		"empty":         {`<worksheet><sheetData/></worksheet>`, "", `the sheet "Ann & Co" is empty`},
	} {
		ids, _, _, err := read(input(bookOf(t, tt.sheet)), Options{})
		if tt.problem == "" && err != nil || tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.problem)
		}
		if strings.Join(ids, ",") != tt.id {
			t.Errorf("%s: got rows %q, want %q", name, ids, tt.id)
		}
	}
}

func parquetOf[T any](t *testing.T, rows ...T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, parquet.MaxRowsPerRowGroup(2))
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestParquet: addresses are text or 20 bytes, externalIds text, UUIDs or whole numbers.
func TestParquet(t *testing.T) {
	raw, err := hex.DecodeString(goodAddress[2:])
	if err != nil {
		t.Fatal(err)
	}
	type text struct {
		Name       string  `parquet:"name,snappy"`
		ExternalID *string `parquet:"External_ID,optional,dict"`
		Address    string  `parquet:"address,zstd"`
	}
	type binary struct {
		Address [20]byte `parquet:"address"`
		ID      int64    `parquet:"externalId"`
	}
	type loose struct {
		Address []byte   `parquet:"address"`
		ID      [16]byte `parquet:"externalId,uuid"`
		Chain   string   `parquet:"chainId"`
	}
	a, b := "a", "b"
	for name, tt := range map[string]struct {
		file         []byte
		ids, reasons []string
	}{
		"text": {parquetOf(t, text{"Ann", &a, goodAddress}, text{"Bea", nil, goodAddress}, text{"Cleo", &b, "0x12"}, text{"Dan", &b, goodAddress}),
			[]string{"a", "b"}, []string{"externalId: externalId is empty", "address: address has 2 hex digits, want 40"}},
		"20 bytes and numbers": {parquetOf(t, binary{[20]byte(raw), 1}, binary{[20]byte(raw), -1 << 62}, binary{[20]byte(raw), 3}),
			[]string{"1", "-4611686018427387904", "3"}, nil},
		"bytes and a UUID": {parquetOf(t, loose{raw, [16]byte{15: 1}, "eip155:1"}, loose{raw[1:], [16]byte{15: 1}, "eip155:1"}),
			[]string{"00000000-0000-0000-0000-000000000001"}, []string{"address: address does not begin with 0x"}},
	} {
		ids, reasons, format, err := read(input(tt.file), Options{})
		if err != nil || format != "Parquet" || !slices.Equal(ids, tt.ids) || !slices.Equal(reasons, tt.reasons) {
			t.Errorf("%s: got %v, %q, rows %q, reasons %q; want %q and %q", name, err, format, ids, reasons, tt.ids, tt.reasons)
		}
	}
	type wrong struct {
		Address string  `parquet:"address"`
		ID      float64 `parquet:"externalId"`
	}
	type nested struct {
		Address []string `parquet:"address,list"`
		ID      string   `parquet:"externalId"`
	}
	for want, file := range map[string][]byte{
		`"externalId", which is read as externalId, has the type DOUBLE`: parquetOf(t, wrong{goodAddress, 1}),
		`"address", which is read as address, has the type of a group`:   parquetOf(t, nested{[]string{goodAddress}, "a"}),
		"is it truncated?": parquetOf(t, wrong{goodAddress, 1})[:60],
	} {
		_, _, _, err := read(input(file), Options{})
		if header := new(HeaderError); !errors.As(err, &header) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a *HeaderError with %q", err, want)
		}
	}
}

// TestJSONLines: an object a line, whose members are unique, and whose values are text or exact numbers.
func TestJSONLines(t *testing.T) {
	object := func(members string) string { return `{"Address":"` + goodAddress + `",` + members + "}\n" }
	text := object(`"external_id":"a","more":{"externalId":"x"}`) + "\n" + object(`"externalId":12345`) +
		object(`"externalId":12345678901234567890`) + object(`"externalId":9007199254740993`) + object(`"externalId":1.5`) +
		object(`"externalId":null`) + object(`"externalId":["a"]`) + object(`"externalId":true`) +
		object(`"externalId":"a","externalId":"b"`) + object(`"externalId":"\ud800"`) + "{\n" + object(`"externalId":"b"} x`) +
		object(`"externalId":"z","chainId":"eip155:1"`)
	ids, reasons, _, err := read(input([]byte(text)), Options{})
	if err != nil || !slices.Equal(ids, []string{"a", "12345", "z"}) {
		t.Errorf("got %v and rows %q, want a, 12345 and z", err, ids)
	}
	want := []string{
		"externalId: externalId is the number", "externalId: externalId is a number of more than 53 bits",
		"externalId: externalId is the number \"1.5\"", "externalId: externalId is empty", "externalId: externalId is a JSON object or array",
		"externalId: externalId is true or false", "record: line is not a JSON object of unique members",
		"externalId: externalId has the replacement character", "record: line is not a JSON object", "record: line is not a JSON object",
	}
	for i := range max(len(want), len(reasons)) {
		if i >= len(want) || i >= len(reasons) || !strings.HasPrefix(reasons[i], want[i]) {
			t.Fatalf("got reasons\n%s\nwant\n%s", strings.Join(reasons, "\n"), strings.Join(want, "\n"))
		}
	}
	_, _, _, err = read(input([]byte(`{"wallet":"`+goodAddress+`","customerId":"a"}`)), Options{})
	if err == nil || !strings.Contains(err.Error(), "--columns address=wallet,externalId=customerId?") {
		t.Errorf("other names: got %v, want the flag that names them", err)
	}
	ids, _, _, err = read(input([]byte(`{"wallet":"`+goodAddress+`","customerId":"a"}`)),
		Options{Columns: Columns{Address: "Wallet", ExternalID: "customerid"}})
	if err != nil || len(ids) != 1 {
		t.Errorf("named: got %v, rows %q, want one", err, ids)
	}
}

// TestJSONNumbers: a number that is not written as the digits of a whole number that every program keeps is invalid.
func TestJSONNumbers(t *testing.T) {
	for number, want := range map[string]string{ // the externalId; otherwise what its problem begins with
		"0": "0", "7": "7", "-7": "-7", "9007199254740991": "9007199254740991", "-9007199254740991": "-9007199254740991",
		"9007199254740992":     "externalId: externalId is a number of more than 53 bits",
		"-9007199254740992":    "externalId: externalId is a number of more than 53 bits",
		"-0":                   `externalId: externalId is the number "-0", want a string`,
		"-0.0":                 `externalId: externalId is the number "-0.0", want a string`,
		"7.0":                  `externalId: externalId is the number "7.0", want a string`,
		"7e0":                  `externalId: externalId is the number "7e0", want a string`,
		"1E3":                  `externalId: externalId is the number "1E3", want a string`,
		"1e400":                `externalId: externalId is the number "1e400", want a string`,
		"18446744073709551616": `externalId: externalId is the number "18446744073709551616", want a string`,
		"007":                  "record: line is not a JSON object", "+7": "record: line is not a JSON object",
		".7": "record: line is not a JSON object", "0x7": "record: line is not a JSON object",
		"NaN": "record: line is not a JSON object", "-Infinity": "record: line is not a JSON object",
	} {
		first := `{"address":"` + goodAddress + `","externalId":"first"}` + "\n"
		ids, reasons, _, err := read(input([]byte(first+`{"address":"`+goodAddress+`","externalId":`+number+`}`)), Options{})
		switch {
		case err != nil:
			t.Errorf("%s: got %v, want no error", number, err)
		case strings.Contains(want, ":") && (len(reasons) != 1 || !strings.HasPrefix(reasons[0], want)):
			t.Errorf("%s: got reasons %q, ids %q; want %s", number, reasons, ids, want)
		case !strings.Contains(want, ":") && !slices.Equal(ids, []string{"first", want}):
			t.Errorf("%s: got ids %q, reasons %q; want %s", number, ids, reasons, want)
		}
	}
}

// TestColumns: what --columns is proposed for a header that is nearly right.
func TestColumns(t *testing.T) {
	for header, want := range map[string]string{
		"addresss,externalId":              "--columns address=addresss?",
		"wallet_address,External ID,name":  "--columns 'address=wallet_address,externalId=External ID'?",
		"address,\"Customer, ID\"":         `--columns 'address=address,`, // nothing is proposed for what is given already
		"address,customer_id,user_id":      `externalId may be "customer_id", "user_id": select one`,
		"address,Ref":                      "name them with --columns address=NAME,externalId=NAME",
		"wallet address,it's,externalid":   "--columns 'address=wallet address'?",
		"address,externalId,external_id":   "may both be externalId: select one with --columns externalId=externalId",
		"email_address,home_address,extId": `address may be "email_address", "home_address"`,
		"address,externalId,network":       `may "network" be the chain? If so, use --columns chainId=network; if`,
		"address,externalId,Chain ID":      `--columns 'chainId=Chain ID'; if no column is the chain, --columns chainId=`,
		"address;externalId,foo":           `--columns 'address=address;externalId'?`,
		"\ufeff\ufeffaddress,externalid":   `--columns $'address=\xef\xbb\xbfaddress'?`,
		"wallet\x1b,it's\\externalid":      `--columns $'address=wallet\x1b,externalId=it\'s\\externalid'?`,
	} {
		_, _, _, err := read(input([]byte(header+"\n")), Options{})
		if want == "--columns 'address=address," {
			want = `--columns 'externalId="Customer, ID"'?`
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", header, err, want)
		}
	}
	rows, _, _, err := read(input([]byte("address,externalId,network\n"+goodAddress+",a,eip155:5\n")),
		Options{Chain: 300, Columns: Columns{NoChainID: true}})
	if err != nil || len(rows) != 1 {
		t.Errorf("no column is the chain: got %v, rows %q; want one", err, rows)
	}
	names := Columns{Address: "wallet", ExternalID: "the  ID", ChainID: "net"}
	ids, _, _, err := read(input([]byte("address,\"The\nId\",NET,Wallet\nx,a,eip155:1,"+goodAddress+"\n")), Options{Columns: names})
	if err != nil || len(ids) != 1 || ids[0] != "a" {
		t.Errorf("named: got %v, rows %q, want one", err, ids)
	}
	_, _, _, err = read(input([]byte("wallet,the id\n")), Options{Columns: names})
	if err == nil || !strings.Contains(err.Error(), `"net" (for chainId)`) {
		t.Errorf("a named column that is missing: got %v, want an error that names it", err)
	}
}

// TestTrim: white space is removed on demand only, and counted.
func TestTrim(t *testing.T) {
	text := "address,externalId,chainId\n " + goodAddress + ",a,\n" + goodAddress + ",b\u00a0, eip155:1\n" + goodAddress + ",c,\n"
	for trim, want := range map[bool]int{false: 1, true: 3} {
		e, err := NewReader(input([]byte(text)), Options{Name: "e", Chain: 300, ImportID: "i", Trim: trim})
		if err != nil {
			t.Fatal(err)
		}
		im := Importer{Publisher: &published{}, Rejects: NewRejectsWriter(io.Discard)}
		if err := im.Import(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if s := im.Stats(); int(s.Published) != want || int(s.Trimmed) != want-1 {
			t.Errorf("trim %v: got %+v, want %d rows, all but one trimmed", trim, s, want)
		}
	}
}

// TestInvalidLimit: an import ends when there are too many invalid rows.
func TestInvalidLimit(t *testing.T) {
	text := "address,externalId\n" + strings.Repeat("0x,a\n"+goodAddress+",b\n", 3000)
	for name, tt := range map[string]struct {
		limit InvalidLimit
		want  int64 // invalid rows at the end; 0: no error
	}{
		"none":          {InvalidLimit{-1, -1}, 0},
		"3000 rows":     {InvalidLimit{3000, -1}, 0},
		"2999 rows":     {InvalidLimit{2999, -1}, 3000},
		"0 rows":        {InvalidLimit{0, -1}, 1},
		"50 %":          {InvalidLimit{-1, 50.1}, 0},
		"less than 50%": {InvalidLimit{-1, 49.9}, 501},
	} {
		e, err := newReader(strings.NewReader(text), "e.csv")
		if err != nil {
			t.Fatal(err)
		}
		im := Importer{Publisher: &published{}, Rejects: NewRejectsWriter(io.Discard), MaxInvalid: &tt.limit}
		err = im.Import(t.Context(), e)
		if failed := new(InvalidLimitError); errors.As(err, &failed) != (tt.want > 0) || tt.want > 0 && failed.Stats.Invalid != tt.want {
			t.Errorf("%s: got %v, want %d invalid rows", name, err, tt.want)
		}
	}
}

// TestSummary: rows are counted by field and reason, whatever the values in the reason are.
func TestSummary(t *testing.T) {
	var s Summary
	for i, reason := range []string{`chain "a\"1" is bad`, "address has 3 hex digits", `chain "b" is bad`, "address has 12 hex digits", `chain "" is bad`} {
		s.Add(&Reject{File: "e.csv", Line: i + 1, Field: "f", Reason: reason})
	}
	kinds := s.Kinds()
	if len(kinds) != 2 || kinds[0].Rows != 3 || kinds[0].First.Line != 1 || kinds[1].Rows != 2 || kinds[1].First.Line != 2 {
		t.Errorf("got %+v, want 3 rows from line 1 on and 2 from line 2 on", kinds)
	}
	for i := range 1000 {
		s.Add(&Reject{Field: "f", Reason: strings.Repeat("x", i)})
	}
	if kinds := s.Kinds(); len(kinds) != mostReasons+1 || kinds[0].First.Reason != "other reasons" {
		t.Errorf("got %d kinds, the first %+v, want %d and other reasons", len(kinds), kinds[0], mostReasons+1)
	}
}

// FuzzWorkbook: any sheet is read, or an error.
func FuzzWorkbook(f *testing.F) {
	f.Add(`<worksheet><sheetData><row r="1"><c r="A1" t="str"><v>address</v></c></row></sheetData></worksheet>`)
	f.Fuzz(func(t *testing.T, sheet string) {
		_, _, _, _ = read(input(bookOf(t, sheet)), Options{})
	})
}

// TestDamagedParquet: a file with a changed byte, or cut off, is read or an error.
func TestDamagedParquet(t *testing.T) {
	type row struct {
		Address string `parquet:"address"`
		ID      int64  `parquet:"externalId,dict"`
	}
	whole := parquetOf(t, row{goodAddress, 1}, row{goodAddress, 2}, row{goodAddress, 3})
	importIt := func(file []byte, what string, at int) {
		e, err := NewReader(input(file), Options{Name: "f", Chain: 300, ImportID: "i"})
		if err != nil {
			return
		}
		// Few bytes may claim billions of rows without a value, which the limit of invalid rows ends.
		im := Importer{Rejects: NewRejectsWriter(io.Discard), MaxInvalid: &InvalidLimit{Rows: 1000, Percent: -1}}
		err = im.Import(t.Context(), e)
		if accounting := new(AccountingError); errors.As(err, &accounting) {
			t.Errorf("%s at %d: got %v, want every row accounted for", what, at, err)
		}
	}
	for at := 0; at < len(whole); at += 7 {
		importIt(whole[:at], "cut off", at)
		damaged := slices.Clone(whole)
		damaged[at] ^= byte(1 + at%255)
		importIt(damaged, "changed", at)
	}
}
