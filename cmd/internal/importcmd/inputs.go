package importcmd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline/csvimport"
	"github.com/purser-onboard/purser/printable"
)

// ExportError reports an argument or file that cannot be read as an export. Nothing was published.
type ExportError struct {
	Path string // as it was given, or of a file in a directory that was given
	Err  error
}

func (e *ExportError) Error() string { return e.Err.Error() }

func (e *ExportError) Unwrap() error { return e.Err }

// expand returns the files that the arguments name: themselves, the files of a directory, and those that match a
// pattern, each in the order of their names.
func expand(args []string, log *slog.Logger) (files []string, err error) {
	for _, arg := range args {
		found, err := expandOne(arg, log)
		if err != nil {
			return nil, console.Coded(console.ExitUsage, &ExportError{arg, err})
		}
		files = append(files, found...)
	}
	return files, nil
}

func expandOne(arg string, log *slog.Logger) (found []string, err error) {
	info, err := os.Stat(arg)
	switch {
	case arg == "":
		err = errors.New("FILE is empty: is a shell variable unset?")
	case arg == "-" || err == nil && !info.IsDir():
		return []string{arg}, nil
	case err == nil:
		if found, err = filesIn(arg, log); err == nil && len(found) == 0 {
			err = fmt.Errorf("%s: the directory has no files", arg)
		}
	case errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(arg, "*?["):
		if found, err = filepath.Glob(arg); err != nil {
			return nil, fmt.Errorf("%s: no such file, and not a valid pattern", arg)
		}
		if found, err = exports(found, arg, log); err == nil && len(found) == 0 {
			err = fmt.Errorf("%s: no file matches this pattern", arg)
		}
	}
	return found, err
}

// filesIn returns the files of a directory that exports takes.
func filesIn(dir string, log *slog.Logger) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, err
	}
	paths := make([]string, len(entries))
	for i, entry := range entries {
		paths[i] = filepath.Join(dir, entry.Name())
	}
	return exports(paths, "", log)
}

// exports returns the regular files of a directory, or those that match a pattern, without hidden ones and those that
// an upload or an editor has not finished. A pattern that asks for hidden or unfinished files gets them.
func exports(paths []string, pattern string, log *slog.Logger) ([]string, error) {
	hiddenToo := strings.HasPrefix(filepath.Base(pattern), ".") && pattern != ""
	unfinishedToo := unfinishedName.MatchString(pattern)
	var files []string
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, ".") && !hiddenToo {
			continue
		}
		info, err := os.Stat(path) // what a symbolic link leads to
		switch {
		case err != nil:
			return nil, err
		case info.IsDir():
			log.Warn("skipped a directory inside a directory or pattern", "directory", path)
		case !info.Mode().IsRegular(): // reading it may never end
			log.Warn("skipped a pipe, socket or device in a directory or pattern", "file", path)
		case unfinishedName.MatchString(name) && !unfinishedToo:
			log.Warn("skipped a file whose name marks it as incomplete", "file", path)
		default:
			files = append(files, path)
		}
	}
	return files, nil
}

// unfinishedName is the name of a file that is being uploaded or edited.
var unfinishedName = regexp.MustCompile(`(?i)(\.(part|partial|filepart|tmp|temp|crdownload|swp)|~)$`)

// inputs opens the files. A file is opened twice, to find out before anything is published whether it can be used, and
// to read it. A pipe, and standard input, can be opened once only.
type inputs struct {
	settings *config.Importer
	importID string
	names    map[string]string // of the files, for messages and rows
	stdin    io.Reader
	now      func() time.Time
	opened   map[string]*input      // that cannot be opened again; their headers are read
	checked  map[string]fs.FileInfo // of the regular files when they were checked
	forms    struct {               // of those that were checked: there is
		csv, text, sheets bool // CSV; CSV or JSON Lines; a workbook
	}

	size    int64                 // of the files in bytes, as they were checked; pipes have none
	bytes   atomic.Int64          // read of those that are done
	current atomic.Pointer[input] // being imported; nil: none
}

// share returns which part of the bytes has been read, from 0 to 1; 0 if that is not known, as with a pipe. At first it
// is not: a workbook or a Parquet file is not read from front to back, and what is read ahead of a file is less.
func (i *inputs) share() float64 {
	const readAhead = 1 << 20
	done := i.bytes.Load()
	if in := i.current.Load(); in != nil {
		here := in.ahead.bytes.Load()
		if in.info == nil || here < readAhead {
			return 0
		}
		done += here
	}
	return min(1, float64(done)/float64(max(1, i.size)))
}

// input is an export that was opened.
type input struct {
	*csvimport.Reader
	ahead *ahead
	file  *os.File    // nil: it is none, as standard input in tests
	path  string      // of the file; "": standard input
	info  fs.FileInfo // of a regular file when it was checked, or opened first; nil: it is none
}

