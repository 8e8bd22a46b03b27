package printable_test

import (
	"os/exec"
	"testing"

	"github.com/purser-onboard/purser/printable"
)

// TestShellWord: what a word is written as, and that a shell reads the word from it.
func TestShellWord(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		bash = "" // the texts are compared all the same
	}
	for word, want := range map[string]string{
		"/data/purser.yaml":       "/data/purser.yaml",
		"eip155:300,a=b@c%1+2":    "eip155:300,a=b@c%1+2",
		"":                        "''",
		"an other":                "'an other'",
		"it's":                    `'it'\''s'`,
		`$(id) "x" \ *`:           `'$(id) "x" \ *'`,
		"größe":                   "'größe'",
		"a\x1b[2Jb":               `$'a\x1b[2Jb'`,
		"it's \\ \ufeff":          `$'it\'s \\ \xef\xbb\xbf'`,
		"not UTF-8: \xff\xc3.csv": `$'not UTF-8: \xff\xc3.csv'`,
		"line\nbreak":             `$'line\x0abreak'`,
		"\x1b9":                   `$'\x1b9'`,
	} {
		got := printable.ShellWord(word)
		if got != want || !printable.Is(got) {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
		if bash == "" {
			continue
		}
		out, err := exec.Command(bash, "-c", "printf %s "+got).Output()
		if err != nil || string(out) != word {
			t.Errorf("%s: the shell reads %q (%v), want %q", got, out, err, word)
		}
	}
}
