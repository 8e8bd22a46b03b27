// Package importcmd connects the importer's parts: exports, a Kafka topic and a rejects file. The commands importer and
// purser, and `sandbox run`, share it.
package importcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/outfile"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/pipeline/csvimport"
	"github.com/purser-onboard/purser/printable"
)

// mostOfNames limits the file names in a line of output.
const mostOfNames = 4 << 10

// Stopping returns the command's message at the first signal.
func Stopping() console.Stopping {
	return console.Stopping{
		Command: "importer", Waits: "reading no more, waiting for the queue and the rejects file to be closed", Once: true,
	}
}

// Main parses the arguments and runs the importer. Its error carries the exit code (console.Exit).
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	stdout = console.Output(stdout)
	screen := console.NewScreen(stderr)
	screen.Format(config.LogFormatOf(args))
	c, err := config.ParseImporter(args, config.Streams{Stdout: stdout, Stderr: screen, Program: screen.Program()})
	if err != nil {
		return err
	}
	screen.Find(config.Whereabouts(args))
	console.WarnOfVariables(screen, c.Common)
	defer collectLess()()
	return c.Explain(Run(ctx, c, stdin, stdout, screen))
}

// Run is Import for callers that need no Result.
func Run(ctx context.Context, c *config.Importer, stdin io.Reader, stdout, stderr io.Writer) error {
	_, err := Import(ctx, c, stdin, stdout, stderr)
	return err
}

// Result describes an import, also a failed one.
type Result struct {
	ID          string // the import id
	QueueFailed bool   // the queue could not be opened or written to
}

// Import imports the exports. It ends early when ctx ends; rows that were already published stay in the queue.
func Import(
	ctx context.Context, c *config.Importer, stdin io.Reader, stdout, stderr io.Writer,
) (result Result, err error) {
	started := time.Now()
	importID, err := uuid.NewV7()
	if err != nil {
		return result, fmt.Errorf("generate an import id: %w", err)
	}
	result.ID = importID.String()
	screen := console.NewScreen(stderr)
	screen.Format(c.LogFormat)
	log := console.NewLogger(screen, c.LogFormat, c.LogLevel)
	files, err := expand(c.Files, log)
	if err != nil {
		return result, err
	}
	if err := checkRejects(c, files); err != nil {
		return result, err
	}
	inputs := &inputs{
		settings: c, importID: importID.String(), names: namesOf(files), stdin: stdin, now: time.Now,
		opened: map[string]*input{}, checked: map[string]fs.FileInfo{},
	}
	defer inputs.close()
	for _, file := range files { // a file that cannot be used is found before anything is published
		if err := inputs.check(ctx, file); err != nil {
			return result, err
		}
	}
	if err := inputs.checkForms(log); err != nil {
		return result, err
	}
	keys, err := c.MessageKeys()
	if err != nil {
		return result, err
	}
	rejects, err := outfile.Create(c.Rejects)
	if err != nil {
		return result, console.Unusable(fmt.Errorf("rejects file: %w", err))
	}
	defer rejects.Discard()
	im := &csvimport.Importer{
		Topic: c.Topic, Rejects: csvimport.NewRejectsWriter(rejects),
		MaxInvalid: &csvimport.InvalidLimit{Rows: c.MaxInvalidRows, Percent: c.MaxInvalidPercent},
	}
	var q *queue.Queue // nil in a dry run
	if !c.DryRun {
		if q, err = queue.Open(ctx, c.Queue, log, c.Topic); err != nil {
			result.QueueFailed = true
			return result, err
		}
		defer q.Close()
		if err := q.CheckTopics(ctx, c.Topic); err != nil {
			result.QueueFailed = true
			return result, err
		}
		im.Publisher = q.Publisher()
		if keys != nil {
			im.Publisher = keys.Publisher(im.Publisher)
		}
		traces, err := openTraces(ctx, c, importID.String(), stderr, log)
		if err != nil {
			return result, err
		}
		defer func() { traces.Close(ctx) }()
		im.Publisher = traces.Publisher(im.Publisher)
	}
	memory := remember(c, importID.String(), files, inputs.names, started, log)
	var invalid csvimport.Summary
	im.OnReject = func(r *csvimport.Reject) {
		memory.reasons.Add(r)
		invalid.Add(r)
	}
	progress := console.StartProgress(screen, c.Progress, func(at time.Time) []console.Field {
		return progressLine(verb(c), im.Stats(), inputs.share(), at.Sub(started))
	})
	defer progress.Stop()
	seen, err := inputs.importAll(ctx, files, im, memory, log)
	progress.Stop()
	result.QueueFailed = errors.As(err, new(*csvimport.PublishError))
	if q != nil {
		if e := q.Close(); e != nil { // what was published may not be in the queue
			result.QueueFailed = true
			err = errors.Join(err, fmt.Errorf("close broker: %w", e))
		}
	}
	rejected := "" // the rejects file, if it has rows
	if keep := finishRejects(c, im, rejects); keep != nil {
		err = errors.Join(err, keep)
	} else if im.Stats().Invalid > 0 {
		rejected = printable.Line(c.Rejects, mostOfNames)
	}
	s := im.Stats()
	finished := err == nil
	err = verdict(ctx, c, s, seen, err)
	memory.end(err)
	switch {
	case c.JSON():
		if e := console.WriteJSON(stdout, memory.document(c, rejected, s.Trimmed)); e != nil {
			return result, errors.Join(err, e)
		}
	case !c.Quiet || console.Code(err) != console.ExitWell:
		summarize(stdout, c, s, invalid.Kinds(), rejected, time.Since(started), finished)
	}
	return result, err
}

