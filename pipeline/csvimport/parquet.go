package csvimport

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"

	"github.com/purser-onboard/purser/printable"
)

// maxChunk is how large a column may be in one row group, decompressed, in bytes. Of each column that is read, a page
// is in memory, and its dictionary.
const maxChunk = 1 << 30

// parquetSource reads a Parquet file: the columns that are needed, and no others, side by side.
type parquetSource struct {
	name    string
	columns Columns
	names   []string
	at      place

	readers [columnCount]*parquetColumn // nil: no such column
	rows    int64                       // in the file
	done    int64
	raw     []byte
}

// newParquet reads the schema of a Parquet file. Its error is a *HeaderError.
func newParquet(in Input, o Options) (s *parquetSource, err error) {
	s = &parquetSource{name: o.Name, columns: o.Columns}
	fail := func(reason string) (*parquetSource, error) { return nil, &HeaderError{File: s.name, Reason: reason} }
	var file *parquet.File
	err = guard(func() error {
		file, err = parquet.OpenFile(in.At, in.Size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
		return err
	})
	if err != nil {
		return fail(fmt.Sprintf("begins like a Parquet file, but cannot be read: %v; is it truncated?", err))
	}
	top := file.Root().Columns()
	for _, column := range top {
		s.names = append(s.names, column.Name())
	}
	if s.at, err = s.columns.find(s.names); err != nil {
		return fail(err.Error())
	}
	if s.columns.lacks(s.at) {
		return fail(s.columns.missing(s.names, s.at))
	}
	for i, at := range s.at {
		if at < 0 {
			continue
		}
		column := top[at]
		text, err := textOf(column, i)
		if err != nil {
			return fail(err.Error())
		}
		reader := &parquetColumn{text: text}
		for _, group := range file.RowGroups() {
			chunk := group.ColumnChunks()[column.Index()]
			reader.chunks = append(reader.chunks, chunk)
		}
		for _, group := range file.Metadata().RowGroups {
			if n := group.Columns[column.Index()].MetaData.NumValues; n != group.NumRows {
				return fail(fmt.Sprintf("column %s and its row group differ in length, %d and %d: the file is damaged",
					printable.Quote(column.Name(), 40), n, group.NumRows))
			}
			if size := group.Columns[column.Index()].MetaData.TotalUncompressedSize; size > maxChunk {
				return fail(fmt.Sprintf("column %s has %d MiB in one row group, and the limit is %d: write smaller row groups",
					printable.Quote(column.Name(), 40), size>>20, maxChunk>>20))
			}
		}
		s.readers[i] = reader
	}
	s.rows = file.NumRows()
	return s, nil
}

// guard turns a panic of the library over a damaged file into an error, and a fault, too: its readers of values use
// package unsafe.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the file is damaged: %v", r)
		}
	}()
	return f()
}

func (s *parquetSource) counts() (lines, header, blank int64) {
	if s.done < s.rows {
		return s.done, 0, 0
	}
	return s.rows, 0, 0
}

func (s *parquetSource) line() int { return int(s.done) }

func (s *parquetSource) doubt() string { return s.columns.doubt(s.names, s.at) }

func (s *parquetSource) read() (record, error) {
	if s.done == s.rows {
		return record{}, s.end()
	}
	rec := record{line: int(s.done) + 1, lines: 1}
	values := [columnCount]*string{&rec.address, &rec.id, &rec.chain}
	var shown []string
	for i, column := range s.readers {
		if column == nil {
			continue
		}
		err := guard(func() (err error) {
			*values[i], err = column.next()
			return err
		})
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return record{}, err
		}
		shown = append(shown, *values[i])
	}
	s.done++
	s.raw = appendCSV(s.raw[:0], shown)
	rec.raw = s.raw
	return rec, nil
}

