// Purser is all of Purser in one program: what importer, consumer and sandbox do are its subcommands.
package main

import (
	"context"
	"os"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/pursercmd"
)

func main() {
	stderr := console.NewScreen(os.Stderr)
	soft, hard, stop := console.Signals(context.Background(), stderr, pursercmd.Stopping(os.Args[1:]))
	stdout := console.Output(os.Stdout)
	err := pursercmd.Main(soft, hard, os.Args[1:], pursercmd.Streams{
		Stdin: os.Stdin, Stdout: stdout, Stderr: stderr, Getenv: os.Getenv,
	})
	stop()
	os.Exit(console.Exit(stderr, pursercmd.Program, stdout.Result(err)))
}
