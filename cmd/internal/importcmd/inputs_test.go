package importcmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xuri/excelize/v2"

	"github.com/purser-onboard/purser/cmd/internal/console"
)

const openLine = "address,externalId\n0xE66c9b8E74D0ece13e824f4987Aa568Bc3963C3f,cust-10"

// dryRun runs the importer on files without publishing.
func dryRun(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var b strings.Builder
	err := Main(t.Context(), append([]string{"--dry-run", "--chain=eip155:300", "--data-dir", t.TempDir()}, args...),
		strings.NewReader(openLine+"\n"), &b, &b)
	if err != nil {
		b.WriteString(err.Error())
	}
	return console.Code(err), b.String()
}

// TestUploadPartial: the last line of a file that was just written to counts only with a line end.
func TestUploadPartial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "upload-partial.csv")
	if err := os.WriteFile(path, []byte(openLine), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := dryRun(t, path)
	if code != console.ExitRowsBad || !strings.Contains(out, "is the file still being written?") {
		t.Errorf("just written: got %d, %s; want 3 and the reason", code, out)
	}
	if code, out := dryRun(t, "--allow-unterminated", path); code != 0 {
		t.Errorf("allowed: got %d, %s; want 0", code, out)
	}
	for name, tt := range map[string]struct {
		age  time.Duration
		want int
	}{
		"at rest": {2 * atRest, console.ExitWell}, "written by a clock ahead": {-time.Hour, console.ExitRowsBad},
	} {
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-tt.age)); err != nil {
			t.Fatal(err)
		}
		if code, out := dryRun(t, path); code != tt.want {
			t.Errorf("%s: got %d, %s; want %d", name, code, out, tt.want)
		}
		stdin, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		err = Main(t.Context(), []string{"--dry-run", "--chain=eip155:300", "--data-dir", t.TempDir(), "-"}, stdin,
			io.Discard, io.Discard)
		if code := console.Code(err); code != tt.want {
			t.Errorf("%s, on standard input: got %d, %v; want %d", name, code, err, tt.want)
		}
	}
}

// meddler is the standard error of an importer whose exports are changed when its first line says that the reading of a
// file has begun.
type meddler struct {
	meddle func() error
	out    strings.Builder
	once   bool
	failed error
}

func (m *meddler) Write(p []byte) (int, error) {
	if !m.once && strings.Contains(string(p), "msg=reading") {
		m.once = true
		m.failed = m.meddle()
	}
	return m.out.Write(p)
}

// atRestFile writes a file that has not changed for some minutes.
func atRestFile(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "e.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(-2*atRest)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestChangedWhileRead: rows of a file that grows while it is read may be missing, which counts for more than its open
// last line, which is invalid.
func TestChangedWhileRead(t *testing.T) {
	for begin, invalid := range map[string]bool{openLine + "\n": false, openLine: true} {
		path := atRestFile(t, begin)
		out := &meddler{meddle: func() error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = io.WriteString(f, "\n"+openLine[19:])
			return errors.Join(err, f.Close())
		}}
		args := []string{"--dry-run", "--chain=eip155:300", "--data-dir", t.TempDir(), path}
		err := Main(t.Context(), args, nil, io.Discard, out)
		if out.failed != nil || console.Code(err) != console.ExitUnfinished ||
			strings.Contains(err.Error(), "1 of 1 row is invalid") != invalid ||
			!strings.Contains(out.out.String(), "changed while it was read") {
			t.Errorf("%q: got %v with %d and %s; want 1 and a warning", begin, err, console.Code(err), out.out.String())
		}
	}
}

// TestChangedBeforeRead: files are checked before the first is read, and what happens to a file until its turn comes, or
// until it has been read, is noticed. A file that is replaced before it is read is read as it is then.
func TestChangedBeforeRead(t *testing.T) {
	rows := func(n int) string { return "address,externalId\n" + strings.Repeat(openLine[19:]+"\n", n) }
	for name, tt := range map[string]struct {
		meddle func(first, second, other string) error
		change string // empty: none is noticed
	}{
		"the second truncated": {func(_, second, _ string) error { return os.Truncate(second, int64(len(rows(1)))) }, "bytes"},
		"the second rewritten": {func(_, second, _ string) error {
			return os.WriteFile(second, []byte(rows(3)), 0o600)
		}, "written to at"},
		"the second replaced": {func(_, second, other string) error { return os.Rename(other, second) }, ""},
		"the first replaced":  {func(first, _, other string) error { return os.Rename(other, first) }, "replaced by another"},
		"the first removed":   {func(first, _, _ string) error { return os.Remove(first) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			first, second, other := atRestFile(t, rows(2)), atRestFile(t, rows(3)), atRestFile(t, rows(4))
			out := &meddler{meddle: func() error { return tt.meddle(first, second, other) }}
			err := Main(t.Context(), []string{"--dry-run", "--chain=eip155:300", "--data-dir", t.TempDir(), first, second}, nil,
				io.Discard, out)
			want := console.ExitWell
			if tt.change != "" {
				want = console.ExitUnfinished
			}
			if out.failed != nil || console.Code(err) != want || !strings.Contains(out.out.String(), tt.change) ||
				strings.Contains(out.out.String(), "changed while") != (tt.change != "") {
				t.Errorf("got %d, %v and %s; want %d and a warning with %q", console.Code(err), err, out.out.String(), want, tt.change)
			}
		})
	}
}