// progressLine returns the fields of the progress line, for the share of the bytes that was read in a time.
func progressLine(verb string, s csvimport.ImportStats, share float64, in time.Duration) []console.Field {
	fields := []console.Field{
		{Text: printable.Thousands(s.Read) + printable.Plural(s.Read, " row", " rows") + " read", Rank: 1},
		{Text: printable.Thousands(s.Published) + " " + verb, Rank: 3},
		{Text: printable.Thousands(s.Invalid) + " invalid", Rank: 2},
	}
	if share <= 0 {
		return fields
	}
	left := time.Duration((1/share - 1) * float64(in))
	return slices.Concat(fields[:1], []console.Field{{Text: fmt.Sprintf("%d %%", int(share*100)), Rank: 4}}, fields[1:],
		[]console.Field{{Text: console.Left(left) + " left", Rank: 5}})
}

// verdict adds the exit code and advice to the error of an import.
func verdict(ctx context.Context, c *config.Importer, s csvimport.ImportStats, seen noticed, err error) error {
	invalid := ""
	if s.Invalid > 0 {
		invalid = fmt.Sprintf("%d of %s invalid: see %s", s.Invalid, printable.Count(s.Read, "row is", "rows are"), c.Rejects)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%w: at least %s in the queue; importing the same files again is safe",
			context.Cause(ctx), printable.Count(s.Published, "row is", "rows are"))
	case errors.As(err, new(*csvimport.InvalidLimitError)):
		return console.Coded(console.ExitUsage, err)
	case err != nil:
		return queue.Coded(err)
	case len(seen.changed) > 0: // rows may be missing, which is worse than invalid ones
		if s.Invalid > 0 {
			invalid = "; " + invalid
		}
		return fmt.Errorf("%s changed while it was read: import it again when it is complete%s",
			strings.Join(seen.changed, ", "), invalid)
	case s.Invalid > 0:
		return console.Coded(console.ExitRowsBad, errors.New(invalid))
	case c.RequireRows && len(seen.empty) > 0:
		return console.Coded(console.ExitRowsBad,
			fmt.Errorf("no rows in %s (--require-rows)", strings.Join(seen.empty, ", ")))
	}
	return nil
}

// finishRejects puts the rejects file in place. The default file of an earlier import is moved aside first, so that it
// is neither lost nor taken for this one's; a file that was asked for by name is written even if it lists nothing.
func finishRejects(c *config.Importer, im *csvimport.Importer, rejects *outfile.File) error {
	if err := im.Rejects.Flush(); err != nil {
		return err
	}
	if c.RejectsGiven {
		return rejects.Commit()
	}
	if err := moveAside(c.Rejects); err != nil {
		return err
	}
	if im.Rejects.Count() == 0 {
		return nil
	}
	return rejects.Commit()
}

// moveAside renames rejects.csv to rejects-<time it was written>.csv.
func moveAside(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	extension := filepath.Ext(path)
	aside := strings.TrimSuffix(path, extension) + info.ModTime().UTC().Format("-20060102T150405.000Z") + extension
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("move the earlier import's rejects file aside: %w", err)
	}
	return nil
}

// checkRejects keeps the rejects file from replacing one of the exports, and a file that is named as such from
// replacing anything but rejects.
func checkRejects(c *config.Importer, files []string) error {
	target, err := os.Stat(c.Rejects)
	if err != nil {
		return nil // it is not there; whether it can be made, making it will tell
	}
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && os.SameFile(info, target) {
			return &config.Error{Setting: "--rejects", Value: c.Rejects, Problem: "is one of the exports and would overwrite it"}
		}
	}
	if !c.RejectsGiven {
		return nil
	}
	err = outfile.Replaces(c.Rejects, "a rejects file", func(head []byte) bool {
		header, _, _ := bytes.Cut(head, []byte("\n")) // a spreadsheet may have written it with other separators
		return bytes.Contains(header, []byte("reason"))
	})
	if err != nil {
		return &config.Error{Setting: "--rejects", Problem: err.Error()}
	}
	return nil
}

// verb names the outcome of a good row.
func verb(c *config.Importer) string {
	if c.DryRun {
		return "valid"
	}
	return "published"
}

// summarize prints the counts of rows and lines. An import that ended early leaves lines unfinished.
func summarize(
	w io.Writer, c *config.Importer, s csvimport.ImportStats, invalid []csvimport.Kind, rejects string, took time.Duration,
	finished bool,
) {
	var b strings.Builder // one write, for a reader that takes only the beginning
	fmt.Fprintf(&b, "imported %s: %s read, %d %s, %d invalid in %s\n",
		printable.Line(strings.Join(c.Files, ", "), mostOfNames), printable.Count(s.Read, "row", "rows"),
		s.Published, verb(c), s.Invalid, took.Round(time.Millisecond))
	fmt.Fprintf(&b, "lines: %d read, %d %s, %d invalid, %d blank, %d header",
		s.Lines, s.PublishedLines, verb(c), s.InvalidLines, s.Blank, s.Header)
	if !finished {
		fmt.Fprintf(&b, ", %d not finished", s.Missing())
	}
	b.WriteByte('\n')
	if c.Trim {
		fmt.Fprintf(&b, "trimmed: %s\n", printable.Count(s.Trimmed, "row", "rows"))
	}
	const most = 10
	for i, k := range invalid {
		if i == most {
			fmt.Fprintf(&b, "invalid: %d other %s\n", len(invalid)-most,
				printable.Plural(len(invalid)-most, "reason", "reasons"))
			break
		}
		fmt.Fprintf(&b, "invalid: %d %s: %s (first: %s:%d)\n", k.Rows, k.First.Field,
			printable.Line(k.First.Reason, 300), k.First.File, k.First.Line)
	}
	if rejects != "" {
		fmt.Fprintf(&b, "rejects: %s\n", rejects)
	}
	fmt.Fprint(w, b.String())
}
