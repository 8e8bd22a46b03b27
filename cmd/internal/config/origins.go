package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Origins are the sources of settings' values, by flag: "$PURSER_RATE", or "--config:12", a line of the configuration
// file. Flags on the command line, and those with their default, are absent.
type Origins map[string]string

// setOrigins keeps the origins of a command's settings.
func (o *Origins) setOrigins(origins Origins) { *o = origins }

// Explain adds to the errors of settings in err where their values come from, except those from the command line. It
// returns nil for nil, and may be called again with its result.
func (o Origins) Explain(err error) error {
	if err == nil || errors.As(err, new(*explained)) {
		return err
	}
	text := err.Error()
	for _, e := range settingErrors(err) {
		if from := o[strings.TrimPrefix(e.Setting, "--")]; from != "" {
			text = strings.Replace(text, e.Error(), e.text(" (from "+from+")"), 1)
		}
	}
	if text == err.Error() {
		return err
	}
	return &explained{err: err, text: text}
}

// explained is an error with the origins of its settings.
type explained struct {
	err  error
	text string
}

func (e *explained) Error() string { return e.text }

func (e *explained) Unwrap() error { return e.err }

// settingErrors returns the errors of settings that err is, wraps or joins.
func settingErrors(err error) (found []*Error) {
	switch e := err.(type) { //nolint:errorlint // it walks the whole tree, not to the first
	case *Error:
		return []*Error{e}
	case interface{ Unwrap() error }:
		return settingErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, each := range e.Unwrap() {
			found = append(found, settingErrors(each)...)
		}
	}
	return found
}

// sources are what settings are read from, apart from arguments and variables.
type sources struct {
	file *file // nil: none was given
}

// origins returns the origins of the settings that a context has.
func (s *sources) origins(context *kong.Context) Origins {
	origins := Origins{}
	for _, flag := range context.Flags() {
		given := func(p *kong.Path) bool { return p.Flag == flag && !p.Resolved }
		if slices.ContainsFunc(context.Path, given) {
			continue
		}
		if from := s.origin(flag); from != "" {
			origins[flag.Name] = from
		}
	}
	return origins
}

// origin returns where a flag that is not on the command line has its value from; empty: it is the default.
func (s *sources) origin(flag *kong.Flag) string {
	for _, variable := range flag.Envs {
		if _, set := os.LookupEnv(variable); set {
			return "$" + variable
		}
	}
	if s.file == nil || s.file.values[flag.Name] == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d", s.file.name, s.file.values[flag.Name].Line)
}

// signers returns the URIs of signers that any command would find: a file and variables serve all of them.
func (s *sources) signers(context *kong.Context) []string {
	found := []string{os.Getenv("PURSER_SIGNER")}
	if s.file != nil && s.file.values["signer"] != nil {
		found = append(found, s.file.values["signer"].Value)
	}
	for _, flag := range context.Flags() {
		if flag.Name == "signer" {
			found = append(found, flag.Target.String())
		}
	}
	return found
}

// fromVariable is how kong ends an error of a variable's value.
var fromVariable = regexp.MustCompile(`\(from envar ([A-Za-z0-9_]+)=`)

// unparsed returns the origins of the settings that the parser failed with.
func (s *sources) unparsed(failed *kong.ParseError) Origins {
	if failed.Context.Error != nil { // an argument's
		return nil
	}
	origins := s.origins(failed.Context)
	if found := fromVariable.FindStringSubmatch(failed.Error()); found != nil { // also one that an argument overrides
		for _, flag := range failed.Context.Flags() {
			if slices.Contains(flag.Envs, found[1]) {
				origins[flag.Name] = "$" + found[1]
			}
		}
	}
	return origins
}