// TestExpand: directories and patterns stand for their files, in order.
func TestExpand(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"b.csv", "a.csv", "._a.csv", "c[1].csv", "sub/x.csv", "na\xefve.csv", "z.part", "only/.csv",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Skipf("the file system takes no such name: %v", err)
		}
	}
	var said strings.Builder
	log := console.NewLogger(console.NewScreen(&said), "text", "info")
	for arg, want := range map[string]string{
		dir:                             "a.csv b.csv c[1].csv na\xefve.csv",
		filepath.Join(dir, "[ab].csv"):  "a.csv b.csv",
		filepath.Join(dir, "c[1].csv"):  "c[1].csv",
		filepath.Join(dir, "na*"):       "na\xefve.csv",
		filepath.Join(dir, "*"):         "a.csv b.csv c[1].csv na\xefve.csv", // the shell hides ._a.csv, too
		filepath.Join(dir, "*.csv"):     "a.csv b.csv c[1].csv na\xefve.csv",
		filepath.Join(dir, ".*.csv"):    "._a.csv",
		filepath.Join(dir, "*.part"):    "z.part",
		filepath.Join(dir, "sub/../a*"): "a.csv",
	} {
		files, err := expand([]string{arg}, log)
		var names []string
		for _, f := range files {
			names = append(names, filepath.Base(f))
		}
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", arg, got, err, want)
		}
	}
	if !strings.Contains(said.String(), "skipped a directory inside a directory or pattern") {
		t.Errorf("got %q, want a warning about sub", said.String())
	}
	for _, name := range []string{"none*", "none.csv", "[", "only/*", "s*b", "only"} {
		arg := filepath.Join(dir, name)
		if _, err := expand([]string{arg}, log); console.Code(err) != console.ExitUsage {
			t.Errorf("%s: got %v, want an error of the usage", arg, err)
		}
	}
	if _, err := expand([]string{""}, log); console.Code(err) != console.ExitUsage || !strings.HasPrefix(err.Error(), "FILE is empty") {
		t.Errorf("no name: got %v, want an error that says so", err)
	}
}

// TestUnreadSheets: a workbook of several sheets is imported in part only with a warning, or with --sheet.
func TestUnreadSheets(t *testing.T) {
	book := filepath.Join(t.TempDir(), "split.xlsx")
	f := excelize.NewFile()
	var errs []error
	for i, name := range []string{"Sheet1", "Rest"} {
		_, err := f.NewSheet(name)
		errs = append(errs, err, f.SetSheetRow(name, "A1", &[]any{"address", "externalId"}),
			f.SetSheetRow(name, "A2", &[]any{"0x1111111111111111111111111111111111111111", fmt.Sprint("cust-", i)}))
	}
	if err := errors.Join(append(errs, f.SaveAs(book), f.Close())...); err != nil {
		t.Fatal(err)
	}
	for sheet, want := range map[string]bool{"": true, "Sheet1": false, "Rest": false} {
		code, out := dryRun(t, "--sheet", sheet, book)
		warned := strings.Contains(out, "reading only the first sheet of the workbook") && strings.Contains(out, "unread=Rest")
		if code != console.ExitWell || warned != want {
			t.Errorf("--sheet %q: got %d and %s; want 0 and a warning: %v", sheet, code, out, want)
		}
	}
}

