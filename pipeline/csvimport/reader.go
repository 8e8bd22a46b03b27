package csvimport

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// A record of an export may span several lines when a quoted field holds line breaks. A quote that is not closed within
// these bounds, or only behind a line that is a row of its own, is taken for a stray one: its line is invalid and
// reading resumes on the next, so that one missing quote does not swallow the rows behind it.
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
	Last   int    // physical line that it reaches to by its quotes; the lines behind Line may be records all the same
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

// Reader reads the rows of one CSV export (RFC 4180) in constant memory. It never repairs: a record is a good row or a
// Reject. Not for concurrent use.
type Reader struct {
	name     string
	chain    uint64 // default chain, 0: none
	importID string

	counter lineCounter
	lines   *lineReader
	feed    bytes.Reader
	csv     *csv.Reader
	comma   rune
	record  []byte    // the record being assembled, with its line ends
	plain   []string  // the fields of a record without quotes
	held    []rawLine // lines read ahead and given back by a failed assembly
	closer  int       // the line whose quote would have closed a stray one
	header  int       // lines of the header
	blank   int       // blank lines so far
	address int       // column numbers
	extID   int
	chainID int // -1: no such column
	columns int
}

// NewReader reads the header of an export. name is shown in messages and carried with each row (its base name;
// unprintable characters are escaped), chain is the EIP-155 chain of addresses that name none (0: they are invalid),
// comma separates the fields. The error is a *HeaderError or one of r.
func NewReader(r io.Reader, name string, chain uint64, comma rune, importID string) (*Reader, error) {
	e := &Reader{
		name:  printable.Line(name, pipeline.MaxFile),
		chain: chain, importID: importID, comma: comma, counter: lineCounter{r: r},
	}
	e.lines = newLineReader(&e.counter)
	e.resetCSV()
	if err := e.readHeader(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Reader) resetCSV() {
	e.csv = csv.NewReader(&e.feed)
	e.csv.Comma = e.comma
	e.csv.FieldsPerRecord = -1
	e.csv.ReuseRecord = true
}

func (e *Reader) readHeader() error {
	line, err := e.nextLine()
	for err == nil && line.isBlank() {
		e.blank++
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
	if bytes.HasPrefix(line.text, []byte{0xff, 0xfe}) || bytes.HasPrefix(line.text, []byte{0xfe, 0xff}) ||
		bytes.IndexByte(line.text, 0) >= 0 {
		return fail("the file is not UTF-8 (it looks like UTF-16): save it as UTF-8")
	}
	line.text = bytes.TrimPrefix(line.text, []byte("\ufeff")) // only the very first line can carry a byte order mark
	switch {
	case endsInCR(line.text):
		return fail("the lines end in CR, as on a classic Mac: convert them to LF or CRLF (for example with mac2unix)")
	case line.tooLong:
		return fail("the header is longer than %d bytes", maxLine)
	case line.isBlank():
		return fail("the file holds nothing but a byte order mark")
	}
	more, closed, err := e.assemble(&line)
	if err != nil {
		return fmt.Errorf("read %s: %w", e.name, err)
	}
	text := string(e.record)
	e.header = 1 + len(more)
	if !utf8.ValidString(text) {
		return fail("the header is not valid UTF-8")
	}
	if !closed {
		return fail("a quoted field is not closed by line %d", line.number+len(more))
	}
	fields, err := e.fields()
	if err != nil {
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
			if other != e.comma && strings.ContainsRune(text, other) && len(fields) == 1 {
				hint = fmt.Sprintf(" (it looks separated by %q: say so with --delimiter)", other)
			}
		}
		return fail("want the columns address and externalId, found %s%s", quoteAll(fields), hint)
	}
	if reason := e.hiddenRow(line.number); reason != "" {
		return fail("%s", reason)
	}
	return nil
}

// endsInCR reports whether a header has the other lines behind it, each ended by a bare CR.
func endsInCR(text []byte) bool {
	quoted := false
	for i, c := range text {
		switch c {
		case '"':
			quoted = !quoted
		case '\r':
			if !quoted && len(bytes.TrimLeft(text[i:], " \t\r")) > 0 {
				return true
			}
		}
	}
	return false
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

// record is a record of the export, split and not checked.
type record struct {
	line, lines        int // the first one, and how many it takes up
	address, chain, id string
	raw                []byte // as it stands in the file; valid until the next read
	reject             *Reject
}

// read returns the next record. Its reject says what is wrong with it as a whole; then the fields are empty.
func (e *Reader) read() (record, error) {
	first, err := e.nextLine()
	for err == nil && first.isBlank() {
		e.blank++
		first, err = e.nextLine()
	}
	if err != nil {
		return record{}, err
	}
	fields, lines, reject, err := e.split(first)
	rec := record{line: first.number, lines: lines, raw: e.record, reject: reject}
	if err != nil || reject != nil {
		return rec, err
	}
	rec.address, rec.id = fields[e.address], fields[e.extID]
	if e.chainID >= 0 {
		rec.chain = fields[e.chainID]
	}
	return rec, nil
}

// split assembles the record that begins with a line. It returns its fields and the number of lines that it takes up.
func (e *Reader) split(first rawLine) (fields []string, lines int, reject *Reject, err error) {
	if first.tooLong {
		return nil, 1, e.reject(first.number, 1, first.text,
			fmt.Sprintf("line is longer than %d bytes; only its beginning is kept here", maxLine)), nil
	}
	if first.number == e.closer {
		if fields := e.literal(first.text); fields != nil {
			return fields, 1, nil, nil
		}
	}
	more, closed, err := e.assemble(&first)
	if err != nil {
		return nil, 0, nil, err
	}
	stray := func(reason string) ([]string, int, *Reject, error) { // reading resumes at the line after the first
		e.giveBack(more)
		return nil, 1, e.reject(first.number, 1+len(more), first.text, reason), nil
	}
	lines = 1 + len(more)
	if !closed {
		return stray("a quoted field is not closed")
	}
	if lines == 1 && !utf8.Valid(first.text) {
		return stray("line is not valid UTF-8")
	}
	if fields, err = e.fields(); err != nil {
		return stray(csvReason(err))
	}
	if reason := e.hiddenRow(first.number); reason != "" {
		e.closer = first.number + len(more)
		return stray(reason)
	}
	if len(fields) != e.columns {
		reason := fmt.Sprintf("record has %d fields, the header has %d", len(fields), e.columns)
		if bytes.IndexByte(e.record, '\r') >= 0 {
			reason += ", and it holds a carriage return (CR): are the line ends CR?"
		}
		return nil, lines, e.reject(first.number, lines, e.record, reason), nil
	}
	if lines > 1 && !utf8.Valid(e.record) {
		return nil, lines, e.reject(first.number, lines, e.record, "record is not valid UTF-8"), nil
	}
	return fields, lines, nil, nil
}

// assemble puts the record that begins with a line into e.record, and returns the lines that it goes on over. It is not
// closed when a quote is still open within the bounds of a record.
func (e *Reader) assemble(first *rawLine) (more []rawLine, closed bool, err error) {
	e.record = append(e.record[:0], first.text...)
	if bytes.Count(first.text, []byte{'"'})%2 == 0 {
		return nil, true, nil
	}
	first.text = bytes.Clone(first.text) // reading on overwrites it
	if e.misquoted(first.text) {
		return nil, true, nil // no line behind it makes this one right; e.fields reports the error
	}
	for !closed && len(more) < maxRecordLines && len(e.record) < maxRecordBytes {
		line, err := e.nextLine()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, false, err
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
	return more, closed, nil
}

// misquoted reports whether a line has a quote inside an unquoted field, or text behind a closing quote.
func (e *Reader) misquoted(line []byte) bool {
	comma := string(e.comma)
	for {
		if len(line) == 0 || line[0] != '"' {
			field, rest, more := bytes.Cut(line, []byte(comma))
			if bytes.IndexByte(field, '"') >= 0 {
				return true
			}
			if !more {
				return false
			}
			line = rest
			continue
		}
		for line[0] == '"' { // the opening quote, then the second one of each doubled quote
			end := bytes.IndexByte(line[1:], '"')
			if end < 0 || end+2 == len(line) {
				return false
			}
			line = line[end+2:]
		}
		if !bytes.HasPrefix(line, []byte(comma)) {
			return true
		}
		line = line[len(comma):]
	}
}

// literal takes apart the line whose quote would have closed a stray one: that quote is text, if it stands inside an
// unquoted field that the importer does not read. Otherwise the fields are nil.
func (e *Reader) literal(line []byte) []string {
	if bytes.Count(line, []byte{'"'}) != 1 || !utf8.Valid(line) {
		return nil
	}
	e.record = append(e.record[:0], line...)
	fields := e.plainFields()
	if len(fields) != e.columns {
		return nil
	}
	for i, f := range fields {
		used := i == e.address || i == e.extID || i == e.chainID
		if at := strings.IndexByte(f, '"'); at == 0 || at > 0 && used {
			return nil
		}
	}
	return fields
}

// hiddenRow returns the reason why e.record, which begins on a line of that number, is invalid if one of the lines
// behind its first would be a row by itself; otherwise "". A bare CR breaks a line here as well.
func (e *Reader) hiddenRow(line int) string {
	rest := e.record
	if bytes.IndexByte(rest, '\n') < 0 && (bytes.IndexByte(rest, '\r') < 0 || bytes.IndexByte(rest, '"') < 0) {
		return ""
	}
	for {
		i := bytes.IndexAny(rest, "\r\n")
		if i < 0 {
			return ""
		}
		cr := rest[i] == '\r'
		if !cr {
			line++
		}
		switch rest = rest[i+1:]; {
		case !e.looksLikeRow(rest):
		case cr:
			return "a quoted field holds a carriage return (CR) with a row behind it: are the line ends CR?"
		default:
			return fmt.Sprintf("a quoted field swallows line %d, which is a row of its own: is a quote missing or stray?", line)
		}
	}
}

// looksLikeRow reports whether the first line of a text has an address, right or wrong, where a row has it, and reaches
// as far as the row's externalId.
func (e *Reader) looksLikeRow(text []byte) bool {
	if i := bytes.IndexAny(text, "\r\n"); i >= 0 {
		text = text[:i]
	}
	if !bytes.Contains(text, []byte("0x")) && !bytes.Contains(text, []byte("0X")) {
		return false
	}
	fields := strings.Split(string(text), string(e.comma))
	if bytes.IndexByte(text, '"') >= 0 {
		r := csv.NewReader(bytes.NewReader(text))
		r.Comma = e.comma
		if quoted, err := r.Read(); err == nil {
			fields = quoted
		}
	}
	if len(fields) <= max(e.address, e.extID) {
		return false
	}
	address := strings.ToLower(strings.Trim(fields[e.address], " \t\"'\ufeff"))
	return strings.HasPrefix(address, "0x") || strings.Contains(address, ":0x")
}

// fields takes the record apart. Where there is no quote there is nothing to csv but the commas.
func (e *Reader) fields() ([]string, error) {
	if bytes.IndexByte(e.record, '"') < 0 && e.record[len(e.record)-1] != '\r' { // csv has views on that one, too
		return e.plainFields(), nil
	}
	e.feed.Reset(e.record)
	fields, err := e.csv.Read()
	if err != nil {
		e.resetCSV()
	}
	return fields, err
}

// plainFields takes the record apart at its commas.
func (e *Reader) plainFields() []string {
	e.plain = e.plain[:0]
	for field := range strings.SplitSeq(string(e.record), string(e.comma)) {
		e.plain = append(e.plain, field)
	}
	return e.plain
}

// check turns a record into a row with its address in EIP-55 form, or into a Reject. Many goroutines may call it while
// another one reads on.
func (e *Reader) check(rec record) (pipeline.Row, pipeline.AddressText, *Reject) {
	row, text, field, err := e.row(rec.address, rec.chain, rec.id)
	if err != nil {
		reject := e.reject(rec.line, rec.lines, rec.raw, err.Error())
		reject.Field = field
		return pipeline.Row{}, text, reject
	}
	row.File, row.Line, row.ImportID = e.name, rec.line, e.importID
	return row, text, nil
}

// row makes a row of its fields, or names the field that is wrong.
func (e *Reader) row(address, chain, id string) (row pipeline.Row, text pipeline.AddressText, field string, err error) {
	switch {
	case address == "":
		return row, text, "address", errors.New("address is empty")
	case strings.TrimSpace(address) != address:
		return row, text, "address", errors.New("address has space around it")
	}
	row.Account.Chain = e.chain
	if chain != "" {
		number, err := pipeline.ParseChain(chain)
		if err != nil {
			return row, text, "chainId", err
		}
		row.Account.Chain = number
	}
	if strings.IndexByte(address, ':') >= 0 {
		account, digits, err := pipeline.ParseAccountText(address)
		if err != nil {
			return row, text, "address", err
		}
		if chain != "" && account.Chain != row.Account.Chain {
			return row, text, "chainId", fmt.Errorf("chainId %s contradicts the address, which names chain %d",
				printable.Quote(chain, 40), account.Chain)
		}
		row.Account, text = account, digits
	} else {
		parsed, digits, err := pipeline.ParseAddress(address)
		if err != nil {
			return row, text, "address", err
		}
		if row.Account.Chain == 0 {
			return row, text, "chainId", errors.New("the row names no chain and no default is set (--chain)")
		}
		row.Account.Address, text = parsed, digits
	}
	if row.Account.Address == (common.Address{}) {
		return row, text, "address", errors.New("address is the zero address, which has no key")
	}
	if err := pipeline.CheckExternalID(id); err != nil {
		return row, text, "externalId", err
	}
	row.ExternalID = strings.Clone(id) // fields share one buffer, which would stay alive with the row
	return row, text, "", nil
}

// reject is for a record that is wrong as a whole. lines is what it spans by its quotes.
func (e *Reader) reject(line, lines int, raw []byte, reason string) *Reject {
	last := line + lines - 1
	if lines > 1 {
		reason = fmt.Sprintf("%s (lines %d-%d)", reason, line, last)
	}
	return &Reject{File: e.name, Line: line, Last: last, Field: "record", Reason: reason, Raw: string(raw)}
}

func (e *Reader) giveBack(lines []rawLine) {
	e.held = append(lines, e.held...)
}

func (e *Reader) nextLine() (rawLine, error) {
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
