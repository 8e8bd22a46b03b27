package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/purser-onboard/purser/loopback"
	"github.com/purser-onboard/purser/secretfile"
)

// Error reports a setting that cannot be used. Commands exit with 2.
type Error struct {
	Setting string // "--rate"
	Value   string // as given; Error shows it only where it can be no secret and no file's name
	Problem string
}

func (e *Error) Error() string { return e.text("") }

// text is the error, followed by a remark on the value.
func (e *Error) text(behind string) string {
	switch {
	case e.Value == "":
		return fmt.Sprintf("%s%s: %s", e.Setting, behind, e.Problem)
	case !shown(e.Setting, e.Value):
		problem := e.Problem
		if len(e.Value) >= 16 { // a shorter one may be a part of any word
			problem = strings.ReplaceAll(problem, e.Value, "…")
		}
		return fmt.Sprintf("%s%s: %s", e.Setting, behind, problem)
	}
	return fmt.Sprintf("%s %q%s: %s", e.Setting, e.Value, behind, e.Problem)
}

// ErrPrinted is returned when the arguments asked for help or the version, which has been printed: exit with 0.
var ErrPrinted = errors.New("help or version printed")

// exited carries kong's wish to exit out of the parser.
type exited int

// Streams are the parser's outputs for help and version, and whether the process's variables are settings.
type Streams struct {
	Stdout, Stderr    io.Writer
	IgnoreEnvironment bool // for `sandbox run`, which must not meet the settings of production
	// Program is the program whose subcommands the commands are; empty if each is a program of its own.
	Program string
}

// name returns how a command is called: importer, or purser import.
func (s Streams) name(command string) string {
	switch {
	case s.Program == "":
		return command
	case command == "consumer": // its commands are the program's own
		return s.Program
	case command == "importer":
		command = "import"
	}
	return s.Program + " " + command
}

// parserOf creates the parser of a grammar. Name is the command's name.
func parserOf(grammar any, name, description string, s Streams) (*kong.Kong, error) {
	parser, err := kong.New(grammar,
		kong.Name(name), kong.Description(description),
		kong.Writers(s.Stdout, s.Stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.KindMapper(reflect.String, kong.MapperFunc(text)),
		kong.ExplicitGroups(append(commandGroups(), flagGroups()...)), kong.Vars{"version": VersionText()},
		kong.Help(helpPrinter(s.Program)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}), kong.ValueFormatter(describe),
	)
	if err != nil {
		return nil, err // the grammar itself is wrong; every test would see it
	}
	parser.Model.HelpFlag.Help = "Print this help and exit."
	return parser, nil
}

// parse fills a command's settings. It returns the chosen command ("run") for grammars that have several.
func parse(grammar any, name, description string, args []string, s Streams) (command string, err error) {
	name = s.name(name)
	parser, err := parserOf(grammar, name, description, s)
	if err != nil {
		return "", err
	}
	if s.IgnoreEnvironment {
		forgetVariables(parser.Model.Node)
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exited:
			err = ErrPrinted
		default:
			panic(r)
		}
	}()
	read := new(sources)
	if err := kong.Bind(read).Apply(parser); err != nil {
		return "", err
	}
	context, err := parser.Parse(args)
	if err != nil {
		var origins Origins
		if failed := new(kong.ParseError); errors.As(err, &failed) {
			origins = read.unparsed(failed)
		}
		if long := withOneDash(parser, args, err); long != nil {
			return "", &UsageError{Command: name, Err: long}
		}
		return "", &UsageError{Command: name, Err: origins.Explain(withoutValues(parser, err))}
	}
	origins := read.origins(context)
	if err := checkValues(context); err != nil {
		return "", origins.Explain(err)
	}
	if c, ok := grammar.(interface{ setOrigins(Origins) }); ok {
		c.setOrigins(origins)
	}
	if !s.IgnoreEnvironment {
		unknown := unknownVariables(os.Environ(), read.signers(context)...)
		switch c := grammar.(type) {
		case interface{ common() *Common }:
			c.common().UnknownVariables = unknown
		case *Init:
			c.UnknownVariables = unknown
		}
	}
	switch c := grammar.(type) {
	case *ConsumerCommands:
		c.Settings = effective(context)
	case *night:
		c.Settings = effective(context)
	}
	command, _, _ = strings.Cut(context.Command(), " <") // without its arguments
	if q, ok := grammar.(interface{ settle() }); ok {
		q.settle()
	}
	return command, nil
}

// withOneDash says that a flag was given with one dash instead of two; nil if none was. The parser takes -rate for -r.
func withOneDash(parser *kong.Kong, args []string, err error) error {
	if !strings.HasPrefix(err.Error(), "unknown flag -") || strings.HasPrefix(err.Error(), "unknown flag --") {
		return nil
	}
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && len(name) > 1 && findFlag(parser.Model.Node, name) != nil {
			return fmt.Errorf("unknown flag -%s, did you mean --%[1]s?", name)
		}
	}
	return nil
}

// text takes a text unchanged. Kong's own mapper converts it through JSON, which replaces invalid UTF-8: a file with
// such a name would not be found.
func text(c *kong.DecodeContext, target reflect.Value) error {
	token, err := c.Scan.PopValue("string")
	if err != nil {
		return err
	}
	value, ok := token.Value.(string)
	if !ok {
		return fmt.Errorf("want a text, not %T", token.Value)
	}
	target.SetString(value)
	return nil
}

