// Sandbox is a strict local stand-in for the partner API, and with `sandbox run` a whole Purser in one process.
package main

import (
	"context"
	"os"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/sandboxcmd"
)

func main() {
	stderr := console.NewScreen(os.Stderr)
	soft, hard, stop := console.Signals(context.Background(), stderr, sandboxcmd.Stopping())
	stdout := console.Output(os.Stdout)
	err := sandboxcmd.Main(soft, hard, os.Args[1:], stdout, stderr)
	stop()
	os.Exit(console.Exit(stderr, "sandbox", stdout.Result(err)))
}
