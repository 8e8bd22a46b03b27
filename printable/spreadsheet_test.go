package printable_test

import (
	"testing"

	"github.com/purser-onboard/purser/printable"
)

func TestDefuse(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":         "plain text",
		"=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0",
		"+1":                 "'+1",
		"a-b":                "a-b",
		"x;=1+1":             "x;'=1+1",
		"x,\" =1":            "x,\" '=1",
		"a\tb":               `a\tb`,
		"\xff\xfe":           `\xff\xfe`,
		"line\n@SUM(A1)":     "line\n'@SUM(A1)",
		"a\u202e=1\u2028=1":  `a\u202e'=1\u2028'=1`,
		"山田\u3000太郎 🛂":       "山田\u3000太郎 🛂",
		"2026-11-22 -5":      "2026-11-22 -5",
		"\t=1":               `\t'=1`,
		"\r=1":               `\r'=1`,
	} {
		if got := printable.Defuse(in); got != want {
			t.Errorf("Defuse(%q): got %q, want %q", in, got, want)
		}
	}
}
