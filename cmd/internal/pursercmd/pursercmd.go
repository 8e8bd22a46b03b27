// Package pursercmd is the command purser: the commands of importer, consumer and sandbox as subcommands of one
// program, and night, init, completion and man. The first argument selects the subcommand, which parses the rest.
package pursercmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/completion"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/consumecmd"
	"github.com/purser-onboard/purser/cmd/internal/importcmd"
	"github.com/purser-onboard/purser/cmd/internal/manual"
	"github.com/purser-onboard/purser/cmd/internal/sandboxcmd"
)

// Program is the command's name.
const Program = "purser"

// Streams are the command's input, outputs and variables.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
}

// Stopping returns the message of the command with these arguments at the first signal.
func Stopping(args []string) console.Stopping {
	s := consumecmd.Stopping(args)
	switch first(args) {
	case "import":
		s = importcmd.Stopping()
	case "init":
		s.Waits = "no file is written"
	case "night":
		s.Waits = "reading no more, " + s.Waits
	case "sandbox":
		s = sandboxcmd.Stopping()
	}
	s.Command = Program
	return s
}

// Main runs the subcommand that the first argument names. soft requests a soft stop (take nothing new, finish requests
// in flight), hard a hard stop, which cancels them. The error carries the exit code (console.Exit).
func Main(soft, hard context.Context, args []string, s Streams) error {
	stdout := console.Output(s.Stdout)
	screen := console.NewScreen(s.Stderr)
	screen.Under(Program)
	screen.Format(config.LogFormatOf(args))
	if first(args) == "help" && len(args) > 1 {
		args = append(slices.Clone(args[1:]), "--help")
	}
	switch name := first(args); name {
	case "":
		config.PrintHelp(stdout, config.Purser())
		return usage("want a command")
	case "help", "-h", "--help":
		config.PrintHelp(stdout, config.Purser())
		return nil
	case "--version":
		fmt.Fprintln(stdout, config.VersionText())
		return nil
	case "flags":
		streams := config.Streams{Stdout: stdout, Stderr: screen, Program: Program}
		_, _, err := config.ParseConsumer([]string{"--help"}, streams)
		return err
	case "completion":
		return script(stdout, args[1:])
	case "man":
		return pages(args[1:])
	case "init":
		return initialize(soft, hard, args[1:], Streams{Stdin: s.Stdin, Stdout: stdout, Stderr: screen, Getenv: s.Getenv})
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
	for _, c := range config.Purser().Commands {
		names = append(names, c.Name())
	}
	switch {
	case slices.Contains(names, name):
		return nil
	case strings.HasPrefix(name, "-"):
		return usage("the command comes first, then its flags")
	}
	return &config.UsageError{Command: Program, Err: config.UnknownCommand(name, names)}
}

func usage(problem string) error {
	return &config.UsageError{Command: Program, Err: fmt.Errorf("%s", problem)}
}

// script prints the completion script of a shell.
func script(stdout io.Writer, args []string) error {
	if len(args) != 1 {
		return usage("completion: want bash, zsh or fish")
	}
	if err := completion.Write(stdout, args[0], config.Purser()); err != nil {
		return usage("completion: " + err.Error())
	}
	return nil
}

// pages writes the manual pages into a directory. Their date is that of $SOURCE_DATE_EPOCH, in seconds since 1970
// (reproducible-builds.org), otherwise today's.
func pages(args []string) error {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		return usage("man: want a directory to write to")
	}
	at := time.Now()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return usage("man: SOURCE_DATE_EPOCH is not a number of seconds")
		}
		at = time.Unix(seconds, 0)
	}
	return console.Unusable(manual.Write(args[0], config.Purser(), at.UTC().Format(time.DateOnly)))
}
