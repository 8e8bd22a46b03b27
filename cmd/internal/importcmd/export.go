package importcmd

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// export is an export that was opened: its content, decompressed.
type export struct {
	io.Reader
	raw     *digester    // what is decompressed; Reader reads through it
	file    io.Closer    // nil: standard input
	decoder func() error // releases what decompresses; nil: nothing does
}

// digester passes on the bytes of a file and computes their digest.
type digester struct {
	r    io.Reader
	hash hash.Hash
	size int64
}

func newDigester(r io.Reader) *digester { return &digester{r: r, hash: sha256.New()} }

// Read implements io.Reader.
func (d *digester) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.hash.Write(p[:n]) // never fails
	d.size += int64(n)
	return n, err
}

// digest is that of a file that was read to its end.
type digest struct {
	size   int64
	sha256 string // hex
}

// Close closes the file and releases the decoder. No Read may be in progress.
func (e *export) Close() error {
	var err error
	if e.file != nil {
		err = e.file.Close()
	}
	if e.decoder != nil {
		err = errors.Join(err, e.decoder())
	}
	return err
}

// ahead is an export that is read by a goroutine of its own, so that a read that blocks ends with the context.
type ahead struct {
	*io.PipeReader
	of      *export
	ended   chan struct{} // closed when the goroutine has ended
	unwatch func() bool
	digest  atomic.Pointer[digest] // nil until the file was read to its end
}

func readAhead(ctx context.Context, e *export) *ahead {
	out, in := io.Pipe()
	a := &ahead{PipeReader: out, of: e, ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		_, err := io.CopyBuffer(in, e, make([]byte, 256<<10))
		if err == nil { // a decoder may stop before the end of the file
			_, err = io.Copy(io.Discard, e.raw)
		}
		if err == nil {
			a.digest.Store(&digest{size: e.raw.size, sha256: hex.EncodeToString(e.raw.hash.Sum(nil))})
		}
		in.CloseWithError(err) // nil is io.EOF
	}()
	a.unwatch = context.AfterFunc(ctx, func() { out.CloseWithError(ctx.Err()) })
	return a
}

// Close ends the goroutine, waits for it, and closes the export. A read of standard input cannot be ended; its
// goroutine ends with the process.
func (a *ahead) Close() error {
	a.unwatch()
	_ = a.PipeReader.Close() // always nil
	file := a.of.file
	if file == nil {
		select {
		case <-a.ended:
			return a.of.Close()
		default:
			return nil
		}
	}
	err := file.Close() // ends a read that blocks
	<-a.ended
	a.of.file = nil
	return errors.Join(err, a.of.Close())
}

// open opens an export, decompressing .gz and .zst. An open that blocks, as that of a pipe without a writer does, ends
// with ctx; the goroutine that waits for it then ends with the process.
func open(ctx context.Context, file string, stdin io.Reader) (*export, error) {
	if file == "-" {
		raw := newDigester(stdin)
		return &export{Reader: raw, raw: raw}, nil
	}
	type opened struct {
		*export
		err error
	}
	done := make(chan opened, 1)
	go func() {
		e, err := openFile(file)
		done <- opened{e, err}
	}()
	select {
	case o := <-done:
		return o.export, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func openFile(file string) (*export, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	e, err := unpack(f, file)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return e, nil
}

func unpack(f *os.File, file string) (*export, error) {
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.IsDir() {
		return nil, fmt.Errorf("%s is a directory, not an export", file)
	}
	raw := newDigester(f)
	switch strings.ToLower(filepath.Ext(file)) {
	case ".gz":
		r, err := gzip.NewReader(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return &export{Reader: r, raw: raw, file: f, decoder: r.Close}, nil
	case ".zst":
		r, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return &export{Reader: r, raw: raw, file: f, decoder: func() error { r.Close(); return nil }}, nil
	}
	return &export{Reader: raw, raw: raw, file: f}, nil
}
