//go:build unix

package secretfile

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		mode     os.FileMode
		content  string
		insecure bool
		exposed  bool
		problem  string
	}{
		"private":      {0o600, "s3cret", false, false, ""},
		"read-only":    {0o400, "s3cret", false, false, ""},
		"group":        {0o640, "s3cret", false, false, "(mode 0640): run chmod 600 '"},
		"others":       {0o604, "s3cret", false, false, "(mode 0604): run chmod 600 '"},
		"write":        {0o622, "s3cret", false, false, "(mode 0622): run chmod 600 '"},
		"it's":         {0o644, "s3cret", false, false, `it'\''s', or set --insecure-permissions`},
		"group's will": {0o640, "s3cret", true, false, ""},
		"others' will": {0o644, "s3cret", true, true, ""},
		"long":         {0o600, strings.Repeat("s", 17), false, false, "has more than 16 bytes"},
		"utf-8":        {0o600, "\xef\xbb\xbfs3cret", false, false, "byte order mark"},
		"utf-16le":     {0o600, "\xff\xfes\x00", false, false, "byte order mark"},
		"utf-16be":     {0o600, "\xfe\xff\x00s", false, false, "byte order mark"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		got, exposed, err := Read(path, 16, tt.insecure)
		if tt.problem != "" {
			if err == nil || !strings.Contains(err.Error(), tt.problem) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: got %q, %v; want an error with %q and without the secret", name, got, err, tt.problem)
			}
			continue
		}
		if err != nil || string(got) != tt.content || exposed != tt.exposed {
			t.Errorf("%s: got %q, %v, %v; want %q, %v", name, got, exposed, err, tt.content, tt.exposed)
		}
	}
	for path, want := range map[string]string{
		dir: "is a directory", filepath.Join(dir, "eyJhbGci"): "cannot be read: no such file",
	} {
		_, _, err := Read(path, 16, false)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), path) {
			t.Errorf("Read of a file that cannot be read: got %v, want %q without the path", err, want)
		}
	}
}

func TestLine(t *testing.T) {
	for content, want := range map[string]string{
		"s": "s", "s\n": "s", "s\r\n": "s", " s \t\n": " s \t",
	} {
		if got, err := Line([]byte(content)); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v; want %q", content, got, err, want)
		}
	}
	for content, want := range map[string]string{
		"": "is empty", "\n": "is empty", "\r\n": "is empty", "s\n\n": "more than one line", "s\r": "more than one line",
		"s\nt\n": "more than one line", "s\x00": "zero byte", "\xef\xbb\xbfs": "byte order mark",
		"\xff\xfes\x00": "byte order mark",
	} {
		if got, err := Line([]byte(content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v; want an error with %q", content, got, err, want)
		}
	}
}

// TestPipes: a pipe without a writer, and one whose writer neither writes nor closes it, are waited for so long.
func TestPipes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	short := patience{writer: 20 * time.Millisecond, content: 20 * time.Millisecond}
	if _, _, err := short.read(path, 16, false); err == nil || err.Error() != "is a pipe that nothing has opened for "+
		"writing within 20ms" {
		t.Errorf("without a writer: got %v, want what is missing", err)
	}
	writer, err := os.OpenFile(path, os.O_RDWR, 0) // does not wait for a reader
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := short.read(path, 16, false); err == nil || !strings.Contains(err.Error(), "not come to its end") {
		t.Errorf("a writer that keeps it open: got %v, want what is missing", err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	path += "2" // the reader of before may still be there
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(path, []byte("s3cret"), 0o600) }()
	content, _, err := Read(path, 16, false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err != nil || string(content) != "s3cret" {
		t.Errorf("got %q, %v; want what was written", content, err)
	}
}

func TestReadPlain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("\xef\xbb\xbftext"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadPlain(path, 16); err != nil || string(got) != "\xef\xbb\xbftext" {
		t.Errorf("got %q, %v; want the content", got, err)
	}
	if _, err := ReadPlain("/dev/zero", 16); err == nil || err.Error() != "has more than 16 bytes" {
		t.Errorf("/dev/zero: got %v, want it bounded", err)
	}
}