// LogFormatOf returns the log format that arguments, or the configuration file that they name, request. Errors in
// arguments or file are reported in this format.
func LogFormatOf(args []string) string {
	if format := valueOf(args, "--log-format"); format != "" {
		return format
	}
	if format, set := os.LookupEnv("PURSER_LOG_FORMAT"); set {
		return format
	}
	content, err := secretfile.ReadPlain(kong.ExpandPath(valueOf(args, "--config")), mostFile)
	if err != nil {
		return "text"
	}
	var settings struct {
		LogFormat string `yaml:"log-format"`
	}
	_ = yaml.Unmarshal(content, &settings) // a file that cannot be read asks for none
	return cmp.Or(settings.LogFormat, "text")
}

// valueOf returns the last value that arguments give a flag; empty: none.
func valueOf(args []string, flag string) (value string) {
	for i, arg := range args {
		text, assigned := strings.CutPrefix(arg, flag+"=")
		switch {
		case arg == "--":
			return value
		case arg == flag && i+1 < len(args):
			value = args[i+1]
		case assigned:
			value = text
		}
	}
	return value
}

// Whereabouts returns the flags among arguments that name the configuration file, the data directory and the ledger, as
// pairs of flag and value.
func Whereabouts(args []string) (flags [][2]string) {
	for _, flag := range []string{"--config", "--data-dir", "--ledger"} {
		if value := valueOf(args, flag); value != "" {
			flags = append(flags, [2]string{flag, value})
		}
	}
	return flags
}

// settle makes the other settings follow --quiet.
func (c *Common) settle() {
	if !c.Quiet {
		return
	}
	c.Progress = "none"
	if c.LogLevel == "debug" || c.LogLevel == "info" {
		c.LogLevel = "warn"
	}
}

func forgetVariables(n *kong.Node) {
	for _, f := range n.Flags {
		f.Envs, f.Tag.Envs = nil, nil
	}
	for _, child := range n.Children {
		forgetVariables(child)
	}
}

// UsageError reports a command line, variable or configuration file that does not fit the command.
type UsageError struct {
	Command string
	Err     error
}

func (e *UsageError) Error() string {
	return fmt.Sprintf("%v (see `%s --help`)", e.Err, e.Command)
}

func (e *UsageError) Unwrap() error { return e.Err }

// ParseImporter parses the settings of `importer`.
func ParseImporter(args []string, s Streams) (*Importer, error) {
	c := Importer{IgnoreEnvironment: s.IgnoreEnvironment}
	_, err := parse(&c, "importer", aboutImporter, args, s)
	if err == nil {
		err = c.Explain(c.validate())
	}
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// ParseNight parses the settings of `purser night`: those of its import and of its drain. Flags of both are given once.
func ParseNight(args []string, s Streams) (*Importer, *Consumer, error) {
	var n night
	if _, err := parse(&n, "night", aboutNight, args, s); err != nil {
		return nil, nil, err
	}
	if err := n.Consumer.validate(); err != nil {
		return nil, nil, n.Explain(err)
	}
	i := &Importer{
		Common: n.Common, Queue: n.Queue, Traces: n.Traces, Input: n.Input, IgnoreEnvironment: s.IgnoreEnvironment,
	}
	if err := i.validate(); err != nil {
		return nil, nil, n.Explain(err)
	}
	rejects, err := filepath.Abs(i.Rejects)
	for _, output := range []struct{ flag, file string }{
		{"--report", n.Report}, {"--report-html", n.ReportHTML}, {"--metrics-textfile", n.MetricsTextfile},
	} {
		if path, e := filepath.Abs(output.file); err == nil && e == nil && path == rejects {
			return nil, nil, n.Explain(&Error{Setting: output.flag, Problem: "names the rejects file (--rejects)"})
		}
	}
	return i, &n.Consumer, nil
}

// ParseInit parses the settings of `purser init` that are given.
func ParseInit(args []string, s Streams) (*Init, error) {
	var c Init
	if _, err := parse(&c, "init", aboutInit, args, s); err != nil {
		return nil, err
	}
	return &c, nil
}

// ParseConsumer parses the settings of `consumer` and the command. Settings that only some commands need are checked by
// CheckPartner and CheckSigner.
func ParseConsumer(args []string, s Streams) (*ConsumerCommands, string, error) {
	var c ConsumerCommands
	command, err := parse(&c, "consumer", aboutConsumer, args, s)
	if err != nil {
		return nil, "", err
	}
	if err := c.check(); err != nil {
		return nil, "", c.Explain(err)
	}
	return &c, command, nil
}

// check checks what the parser does not, and fills in what follows from other settings.
func (c *ConsumerCommands) check() error {
	if from := c.Rebind.From; from != "" && !isUUID(from) {
		return &Error{Setting: "--from", Problem: notUUID}
	}
	if err := c.validate(); err != nil {
		return err
	}
	if c.Account.Last < 1 {
		return &Error{"--last", fmt.Sprint(c.Account.Last), "must be 1 or more"}
	}
	if c.Account.Run != "" && c.Account.Last > 1 {
		return &Error{Setting: "--last", Problem: "cannot be combined with --run"}
	}
	return nil
}

const notUUID = "is not a UUID, as the partner's ids are"

// ParseSandbox parses the settings of `sandbox` and the command.
func ParseSandbox(args []string, s Streams) (*SandboxCommands, string, error) {
	var c SandboxCommands
	command, err := parse(&c, "sandbox", aboutSandbox, args, s)
	if err != nil {
		return nil, "", err
	}
	if command == "serve" {
		for name, address := range map[string]string{"--listen": c.Serve.Listen, "--control": c.Serve.Control} {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, "", c.Explain(&Error{name, address, "want host:port"})
			}
			if !loopback.Is(host) {
				return nil, "", c.Explain(&Error{name, address, "the sandbox serves on loopback only"})
			}
		}
	}
	return &c, command, nil
}

const topicShape = "a topic's name is 1 to 249 letters, digits, dots, hyphens or underscores"

// mostStatement bounds the file of a statement, which is one line of a challenge.
const mostStatement = 64 << 10
