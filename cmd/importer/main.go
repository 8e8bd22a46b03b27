// Importer checks exports and publishes their rows to Kafka: the first half of Purser.
package main

import (
	"context"
	"os"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/importcmd"
)

func main() {
	stderr := console.NewScreen(os.Stderr)
	soft, _, stop := console.Signals(context.Background(), stderr, importcmd.Stopping())
	stdout := console.Output(os.Stdout)
	err := importcmd.Main(soft, os.Args[1:], os.Stdin, stdout, stderr)
	stop()
	os.Exit(console.Exit(stderr, "importer", stdout.Result(err)))
}
