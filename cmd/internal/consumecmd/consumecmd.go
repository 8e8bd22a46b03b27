// Package consumecmd connects the consumer's parts: broker, ledger, partner API and signer around the dispatcher. The
// commands consumer and purser, and `sandbox run`, share it.
package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/queue"
)

// Streams are a command's outputs and variables.
type Streams struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// IgnoreEnvironment ignores the process's variables as settings.
	IgnoreEnvironment bool
	// Warned says that unknown variables were warned of.
	Warned bool
}

// Stopping returns the command's message at the first signal. A command that only reads, copies or dismisses, and comes
// first among the arguments, has nothing to wait for.
func Stopping(args []string) console.Stopping {
	if len(args) > 0 && slices.Contains([]string{"status", "runs", "report", "failures", "dismiss"}, args[0]) {
		return console.Stopping{Command: "consumer", Waits: "nothing is lost", Once: true}
	}
	if len(args) > 0 && args[0] == "ledger" {
		return console.Stopping{Command: "consumer", Waits: "the unfinished copy is removed", Once: true}
	}
	return console.Stopping{
		Command: "consumer",
		Waits: "taking no new rows, waiting for the requests in flight (each --request-timeout at most) and for " +
			"signatures",
	}
}

// Main parses the arguments and runs the command they name. soft requests a soft stop (take nothing new, finish
// requests in flight), hard a hard stop, which cancels them. The error carries the exit code (console.Exit).
func Main(soft, hard context.Context, args []string, s Streams) error {
	s.Stdout = console.Output(s.Stdout)
	screen := console.NewScreen(s.Stderr)
	s.Stderr = screen
	screen.Format(config.LogFormatOf(args))
	c, command, err := config.ParseConsumer(args, config.Streams{
		Stdout: s.Stdout, Stderr: s.Stderr, IgnoreEnvironment: s.IgnoreEnvironment, Program: screen.Program(),
	})
	if err != nil {
		return err
	}
	screen.Format(c.LogFormat)
	screen.Find(config.Whereabouts(args))
	if !s.Warned {
		console.WarnOfVariables(screen, c.Common)
	}
	return c.Explain(interrupted(soft, perform(soft, hard, c, command, s)))
}

func perform(soft, hard context.Context, c *config.ConsumerCommands, command string, s Streams) error {
	switch command {
	case "run":
		return consume(soft, hard, &c.Consumer, c.Run.Drain, nil, s)
	case "check":
		return check(soft, &c.Consumer, c.Check, s)
	case "status":
		if c.Status.Run != "" && c.Status.Fleet {
			return &config.Error{Setting: "--run", Problem: "applies to this ledger's runs, which --fleet does not show"}
		}
		if c.Status.Run != "" {
			return statusOfRun(soft, &c.Consumer, c.Status.Run, s)
		}
		if c.Status.JSON {
			c.Status.Output.Output = "json"
		}
		if c.Status.Watch {
			return watchStatus(soft, c, s)
		}
		return status(soft, &c.Consumer, c.Status.Fleet, c.Status.Output, s)
	case "runs":
		return runs(soft, &c.Consumer, c.Runs.Last, c.Runs.Output, s)
	case "report":
		return reportNight(soft, c, s)
	case "failures":
		return failures(soft, c, s)
	case "dismiss":
		return dismiss(soft, &c.Consumer, c.Dismiss, s)
	case "reconcile":
		return reconcile(soft, &c.Consumer, c.Reconcile, s)
	case "redrive":
		return queue.Coded(redrive(soft, c, s))
	case "ledger backup":
		return backup(soft, &c.Consumer, c.LedgerFile.Backup, s)
	case "ledger restore":
		return restore(soft, &c.Consumer, c.LedgerFile.Restore, s)
	case "register-key":
		return registerKey(soft, &c.Consumer, c.RegisterKey.Delete, s)
	case "rotate-secret":
		return rotateSecret(hard, &c.Consumer, c.RotateSecret.NewSecretFile, c.RotateSecret.ReplaceFile, s)
	case "rebind":
		return rebind(soft, &c.Consumer, c.Rebind.From, s)
	}
	return fmt.Errorf("command %q is not known", command) // the grammar admits no other
}

// interrupted replaces the error of a command that was cut short by the interruption itself, unless another error was
// joined to it.
func interrupted(soft context.Context, err error) error {
	rest := err
	var joined interface{ Unwrap() []error }
	for errors.As(rest, &joined) && len(joined.Unwrap()) == 1 { // errors.Join returns a list of one if the others are nil
		rest = joined.Unwrap()[0]
	}
	if soft.Err() == nil || errors.As(rest, &joined) || !errors.Is(err, context.Canceled) {
		return err
	}
	return console.Coded(console.ExitUnfinished, context.Cause(soft))
}
