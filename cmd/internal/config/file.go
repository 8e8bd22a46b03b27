package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/secretfile"
)

// file is a configuration file: a YAML mapping from flag names to values. All commands may share one file, so it may
// contain the settings of any command, also under librdkafka's names (librdkafka.go).
type file struct {
	name   string
	values map[string]*yaml.Node
	keys   map[string]*yaml.Node
}

// fileFlag is the name of a configuration file. kong has a type for it, but that one waits for ever for the writer of a
// pipe.
type fileFlag string

// BeforeResolve uses the file's values for flags and variables that were not given.
func (fileFlag) BeforeResolve(ctx *kong.Context, trace *kong.Path, read *sources) error {
	path, _ := ctx.FlagValue(trace.Flag).(fileFlag)
	if path == "" {
		return fileErrorf("--config: is empty: is a shell variable unset?")
	}
	content, err := secretfile.ReadPlain(kong.ExpandPath(string(path)), mostFile)
	if err != nil {
		return fileErrorf("--config: the file %v", err)
	}
	values, err := loadFile(content)
	if err != nil {
		return err
	}
	read.file = values
	ctx.AddResolver(values)
	return nil
}

// fileError is a fault of the configuration file: "--config:3: unknown setting".
type fileError string

func (e fileError) Error() string { return string(e) }

func fileErrorf(format string, a ...any) error { return fileError(fmt.Sprintf(format, a...)) }

// quote is a text of the file in an error.
func quote(text string) string {
	if !shown("", text) {
		return "(not shown, because it may be a secret)"
	}
	return printable.Quote(text, 100)
}

var yamlLine = regexp.MustCompile(`line \d+`)

func loadFile(content []byte) (*file, error) {
	const name = "--config"
	f := &file{name: name, values: map[string]*yaml.Node{}, keys: map[string]*yaml.Node{}}
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return f, nil // an empty file sets nothing
		}
		at := yamlLine.FindString(err.Error()) // the rest may quote the file
		return nil, fileErrorf("%s: the file is not YAML: %s cannot be read", name, cmp.Or(at, "it"))
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fileErrorf("%s:%d: want one document; a second document would be ignored",
			name, max(second.Line, 1))
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return f, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fileErrorf("%s:%d: want settings as name: value", name, root.Line)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if earlier, ok := f.keys[key.Value]; ok {
			return nil, fileErrorf("%s:%d: %s is already set in line %d", name, key.Line, quote(key.Value), earlier.Line)
		}
		f.keys[key.Value], f.values[key.Value] = key, value
	}
	if err := f.translate(); err != nil {
		return nil, err
	}
	return f, nil
}

// Validate implements kong.Resolver.
func (f *file) Validate(app *kong.Application) error {
	known := map[string]bool{}
	addNames(known, app.Node)
	for name := range f.keys {
		if !known[name] { // another command's perhaps
			known = namesOfAll()
			break
		}
	}
	return f.validate(known)
}

// validate returns an error for a setting that is not known.
func (f *file) validate(known map[string]bool) error {
	for _, name := range []string{"config", "help", "version"} {
		delete(known, name)
	}
	for name, key := range f.keys {
		if strings.EqualFold(name, "api-secret") {
			return fileErrorf("%s:%d: the secret must not be in this file: use api-secret-file or $OFFBLOCKS_API_SECRET",
				f.name, key.Line)
		}
		if strings.EqualFold(name, "kafka-password") {
			return fileErrorf("%s:%d: the password must not be in this file: use kafka-password-file or $KAFKA_PASSWORD",
				f.name, key.Line)
		}
		if !known[name] {
			return fileErrorf("%s:%d: unknown setting %s", f.name, key.Line, quote(name))
		}
	}
	return nil
}

// Resolve implements kong.Resolver. A variable goes before the file.
func (f *file) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	node, ok := f.values[flag.Name]
	if !ok {
		return nil, nil
	}
	variables := flag.Envs
	if flag.Name == "api-secret-file" {
		variables = append([]string{"OFFBLOCKS_API_SECRET"}, variables...) // the secret itself goes before the file, too
	}
	for _, variable := range variables {
		if _, set := os.LookupEnv(variable); set {
			return nil, nil
		}
	}
	switch node.Kind {
	case yaml.ScalarNode:
		return node.Value, nil
	case yaml.SequenceNode:
		parts := make([]string, len(node.Content))
		for i, n := range node.Content {
			if n.Kind != yaml.ScalarNode {
				return nil, fileErrorf("%s:%d: want a list of plain values", f.name, n.Line)
			}
			parts[i] = n.Value
		}
		return strings.Join(parts, ","), nil
	case yaml.MappingNode:
		if flag.Name == "columns" {
			return f.columns(node)
		}
	}
	return nil, fileErrorf("%s:%d: want a value or a list", f.name, node.Line)
}

// columns is a mapping of columns to their names as the flag takes it.
func (f *file) columns(node *yaml.Node) (any, error) {
	var parts []string
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if value.Kind != yaml.ScalarNode {
			return nil, fileErrorf("%s:%d: want a column's name", f.name, value.Line)
		}
		parts = append(parts, key.Value+`="`+strings.ReplaceAll(value.Value, `"`, `""`)+`"`)
	}
	return strings.Join(parts, ","), nil
}

// grammars are those of all commands but init, whose settings are those of others.
func grammars() []any { return []any{&Importer{}, &ConsumerCommands{}, &SandboxCommands{}} }

// namesOfAll returns the flags of all commands.
func namesOfAll() map[string]bool {
	names := map[string]bool{}
	for _, grammar := range grammars() {
		parser, err := kong.New(grammar, kong.Vars{"version": ""})
		if err != nil {
			panic(fmt.Sprintf("grammar %v: %v", reflect.TypeOf(grammar), err)) // a programming error, found by any test
		}
		addNames(names, parser.Model.Node)
	}
	return names
}

// addNames adds the flags of a command and its subcommands.
func addNames(names map[string]bool, n *kong.Node) {
	for _, flag := range n.Flags {
		names[flag.Name] = true
	}
	for _, child := range n.Children {
		addNames(names, child)
	}
}
