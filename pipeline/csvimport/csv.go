package csvimport

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/purser-onboard/purser/printable"
)

// A record of an export may span several lines when a quoted field contains line breaks. A quote that is not closed
// within these bounds, or only after a line that looks like a row, is treated as stray: its line is invalid and reading
// resumes on the next line, so that one missing quote does not swallow the rows after it.
const (
	maxLine        = 64 << 10 // bytes of one physical line
	maxRecordLines = 100
	maxRecordBytes = 64 << 10
	clipRaw        = 1 << 10 // what is kept of an over-long line for the rejects file
)

// csvSource reads CSV (RFC 4180) in constant memory.
type csvSource struct {
	name         string
	columns      Columns
	unterminated func() string

	counter lineCounter
	lines   *lineReader
	feed    bytes.Reader
	csv     *csv.Reader
	comma   rune
	said    string    // how the separator is known, if not from the header
	record  []byte    // the record being assembled, with its line ends
	plain   []string  // the fields of a record without quotes
	held    []rawLine // lines read ahead and given back by a failed assembly
	closer  int       // the line whose quote would have closed a stray one
	header  int       // lines of the header
	blank   int       // blank lines so far
	names   []string  // the header
	at      place
}

// newCSV reads the header of r, which is UTF-8. Its error is a *HeaderError or one of r.
func newCSV(r io.Reader, o Options) (*csvSource, error) {
	e := &csvSource{
		name: o.Name, columns: o.Columns, unterminated: o.Unterminated, counter: lineCounter{r: r}, comma: o.Delimiter,
	}
	e.lines = newLineReader(&e.counter)
	return e, e.readHeader()
}

func (e *csvSource) counts() (lines, header, blank int64) {
	return e.counter.lines(), int64(e.header), int64(e.blank)
}

func (e *csvSource) line() int { return e.lines.number }

func (e *csvSource) doubt() string { return e.columns.doubt(e.names, e.at) }

// format describes the detected dialect.
func (e *csvSource) format() string {
	ends := "LF"
	if e.lines.crlf {
		ends = "CRLF"
	}
	return fmt.Sprintf("separated by %s%s, lines end in %s", commaName(e.comma), e.said, ends)
}

func commaName(comma rune) string {
	switch comma {
	case ',':
		return "commas"
	case ';':
		return "semicolons"
	case '\t':
		return "tabs"
	case '|':
		return "pipes"
	}
	return printable.Quote(string(comma), 8)
}

func (e *csvSource) resetCSV() {
	e.csv = csv.NewReader(&e.feed)
	e.csv.Comma = e.comma
	e.csv.FieldsPerRecord = -1
	e.csv.ReuseRecord = true
}

func (e *csvSource) readHeader() error {
	line, err := e.firstLine()
	if err != nil {
		return err
	}
	fail := func(format string, args ...any) error {
		return &HeaderError{File: e.name, Line: line.number, Reason: fmt.Sprintf(format, args...)}
	}
	line.text = bytes.TrimPrefix(line.text, []byte("\ufeff")) // only the very first line can carry a byte order mark
	said := sepLine(line)
	switch {
	case said == '"' || said == utf8.RuneError:
		return fail("the sep= line names no usable separator")
	case said != 0:
		e.header++
		if line, err = e.firstLine(); err != nil {
			return err
		}
	}
	switch {
	case endsInCR(line.text):
		return fail("the lines end in CR, as on a classic Mac: convert them to LF or CRLF (for example with mac2unix)")
	case line.tooLong:
		return fail("the header is longer than %d bytes", maxLine)
	case line.isBlank():
		return fail("the file contains only a byte order mark")
	}
	line.text = bytes.Clone(line.text)
	if err := e.recognise(line, said); err != nil {
		return err
	}
	if reason := e.hiddenRow(line.number); reason != "" {
		return fail("%s", reason)
	}
	return nil
}

// firstLine returns the next line that is not blank.
func (e *csvSource) firstLine() (rawLine, error) {
	line, err := e.nextLine()
	for err == nil && line.isBlank() {
		e.blank++
		line, err = e.nextLine()
	}
	if errors.Is(err, io.EOF) {
		return line, &HeaderError{File: e.name, Line: 1,
			Reason: "the file is empty: want a header with the columns address and externalId"}
	}
	if err != nil {
		return line, fmt.Errorf("read %s: %w", e.name, err)
	}
	return line, nil
}

