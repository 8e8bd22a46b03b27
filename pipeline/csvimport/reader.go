package csvimport

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// Reject is a record of an export that cannot be published.
type Reject struct {
	File   string
	Line   int    // 1-based physical line on which the record begins; the row of a workbook or Parquet file
	Last   int    // physical line that it reaches to by its quotes; the lines behind Line may be records all the same
	Field  string // "address", "externalId", "chainId", or "record" when the line as a whole is wrong
	Reason string
	Raw    string // the record as it stands in the file, without its line end
}

// HeaderError reports why an export cannot be read; none of its rows was read.
type HeaderError struct {
	File   string
	Line   int // 0: the file as a whole
	Reason string
}

func (e *HeaderError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("%s:%d: header: %s", e.File, e.Line, e.Reason)
}

// Input is the source of an export.
type Input struct {
	io.Reader
	// At is the same content for formats that are not read from front to back, Size bytes long. nil: there is no such
	// access, as to a pipe.
	At   io.ReaderAt
	Size int64
}

// Options say how an export is read.
type Options struct {
	Name     string // shown in messages and carried with each row; unprintable characters are escaped
	Chain    uint64 // EIP-155 chain of addresses that name none; 0: they are invalid
	ImportID string

	Columns   Columns
	Delimiter rune   // of CSV; 0: recognised from the header
	Encoding  string // utf-8, utf-16le, utf-16be, windows-1252 or iso-8859-1; "": recognised
	Sheet     string // of a workbook; "": the first
	Trim      bool   // remove white space around address, externalId and chainId

	// Unterminated is called at the end for a last line without a line end. It returns the reason why the row is invalid,
	// or "". nil: such a row is valid.
	Unterminated func() string
}

// Reader reads the rows of one export, in constant memory if it is text. It never repairs: a record is a valid row or a
// Reject. Not safe for concurrent use, except check and trimFields.
type Reader struct {
	name     string
	chain    uint64 // default chain, 0: none
	importID string
	trim     bool
	trimmed  atomic.Int64 // rows

	source source
	format string
	unread []string // sheets
	closer func()
}

// source reads records; there is one for each format.
type source interface {
	// read returns the next record, io.EOF at the end. The record's reject describes an error of the whole record.
	read() (record, error)
	// counts returns the counts so far. Lines are counted as they are read, independently of the records: the importer's
	// accounting is based on them.
	counts() (lines, header, blank int64)
	// line is the number of the line that was read last.
	line() int
	// doubt is an objection to a header that has all required columns; "": none.
	doubt() string
}

// record is a record of an export, split and not checked.
type record struct {
	line, lines        int // the first one, and how many it takes up
	address, chain, id string
	raw                []byte // as it stands in the file; valid until the next read, in a chunk until it is given back
	reject             *Reject
}

// NewReader detects the format of an export and reads its header. The error is a *HeaderError or one of the input.
// Close the reader after use.
func NewReader(in Input, o Options) (*Reader, error) {
	e := &Reader{
		name:  printable.Line(o.Name, pipeline.MaxFile),
		chain: o.Chain, importID: o.ImportID, trim: o.Trim,
	}
	o.Name = e.name
	if err := e.open(in, o); err != nil {
		e.Close()
		return nil, err
	}
	if doubt := e.source.doubt(); doubt != "" {
		e.Close()
		return nil, &HeaderError{File: e.name, Line: e.source.line(), Reason: doubt}
	}
	return e, nil
}

// Close releases the decompressor. The input stays open.
func (e *Reader) Close() {
	if e.closer != nil {
		e.closer()
		e.closer = nil
	}
}

// Format describes the detected format: "gzip, CSV in UTF-8, separated by semicolons, lines end in CRLF".
func (e *Reader) Format() string { return e.format }

// IsCSV reports whether the export is CSV, compressed or not: Options.Delimiter applies to no other format.
func (e *Reader) IsCSV() bool {
	_, ok := e.source.(*csvSource)
	return ok
}