// threeForms makes a directory with a workbook, a CSV file and one of JSON Lines, each with a row.
func threeForms(t *testing.T) (dir, book, text, lines string) {
	t.Helper()
	dir = t.TempDir()
	book, text, lines = filepath.Join(dir, "b.xlsx"), filepath.Join(dir, "a.csv"), filepath.Join(dir, "c.jsonl")
	f := excelize.NewFile()
	_, err := f.NewSheet("Data")
	if err := errors.Join(err, f.SetSheetRow("Data", "A1", &[]any{"address", "externalId"}),
		f.SetSheetRow("Data", "A2", &[]any{"0x1111111111111111111111111111111111111111", "cust-1"}),
		f.SetSheetRow("Sheet1", "A1", &[]any{"address", "externalId"}),
		f.SetSheetRow("Sheet1", "A2", &[]any{"0x1111111111111111111111111111111111111111", "cust-1"}),
		f.SaveAs(book), f.Close(),
		os.WriteFile(text, []byte("address,externalId\n0x2222222222222222222222222222222222222222,cust-2\n"), 0o600),
		os.WriteFile(lines, []byte(`{"address":"0x3333333333333333333333333333333333333333","externalId":"cust-3"}`+"\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return dir, book, text, lines
}

// TestFlagsOfText: --delimiter is for CSV and --encoding for text among the exports, and an error if there is none. A
// variable, which may be set for all nights, is a warning then.
func TestFlagsOfText(t *testing.T) {
	dir, book, text, lines := threeForms(t)
	const noCSV, noText = "no export is CSV, and other formats", "no export is CSV or JSON Lines, and other formats"
	for name, test := range map[string]struct {
		args []string
		env  map[string]string
		code int
		says string
	}{
		"mixed":               {[]string{"--delimiter=,", "--encoding=utf-8", dir}, nil, console.ExitWell, "3 rows read"},
		"mixed, wrong":        {[]string{"--delimiter=;", dir}, nil, console.ExitUsage, "a.csv:1: header"},
		"workbook, delimiter": {[]string{"--delimiter=,", book}, nil, console.ExitUsage, `--delimiter ",": ` + noCSV},
		"workbook, encoding":  {[]string{"--encoding=utf-8", book}, nil, console.ExitUsage, `--encoding "utf-8": ` + noText},
		"lines, delimiter":    {[]string{"--delimiter=,", lines, book}, nil, console.ExitUsage, `--delimiter ",": ` + noCSV},
		"lines, encoding":     {[]string{"--encoding=utf-8", lines, book}, nil, console.ExitWell, "2 rows read"},
		"auto":                {[]string{"--encoding=auto", book}, nil, console.ExitWell, "1 row read"},
		"variables": {
			[]string{book}, map[string]string{"PURSER_DELIMITER": ";"}, console.ExitWell, "--delimiter has no effect",
		},
		"variables, mixed": {[]string{dir, text}, map[string]string{"PURSER_ENCODING": "utf-8"}, console.ExitWell, "4 rows read"},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range test.env {
				t.Setenv(variable, value)
			}
			if code, out := dryRun(t, test.args...); code != test.code || !strings.Contains(out, test.says) {
				t.Errorf("got %d and %s; want %d and %s", code, out, test.code, test.says)
			}
		})
	}
}

// TestSheetWithoutWorkbook: --sheet is for the workbooks among the exports, and an error if there is none. A variable,
// which may be set for all nights, is a warning then.
func TestSheetWithoutWorkbook(t *testing.T) {
	dir, _, text, lines := threeForms(t)
	const problem = "no export is a workbook, and other formats have no sheets"
	for name, test := range map[string]struct {
		args     []string
		variable string
		code     int
		says     string
	}{
		"text":                 {[]string{"--sheet=Data", text, lines}, "", console.ExitUsage, `--sheet "Data": ` + problem},
		"standard input":       {[]string{"--sheet=Data", "-"}, "", console.ExitUsage, `--sheet "Data": ` + problem},
		"mixed":                {[]string{"--sheet=Data", filepath.Join(dir, "*")}, "", console.ExitWell, "3 rows read"},
		"variable, text":       {[]string{text, lines}, "Data", console.ExitWell, problem + ": --sheet has no effect"},
		"variable, mixed":      {[]string{dir}, "Data", console.ExitWell, "3 rows read"},
		"variable, overridden": {[]string{"--sheet=", text}, "Data", console.ExitWell, "1 row read"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.variable != "" {
				t.Setenv("PURSER_SHEET", test.variable)
			}
			code, out := dryRun(t, test.args...)
			if code != test.code || !strings.Contains(out, test.says) {
				t.Errorf("got %d and %s; want %d and %s", code, out, test.code, test.says)
			}
			if says := strings.Contains(test.says, problem); strings.Contains(out, problem) != says {
				t.Errorf("got %s; want the problem in it: %v", out, says)
			}
		})
	}
}