// sepLine returns the separator that Excel's "sep=;" names, 0 if the line is another one.
func sepLine(line rawLine) rune {
	text := strings.Trim(string(line.text), `"`)
	if line.tooLong || len(text) < 5 || !strings.EqualFold(text[:4], "sep=") {
		return 0
	}
	comma, size := utf8.DecodeRuneInString(text[4:])
	if strings.Trim(text[4+size:], ",;\t") != "" { // a spreadsheet that saved the line again has filled it up
		return 0
	}
	if comma == '\r' || comma == '\n' {
		return utf8.RuneError
	}
	return comma
}

// commas are the separators that are recognised.
const commas = ",;\t|"

// recognise finds the separator that gives the header its columns, and splits the header. said is the separator of a
// sep= line, 0 without such a line.
func (e *csvSource) recognise(line rawLine, said rune) error {
	given := e.comma
	var fits []rune
	for _, comma := range commas {
		if comma != said && comma != given && e.try(line, comma) == nil && !e.columns.lacks(e.at) {
			fits = append(fits, comma)
		}
	}
	fail := func(format string, args ...any) error {
		return &HeaderError{File: e.name, Line: line.number, Reason: fmt.Sprintf(format, args...)}
	}
	comma := given
	switch {
	case given != 0: // --delimiter overrides all
	case said != 0:
		comma, e.said = said, " (by its sep= line)"
		if err := e.try(line, said); (err != nil || e.columns.lacks(e.at)) && len(fits) > 0 {
			return fail("the sep= line says that %s separate the fields, but the header is separated by %s: select one with "+
				"--delimiter", commaName(said), commaName(fits[0]))
		}
	case len(fits) > 1:
		return fail("the header has the columns with both %s and %s as separator: select one with --delimiter",
			commaName(fits[0]), commaName(fits[1]))
	case len(fits) == 1:
		comma = fits[0]
	default:
		comma = e.mostFields(line)
	}
	if err := e.try(line, comma); err != nil {
		return err
	}
	if e.columns.lacks(e.at) {
		hint := ""
		if len(fits) > 0 {
			hint = fmt.Sprintf(" (it looks separated by %s)", commaName(fits[0]))
		}
		return fail("%s%s", e.columns.missing(e.names, e.at), hint)
	}
	more := bytes.Count(e.record, []byte{'\n'}) // lines of the header behind its first, which try has given back
	e.held = e.held[more:]
	e.header += 1 + more
	return nil
}

// mostFields returns the separator that splits the header into the most fields, for the error.
func (e *csvSource) mostFields(line rawLine) rune {
	best, most := ',', 0
	for _, comma := range commas {
		e.names = nil
		if _ = e.try(line, comma); len(e.names) > most { // its error comes again
			best, most = comma, len(e.names)
		}
	}
	return best
}