// IsText reports whether the export is CSV or JSON Lines: Options.Encoding applies to no other format.
func (e *Reader) IsText() bool {
	_, ok := e.source.(*jsonSource)
	return ok || e.IsCSV()
}

// HasSheets reports whether the export is a workbook.
func (e *Reader) HasSheets() bool {
	_, ok := e.source.(*workbook)
	return ok
}

// UnreadSheets are the sheets of a workbook that are not read because only the first sheet is; none if Options.Sheet is
// set.
func (e *Reader) UnreadSheets() []string { return e.unread }

// Read returns the next row, or why the next record is invalid; io.EOF at the end. An Importer reads faster.
func (e *Reader) Read() (row pipeline.Row, reject *Reject, err error) {
	rec, err := e.source.read()
	switch {
	case errors.Is(err, io.EOF):
		return row, nil, err
	case err != nil:
		return row, nil, fmt.Errorf("read %s after line %d: %w", e.name, e.source.line(), err)
	case rec.reject != nil:
		return row, rec.reject, nil
	}
	e.trimFields(&rec)
	row, _, reject = e.check(&rec, nil)
	return row, reject, nil
}

// check turns a record into a row with its address in EIP-55 form (known), or into a Reject. Many goroutines may call
// it while another goroutine reads.
func (e *Reader) check(rec *record, known *pipeline.AddressText) (pipeline.Row, pipeline.AddressText, *Reject) {
	row, text, field, err := e.row(rec, known)
	if err != nil {
		reject := rejectOf(e.name, rec, err.Error())
		reject.Field = field
		return pipeline.Row{}, text, reject
	}
	row.File, row.Line, row.ImportID = e.name, rec.line, e.importID
	return row, text, nil
}

// trimFields removes the white space around the fields, with Options.Trim.
func (e *Reader) trimFields(rec *record) {
	if !e.trim {
		return
	}
	changed := false
	for _, field := range []*string{&rec.address, &rec.chain, &rec.id} {
		if trimmed := strings.TrimSpace(*field); trimmed != *field {
			*field, changed = trimmed, true
		}
	}
	if changed {
		e.trimmed.Add(1)
	}
}

// row creates a row from a record's fields, or names the invalid field.
func (e *Reader) row(
	rec *record, known *pipeline.AddressText,
) (row pipeline.Row, text pipeline.AddressText, field string, err error) {
	address, chain, id := rec.address, rec.chain, rec.id
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
		account, digits, err := pipeline.ParseAccountText(address, known)
		if err != nil {
			return row, text, "address", err
		}
		if chain != "" && account.Chain != row.Account.Chain {
			return row, text, "chainId", fmt.Errorf("chainId %s contradicts the address, which names chain %d",
				printable.Quote(chain, 40), account.Chain)
		}
		row.Account, text = account, digits
	} else {
		parsed, digits, err := pipeline.ParseAddress(address, known)
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
	if isMissing(id) {
		return row, text, "externalId", fmt.Errorf("externalId is %s, a placeholder for a missing value",
			printable.Quote(id, 10))
	}
	row.ExternalID = id
	return row, text, "", nil
}

// isMissing reports whether a text is a placeholder for a missing value.
func isMissing(id string) bool {
	const most = len("undefined")
	return len(id) <= most && slices.ContainsFunc([]string{
		"null", "(null)", "<null>", `\N`, "none", "nil", "nan", "n/a", "undefined",
	}, func(word string) bool { return strings.EqualFold(id, word) })
}

// rejectOf is the reject of a record, which is wrong as a whole until a field is named.
func rejectOf(name string, rec *record, reason string) *Reject {
	last := rec.line + rec.lines - 1
	if rec.lines > 1 {
		reason = fmt.Sprintf("%s (lines %d-%d)", reason, rec.line, last)
	}
	return &Reject{File: name, Line: rec.line, Last: last, Field: "record", Reason: reason, Raw: string(rec.raw)}
}
