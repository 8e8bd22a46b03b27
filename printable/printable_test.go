package printable_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/purser-onboard/purser/printable"
)

func ExampleLine() {
	fmt.Println(printable.Line("paid\x1b[2J\u202etxt.exe\r\nlevel=INFO", 100))
	fmt.Println(printable.Line("Åsa Ñandú 🛂", 100))
	fmt.Println(printable.Line("the beginning is enough", 16))
	// Output:
	// paid\x1b[2J\u202etxt.exe\r\nlevel=INFO
	// Åsa Ñandú 🛂
	// the beginning…
}

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		`C:\users\x1b`:                          `C:\users\x1b`,
		"山田\u3000太郎 e\u0301 ❤\ufe0f":            "山田\u3000太郎 e\u0301 ❤\ufe0f",
		"a\u034fb\u115fc\u3164":                 "a\u034fb\u115fc\u3164", // an externalId may have them
		"\a\x00\x7f\u0085\u009b":                `\a\x00\x7f\u0085\u009b`,
		"\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\": `\x1b]8;;http://x\x1b\y\x1b]8;;\x1b\`,
		"a\u2028b\u2029c\u200bd\u2066e\ufefff":  `a\u2028b\u2029c\u200bd\u2066e\ufefff`,
		"\xff\xc3":                              `\xff\xc3`,
		"\U000e0041":                            `\U000e0041`,
		strings.Repeat("A", 41):                 strings.Repeat("A", 37) + "…",
		strings.Repeat("ü", 21):                 strings.Repeat("ü", 18) + "…",
		strings.Repeat("\u202e", 7):             strings.Repeat(`\u202e`, 6) + "…",
	} {
		if got := printable.Line(text, 40); got != want {
			t.Errorf("Line(%q): got %q, want %q", text, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"":                             `""`,
		`a"\`:                          `"a\"\\"`,
		"\x1bß":                        `"\x1bß"`,
		"\xff\x00":                     `"\xff\x00"`,
		"\x00\x00\x00\x00\x00\x00\x00": `"\x00\x00\x00\x00\x00\x00"…`, // the bound is that of the text
		"1234567":                      `"123456"…`,
		"12345ß":                       `"12345"…`,
	} {
		if got := printable.Quote(text, 6); got != want {
			t.Errorf("Quote(%q): got %q, want %q", text, got, want)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("\x1b[2J\u202e\u2028\x00\xff", 20)
	f.Add("Åsa Ñandú 🛂", 9)
	f.Fuzz(func(t *testing.T, text string, most int) {
		most = 3 + int(uint(most)%1000)
		got := printable.Line(text, most)
		if len(got) > most || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool {
			return !unicode.IsGraphic(r)
		}) {
			t.Errorf("got %q, want at most %d bytes that are printable", got, most)
		}
		if again := printable.Line(got, most); again != got {
			t.Errorf("applied again: got %q, want %q", again, got)
		}
		if printable.Is(text) && len(text) <= most && got != text {
			t.Errorf("got %q, want it as it was, %q", got, text)
		}
		whole, rest := printable.Append(nil, []byte(text))
		for _, line := range strings.FieldsFunc(string(whole), func(r rune) bool { return r == '\n' || r == '\t' }) {
			if !printable.Is(line) {
				t.Errorf("Append: got %q, want printable text", line)
			}
		}
		if len(rest) >= utf8.UTFMax || !strings.HasSuffix(text, string(rest)) {
			t.Errorf("Append: got the rest %q of %q, want an incomplete character", rest, text)
		}
	})
}
