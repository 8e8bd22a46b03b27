package pipeline

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/ethereum/go-ethereum/common"
)

// A record of an export may span several lines when a quoted field holds line breaks. A quote that is not closed
// within these bounds is taken for a stray one: its line is rejected and reading resumes on the next, so that one
// missing quote does not swallow the rest of the file.
const (
	maxLine        = 64 << 10 // bytes of one physical line
	maxRecordLines = 100
	maxRecordBytes = 64 << 10
	clipRaw        = 1 << 10 // what is kept of an over-long line for the rejects file
)

// Reject is a record of an export that cannot be published.
type Reject struct {
	File   string
	Line   int    // 1-based physical line on which the record begins
	Field  string // "address", "externalId", "chainId", or "record" when the line as a whole is wrong
	Reason string
	Raw    string // the record as it stands in the file, without its line end
}

// HeaderError says why the header of an export cannot be used; nothing was read beyond it.
type HeaderError struct {
	File   string
	Line   int
	Reason string
}

func (e *HeaderError) Error() string {
	return fmt.Sprintf("%s:%d: header: %s", e.File, e.Line, e.Reason)
}

// Export reads the rows of one CSV export (RFC 4180) in constant memory. It never repairs: a record is a good row or a
// Reject. Not for concurrent use.
type Export struct {
	name     string
	chain    uint64 // default chain, 0: none
	importID string

	lines   *lineReader
	feed    bytes.Reader
	csv     *csv.Reader
	comma   rune
	record  []byte    // the record being assembled, with its line ends
	plain   []string  // the fields of a record without quotes
	held    []rawLine // lines read ahead and given back by a failed assembly
	address int       // column numbers
	extID   int
	chainID int // -1: no such column
	columns int
}

type rawLine struct {
	text    []byte // without its line end; a copy
	number  int
	tooLong bool
}

// NewExport reads the header of an export. name is shown in messages and carried with each row (its base name), chain
// is the EIP-155 chain of addresses that name none (0: they are rejected), comma separates the fields. The error is a
// *HeaderError or one of r.
func NewExport(r io.Reader, name string, chain uint64, comma rune, importID string) (*Export, error) {
	e := &Export{name: name, chain: chain, importID: importID, comma: comma, lines: newLineReader(r)}
	e.resetCSV()
	if err := e.readHeader(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Export) resetCSV() {
	e.csv = csv.NewReader(&e.feed)
	e.csv.Comma = e.comma
	e.csv.FieldsPerRecord = -1
	e.csv.ReuseRecord = true
}

func (e *Export) readHeader() error {
	line, err := e.nextLine()
	for err == nil && isBlank(line.text) {
		line, err = e.nextLine()
	}
	if errors.Is(err, io.EOF) {
		return &HeaderError{File: e.name, Line: 1,
			Reason: "the file is empty: want a header with the columns address and externalId"}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", e.name, err)
	}
	fail := func(format string, args ...any) error {
		return &HeaderError{File: e.name, Line: line.number, Reason: fmt.Sprintf(format, args...)}
	}
	text := line.text
	if bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff}) ||
		bytes.IndexByte(text, 0) >= 0 {
		return fail("the file is not UTF-8 (it looks like UTF-16): save it as UTF-8")
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // only the very first line can carry a byte order mark
	if !utf8.Valid(text) {
		return fail("the header is not valid UTF-8")
	}
	if isBlank(text) {
		return fail("the file holds nothing but a byte order mark")
	}
	e.feed.Reset(text)
	fields, err := e.csv.Read()
	if err != nil {
		e.resetCSV()
		return fail("%v", csvReason(err))
	}
	e.address, e.extID, e.chainID, e.columns = -1, -1, -1, len(fields)
	for i, f := range fields {
		var column *int
		switch strings.ToLower(strings.TrimSpace(f)) {
		case "address":
			column = &e.address
		case "externalid", "external_id":
			column = &e.extID
		case "chainid", "chain_id":
			column = &e.chainID
		default:
			continue
		}
		if *column >= 0 {
			return fail("column %q appears twice", f)
		}
		*column = i
	}
	if e.address < 0 || e.extID < 0 {
		hint := ""
		for _, other := range ";\t|" {
			if other != e.comma && strings.ContainsRune(string(text), other) && len(fields) == 1 {
				hint = fmt.Sprintf(" (it looks separated by %q: say so with --delimiter)", other)
			}
		}
		return fail("want the columns address and externalId, found %s%s", quoteAll(fields), hint)
	}
	return nil
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
		fmt.Fprintf(&b, "%q", clip(f))
	}
	return b.String()
}

