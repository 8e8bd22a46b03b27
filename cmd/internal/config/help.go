package config

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// width is that of help texts that this file wraps.
const width = 80

// ExitCodes explains the exit codes.
const ExitCodes = "Exit codes: 0 success; 1 could not finish, run again; 2 usage or set-up, fix it first; " +
	"3 finished, but some rows are invalid or ended badly."

// helpPrinter returns what prints the parser's help: a command with its own flags and the names of those that it shares
// with others, then examples and the exit codes. Program is the program whose subcommands the commands are, if any.
func helpPrinter(program string) kong.HelpPrinter {
	return func(options kong.HelpOptions, ctx *kong.Context) error {
		node, path := ctx.Model.Node, ctx.Model.Name
		if selected := ctx.Selected(); selected != nil {
			node, path = selected, selected.FullPath()
		}
		own, shared := split(node, path != ctx.Model.Name || sharesFlags(node, path))
		flagsOnly := path == program // the program prints its commands itself
		if flagsOnly {
			own = slices.DeleteFunc(own, func(g FlagGroup) bool { return rank(g.Flags[0]) == 0 })
		}
		show(node, own)
		options.FlagsLast = true
		if flagsOnly {
			options.NoAppSummary = true
			node.Help = "Flags that the commands of " + program + " share. `" + program +
				" COMMAND --help` lists the flags of a command and explains its own."
			node.Children = nil
		}
		if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
			return err
		}
		if flagsOnly {
			return nil
		}
		var b strings.Builder
		if len(shared) > 0 {
			explains := ctx.Model.Name + " --help"
			if program != "" && ctx.Model.Name != program+" sandbox" {
				explains = program + " help flags"
			}
			fmt.Fprintf(&b, "\nCommon flags, which `%s` explains:\n", explains)
		}
		for _, group := range shared {
			names := []string{group.Title}
			for _, f := range group.Flags {
				names = append(names, "--"+f.Name)
			}
			b.WriteString(wrap("  ", "    ", names...))
		}
		b.WriteString(endOfHelp(path))
		_, err := fmt.Fprint(ctx.Stdout, b.String())
		return err
	}
}

// show makes a node's help show these flags, group by group, and no others.
func show(node *kong.Node, groups []FlagGroup) {
	for n := node; n != nil; n = n.Parent {
		for _, f := range n.Flags {
			f.Hidden = true
		}
	}
	for _, group := range groups {
		for _, f := range group.Flags {
			f.Hidden = false
			if rank(f) == 0 {
				f.Group = nil // a command's flags inherit its group, which is one of commands
			}
		}
	}
	slices.SortStableFunc(node.Flags, func(a, b *kong.Flag) int { return cmp.Compare(rank(a), rank(b)) })
}

// describe is the text of a flag or argument, with its default, unless that is its placeholder, and its variables.
func describe(v *kong.Value) string {
	var facts []string
	if v.HasDefault && v.Default != "" && v.Flag != nil && v.Flag.PlaceHolder != "" {
		facts = append(facts, "default "+strings.ReplaceAll(v.Default, ",", ", "))
	}
	for _, variable := range v.Tag.Envs {
		facts = append(facts, "$"+variable)
	}
	if len(facts) == 0 {
		return v.Help
	}
	return strings.TrimSuffix(v.Help, ".") + " (" + strings.Join(facts, "; ") + ")."
}

// endOfHelp are the last lines of a command's help: examples and the exit codes.
func endOfHelp(path string) string {
	var b strings.Builder
	for i, example := range Examples(path) {
		if i == 0 {
			b.WriteString("\nExamples:\n")
		}
		fmt.Fprintf(&b, "  %s\n", example)
	}
	b.WriteString("\n" + wrap("", "", strings.Fields(ExitCodes)...))
	return b.String()
}

// PrintHelp prints the help of a program that has commands: all of them, group by group, without their flags.
func PrintHelp(w io.Writer, c *Command) {
	fmt.Fprintf(w, "Usage: %s <command> [flags]\n\n%s\n", c.Path, c.Help)
	longest := 0
	var groups []string
	for _, command := range c.Commands {
		longest = max(longest, len(command.Name()))
		if !slices.Contains(groups, command.Group) {
			groups = append(groups, command.Group)
		}
	}
	for _, group := range groups {
		fmt.Fprintf(w, "\n%s\n", group)
		for _, command := range c.Commands {
			if command.Group == group {
				fmt.Fprint(w, wrap(fmt.Sprintf("  %-*s  ", longest, command.Name()), strings.Repeat(" ", longest+4),
					strings.Fields(command.Help)...))
			}
		}
	}
	more := fmt.Sprintf("`%[1]s COMMAND --help` explains a command and its flags, `%[1]s help flags` the flags that "+
		"commands share; `%[1]s --version` prints the version.", c.Path)
	fmt.Fprint(w, "\n"+wrap("", "", strings.Fields(more)...)+endOfHelp(c.Path))
}

// wrap joins words to lines, the first behind first and the others behind rest.
func wrap(first, rest string, words ...string) string {
	var b strings.Builder
	line := first
	for i, word := range words {
		if i > 0 && utf8.RuneCountInString(line)+utf8.RuneCountInString(word) > width {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = rest
		}
		line += word + " "
	}
	return b.String() + strings.TrimRight(line, " ") + "\n"
}

// Examples returns example calls of a command, such as `consumer status` or `purser status`.
func Examples(command string) []string {
	with := func(calls ...string) []string {
		for i, call := range calls {
			calls[i] = strings.TrimRight(command+" "+call, " ")
		}
		return calls
	}
	switch command[strings.LastIndexByte(command, ' ')+1:] {
	case "importer", "import":
		return with("--chain eip155:300 export.csv", "--dry-run --config purser.yaml /exports/*.csv", "- < export.csv.gz")
	case "init":
		return with("", "--api-url https://api.example.com/v1 --signer keystore:///keys?password-file=/keys-password")
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
	case "dismiss":
		return with("dealt-with.csv", "--undo dealt-with.csv")
	case "backup":
		return with("--data-dir /var/lib/purser /backups/ledger.db", "--force ledger-backup.db")
	case "restore":
		return with("--data-dir /var/lib/purser /backups/ledger.db", "--force ledger-backup.db")
	case "redrive":
		return with("--dry-run", "--since 24h")
	case "serve":
		return with("", "--faults stored-5xx=0.05,limit=2")
	case "purser":
		return with("sandbox serve", "night --config purser.yaml /exports/today.csv", "help flags")
	case "consumer":
		return with("check", "--drain")
	}
	return nil
}
