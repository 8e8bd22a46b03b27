package csvimport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/purser-onboard/purser/printable"
)

// jsonSource reads JSON Lines: an object a line, in constant memory. Members are found like the columns of a CSV
// header, in each object for itself; other members are ignored.
type jsonSource struct {
	name         string
	columns      Columns
	unterminated func() string

	counter lineCounter
	lines   *lineReader
	blank   int64
	first   *record
	members map[string]int // the column of a member's name, columnCount: none
	remark  string
}

// mostMembers bounds the names that are remembered.
const mostMembers = 1000

// newJSONLines reads the first object of r, which is UTF-8. Its error is a *HeaderError or one of r.
func newJSONLines(r io.Reader, o Options) (*jsonSource, error) {
	s := &jsonSource{
		name: o.Name, columns: o.Columns, unterminated: o.Unterminated, counter: lineCounter{r: r},
		members: map[string]int{},
	}
	s.lines = newLineReader(&s.counter)
	line, err := s.nextLine()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	line.text = bytes.TrimPrefix(line.text, []byte("\ufeff"))
	fail := func(reason string) error { return &HeaderError{File: s.name, Line: line.number, Reason: reason} }
	names, err := memberNames(line.text)
	if err != nil {
		return nil, fail("looks like JSON, but the first line is not a whole object: want JSON Lines, with an object a " +
			"line (for example from jq -c .)")
	}
	at, err := s.columns.find(names)
	if err != nil {
		return nil, fail(err.Error())
	}
	if s.columns.lacks(at) {
		return nil, fail(s.columns.missing(names, at))
	}
	s.remark = s.columns.doubt(names, at)
	rec := s.record(line)
	s.first = &rec
	return s, nil
}

// memberNames returns the names of an object's members.
func memberNames(text []byte) ([]string, error) {
	var names []string
	err := eachMember(text, func(name string, _ json.RawMessage) error {
		names = append(names, name)
		return nil
	})
	return names, err
}

// eachMember calls f for the members of a JSON object. Text after the object is an error.
func eachMember(text []byte, f func(name string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(text))
	token, err := d.Token()
	if err != nil {
		return err
	}
	if token != json.Delim('{') {
		return errors.New("not an object")
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string) // only a name can be here
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after the object")
	}
	return nil
}

func (s *jsonSource) counts() (lines, header, blank int64) { return s.counter.lines(), 0, s.blank }

func (s *jsonSource) line() int { return s.lines.number }

func (s *jsonSource) doubt() string { return s.remark }

func (s *jsonSource) nextLine() (rawLine, error) {
	line, err := s.lines.next()
	for err == nil && line.isBlank() {
		s.blank++
		line, err = s.lines.next()
	}
	return line, err
}

func (s *jsonSource) read() (record, error) {
	if s.first != nil {
		rec := *s.first
		s.first = nil
		return rec, nil
	}
	line, err := s.nextLine()
	if err != nil {
		return record{}, err
	}
	return s.record(line), nil
}

// record parses a line.
func (s *jsonSource) record(line rawLine) record {
	rec := record{line: line.number, lines: 1, raw: line.text}
	reject := func(column int, reason string) record {
		rec.reject = rejectOf(s.name, &rec, reason)
		if column < columnCount {
			rec.reject.Field = columnName(column)
		}
		return rec
	}
	switch {
	case line.tooLong:
		return reject(columnCount, fmt.Sprintf("line is longer than %d bytes; only its beginning is kept here", maxLine))
	case !utf8.Valid(line.text):
		return reject(columnCount, "line is not valid UTF-8: a file in another encoding needs --encoding")
	}
	var seen [columnCount]bool
	wrong, reason := -1, ""
	err := eachMember(line.text, func(name string, value json.RawMessage) error {
		column := s.column(name)
		if column == columnCount {
			return nil
		}
		if seen[column] {
			return fmt.Errorf("member %s appears twice", printable.Quote(name, 40))
		}
		seen[column] = true
		text, problem := jsonText(value, columnName(column))
		if problem != "" && wrong < 0 {
			wrong, reason = column, problem
		}
		*[columnCount]*string{&rec.address, &rec.id, &rec.chain}[column] = text
		return nil
	})
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return reject(columnCount, "line is not a JSON object: "+err.Error())
	case err != nil:
		return reject(columnCount, "line is not a JSON object of unique members: "+err.Error())
	case wrong >= 0:
		return reject(wrong, reason)
	}
	if s.lines.open && s.unterminated != nil {
		if reason := s.unterminated(); reason != "" {
			return reject(columnCount, reason)
		}
	}
	return rec
}

// column returns the column that a member holds, or columnCount.
func (s *jsonSource) column(name string) int {
	column, known := s.members[name]
	if known {
		return column
	}
	for column = 0; column < columnCount; column++ {
		if slices.Contains(s.columns.names(column), fold(name)) {
			break
		}
	}
	if len(s.members) < mostMembers {
		s.members[name] = column
	}
	return column
}

// exact is the greatest whole number up to which JavaScript and many JSON encoders keep every digit.
const exact = 1<<53 - 1

// jsonText returns the text of a member. A whole number stands for its digits, as long as no writer rounds it. -0 was
// rounded or computed, and 0 would be another id.
func jsonText(value json.RawMessage, field string) (text, problem string) {
	switch value[0] {
	case '"':
		if err := json.Unmarshal(value, &text); err != nil {
			return "", fmt.Sprintf("%s is not a JSON string: %v", field, err)
		}
		return text, ""
	case 'n':
		return "", ""
	case '{', '[':
		return "", field + " is a JSON object or array, want a string"
	case 't', 'f':
		return "", field + " is true or false, want a string"
	}
	number, err := strconv.ParseInt(string(value), 10, 64)
	switch text = strconv.FormatInt(number, 10); {
	case err != nil || text != string(value):
		return "", fmt.Sprintf("%s is the number %s, want a string", field, printable.Quote(string(value), 40))
	case number > exact || number < -exact:
		return "", fmt.Sprintf("%s is a number of more than 53 bits, which many programs round: want a string", field)
	}
	return text, ""
}
