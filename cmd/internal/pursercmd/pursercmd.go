// Package pursercmd is the command purser: importer, consumer and sandbox as subcommands of one program. It looks at
// the first argument only; the rest is the subcommand's, and parsed by it.
package pursercmd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/consumecmd"
	"github.com/purser-onboard/purser/cmd/internal/importcmd"
	"github.com/purser-onboard/purser/cmd/internal/sandboxcmd"
)

// Program is the command's name.
const Program = "purser"

// Streams are where the command reads and writes.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
}

// Stopping is what the command with these arguments says at the first signal.
func Stopping(args []string) console.Stopping {
	s := consumecmd.Stopping()
	switch first(args) {
	case "import":
		s = importcmd.Stopping()
	case "night":
		s.Waits = "reading no more, " + s.Waits
	case "sandbox":
		s = sandboxcmd.Stopping()
	}
	s.Command = Program
	return s
}

// Main runs the subcommand that the first argument names. soft asks to take nothing new and finish what is in flight,
// hard to cut that short. The error carries the exit code (console.Exit).
func Main(soft, hard context.Context, args []string, s Streams) error {
	stdout := console.Output(s.Stdout)
	screen := console.NewScreen(s.Stderr)
	screen.Under(Program)
	screen.Format(config.LogFormatOf(args))
	if name := first(args); name == "help" && len(args) > 1 {
		args = []string{args[1], "--help"}
	}
	switch name := first(args); name {
	case "":
		help(stdout)
		return usage("want a command")
	case "help", "-h", "--help":
		help(stdout)
		return nil
	case "--version":
		fmt.Fprintln(stdout, config.VersionText())
		return nil
	case "import":
		return importcmd.Main(soft, args[1:], s.Stdin, stdout, screen)
	case "night":
		return night(soft, hard, args[1:], stdout, screen, s)
	case "sandbox":
		return sandboxcmd.Main(soft, hard, args[1:], stdout, screen)
	default:
		if err := check(name); err != nil {
			return err
		}
		return consumecmd.Main(soft, hard, args, consumecmd.Streams{Stdout: stdout, Stderr: screen, Getenv: s.Getenv})
	}
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// check returns an error if the consumer has no such command.
func check(name string) error {
	var names []string
	for _, c := range commands() {
		names = append(names, c.Name)
	}
	switch {
	case slices.Contains(names, name):
		return nil
	case strings.HasPrefix(name, "-"):
		return usage("the command comes first, its flags behind it")
	}
	return &config.UsageError{Command: Program, Err: config.UnknownCommand(name, names)}
}

func usage(problem string) error {
	return &config.UsageError{Command: Program, Err: fmt.Errorf("%s", problem)}
}

// commands are all subcommands, group by group.
func commands() []config.CommandHelp {
	list := []config.CommandHelp{
		{Name: "night", Help: "Import exports and onboard what is in the queue: one report, one exit code.",
			Group: config.GroupNight},
		{Name: "import", Help: "Check exports and put their rows into the queue.", Group: config.GroupNight},
	}
	list = append(list, config.ConsumerHelp()...)
	return append(list,
		config.CommandHelp{Name: "sandbox", Help: "Serve a stand-in for the partner API (sandbox serve), " +
			"or try an export with it (sandbox run).", Group: config.GroupTry})
}

func help(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "Usage: %s <command> [flags]\n\nOnboards the customers of a migration export with the partner.\n",
		Program)
	list := commands()
	var groups []string
	for _, c := range list {
		if !slices.Contains(groups, c.Group) {
			groups = append(groups, c.Group)
		}
	}
	for _, group := range groups {
		fmt.Fprintf(table, "\n%s\n", group)
		for _, c := range list {
			if c.Group == group {
				fmt.Fprintf(table, "  %s\t%s\n", c.Name, c.Help)
			}
		}
	}
	fmt.Fprintf(table, "\n`%s <command> --help` has the flags of a command; `%s --version` prints the version.\n",
		Program, Program)
	_ = table.Flush() // standard output remembers its error
}
