// Package manual writes manual pages in the man(7) macros, which groff and mandoc format.
package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/purser-onboard/purser/cmd/internal/config"
)

// Write writes the pages of section 1 of a program and its commands into a directory, which is created if it is
// missing: purser.1, purser-night.1 and so on. Existing pages are replaced. date is the pages' date, as 2026-11-27.
func Write(dir string, program *config.Command, date string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // everybody may read manual pages
		return err
	}
	return write(dir, program, program, date)
}

func write(dir string, program, c *config.Command, date string) error {
	path := filepath.Join(dir, page(c)+".1")
	err := os.WriteFile(path, []byte(text(program, c, date)), 0o644) //nolint:gosec // everybody may read manual pages
	if err != nil {
		return err
	}
	for _, command := range c.Commands {
		if err := write(dir, program, command, date); err != nil {
			return err
		}
	}
	return nil
}

// page is the name of a command's page.
func page(c *config.Command) string { return strings.ReplaceAll(c.Path, " ", "-") }

func text(program, c *config.Command, date string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`.TH %s 1 %s "%s %s" "User Commands"`, strings.ToUpper(page(c)), date, program.Path, config.Version)
	line(".SH NAME\n%s \\- %s", escape(page(c)), escape(lower(strings.TrimSuffix(c.Help, "."))))
	synopsis(line, c)
	line(".SH DESCRIPTION\n%s", escape(c.Help))
	if len(c.Commands) > 0 {
		line(".SH COMMANDS")
		for _, command := range c.Commands {
			line(".TP\n.BR %s (1)\n%s", escape(page(command)), escape(command.Help))
		}
	}
	for i, arg := range c.Args {
		if i == 0 {
			line(".SH ARGUMENTS")
		}
		line(".TP\n.I %s\n%s", escape(strings.ToUpper(arg.Name)), escape(arg.Help))
	}
	if len(c.Commands) == 0 {
		options(line, c)
		environment(line, c)
	}
	line(".SH EXIT STATUS")
	for _, status := range [][2]string{
		{"0", "Success."}, {"1", "The command could not finish: run it again."},
		{"2", "Usage or set-up: fix it first."}, {"3", "Finished, but some rows are invalid or ended badly."},
	} {
		line(".TP\n.B %s\n%s", status[0], status[1])
	}
	for i, example := range config.Examples(c.Path) {
		if i == 0 {
			line(".SH EXAMPLES")
		} else {
			line(".PP")
		}
		line(".EX\n%s\n.EE", escape(example))
	}
	others(line, program, c)
	return b.String()
}

func synopsis(line func(string, ...any), c *config.Command) {
	what := `\fB` + escape(c.Path) + `\fR`
	if len(c.Commands) > 0 {
		what += ` \fICOMMAND\fR`
	}
	what += ` [\fIFLAG\fR]...`
	for _, arg := range c.Args {
		name := `\fI` + escape(strings.ToUpper(arg.Name)) + `\fR`
		if arg.IsCumulative() {
			name += "..."
		}
		what += " " + name
	}
	line(".SH SYNOPSIS\n%s", what)
}

// options are the flags, group by group: groups with flags of the command's own first.
func options(line func(string, ...any), c *config.Command) {
	line(".SH OPTIONS\nA flag overrides its environment variable, and a variable the file of \\fB\\-\\-config\\fR.")
	var titles []string
	flags := map[string][]*kong.Flag{}
	for _, group := range slices.Concat(c.Own, c.Shared) {
		if flags[group.Title] == nil {
			titles = append(titles, group.Title)
		}
		flags[group.Title] = append(flags[group.Title], group.Flags...)
	}
	for _, title := range titles {
		line(".SS %s", escape(strings.TrimSuffix(title, ":")))
		for _, f := range flags[title] {
			name := `\fB\-\-` + escape(f.Name) + `\fR`
			if f.Short != 0 {
				name = `\fB\-` + string(f.Short) + `\fR, ` + name
			}
			if !f.IsBool() {
				name += `=\fI` + escape(strings.Trim(f.FormatPlaceHolder(), `"`)) + `\fR`
			}
			line(".TP\n%s\n%s", name, escape(f.Help))
		}
	}
}

func environment(line func(string, ...any), c *config.Command) {
	line(".SH ENVIRONMENT")
	for _, f := range c.Flags() {
		for _, variable := range f.Envs {
			line(".TP\n.B %s\nThe same as \\fB\\-\\-%s\\fR.", escape(variable), escape(f.Name))
		}
	}
}

// others names the pages to see.
func others(line func(string, ...any), program, c *config.Command) {
	line(".SH SEE ALSO")
	var list []string
	if c != program {
		list = append(list, `.BR `+escape(page(program))+` (1)`)
	}
	for _, command := range program.Commands {
		if command != c {
			list = append(list, `.BR `+escape(page(command))+` (1)`)
		}
	}
	line("%s", strings.Join(list, ",\n"))
}

func lower(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// escape makes text of roff: no character is taken for an escape, a quote or a request.
func escape(s string) string {
	s = strings.NewReplacer(
		`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "…", "...", "~", `\(ti`, "^", `\(ha`,
	).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