// check makes sure that a file begins as an export does. It waits for the writer of a pipe.
func (i *inputs) check(ctx context.Context, file string) error {
	if i.opened[file] != nil {
		return console.Coded(console.ExitUsage, fmt.Errorf("%s can be read only once", file))
	}
	in, err := i.open(ctx, file)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return console.Coded(console.ExitUsage, &ExportError{file, err})
	}
	i.forms.csv = i.forms.csv || in.IsCSV()
	i.forms.text = i.forms.text || in.IsText()
	i.forms.sheets = i.forms.sheets || in.HasSheets()
	if in.info != nil {
		i.size += in.info.Size()
	}
	if in.info != nil && file != "-" {
		i.checked[file] = in.info
		return in.close()
	}
	i.opened[file] = in
	return nil
}

// checkForms returns an error if a flag was given for a form of exports that none has, such as --sheet without a
// workbook: was another file meant? A variable and the configuration file may be set for all nights.
func (i *inputs) checkForms(log *slog.Logger) error {
	for _, s := range []struct {
		name, value, problem string
		used                 bool
	}{
		{"sheet", i.settings.Sheet, "no export is a workbook, and other formats have no sheets", i.forms.sheets},
		{"delimiter", i.settings.Delimiter, "no export is CSV, and other formats have no separator", i.forms.csv},
		{"encoding", i.settings.Encoding, "no export is CSV or JSON Lines, and other formats need no encoding", i.forms.text},
	} {
		from := i.settings.Origins[s.name]
		switch {
		case s.value == "" || s.used:
		case from == "":
			return &config.Error{
				Setting: "--" + s.name, Value: s.value, Problem: s.problem + ": remove the flag, or import another file",
			}
		default:
			log.Warn(s.problem+": --"+s.name+" has no effect", s.name, s.value, "from", from)
		}
	}
	return nil
}

// outcome is what is known of a file that was read.
type outcome struct {
	digest *digest // nil: it was not read to its end
	change string  // how a file changed that was written to in the meantime; "": it did not
}

// noticed are the files with which something is the matter, though they could be read.
type noticed struct {
	empty   []string // without a row
	changed []string // while they were read
}

// importAll imports the files, one after the other, until one fails.
func (i *inputs) importAll(
	ctx context.Context, files []string, im *csvimport.Importer, m *memory, log *slog.Logger,
) (seen noticed, err error) {
	for n, file := range files {
		before := im.Stats()
		read, err := i.importFile(ctx, im, file, log)
		m.read(n, read.digest, im.Stats().Sub(before))
		if err != nil {
			return seen, err
		}
		if read.change != "" {
			log.Warn("the export changed while it was read; rows may be missing", "file", file, "change", read.change)
			seen.changed = append(seen.changed, file)
		}
		if im.Stats().Read == before.Read {
			log.Warn("the export has a header but no rows", "file", file)
			seen.empty = append(seen.empty, file)
		}
	}
	return seen, nil
}

func (i *inputs) importFile(
	ctx context.Context, im *csvimport.Importer, file string, log *slog.Logger,
) (read outcome, err error) {
	in := i.opened[file]
	delete(i.opened, file)
	if in == nil {
		if in, err = i.open(ctx, file); err != nil {
			if header := new(csvimport.HeaderError); errors.As(err, &header) {
				err = console.Coded(console.ExitUsage, err)
			}
			return read, err
		}
	}
	i.current.Store(in)
	log.Info("reading", "file", file, "as", in.Format())
	if sheets := in.UnreadSheets(); len(sheets) > 0 {
		log.Warn("reading only the first sheet of the workbook; --sheet selects another", "file", file,
			"unread", printable.Line(strings.Join(sheets, ", "), mostOfNames))
	}
	if err = im.Import(ctx, in.Reader); err == nil {
		_, err = io.Copy(io.Discard, in.ahead) // what was not read from front to back is digested as well
	}
	read.change = in.change()
	if e := in.close(); err == nil {
		err = e
	}
	read.digest = in.ahead.digest.Load()
	i.current.Store(nil)
	i.bytes.Add(in.ahead.bytes.Load())
	return read, err
}

func (i *inputs) close() {
	for _, in := range i.opened {
		_ = in.close() // nothing of it was imported
	}
}