// Line is the physical line that was read last.
func (e *Export) Line() int { return e.lines.number }

// Next returns the next row, or a Reject, or an error of the reader; io.EOF at the end. Exactly one of the first two is
// set when the error is nil.
func (e *Export) Next() (Row, *Reject, error) {
	rec, err := e.read()
	if err != nil || rec.reject != nil {
		return Row{}, rec.reject, err
	}
	row, _, reject := e.check(rec)
	return row, reject, nil
}

// record is a record of the export, split and not checked.
type record struct {
	line               int
	address, chain, id string
	raw                []byte // as it stands in the file; valid until the next read
	reject             *Reject
}

// read returns the next record. Its reject says what is wrong with it as a whole; then the fields are empty.
func (e *Export) read() (record, error) {
	for {
		first, err := e.nextLine()
		if err != nil {
			return record{}, err
		}
		if isBlank(first.text) {
			continue
		}
		fields, reject, err := e.split(first)
		rec := record{line: first.number, raw: e.record, reject: reject}
		if err != nil || reject != nil {
			return rec, err
		}
		rec.address, rec.id = fields[e.address], fields[e.extID]
		if e.chainID >= 0 {
			rec.chain = fields[e.chainID]
		}
		return rec, nil
	}
}

// split assembles the record that begins with a line, and returns its fields.
func (e *Export) split(first rawLine) ([]string, *Reject, error) {
	if first.tooLong {
		return nil, e.reject(first, first.text,
			fmt.Sprintf("line is longer than %d bytes; only its beginning is kept here", maxLine)), nil
	}
	e.record = append(e.record[:0], first.text...)
	var more []rawLine
	closed := bytes.Count(first.text, []byte{'"'})%2 == 0
	if !closed {
		first.text = bytes.Clone(first.text) // reading on overwrites it
	}
	for !closed && len(more) < maxRecordLines && len(e.record) < maxRecordBytes {
		line, err := e.nextLine()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		line.text = bytes.Clone(line.text)
		more = append(more, line)
		if line.tooLong {
			break
		}
		e.record = append(e.record, '\n')
		e.record = append(e.record, line.text...)
		closed = bytes.Count(line.text, []byte{'"'})%2 != 0
	}
	if !closed {
		e.giveBack(more)
		return nil, e.reject(first, first.text, "a quoted field is not closed"), nil
	}
	if len(more) == 0 && !utf8.Valid(first.text) {
		return nil, e.reject(first, first.text, "line is not valid UTF-8"), nil
	}
	fields, err := e.fields()
	if err != nil {
		e.giveBack(more)
		return nil, e.reject(first, first.text, csvReason(err)), nil
	}
	if len(fields) != e.columns {
		return nil, e.reject(first, e.record,
			fmt.Sprintf("record has %d fields, the header has %d", len(fields), e.columns)), nil
	}
	if !utf8.Valid(e.record) {
		return nil, e.reject(first, e.record, "record is not valid UTF-8"), nil
	}
	return fields, nil, nil
}

// fields takes the record apart. Where there is no quote there is nothing to csv but the commas.
func (e *Export) fields() ([]string, error) {
	if bytes.IndexByte(e.record, '"') < 0 && e.record[len(e.record)-1] != '\r' { // csv has views on that one, too
		e.plain = e.plain[:0]
		for field := range strings.SplitSeq(string(e.record), string(e.comma)) {
			e.plain = append(e.plain, field)
		}
		return e.plain, nil
	}
	e.feed.Reset(e.record)
	fields, err := e.csv.Read()
	if err != nil {
		e.resetCSV()
	}
	return fields, err
}

