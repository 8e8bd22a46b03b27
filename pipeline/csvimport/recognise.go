package csvimport

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/purser-onboard/purser/printable"
)

// peeked is the number of bytes read to detect the format; tar has its magic number at 257.
const peeked = 1 << 10

// magic is the prefix of a kind of files, and the kind. Kinds without a name can be imported.
type magic struct {
	prefix string
	at     int
	name   string // "an ELF program"
	advice string
}

// parquetMagic is Parquet's magic number and the first byte of a page header, which distinguishes it from a CSV header.
const parquetMagic = "PAR1\x15"

// kinds are in the order in which they are tried.
func kinds() []magic {
	const unpack = "unpack it and import the file in it"
	return []magic{
		{prefix: "\x1f\x8b"}, {prefix: "\x28\xb5\x2f\xfd"}, {prefix: "PK\x03\x04"}, {prefix: parquetMagic},
		{prefix: "PK\x05\x06", name: "an empty zip archive"},
		{prefix: "%PDF-", name: "a PDF document", advice: "export the data as CSV or .xlsx"},
		{prefix: "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", name: "an old Excel workbook (.xls), or one with a password",
			advice: "save it as .xlsx without a password, or as CSV"},
		{prefix: "\x7fELF", name: "an ELF program"},
		{prefix: "MZ\x90\x00", name: "a Windows program"},
		{prefix: "1AY&SY", at: 4, name: "bzip2 data", advice: unpack},
		{prefix: "\xfd7zXZ\x00", name: "xz data", advice: unpack},
		{prefix: "7z\xbc\xaf\x27\x1c", name: "a 7-Zip archive", advice: unpack},
		{prefix: "Rar!\x1a\x07", name: "a RAR archive", advice: unpack},
		{prefix: "\x04\x22\x4d\x18", name: "lz4 data", advice: unpack},
		{prefix: "ustar", at: 257, name: "a tar archive", advice: unpack},
		{prefix: "Obj\x01", name: "an Avro file", advice: "export the data as Parquet, JSON Lines or CSV"},
		{prefix: "ARROW1\x00", name: "an Arrow file", advice: "export the data as Parquet, JSON Lines or CSV"},
		{prefix: "SQLite format 3\x00", name: "an SQLite database", advice: "export the table as CSV"},
		{prefix: "\x89PNG", name: "a PNG image"},
		{prefix: "\xff\xd8\xff", name: "a JPEG image"},
		{prefix: "-----BEGIN ", name: "PEM text, as keys and certificates are"},
		{prefix: "{\\rtf", name: "an RTF document", advice: "export the data as CSV or .xlsx"},
	}
}

// open detects the format and creates the source of records.
func (e *Reader) open(in Input, o Options) error {
	var said []string // what the export was recognised as
	fail := func(format string, args ...any) error {
		return &HeaderError{File: e.name, Reason: fmt.Sprintf(format, args...)}
	}
	r := bufio.NewReaderSize(in.Reader, maxLine)
	for {
		head, err := r.Peek(peeked)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", e.name, err)
		}
		kind, known := kindOf(head)
		isParquet := kind.prefix == parquetMagic
		switch {
		case !known:
			return e.openText(r, head, said, o)
		case kind.name != "" && kind.advice != "":
			return fail("is %s: %s", kind.name, kind.advice)
		case kind.name != "":
			return fail("is %s, not an export", kind.name)
		case len(said) > 0 && (kind.prefix[0] == '\x1f' || kind.prefix[0] == '\x28'):
			return fail("is compressed more than once: unpack it once")
		case kind.prefix == "PK\x03\x04" || isParquet:
			if len(said) > 0 || in.At == nil {
				what := "a Parquet file"
				if !isParquet {
					what = "a zip archive, as Excel workbooks (.xlsx) are"
				}
				return fail("is %s, which cannot be read from a pipe or compressed data: pass the file itself", what)
			}
			return e.openTable(in, isParquet, o)
		case kind.prefix[0] == '\x1f':
			unpacked, err := newGzip(r)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			r, said = bufio.NewReaderSize(unpacked, maxLine), append(said, "gzip")
			o.Unterminated = nil // compressed data has an end of its own
		default:
			unpacked, err := newZstd(r)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			e.closer = unpacked.decoder.Close
			r, said = bufio.NewReaderSize(unpacked, maxLine), append(said, "zstd")
			o.Unterminated = nil
		}
	}
}

func kindOf(head []byte) (magic, bool) {
	for _, kind := range kinds() {
		if len(head) >= kind.at && bytes.HasPrefix(head[kind.at:], []byte(kind.prefix)) {
			return kind, true
		}
	}
	return magic{}, false
}

// openTable opens a workbook or a Parquet file.
func (e *Reader) openTable(in Input, isParquet bool, o Options) error {
	if isParquet {
		source, err := newParquet(in, o)
		if err != nil {
			return err
		}
		e.source, e.format = source, "Parquet"
		return nil
	}
	archive, err := zip.NewReader(in.At, in.Size)
	if err != nil {
		return &HeaderError{File: e.name, Reason: fmt.Sprintf(
			"begins like an Excel workbook (.xlsx) or another zip archive, but cannot be read: %v; is it truncated?", err)}
	}
	if what := zipKind(archive); what != "" {
		return &HeaderError{File: e.name, Reason: "is " + what}
	}
	source, err := newWorkbook(archive, o)
	if err != nil {
		return err
	}
	if o.Sheet == "" {
		e.unread = source.others
	}
	e.source, e.format, e.closer = source, "Excel workbook, "+source.title(), source.close
	return nil
}