// end returns io.EOF if the columns have no more values than the file has rows.
func (s *parquetSource) end() error {
	for i, column := range s.readers {
		if column == nil {
			continue
		}
		err := guard(func() error {
			_, err := column.next()
			return err
		})
		if err == nil {
			return fmt.Errorf("the file has %s, but column %s has more values",
				printable.Count(s.rows, "row", "rows"), columnName(i))
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
	}
	return io.EOF
}

// parquetColumn reads the values of a column, row group by row group.
type parquetColumn struct {
	chunks []parquet.ColumnChunk // that are still to be read
	text   func(parquet.Value) string

	pages  parquet.Pages
	page   parquet.Page
	values parquet.ValueReader
	buffer [256]parquet.Value
	ready  []parquet.Value
}

// next returns the next value as text; io.EOF behind the last one.
func (c *parquetColumn) next() (string, error) {
	for len(c.ready) == 0 {
		if err := c.fill(); err != nil {
			return "", err
		}
	}
	value := c.ready[0]
	c.ready = c.ready[1:]
	if value.IsNull() {
		return "", nil
	}
	return c.text(value), nil
}

// fill reads on, until there are values, or one step further: it is called again.
func (c *parquetColumn) fill() error {
	switch {
	case c.values != nil:
		n, err := c.values.ReadValues(c.buffer[:])
		c.ready = c.buffer[:n]
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			parquet.Release(c.page)
			c.page, c.values = nil, nil
		}
		return nil
	case c.pages != nil:
		page, err := c.pages.ReadPage()
		if errors.Is(err, io.EOF) {
			err = c.pages.Close()
			c.pages = nil
			return err
		}
		if err != nil {
			return err
		}
		c.page, c.values = page, page.Values()
		return nil
	case len(c.chunks) > 0:
		c.pages = c.chunks[0].Pages()
		c.chunks = c.chunks[1:]
		return nil
	}
	return io.EOF
}

// textOf returns what makes the text of a column's values, or says why there is no such text. A type that rounds, or
// has several texts for one value, is refused.
func textOf(column *parquet.Column, i int) (func(parquet.Value) string, error) {
	refuse := func(kind, want string) error {
		return fmt.Errorf("column %s, which is read as %s, has the type %s: want %s",
			printable.Quote(column.Name(), 40), columnName(i), kind, want)
	}
	const wantText = "text (STRING)"
	if !column.Leaf() || column.Repeated() {
		return nil, refuse("of a group or list", wantText)
	}
	kind := column.Type().String()
	whole := kind == "INT32" || kind == "INT64" || strings.HasPrefix(kind, "INT(")
	switch {
	case kind == "STRING" || kind == "ENUM" || kind == "JSON":
		return func(v parquet.Value) string { return string(v.ByteArray()) }, nil
	case i == addressColumn && (kind == "BYTE_ARRAY" || kind == "FIXED_LEN_BYTE_ARRAY(20)"):
		return func(v parquet.Value) string {
			if raw := v.ByteArray(); len(raw) == common.AddressLength { // twice as long as text
				return "0x" + hex.EncodeToString(raw)
			}
			return string(v.ByteArray())
		}, nil
	case i == addressColumn:
		return nil, refuse(kind, "text (STRING) or 20 bytes (FIXED_LEN_BYTE_ARRAY(20) or BYTE_ARRAY)")
	case kind == "BYTE_ARRAY":
		return func(v parquet.Value) string { return string(v.ByteArray()) }, nil
	case i == externalIDColumn && whole && strings.HasSuffix(kind, ",false)"):
		if column.Type().Kind() == parquet.Int32 {
			return func(v parquet.Value) string { return strconv.FormatUint(uint64(v.Uint32()), 10) }, nil
		}
		return func(v parquet.Value) string { return strconv.FormatUint(v.Uint64(), 10) }, nil
	case i == externalIDColumn && whole:
		if column.Type().Kind() == parquet.Int32 {
			return func(v parquet.Value) string { return strconv.FormatInt(int64(v.Int32()), 10) }, nil
		}
		return func(v parquet.Value) string { return strconv.FormatInt(v.Int64(), 10) }, nil
	case i == externalIDColumn && kind == "UUID":
		return func(v parquet.Value) string {
			id, err := uuid.FromBytes(v.ByteArray())
			if err != nil {
				return string(v.ByteArray())
			}
			return id.String()
		}, nil
	case i == externalIDColumn:
		return nil, refuse(kind, "text (STRING), a UUID or whole numbers")
	}
	return nil, refuse(kind, wantText)
}
