package csvimport

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// gzipReader reads the members of a gzip file (RFC 1952, section 2.2) and accepts zeros after the last member: tape
// drives and some object stores pad blocks with them.
type gzipReader struct {
	in     *bufio.Reader // gzip reads no byte more than a member from it
	member *gzip.Reader
}

func newGzip(in *bufio.Reader) (*gzipReader, error) {
	member, err := gzip.NewReader(in)
	if err != nil {
		return nil, gzipError(err)
	}
	member.Multistream(false)
	return &gzipReader{in: in, member: member}, nil
}

func (g *gzipReader) Read(p []byte) (int, error) {
	for {
		n, err := g.member.Read(p)
		if n > 0 || err == nil {
			return n, nil // the error comes again
		}
		if !errors.Is(err, io.EOF) {
			return 0, gzipError(err)
		}
		switch next, err := g.in.Peek(1); {
		case err != nil:
			return 0, err
		case next[0] == 0:
			return 0, onlyZeros(g.in, "gzip")
		}
		if err := g.member.Reset(g.in); err != nil {
			return 0, fmt.Errorf("gzip: unexpected data after the compressed data: %w", err)
		}
		g.member.Multistream(false)
	}
}

func gzipError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("gzip: the compressed data ends early: is the file complete?")
	}
	return err
}

// onlyZeros returns io.EOF if there are only zeros left.
func onlyZeros(in *bufio.Reader, format string) error {
	for {
		c, err := in.ReadByte()
		switch {
		case err != nil:
			return err
		case c != 0:
			return fmt.Errorf("%s: unexpected data after the zeros that follow the compressed data", format)
		}
	}
}

// maxWindow is the longest window of zstd data, in bytes, which the decoder keeps in memory. The command zstd has the
// same limit.
const maxWindow = 128 << 20

// zstdReader reads zstd frames (RFC 8878) and accepts zeros after the last frame, at least four.
type zstdReader struct {
	in      *bufio.Reader
	tail    *tail
	decoder *zstd.Decoder
}

// tail keeps the last four bytes that were read.
type tail struct {
	r    io.Reader
	last [4]byte
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if n >= len(t.last) {
		copy(t.last[:], p[n-len(t.last):n])
	} else {
		copy(t.last[:], t.last[n:])
		copy(t.last[len(t.last)-n:], p[:n])
	}
	return n, err
}

func newZstd(in *bufio.Reader) (*zstdReader, error) {
	z := &zstdReader{in: in, tail: &tail{r: in}}
	var err error
	z.decoder, err = zstd.NewReader(z.tail, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	return z, err
}

func (z *zstdReader) Read(p []byte) (int, error) {
	n, err := z.decoder.Read(p)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case errors.Is(err, zstd.ErrMagicMismatch) && z.tail.last == [4]byte{}:
		// The decoder has read exactly the four bytes in which a frame would have its magic number.
		return n, onlyZeros(z.in, "zstd")
	case errors.Is(err, zstd.ErrMagicMismatch):
		return n, errors.New("zstd: unexpected data after the compressed data")
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return n, fmt.Errorf("zstd: the data needs a window of more than %d MiB, which is the limit: compress it without "+
			"--long or --ultra, or pipe it in: zstd -dc --long=31 FILE | importer -", maxWindow>>20)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, errors.New("zstd: the compressed data ends early: is the file complete?")
	}
	return n, fmt.Errorf("zstd: %w", err)
}
