// Importer checks exports and publishes their rows to Kafka: the first half of Purser.
package main

import (
	"context"
	"os"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/importcmd"
)

func main() {
	gentle, _, stop := console.Signals(context.Background(), os.Stderr, importcmd.Stopping())
	stdout := console.Output(os.Stdout)
	err := importcmd.Main(gentle, os.Args[1:], os.Stdin, stdout, os.Stderr)
	stop()
	os.Exit(console.Exit(os.Stderr, "importer", stdout.Result(err)))
}
