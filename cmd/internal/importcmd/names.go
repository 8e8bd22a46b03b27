package importcmd

import (
	"path/filepath"
	"strings"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// namesOf returns how the files of an import are named in messages, records and rows: by their base names, and of files
// whose base names are the same with as much of their paths as tells them apart.
func namesOf(files []string) map[string]string {
	names := make(map[string]string, len(files))
	for n := 1; len(names) < len(files); n++ {
		paths := map[string]map[string]bool{} // by their last n elements
		whole := true                         // n is at least what each path has
		for _, file := range files {
			end, all := lastElements(file, n)
			whole = whole && all
			if paths[end] == nil {
				paths[end] = map[string]bool{}
			}
			paths[end][file] = true
		}
		for end, same := range paths {
			for file := range same {
				if _, named := names[file]; !named && (len(same) == 1 || whole) {
					names[file] = printable.Line(end, pipeline.MaxFile)
				}
			}
		}
		if whole {
			break
		}
	}
	return names
}

// lastElements returns the last n elements of a path, and whether these are all.
func lastElements(path string, n int) (end string, all bool) {
	elements := strings.Split(filepath.ToSlash(filepath.Clean(path)), "/")
	if len(elements) <= n {
		return strings.Join(elements, "/"), true
	}
	return strings.Join(elements[len(elements)-n:], "/"), false
}
