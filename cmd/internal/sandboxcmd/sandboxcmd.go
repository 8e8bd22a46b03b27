// Package sandboxcmd is the sandbox's wiring: the stand-in API as a server, and `sandbox run`, which has importer and
// consumer work against it in one process.
package sandboxcmd

import (
	"context"
	"fmt"
	"io"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
)

// Stopping is what the command says at the first signal.
func Stopping() console.Stopping {
	return console.Stopping{Command: "sandbox", Waits: "taking no new rows, waiting for the requests in flight"}
}

// Main parses the arguments and runs the command they name. gentle asks to take nothing new and finish what is in
// flight, hard to cut that short. The error carries the exit code (console.Exit).
func Main(gentle, hard context.Context, args []string, stdout, stderr io.Writer) error {
	stdout = console.Output(stdout)
	c, command, err := config.ParseSandbox(args, config.Streams{Stdout: stdout, Stderr: stderr})
	if err != nil {
		return err
	}
	switch command {
	case "serve":
		return serve(gentle, c, stdout, stderr)
	case "run":
		return onboard(gentle, hard, c, stdout, stderr)
	}
	return fmt.Errorf("command %q is not known", command) // the grammar admits no other
}