// check turns a record into a row with its address in EIP-55 form, or into a Reject. Many goroutines may call it while
// another one reads on.
func (e *Export) check(rec record) (Row, [addressLength]byte, *Reject) {
	row, text, field, err := e.row(rec.address, rec.chain, rec.id)
	if err != nil {
		return Row{}, text, &Reject{File: e.name, Line: rec.line, Field: field, Reason: err.Error(), Raw: string(rec.raw)}
	}
	row.File, row.Line, row.ImportID = e.name, rec.line, e.importID
	return row, text, nil
}

// row makes a row of its fields, or names the field that is wrong.
func (e *Export) row(address, chain, id string) (row Row, text [addressLength]byte, field string, err error) {
	switch {
	case address == "":
		return row, text, "address", errors.New("address is empty")
	case strings.TrimSpace(address) != address:
		return row, text, "address", errors.New("address has space around it")
	}
	row.Account.Chain = e.chain
	if chain != "" {
		number, err := ParseChain(chain)
		if err != nil {
			return row, text, "chainId", err
		}
		row.Account.Chain = number
	}
	if strings.IndexByte(address, ':') >= 0 {
		account, digits, err := parseAccount(address)
		if err != nil {
			return row, text, "address", err
		}
		if chain != "" && account.Chain != row.Account.Chain {
			return row, text, "chainId", fmt.Errorf("chainId %s contradicts the address, which names chain %d",
				clip(chain), account.Chain)
		}
		row.Account, text = account, digits
	} else {
		parsed, digits, err := parseAddress(address)
		if err != nil {
			return row, text, "address", err
		}
		if row.Account.Chain == 0 {
			return row, text, "chainId", errors.New("the row names no chain and no default is set (--chain)")
		}
		row.Account.Address, text = parsed, digits
	}
	if row.Account.Address == (common.Address{}) {
		return row, text, "address", errors.New("address is the zero address, which nobody can sign for")
	}
	if err := CheckExternalID(id); err != nil {
		return row, text, "externalId", err
	}
	row.ExternalID = strings.Clone(id) // fields share one buffer, which would stay alive with the row
	return row, text, "", nil
}

// reject is for a record that is wrong as a whole.
func (e *Export) reject(first rawLine, raw []byte, reason string) *Reject {
	return &Reject{File: e.name, Line: first.number, Field: "record", Reason: reason, Raw: string(raw)}
}

func (e *Export) giveBack(lines []rawLine) {
	e.held = append(lines, e.held...)
}

func (e *Export) nextLine() (rawLine, error) {
	if len(e.held) > 0 {
		line := e.held[0]
		e.held = e.held[1:]
		return line, nil
	}
	return e.lines.next()
}

// csvReason is the csv package's complaint without its line numbers, which count within the record.
func csvReason(err error) string {
	var parse *csv.ParseError
	if !errors.As(err, &parse) {
		return err.Error()
	}
	switch {
	case errors.Is(parse.Err, csv.ErrBareQuote):
		return fmt.Sprintf("a quote stands inside an unquoted field (column %d)", parse.Column)
	case errors.Is(parse.Err, csv.ErrQuote):
		return fmt.Sprintf("a quoted field is not closed, or has text behind its closing quote (column %d)", parse.Column)
	}
	return parse.Err.Error()
}

func isBlank(line []byte) bool { return len(bytes.TrimLeft(line, " \t")) == 0 }

// lineReader splits into physical lines (LF or CRLF) and counts them.
type lineReader struct {
	r      *bufio.Reader
	number int
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, maxLine+2)}
}

// next returns a line whose text is valid until the following call.
func (l *lineReader) next() (rawLine, error) {
	text, err := l.r.ReadSlice('\n')
	l.number++
	line := rawLine{text: text, number: l.number}
	if errors.Is(err, bufio.ErrBufferFull) {
		line.text = bytes.ToValidUTF8(bytes.Clone(text[:clipRaw]), []byte("\ufffd"))
		line.tooLong = true
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.r.ReadSlice('\n')
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return rawLine{}, err
	}
	if errors.Is(err, io.EOF) && len(text) == 0 {
		return rawLine{}, io.EOF
	}
	if !line.tooLong {
		line.text = bytes.TrimSuffix(line.text, []byte{'\n'})
		line.text = bytes.TrimSuffix(line.text, []byte{'\r'})
	}
	return line, nil
}