// zipKind describes a zip archive, with advice; "" for an Excel workbook.
func zipKind(archive *zip.Reader) string {
	for _, f := range archive.File {
		switch name := strings.ToLower(strings.ReplaceAll(f.Name, `\`, "/")); {
		case name == "xl/workbook.xml":
			return ""
		case name == "xl/workbook.bin":
			return "a binary Excel workbook (.xlsb): save it as .xlsx or CSV"
		case name == "word/document.xml":
			return "a Word document: export the data as CSV or .xlsx"
		case name == "content.xml":
			return "an OpenDocument file: save it as .xlsx or CSV"
		case strings.HasSuffix(name, ".numbers") || strings.HasPrefix(name, "index/") && strings.HasSuffix(name, ".iwa"):
			return "an Apple Numbers document: export it as CSV or .xlsx"
		}
	}
	return fmt.Sprintf("a zip archive of %s: unpack it and import what is in it",
		printable.Count(len(archive.File), "file", "files"))
}

// openText opens an export in text: CSV or JSON Lines.
func (e *Reader) openText(r *bufio.Reader, head []byte, said []string, o Options) error {
	decoder, charset, err := recogniseEncoding(head, o.Encoding)
	if err != nil {
		return &HeaderError{File: e.name, Line: 1, Reason: err.Error()}
	}
	if decoder != nil {
		r = bufio.NewReaderSize(transform.NewReader(r, decoder), maxLine)
		if head, err = r.Peek(peeked); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", e.name, err)
		}
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n")
	if what := markup(text); what != "" {
		return &HeaderError{File: e.name, Reason: "is " + what + ": export the data as CSV"}
	}
	if len(text) > 0 && (text[0] == '{' || text[0] == '[') && isJSON(text) {
		if text[0] == '[' {
			return &HeaderError{File: e.name, Reason: "is a JSON array: convert it to JSON Lines, with an object a line " +
				"(for example with jq -c '.[]')"}
		}
		source, err := newJSONLines(r, o)
		if err != nil {
			return err
		}
		e.source, e.format = source, strings.Join(append(said, "JSON Lines in "+charset), ", ")
		return nil
	}
	source, err := newCSV(r, o)
	if err != nil {
		return err
	}
	e.source, e.format = source, strings.Join(append(said, "CSV in "+charset, source.format()), ", ")
	return nil
}

// isJSON reports whether a text that begins with { or [ is JSON: a CSV header may begin with them, too.
func isJSON(text []byte) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	for range 3 {
		if _, err := d.Token(); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
	return true
}

// markup says which markup a text begins with.
func markup(text []byte) string {
	lower := bytes.ToLower(text[:min(len(text), 16)])
	switch {
	case bytes.HasPrefix(lower, []byte("<!doctype html")), bytes.HasPrefix(lower, []byte("<html")):
		return "an HTML page, such as a log-in or an error page"
	case bytes.HasPrefix(lower, []byte("<?xml")):
		return "an XML document"
	}
	return ""
}

// recogniseEncoding returns a decoder to UTF-8, nil if the text is already UTF-8, and the encoding's name. given is
// utf-8, utf-16le, utf-16be, windows-1252, iso-8859-1, or "" to detect it.
func recogniseEncoding(head []byte, given string) (decoder *encoding.Decoder, name string, err error) {
	mark, markLen := byteOrderMark(head)
	if mark == "UTF-32" {
		return nil, "", errors.New("the byte order mark is UTF-32's, or UTF-16's followed by a NUL character: " +
			"save the file as UTF-8")
	}
	if given != "" && mark != "" && !strings.EqualFold(mark, given) {
		return nil, "", fmt.Errorf("the file has the byte order mark of %s, but --encoding is %s",
			mark, given)
	}
	withMark := ""
	if mark != "" {
		withMark = " with a byte order mark"
	}
	switch {
	case mark == "UTF-16LE" || given == "utf-16le":
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewDecoder(), "UTF-16 LE" + withMark, nil
	case mark == "UTF-16BE" || given == "utf-16be":
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM).NewDecoder(), "UTF-16 BE" + withMark, nil
	case given == "windows-1252":
		return charmap.Windows1252.NewDecoder(), "Windows-1252", nil
	case given == "iso-8859-1":
		return charmap.ISO8859_1.NewDecoder(), "ISO 8859-1", nil
	}
	even, odd := 0, 0
	for i, c := range head[markLen:] {
		if c == 0 && i%2 == 0 {
			even++
		} else if c == 0 {
			odd++
		}
	}
	const noMark = "the text has no byte order mark and looks like UTF-16 "
	switch most := len(head) / 4; {
	case even+odd == 0:
		return nil, "UTF-8" + withMark, nil
	case even == 0 && odd > most:
		return nil, "", errors.New(noMark + "LE: use --encoding utf-16le")
	case odd == 0 && even > most:
		return nil, "", errors.New(noMark + "BE: use --encoding utf-16be")
	}
	return nil, "", errors.New("the file has NUL bytes: it is neither text nor a supported format")
}

// byteOrderMark returns the encoding of a byte order mark, and the mark's length.
func byteOrderMark(head []byte) (name string, length int) {
	for _, mark := range []struct{ bytes, name string }{
		{"\xff\xfe\x00\x00", "UTF-32"}, {"\x00\x00\xfe\xff", "UTF-32"},
		{"\xff\xfe", "UTF-16LE"}, {"\xfe\xff", "UTF-16BE"}, {"\xef\xbb\xbf", "UTF-8"},
	} {
		if bytes.HasPrefix(head, []byte(mark.bytes)) {
			return mark.name, len(mark.bytes)
		}
	}
	return "", 0
}
