//go:build shell

package completion_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/completion"
	"github.com/purser-onboard/purser/cmd/internal/config"
)

// TestShells completes in the shells themselves.
func TestShells(t *testing.T) {
	dir := t.TempDir()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var script bytes.Buffer
		if err := completion.Write(&script, shell, config.Purser()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, shell), script.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ line, want string }{
		{"purser ni", "night"},
		{"purser sandbox se", "serve"},
		{"purser status --fle", "--fleet"},
		{"purser run --log-format=j", "json"},
		{"purser sandbox run --see", "--seed"},
		{"purser completion fi", "fish"},
	} {
		for shell, complete := range map[string]func(*testing.T, string, string) string{
			"bash": bash, "zsh": zsh, "fish": fish,
		} {
			if got := complete(t, dir, tt.line); got != tt.want {
				t.Errorf("%s: %s: got %q, want %q", shell, tt.line, got, tt.want)
			}
		}
	}
}

func output(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}

// bash breaks words at =, as readline does.
func bash(t *testing.T, dir, line string) string {
	t.Helper()
	words := strings.Fields(strings.ReplaceAll(line, "=", " = "))
	return output(t, dir, "bash", append([]string{"--norc", "-c", `source ./bash; COMP_WORDS=("$@")
		COMP_CWORD=$(($# - 1)); _purser; echo "${COMPREPLY[*]}"`, "bash"}, words...)...)
}

func fish(t *testing.T, dir, line string) string {
	t.Helper()
	out := output(t, dir, "fish", "--no-config", "-c", "source ./fish; complete -C '"+line+"'")
	out, _, _ = strings.Cut(out, "\t")
	return out[strings.LastIndexByte(out, '=')+1:]
}

// zsh types the line and a tab in a terminal, and then has the shell write the line that came of it.
func zsh(t *testing.T, dir, line string) string {
	t.Helper()
	out := output(t, dir, "zsh", "-f", "-c", `zmodload zsh/zpty
		zpty z 'zsh -f -i'
		zpty -w z 'autoload -U compinit; compinit -D -u; source ./zsh
			show() { print -r -- "$BUFFER" >line; exit }; zle -N show; bindkey "^X" show'
		zpty -w -n z $1$'\t\x18'
		while zpty -r z rest; do :; done
		cat line`, "zsh", line)
	out = strings.TrimSuffix(out, "=")
	return out[strings.LastIndexAny(out, " =")+1:]
}
