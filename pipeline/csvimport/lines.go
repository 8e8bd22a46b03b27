package csvimport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// rawLine is a physical line of an export.
type rawLine struct {
	text    []byte // without its line end
	number  int
	tooLong bool // text is only its beginning
}

func (l rawLine) isBlank() bool { return !l.tooLong && len(bytes.TrimLeft(l.text, " \t\r")) == 0 }

// lineReader splits into physical lines (LF or CRLF) and numbers them.
type lineReader struct {
	r      *bufio.Reader
	number int  // of the line that was read last
	crlf   bool // the first line ends in CRLF
	open   bool // the line that was read last has no line end
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, maxLine+2)}
}

// next returns a line whose text is valid until the following call.
func (l *lineReader) next() (rawLine, error) {
	text, err := l.r.ReadSlice('\n')
	line := rawLine{text: text, number: l.number + 1}
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
	l.number++
	l.open = err != nil
	if l.number == 1 {
		l.crlf = bytes.HasSuffix(text, []byte("\r\n"))
	}
	if !line.tooLong {
		line.text = bytes.TrimSuffix(line.text, []byte{'\n'})
		line.text = bytes.TrimSuffix(line.text, []byte{'\r'})
	}
	return line, nil
}

// lineCounter counts the physical lines that are read through it, independently of the parser: the importer's
// accounting starts from its count.
type lineCounter struct {
	r     io.Reader
	ends  int
	begun bool // the last line has no end yet
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		c.ends += bytes.Count(p[:n], []byte{'\n'})
		c.begun = p[n-1] != '\n'
	}
	return n, err
}

// lines is the number of lines so far.
func (c *lineCounter) lines() int64 {
	if c.begun {
		return int64(c.ends) + 1
	}
	return int64(c.ends)
}
