// Package sandboxcmd is the command sandbox: `sandbox serve` serves the stand-in API, and `sandbox run` runs importer
// and consumer against it in one process.
package sandboxcmd

import (
	"context"
	"fmt"
	"io"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
)

// Stopping returns what the command prints at the first signal.
func Stopping() console.Stopping {
	return console.Stopping{Command: "sandbox", Waits: "taking no new rows, waiting for the requests in flight"}
}

// Main parses the arguments and runs their command. The end of soft is a soft stop: no new work is started, and
// requests in flight are finished. The end of hard is a hard stop, which cancels them. The error carries the exit code
// (console.Exit).
func Main(soft, hard context.Context, args []string, stdout, stderr io.Writer) error {
	stdout = console.Output(stdout)
	screen := console.NewScreen(stderr)
	screen.Format(config.LogFormatOf(args))
	c, command, err := config.ParseSandbox(args, config.Streams{
		Stdout: stdout, Stderr: screen, Program: screen.Program(),
	})
	if err != nil {
		return err
	}
	screen.Format(c.LogFormat)
	switch command {
	case "serve":
		return c.Explain(serve(soft, c, stdout, screen))
	case "run":
		return c.Explain(onboard(soft, hard, c, stdout, screen))
	}
	return fmt.Errorf("command %q is not known", command) // the grammar admits no other
}
