package cmd

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentsNameTests: each test that a document names in backticks exists.
func TestDocumentsNameTests(t *testing.T) {
	declared := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w*)\(`)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "bin" || entry.Name() == ".git" || entry.Name() == "node_modules"):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		for _, match := range function.FindAllSubmatch(source, -1) {
			declared[string(match[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var documents []string
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, found...)
	}
	// These documents rest on the tests that they name.
	least := map[string]int{"rules.md": 100, "threat-model.md": 40}
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w*)(?:/[^`]*)?`") // a sub-test or -benchmark may follow
	for _, path := range documents {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		names := named.FindAllSubmatch(text, -1)
		if want := least[filepath.Base(path)]; len(names) < want {
			t.Errorf("%s: got %d names of tests, want at least %d", path, len(names), want)
		}
		for _, name := range names {
			if !declared[string(name[1])] {
				t.Errorf("%s names the test %s: got no such function in the tree, want one", path, name[1])
			}
		}
	}
}