func (i *inputs) open(ctx context.Context, file string) (*input, error) {
	if file == "-" && i.stdin == nil {
		return nil, errors.New("-: this command cannot read exports from standard input: name a file")
	}
	f, err := openFile(ctx, file)
	if err != nil {
		return nil, err
	}
	in := &input{file: f}
	if f != nil {
		in.path = file
	}
	c := i.settings
	options := csvimport.Options{
		Name: i.names[file], Chain: c.ChainNumber, ImportID: i.importID,
		Columns: csvimport.Columns{
			Address: c.ColumnNames["address"], ExternalID: c.ColumnNames["externalId"], ChainID: c.ColumnNames["chainId"],
			NoChainID: c.NoChainColumn,
		},
		Delimiter: c.Comma, Encoding: c.Encoding, Sheet: c.Sheet, Trim: c.Trim,
	}
	from := csvimport.Input{}
	if f == nil {
		in.file, _ = i.stdin.(*os.File)
	}
	var info fs.FileInfo
	if in.file != nil {
		info, err = in.file.Stat()
		if err != nil {
			if f != nil {
				err = errors.Join(err, f.Close())
			}
			return nil, err
		}
		if info.Mode().IsRegular() {
			in.info = info
			// A file that another one has replaced since it was checked is whole; one that was written to may not be.
			if checked := i.checked[file]; checked != nil && os.SameFile(checked, info) {
				in.info = checked
			}
			if !c.AllowUnterminated {
				options.Unterminated = func() string { return in.unterminated(i.now()) }
			}
		}
	}
	if f == nil {
		in.ahead = readAhead(ctx, i.stdin, nil)
	} else {
		if in.info != nil {
			from.At, from.Size = f, info.Size()
		}
		in.ahead = readAhead(ctx, f, f)
	}
	from.Reader = in.ahead
	if in.Reader, err = csvimport.NewReader(from, options); err != nil {
		return nil, errors.Join(err, in.ahead.Close())
	}
	return in, nil
}

func (in *input) close() error {
	err := in.ahead.Close()
	in.Reader.Close()
	return err
}

// atRest is how long a file must not have changed for its last line to be taken for whole without a line end.
const atRest = time.Minute

// unterminated says why the last line of a file, which has no line end, may not be whole.
func (in *input) unterminated(now time.Time) string {
	const advice = "is the file still being written? (--allow-unterminated accepts the line)"
	if in.written() != "" {
		return "the last line has no line end, and the file changed while it was read: " + advice
	}
	if now.Sub(in.info.ModTime()) < atRest { // or later than now: the clock that set the time is ahead
		return fmt.Sprintf("the last line has no line end, and the file was changed less than %d s ago: %s",
			int(atRest.Seconds()), advice)
	}
	return ""
}

// change says how a regular file was written to since it was checked, or that its name is by now that of another file;
// "" if nothing has changed.
func (in *input) change() string {
	if change := in.written(); change != "" || in.info == nil || in.path == "" {
		return change
	}
	if now, err := os.Stat(in.path); err == nil && !os.SameFile(in.info, now) {
		return "replaced by another file, which was not read"
	}
	return ""
}

// written says how a regular file differs from what it was when it was checked; "" if it does not.
func (in *input) written() string {
	if in.info == nil {
		return ""
	}
	info, err := in.file.Stat()
	switch {
	case err != nil:
		return err.Error()
	case info.Size() != in.info.Size():
		return fmt.Sprintf("from %d to %s", in.info.Size(), printable.Count(info.Size(), "byte", "bytes"))
	case !info.ModTime().Equal(in.info.ModTime()):
		return "written to at " + info.ModTime().UTC().Format(time.RFC3339)
	}
	return ""
}

// openFile opens a file; nil stands for standard input. An open that blocks, as that of a pipe without a writer does,
// ends with ctx; the goroutine that waits for it then ends with the process.
func openFile(ctx context.Context, file string) (*os.File, error) {
	if file == "-" {
		return nil, nil
	}
	type opened struct {
		*os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(file)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.File, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ahead is an export that is read by a goroutine of its own, so that a read that blocks ends with the context.
type ahead struct {
	*io.PipeReader
	file    io.Closer     // nil: standard input
	ended   chan struct{} // closed when the goroutine has ended
	unwatch func() bool
	bytes   atomic.Int64           // read so far
	digest  atomic.Pointer[digest] // nil until the file was read to its end
}

// digest is that of a file that was read to its end.
type digest struct {
	size   int64
	sha256 string // hex
}

// digester passes on the bytes of a file and computes their digest. It hides what else a reader can do: a file would
// copy itself, in smaller pieces.
type digester struct {
	r    io.Reader
	hash hash.Hash
	size *atomic.Int64
}

// Read implements io.Reader.
func (d *digester) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.hash.Write(p[:n]) // never fails
	d.size.Add(int64(n))
	return n, err
}

func readAhead(ctx context.Context, from io.Reader, file io.Closer) *ahead {
	out, in := io.Pipe()
	a := &ahead{PipeReader: out, file: file, ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		raw := &digester{r: from, hash: sha256.New(), size: &a.bytes}
		_, err := io.CopyBuffer(in, raw, make([]byte, 256<<10))
		if err == nil {
			a.digest.Store(&digest{size: a.bytes.Load(), sha256: hex.EncodeToString(raw.hash.Sum(nil))})
		}
		in.CloseWithError(err) // nil is io.EOF
	}()
	a.unwatch = context.AfterFunc(ctx, func() { out.CloseWithError(ctx.Err()) })
	return a
}

// Close ends the goroutine, waits for it, and closes the file. A read of standard input cannot be ended; its goroutine
// ends with the process.
func (a *ahead) Close() error {
	a.unwatch()
	_ = a.PipeReader.Close() // always nil
	if a.file == nil {
		return nil
	}
	err := a.file.Close() // ends a read that blocks
	<-a.ended
	return err
}
