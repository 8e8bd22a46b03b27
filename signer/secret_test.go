package signer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		path    string
		want    string
		exposed bool
		problem string
	}{
		{write("own", "s3cret\n", 0o600), "s3cret", false, ""},
		{write("windows", "s3cret\r\n", 0o600), "s3cret", false, ""},
		{write("bare", "s3cret", 0o640), "s3cret", false, ""},
		{write("two", "s3cret\n\n", 0o600), "s3cret\n", false, ""},
		{write("open", "s3cret\n", 0o644), "s3cret", true, ""},
		{write("long", strings.Repeat("s", 17), 0o600), "", false, "has more than 16 bytes"},
		{dir, "", false, "is a directory"},
		{filepath.Join(dir, "missing"), "", false, "cannot be read: no such file or directory"},
	} {
		got, exposed, err := ReadSecret(tt.path, 16)
		if tt.problem != "" {
			if err == nil || err.Error() != tt.problem {
				t.Errorf("%s: %v, want %q", tt.path, err, tt.problem)
			}
			continue
		}
		if err != nil || string(CutLine(got)) != tt.want || exposed != tt.exposed {
			t.Errorf("%s: %q, %v, %v", tt.path, got, exposed, err)
		}
	}
}
