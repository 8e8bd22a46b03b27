package manual_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/invopop/jsonschema"

	"github.com/purser-onboard/purser/cmd/internal/config"
)

var reference = flag.String("reference", "", "keep the reference of the documentation site in this directory")

// TestReference writes the pages of the documentation site that are not written by hand, as docs/site/build needs them:
// for each command a page, a page of all settings, a page for each schema, and the part of the navigation with them.
func TestReference(t *testing.T) {
	dir := *reference
	if dir == "" {
		dir = t.TempDir()
	}
	var nav, pages strings.Builder
	write := func(title, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&nav, "          - %s: reference/%s\n", title, name)
		pages.WriteString(text)
	}

	purser := config.Purser()
	nav.WriteString("      - Commands:\n")
	each(purser, func(c *config.Command) { write(c.Path, pageOf(c), commandPage(c)) })
	nav.WriteString("      - Schemas:\n")
	schemas, err := filepath.Glob("../../../schemas/*.json")
	if err != nil || len(schemas) < 5 {
		t.Fatalf("got %d schemas, %v; want those of schemas/", len(schemas), err)
	}
	for _, path := range schemas {
		if filepath.Base(path) == "config.schema.json" {
			continue // it says what the settings' page says
		}
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		write(name, name+".schema.md", schemaPage(t, path))
	}
	if err := os.WriteFile(filepath.Join(dir, "nav.yml"), []byte(nav.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	write("Settings", "settings.md", settingsPage(purser))

	for _, want := range []string{
		"# purser failures\n", "](purser-status.md)", "| `--fleet`", "$KAFKA_BROKERS", "purser status --run last",
		"| `v` (required) | integer |", "## ReportRows\n",
	} {
		if !strings.Contains(pages.String(), want) {
			t.Errorf("got no %q in the pages", want)
		}
	}
}

func each(c *config.Command, do func(*config.Command)) {
	do(c)
	for _, command := range c.Commands {
		each(command, do)
	}
}

func pageOf(c *config.Command) string { return strings.ReplaceAll(c.Path, " ", "-") + ".md" }

func commandPage(c *config.Command) string {
	var b strings.Builder
	call := c.Path
	if len(c.Commands) > 0 {
		call += " COMMAND"
	}
	call += " [FLAG]..."
	for _, arg := range c.Args {
		call += " " + strings.ToUpper(arg.Name)
		if arg.IsCumulative() {
			call += "..."
		}
	}
	fmt.Fprintf(&b, "# %s\n\n%s\n\n```text\n%s\n```\n", c.Path, markdown(c.Help), call)
	for i, arg := range c.Args {
		if i == 0 {
			b.WriteString("\n## Arguments\n\n| argument | meaning |\n|---|---|\n")
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ToUpper(arg.Name), markdown(arg.Help))
	}
	for i, command := range c.Commands {
		if i == 0 {
			b.WriteString("\n## Commands\n\n| command | what it does |\n|---|---|\n")
		}
		fmt.Fprintf(&b, "| [%s](%s) | %s |\n", command.Path, pageOf(command), markdown(command.Help))
	}
	if len(c.Commands) == 0 {
		groups := slices.Concat(c.Own, c.Shared)
		for _, title := range titles(groups) {
			fmt.Fprintf(&b, "\n## %s\n\n| flag | meaning |\n|---|---|\n", strings.TrimSuffix(title, ":"))
			for _, group := range groups {
				for _, f := range group.Flags {
					if group.Title == title {
						fmt.Fprintf(&b, "| `%s` | %s |\n", name(f), meaning(f))
					}
				}
			}
		}
	}
	for i, example := range config.Examples(c.Path) {
		if i == 0 {
			b.WriteString("\n## Examples\n")
		}
		fmt.Fprintf(&b, "\n```sh\n%s\n```\n", example)
	}
	fmt.Fprintf(&b, "\n%s\n", config.ExitCodes)
	return b.String()
}

// titles are those of the groups, each once.
func titles(groups []config.FlagGroup) (list []string) {
	for _, group := range groups {
		if !slices.Contains(list, group.Title) {
			list = append(list, group.Title)
		}
	}
	return list
}

// settingsPage has every flag of every command once, and the commands that take it.
func settingsPage(program *config.Command) string {
	type setting struct {
		flag     *kong.Flag
		commands []string
	}
	var order []string
	total := 0
	settings := map[string][]*setting{} // by the groups' titles
	each(program, func(c *config.Command) {
		if len(c.Commands) > 0 {
			return
		}
		total++
		for _, group := range slices.Concat(c.Own, c.Shared) {
			if !slices.Contains(order, group.Title) {
				order = append(order, group.Title)
			}
			for _, f := range group.Flags {
				i := slices.IndexFunc(settings[group.Title], func(s *setting) bool {
					return s.flag.Name == f.Name && s.flag.Help == f.Help
				})
				if i < 0 {
					i = len(settings[group.Title])
					settings[group.Title] = append(settings[group.Title], &setting{flag: f})
				}
				s := settings[group.Title][i]
				s.commands = append(s.commands, fmt.Sprintf("[%s](%s)", strings.TrimPrefix(c.Path, "purser "), pageOf(c)))
			}
		}
	})
	var b strings.Builder
	b.WriteString("# Settings\n\nA flag takes precedence over its variable, and the variable over the file of " +
		"`--config`, whose names are the flags'. Unknown names are errors.\n")
	for _, title := range order {
		heading := strings.TrimSuffix(title, ":")
		if heading == "Flags" {
			heading = "Flags of single commands"
		}
		fmt.Fprintf(&b, "\n## %s\n\n| flag | meaning | commands |\n|---|---|---|\n", heading)
		for _, s := range settings[title] {
			if len(s.commands) == total {
				s.commands = []string{"all"}
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name(s.flag), meaning(s.flag), strings.Join(s.commands, ", "))
		}
	}
	return b.String()
}

func name(f *kong.Flag) string {
	text := "--" + f.Name
	if f.Tag.Negatable != "" {
		text = "--[no-]" + f.Name
	}
	if f.Short != 0 {
		text = "-" + string(f.Short) + ", " + text
	}
	if !f.IsBool() {
		text += "=" + strings.ReplaceAll(strings.Trim(f.FormatPlaceHolder(), `"`), "|", `\|`)
	}
	return text
}

// meaning is a flag's help, with its default, unless its name shows that, and its variables.
func meaning(f *kong.Flag) string {
	text := markdown(f.Help)
	if f.HasDefault && f.Default != "" && f.PlaceHolder != "" {
		text += fmt.Sprintf(" Default: `%s`.", f.Default)
	}
	for _, variable := range f.Envs {
		text += fmt.Sprintf("<br>`$%s`", variable)
	}
	return text
}

// schemaPage has a table of the members of a schema and of each type that it defines.
func schemaPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n\nThe schema: [%s](../schemas/%[3]s).\n", s.Title, markdown(s.Description),
		filepath.Base(path))
	members(&b, &s)
	for _, name := range slices.Sorted(maps.Keys(s.Definitions)) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", name, markdown(s.Definitions[name].Description))
		members(&b, s.Definitions[name])
	}
	return b.String()
}

func members(b *strings.Builder, s *jsonschema.Schema) {
	b.WriteString("\n| member | type | meaning |\n|---|---|---|\n")
	for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
		required := ""
		if slices.Contains(s.Required, pair.Key) {
			required = " (required)"
		}
		fmt.Fprintf(b, "| `%s`%s | %s | %s |\n", pair.Key, required, typeOf(pair.Value), markdown(pair.Value.Description))
	}
}

func typeOf(s *jsonschema.Schema) string {
	switch name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); {
	case ok:
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	case s.Items != nil:
		return "array of " + typeOf(s.Items)
	case s.AdditionalProperties != nil && s.Type == "object" && s.Properties == nil:
		return "object of " + typeOf(s.AdditionalProperties)
	case len(s.Enum) > 0:
		var values []string
		for _, value := range s.Enum {
			values = append(values, fmt.Sprintf("`%v`", value))
		}
		return strings.Join(values, ", ")
	case s.Format != "":
		return s.Type + ", " + s.Format
	}
	return s.Type
}

// markdown escapes what Markdown would take for its own.
func markdown(text string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", "*", `\*`, "_", `\_`, "[", `\[`).Replace(text)
}
