package csvimport

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/purser-onboard/purser/printable"
)

// What a workbook may take at most. Excel's own limits are 1,048,576 rows, 16,384 columns and 32,767 characters a cell.
const (
	maxSheetRows    = 1 << 20
	maxSheetColumns = 1 << 14
	maxCellText     = 1 << 18   // bytes of one text, with what XML escapes
	maxSharedText   = 512 << 20 // bytes of all shared texts, which are kept in memory
	maxXMLDepth     = 64
)

// workbook reads a sheet of an Excel workbook (ECMA-376, SpreadsheetML), a row at a time. Cells have types: a number is
// not the text of its digits, because Excel keeps 15 of them and no leading zero.
type workbook struct {
	name    string
	sheet   string
	others  []string // the workbook's other sheets
	columns Columns
	shared  texts
	part    io.ReadCloser
	xml     *xmlReader

	rows   int64 // row elements so far
	blank  int64
	number int // of the row that was read last
	names  []string
	at     place
	cells  []cell // of the row that was read last, by column
	raw    []byte
}

// cell is a cell's text and type: "" empty, "s" text, "n" a number, "b" true or false, "e" an error value, "d" a date.
type cell struct {
	text string
	kind string
}

// newWorkbook reads the header of a sheet. Its error is a *HeaderError.
func newWorkbook(archive *zip.Reader, o Options) (*workbook, error) {
	w := &workbook{name: o.Name, columns: o.Columns}
	fail := func(err error) (*workbook, error) {
		w.close()
		return nil, &HeaderError{File: w.name, Reason: err.Error()}
	}
	parts := partsOf(archive)
	sheet, err := w.findSheet(parts, o.Sheet)
	if err != nil {
		return fail(err)
	}
	if err := w.shared.read(parts); err != nil {
		return fail(err)
	}
	part, err := parts.open(sheet)
	if err != nil {
		return fail(err)
	}
	w.part, w.xml = part, newXML(part)
	if err := w.readHeader(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// findSheet returns the part of the sheet of a name, or of the first sheet.
func (w *workbook) findSheet(p parts, name string) (part string, err error) {
	const book, relations = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"
	var names []string
	id := ""
	err = p.each(book, "sheet", func(start *xml.StartElement, _ *xmlReader) error {
		title := attr(start, "name")
		names = append(names, title)
		if id == "" && (name == "" || title == name) {
			w.sheet, id = title, attr(start, "id")
		}
		return nil
	})
	w.others = slices.DeleteFunc(slices.Clone(names), func(title string) bool { return title == w.sheet })
	switch {
	case err != nil:
		return "", err
	case id == "" && name != "":
		return "", fmt.Errorf("the workbook has no sheet %s (--sheet): it has %s", printable.Quote(name, 40), quoteAll(names))
	case id == "":
		return "", errors.New("the workbook has no sheet")
	}
	err = p.each(relations, "Relationship", func(start *xml.StartElement, _ *xmlReader) error {
		if attr(start, "Id") != id {
			return nil
		}
		if !strings.HasSuffix(attr(start, "Type"), "/worksheet") {
			return fmt.Errorf("the sheet %s is not a table%s", printable.Quote(w.sheet, 40), w.otherSheets())
		}
		part = attr(start, "Target")
		if !strings.HasPrefix(part, "/") {
			part = path.Join("xl", part)
		}
		return nil
	})
	if err == nil && part == "" {
		err = fmt.Errorf("the workbook has no location for its sheet %s", printable.Quote(w.sheet, 40))
	}
	return part, err
}

func (w *workbook) title() string { return "sheet " + printable.Quote(w.sheet, 100) }

func (w *workbook) close() {
	if w.part != nil {
		_ = w.part.Close() // it was only read
	}
}

func (w *workbook) counts() (lines, header, blank int64) { return w.rows, 1, w.blank }

func (w *workbook) line() int { return w.number }

func (w *workbook) doubt() string { return w.columns.doubt(w.names, w.at) }

func (w *workbook) readHeader() error {
	fail := func(reason string) error {
		return &HeaderError{File: w.name, Line: max(w.number, 1), Reason: reason + w.otherSheets()}
	}
	err := w.nextRow()
	if errors.Is(err, io.EOF) {
		return fail("the sheet " + printable.Quote(w.sheet, 40) + " is empty: want a header with the columns address and " +
			"externalId")
	}
	if err != nil {
		return fail(err.Error())
	}
	for _, c := range w.cells {
		w.names = append(w.names, c.text)
	}
	if w.at, err = w.columns.find(w.names); err != nil {
		return fail(err.Error())
	}
	if w.columns.lacks(w.at) {
		return fail(w.columns.missing(w.names, w.at))
	}
	return nil
}

// otherSheets says which sheets of the workbook may be meant instead.
func (w *workbook) otherSheets() string {
	if len(w.others) == 0 {
		return ""
	}
	return "; --sheet NAME reads another sheet: " + quoteAll(w.others)
}

func (w *workbook) read() (record, error) {
	if err := w.nextRow(); err != nil {
		return record{}, err
	}
	rec := record{line: w.number, lines: 1, raw: w.text()}
	for column, i := range w.at {
		if i < 0 || i >= len(w.cells) {
			continue
		}
		c := w.cells[i]
		if reason := c.problem(columnName(column)); reason != "" {
			rec.reject = rejectOf(w.name, &rec, reason)
			rec.reject.Field = columnName(column)
			return rec, nil
		}
		*[columnCount]*string{&rec.address, &rec.id, &rec.chain}[column] = c.text
	}
	return rec, nil
}

// problem says why a cell is no text.
func (c cell) problem(field string) string {
	shown := printable.Quote(c.text, 40)
	switch c.kind {
	case "n":
		return fmt.Sprintf("%s is a number in the workbook (%s): Excel keeps 15 digits and no leading zeros; format the "+
			"column as text before entering values", field, shown)
	case "b":
		return fmt.Sprintf("%s is true or false in the workbook, not text", field)
	case "d":
		return fmt.Sprintf("%s is a date in the workbook (%s), not text", field, shown)
	case "e":
		return fmt.Sprintf("%s is the error value %s of a formula", field, shown)
	}
	return ""
}

// text is the row as a line of CSV, for the rejects file.
func (w *workbook) text() []byte {
	fields := make([]string, len(w.cells))
	for i, c := range w.cells {
		fields[i] = c.text
	}
	w.raw = appendCSV(w.raw[:0], fields)
	return w.raw
}

// appendCSV appends a line of CSV without its line end, clipped like an over-long line.
func appendCSV(dst []byte, fields []string) []byte {
	var b bytes.Buffer
	out := csv.NewWriter(&b)
	_ = out.Write(fields) // a buffer takes everything
	out.Flush()
	line := bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
	if len(line) > maxRecordBytes {
		line = bytes.ToValidUTF8(line[:clipRaw], nil)
	}
	return append(dst, line...)
}

// nextRow reads the next row that is not blank into w.cells; io.EOF at the end of the sheet.
func (w *workbook) nextRow() error {
	for {
		start, err := w.xml.find("row")
		if err != nil {
			return err
		}
		w.rows++
		w.number++
		if r := attr(start, "r"); r != "" {
			number, err := strconv.Atoi(r)
			if err != nil || number < w.number || number > maxSheetRows {
				return fmt.Errorf("row %d of the sheet has the number %s", w.number, printable.Quote(r, 20))
			}
			w.number = number
		}
		isBlank, err := w.readCells()
		if err != nil {
			return fmt.Errorf("row %d: %w", w.number, err)
		}
		if !isBlank {
			return nil
		}
		w.blank++
	}
}

func (w *workbook) readCells() (isBlank bool, err error) {
	w.cells = w.cells[:0]
	isBlank = true
	for column := 0; ; column++ {
		start, err := w.xml.child()
		if err != nil {
			return false, err
		}
		if start == nil {
			return isBlank, nil
		}
		if start.Name.Local != "c" {
			if err := w.xml.skip(); err != nil {
				return false, err
			}
			column--
			continue
		}
		if r := attr(start, "r"); r != "" {
			if column, err = columnOf(r); err != nil {
				return false, err
			}
		}
		if column < len(w.cells) || column >= maxSheetColumns {
			return false, fmt.Errorf("cell %s is out of order", printable.Quote(attr(start, "r"), 20))
		}
		c, err := w.readCell(attr(start, "t"))
		if err != nil {
			return false, err
		}
		for len(w.cells) < column {
			w.cells = append(w.cells, cell{})
		}
		w.cells = append(w.cells, c)
		isBlank = isBlank && strings.TrimSpace(c.text) == ""
	}
}

// readCell reads the cell whose start was read, of a type of ST_CellType (ECMA-376 part 1, section 18.18.11).
func (w *workbook) readCell(kind string) (cell, error) {
	value := ""
	for {
		start, err := w.xml.child()
		if err != nil {
			return cell{}, err
		}
		if start == nil {
			break
		}
		switch start.Name.Local {
		case "v":
			value, err = w.xml.text()
		case "is":
			value, err = w.xml.richText()
		default: // f, extLst
			err = w.xml.skip()
		}
		if err != nil {
			return cell{}, err
		}
	}
	switch kind {
	case "s":
		i, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil {
			return cell{}, fmt.Errorf("a cell refers to the shared text %s", printable.Quote(value, 20))
		}
		value, err = w.shared.at(i)
		return cell{value, "s"}, err
	case "str", "inlineStr":
		return cell{unescape(value), "s"}, nil
	case "", "n", "b", "e", "d":
		if value == "" {
			return cell{}, nil
		}
		if kind == "" {
			kind = "n"
		}
		return cell{value, kind}, nil
	}
	return cell{}, fmt.Errorf("a cell has the unknown type %s", printable.Quote(kind, 20))
}

// columnOf returns the index of the column in a reference such as AB12.
func columnOf(reference string) (int, error) {
	column := 0
	for i := 0; i < len(reference); i++ {
		c := reference[i]
		if c < 'A' || c > 'Z' {
			if i > 0 {
				break
			}
			return 0, fmt.Errorf("a cell has the reference %s", printable.Quote(reference, 20))
		}
		if column = column*26 + int(c-'A'+1); column > maxSheetColumns {
			return 0, fmt.Errorf("cell %s is beyond the last column", printable.Quote(reference, 20))
		}
	}
	return column - 1, nil
}

// unescape decodes _x000D_ and the like (ECMA-376 part 1, section 22.9.2.19).
func unescape(text string) string {
	if !strings.Contains(text, "_x") {
		return text
	}
	var b strings.Builder
	for {
		i := strings.Index(text, "_x")
		if i < 0 || len(text) < i+7 {
			break
		}
		code, err := strconv.ParseUint(text[i+2:i+6], 16, 16)
		if err != nil || text[i+6] != '_' {
			b.WriteString(text[:i+2])
			text = text[i+2:]
			continue
		}
		b.WriteString(text[:i])
		b.WriteRune(rune(code))
		text = text[i+7:]
	}
	b.WriteString(text)
	return b.String()
}
