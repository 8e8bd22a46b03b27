package config

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// printHelp prints the parser's help, then examples of the command and the exit codes.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	command := ctx.Model.Name
	if node := ctx.Selected(); node != nil {
		command = node.FullPath()
	}
	var b strings.Builder
	for i, example := range examples(command) {
		if i == 0 {
			b.WriteString("\nExamples:\n")
		}
		fmt.Fprintf(&b, "  %s\n", example)
	}
	b.WriteString("\nExit codes: 0 all is well; 1 could not finish, run again; 2 usage or set-up, fix it first;\n" +
		"3 finished, but some rows are invalid or ended badly.\n")
	_, err := fmt.Fprint(ctx.Stdout, b.String())
	return err
}

// examples are calls of a command, such as `consumer status` or `purser status`.
func examples(command string) []string {
	with := func(calls ...string) []string {
		for i, call := range calls {
			calls[i] = strings.TrimRight(command+" "+call, " ")
		}
		return calls
	}
	switch command[strings.LastIndexByte(command, ' ')+1:] {
	case "importer", "import":
		return with("--chain eip155:300 export.csv", "--dry-run --config purser.yaml /exports/*.csv", "- < export.csv.gz")
	case "night":
		return with("--config purser.yaml /exports/today.csv", "--report report.json --quiet /exports/today.csv")
	case "run":
		if strings.Contains(command, "sandbox") {
			return with("testdata/customers.csv", "--faults drop-after=0.1 export.csv")
		}
		return with("--drain", "--drain --config purser.yaml --report report.json", "--metrics-listen 9464")
	case "check", "reconcile", "runs":
		return with("--config purser.yaml", "--output json")
	case "status":
		return with("--data-dir /var/lib/purser", "--run last")
	case "failures":
		return with("> again.csv", "--data-dir /var/lib/purser > again.csv")
	case "redrive":
		return with("--dry-run", "--since 24h")
	case "serve":
		return with("", "--faults stored-5xx=0.05,limit=2")
	case "consumer":
		return with("check", "--drain")
	}
	return nil
}
