// Consumer takes the queued rows and onboards them with the partner: the second half of Purser.
package main

import (
	"context"
	"os"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/consumecmd"
)

func main() {
	stderr := console.NewScreen(os.Stderr)
	soft, hard, stop := console.Signals(context.Background(), stderr, consumecmd.Stopping(os.Args[1:]))
	stdout := console.Output(os.Stdout)
	err := consumecmd.Main(soft, hard, os.Args[1:], consumecmd.Streams{
		Stdout: stdout, Stderr: stderr, Getenv: os.Getenv,
	})
	stop()
	os.Exit(console.Exit(stderr, "consumer", stdout.Result(err)))
}
