package csvimport

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/purser-onboard/purser/printable"
)

// parts are the parts of a workbook by name, without case.
type parts map[string]*zip.File

func partsOf(archive *zip.Reader) parts {
	p := parts{}
	for _, f := range archive.File {
		p[partName(f.Name)] = f
	}
	return p
}

func partName(name string) string {
	return strings.ToLower(strings.TrimPrefix(strings.ReplaceAll(name, `\`, "/"), "/"))
}

func (p parts) open(name string) (io.ReadCloser, error) {
	f, ok := p[partName(name)]
	if !ok {
		return nil, fmt.Errorf("the workbook has no part %s: is it complete?", printable.Quote(name, 100))
	}
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("part %s of the workbook: %w", printable.Quote(name, 100), err)
	}
	return r, nil
}

// each calls f for the elements of that name in a part.
func (p parts) each(part, element string, f func(start *xml.StartElement, r *xmlReader) error) error {
	content, err := p.open(part)
	if err != nil {
		return err
	}
	defer content.Close()
	r := newXML(content)
	for {
		start, err := r.find(element)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = f(start, r)
		}
		if err != nil {
			return fmt.Errorf("part %s of the workbook: %w", printable.Quote(part, 100), err)
		}
	}
}

// texts are the shared texts of a workbook, one behind the other.
type texts struct {
	all  []byte
	ends []int
}

func (t *texts) read(p parts) error {
	const part = "xl/sharedStrings.xml"
	if _, ok := p[partName(part)]; !ok {
		return nil // a workbook without text, or with all of it in its cells
	}
	return p.each(part, "si", func(_ *xml.StartElement, r *xmlReader) error {
		text, err := r.richText()
		if err != nil {
			return err
		}
		t.all = append(t.all, unescape(text)...)
		t.ends = append(t.ends, len(t.all))
		if len(t.all)+8*len(t.ends) > maxSharedText {
			return fmt.Errorf("the texts take more than %d MiB, which is the limit: save the sheet as CSV", maxSharedText>>20)
		}
		return nil
	})
}

func (t *texts) at(i int) (string, error) {
	if i < 0 || i >= len(t.ends) {
		return "", fmt.Errorf("a cell refers to the shared text %d, but there are %d", i, len(t.ends))
	}
	begin := 0
	if i > 0 {
		begin = t.ends[i-1]
	}
	return string(t.all[begin:t.ends[i]]), nil
}

// attr returns an attribute; its namespace does not count.
func attr(start *xml.StartElement, name string) string {
	i := slices.IndexFunc(start.Attr, func(a xml.Attr) bool { return a.Name.Local == name })
	if i < 0 {
		return ""
	}
	return start.Attr[i].Value
}

// xmlReader walks through an XML part of bounded depth and with texts of bounded length.
type xmlReader struct {
	d     *xml.Decoder
	depth int
}

func newXML(r io.Reader) *xmlReader {
	d := xml.NewDecoder(bufio.NewReaderSize(&shortTexts{r: r}, 64<<10))
	return &xmlReader{d: d}
}

// token returns the next token, valid until the following call.
func (x *xmlReader) token() (xml.Token, error) {
	token, err := x.d.RawToken()
	switch token.(type) {
	case xml.StartElement:
		if x.depth++; x.depth > maxXMLDepth {
			return nil, fmt.Errorf("XML elements are nested more than %d deep", maxXMLDepth)
		}
	case xml.EndElement:
		x.depth--
	case xml.Directive:
		return nil, errors.New("XML directives, such as a document type, are not allowed in a workbook")
	}
	if errors.Is(err, io.EOF) && x.depth > 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return token, err
}

// find returns the next element of a name, at any depth; io.EOF if there is none.
func (x *xmlReader) find(name string) (*xml.StartElement, error) {
	for {
		token, err := x.token()
		if err != nil {
			return nil, err
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == name {
			return &start, nil
		}
	}
}

// child returns the next child of the element that was entered, nil at its end.
func (x *xmlReader) child() (*xml.StartElement, error) {
	for {
		token, err := x.token()
		if errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			return &token, nil
		case xml.EndElement:
			return nil, nil
		}
	}
}

// skip leaves the element that was entered.
func (x *xmlReader) skip() error {
	for outside := x.depth - 1; x.depth > outside; {
		if _, err := x.token(); err != nil {
			return err
		}
	}
	return nil
}

// text returns the text of the element that was entered, and leaves it.
func (x *xmlReader) text() (string, error) {
	var b []byte
	for outside := x.depth - 1; x.depth > outside; {
		token, err := x.token()
		if err != nil {
			return "", err
		}
		if chars, ok := token.(xml.CharData); ok {
			b = append(b, chars...)
		}
		if len(b) > maxCellText {
			return "", fmt.Errorf("a text is longer than %d bytes", maxCellText)
		}
	}
	return string(b), nil
}

// richText returns the text of the t elements in the element that was entered, and leaves it. What helps to pronounce
// it (rPh) does not count.
func (x *xmlReader) richText() (string, error) {
	all := ""
	for {
		start, err := x.child()
		if err != nil {
			return "", err
		}
		if start == nil {
			return all, nil
		}
		text := ""
		switch start.Name.Local {
		case "t":
			text, err = x.text()
		case "r":
			text, err = x.richText()
		default:
			err = x.skip()
		}
		if err != nil {
			return "", err
		}
		if all += text; len(all) > maxCellText {
			return "", fmt.Errorf("a text is longer than %d bytes", maxCellText)
		}
	}
}

// shortTexts ends reading when there is no < for too long: package xml keeps a whole text in memory.
type shortTexts struct {
	r   io.Reader
	run int
}

func (s *shortTexts) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if i := bytes.LastIndexByte(p[:n], '<'); i >= 0 {
		s.run = n - i
	} else if s.run += n; s.run > 4*maxCellText {
		return 0, fmt.Errorf("a text is longer than %d bytes", maxCellText)
	}
	return n, err
}