// try splits the header at a separator. It gives back the further lines that it read.
func (e *csvSource) try(line rawLine, comma rune) error {
	e.comma = comma
	e.resetCSV()
	more, closed, err := e.assemble(&line)
	e.giveBack(more)
	if err != nil {
		return fmt.Errorf("read %s: %w", e.name, err)
	}
	fail := func(format string, args ...any) error {
		return &HeaderError{File: e.name, Line: line.number, Reason: fmt.Sprintf(format, args...)}
	}
	if !utf8.Valid(e.record) {
		return fail("the header is not valid UTF-8: save the file as UTF-8, or set its encoding with --encoding")
	}
	if !closed {
		return fail("a quoted field is not closed by line %d", line.number+len(more))
	}
	fields, err := e.fields()
	if err != nil {
		return fail("%v", csvReason(err))
	}
	e.names = slices.Clone(fields)
	if e.at, err = e.columns.find(e.names); err != nil {
		return fail("%v", err)
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

// read returns the next record. Its reject describes an error of the whole record.
func (e *csvSource) read() (record, error) {
	first, err := e.nextLine()
	for err == nil && first.isBlank() {
		e.blank++
		first, err = e.nextLine()
	}
	if err != nil {
		return record{}, err
	}
	fields, lines, reject, err := e.split(first)
	rec := record{line: first.number, lines: lines, reject: reject} // a reject has its own raw
	if err != nil || reject != nil {
		return rec, err
	}
	rec.raw = e.record
	rec.address, rec.id = fields[e.at[addressColumn]], fields[e.at[externalIDColumn]]
	if i := e.at[chainIDColumn]; i >= 0 {
		rec.chain = fields[i]
	}
	if e.lines.open && e.unterminated != nil && e.lines.number == rec.line+rec.lines-1 {
		if reason := e.unterminated(); reason != "" {
			rec.reject = rejectOf(e.name, &rec, reason)
		}
	}
	return rec, nil
}

// split assembles the record that begins with a line. It returns its fields and its number of lines.
func (e *csvSource) split(first rawLine) (fields []string, lines int, reject *Reject, err error) {
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
		return stray("line is not valid UTF-8: a file in another encoding needs --encoding")
	}
	if fields, err = e.fields(); err != nil {
		return stray(csvReason(err))
	}
	if reason := e.hiddenRow(first.number); reason != "" {
		e.closer = first.number + len(more)
		return stray(reason)
	}
	if len(fields) != len(e.names) {
		reason := fmt.Sprintf("record has %s, the header has %d",
			printable.Count(len(fields), "field", "fields"), len(e.names))
		if bytes.IndexByte(e.record, '\r') >= 0 {
			reason += ", and it contains a carriage return (CR): are the line ends CR?"
		}
		return nil, lines, e.reject(first.number, lines, e.record, reason), nil
	}
	if lines > 1 && !utf8.Valid(e.record) {
		return nil, lines, e.reject(first.number, lines, e.record, "record is not valid UTF-8"), nil
	}
	return fields, lines, nil, nil
}

// assemble puts the record that begins with a line into e.record, and returns its further lines. The record is not
// closed if a quote is still open at the bounds of a record.
func (e *csvSource) assemble(first *rawLine) (more []rawLine, closed bool, err error) {
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

// misquoted reports whether a line has a quote inside an unquoted field, or text after a closing quote.
func (e *csvSource) misquoted(line []byte) bool {
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

// literal splits the line whose quote would have closed a stray quote: that quote is text if it is inside an unquoted
// field that the importer does not read. Otherwise the fields are nil.
func (e *csvSource) literal(line []byte) []string {
	if bytes.Count(line, []byte{'"'}) != 1 || !utf8.Valid(line) {
		return nil
	}
	e.record = append(e.record[:0], line...)
	fields := e.plainFields()
	if len(fields) != len(e.names) {
		return nil
	}
	for i, f := range fields {
		used := slices.Contains(e.at[:], i)
		if at := strings.IndexByte(f, '"'); at == 0 || at > 0 && used {
			return nil
		}
	}
	return fields
}

// hiddenRow returns the reason why e.record, which begins on the given line, is invalid if one of its further lines
// looks like a row; otherwise "". A bare CR counts as a line break here, too.
func (e *csvSource) hiddenRow(line int) string {
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
			return "a quoted field contains a carriage return (CR) followed by a row: are the line ends CR?"
		default:
			return fmt.Sprintf("a quoted field includes line %d, which looks like a row: is a quote missing or stray?", line)
		}
	}
}

// looksLikeRow reports whether the first line of a text has an address, right or wrong, where a row has it, and reaches
// as far as the row's externalId.
func (e *csvSource) looksLikeRow(text []byte) bool {
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
	if len(fields) <= max(e.at[addressColumn], e.at[externalIDColumn]) {
		return false
	}
	return looksLikeAddress(fields[e.at[addressColumn]])
}

// fields splits the record. Without a quote, splitting at the separators is enough.
func (e *csvSource) fields() ([]string, error) {
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

// plainFields splits the record at its separators.
func (e *csvSource) plainFields() []string {
	e.plain = e.plain[:0]
	for field := range strings.SplitSeq(string(e.record), string(e.comma)) {
		e.plain = append(e.plain, field)
	}
	return e.plain
}

// reject returns the reject of a whole record. lines is the number of lines that its quotes span.
func (e *csvSource) reject(line, lines int, raw []byte, reason string) *Reject {
	return rejectOf(e.name, &record{line: line, lines: lines, raw: raw}, reason)
}

func (e *csvSource) giveBack(lines []rawLine) {
	e.held = append(lines, e.held...)
}

func (e *csvSource) nextLine() (rawLine, error) {
	if len(e.held) > 0 {
		line := e.held[0]
		e.held = e.held[1:]
		return line, nil
	}
	return e.lines.next()
}

// csvReason is encoding/csv's error without its line numbers, which are relative to the record.
func csvReason(err error) string {
	var parse *csv.ParseError
	if !errors.As(err, &parse) {
		return err.Error()
	}
	switch {
	case errors.Is(parse.Err, csv.ErrBareQuote):
		return fmt.Sprintf("a quote inside an unquoted field (column %d)", parse.Column)
	case errors.Is(parse.Err, csv.ErrQuote):
		return fmt.Sprintf("a quoted field is not closed, or has text after its closing quote (column %d)", parse.Column)
	}
	return parse.Err.Error()
}
