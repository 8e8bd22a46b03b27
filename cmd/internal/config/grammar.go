package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Command describes a command for help texts, completion and manual pages.
type Command struct {
	Path   string // how it is called: "purser status"
	Help   string // one sentence
	Group  string // the title of its group of commands
	Args   []*kong.Positional
	Own    []FlagGroup // flags that only this command has, and --help
	Shared []FlagGroup // flags that other commands have, too
	// Commands are its subcommands.
	Commands []*Command
}

// Name returns the last word of Path.
func (c *Command) Name() string { return c.Path[strings.LastIndexByte(c.Path, ' ')+1:] }

// Flags returns all flags of the command.
func (c *Command) Flags() []*kong.Flag {
	var all []*kong.Flag
	for _, group := range slices.Concat(c.Own, c.Shared) {
		all = append(all, group.Flags...)
	}
	return all
}

// FlagGroup are flags under a title.
type FlagGroup struct {
	Title string // "Kafka:"
	Flags []*kong.Flag
}

// Titles of the groups of commands in a help text.
const (
	GroupNight = "Every night:"
	GroupSetUp = "Set-up:"
	GroupTry   = "For trials:"
)

// commandGroups are those of commands in a help text, by the keys that the grammars use.
func commandGroups() []kong.Group {
	return []kong.Group{
		{Key: "setup", Title: GroupSetUp},
		{Key: "night", Title: GroupNight},
		{Key: "look", Title: "The next morning:"},
		{Key: "settle", Title: "Occasionally:"},
		{Key: "keys", Title: "Credentials:"},
	}
}

// flagGroups are those of flags, in the order of help texts.
func flagGroups() []kong.Group {
	return []kong.Group{
		{Key: "input", Title: "Input:"},
		{Key: "partner", Title: "Partner:"},
		{Key: "signer", Title: "Signer and challenges:"},
		{Key: "kafka", Title: "Kafka:"},
		{Key: "limits", Title: "Limits:"},
		{Key: "output", Title: "Output:"},
		{Key: "monitoring", Title: "Report and monitoring of a run:"},
		{Key: "general", Title: "General:"},
	}
}

// rank is the place of a flag's group; 0: it has none.
func rank(f *kong.Flag) int {
	if f.Group == nil {
		return 0
	}
	return 1 + slices.IndexFunc(flagGroups(), func(g kong.Group) bool { return g.Key == f.Group.Key })
}

// uses are the groups of the consumer's flags that one of its commands looks at.
func uses(command string) []string {
	switch command {
	case "status", "failures", "redrive": // the first two with --fleet
		return []string{"kafka", "output", "general"}
	case "runs", "report", "ledger", "backup", "restore", "dismiss":
		return []string{"output", "general"}
	case "reconcile", "register-key", "rotate-secret":
		return []string{"partner", "limits", "output", "general"}
	case "rebind":
		return []string{"partner", "kafka", "output", "general"}
	}
	all := []string{"partner", "signer", "kafka", "limits", "output", "general"}
	if command == "run" {
		return append(all, "monitoring")
	}
	return all
}

// split tells the flags that only a command has from those that it shares. under is set if the command's grammar has
// no others, but the program has.
func split(node *kong.Node, under bool) (own, shared []FlagGroup) {
	var mine, common []*kong.Flag
	for _, f := range slices.Concat(node.AllFlags(true)...) {
		inherited := !slices.Contains(node.Flags, f)
		switch grouped := rank(f) > 0; {
		case grouped && inherited && !slices.Contains(uses(node.Name), f.Group.Key):
		case grouped && (inherited || under && f.Group.Key != "input"):
			common = append(common, f)
		case !inherited || f.Name == "help":
			mine = append(mine, f)
		}
	}
	return grouped(mine), grouped(common)
}

// grouped sorts flags into their groups; those without one come first.
func grouped(flags []*kong.Flag) (list []FlagGroup) {
	for place, group := range append([]kong.Group{{Title: "Flags:"}}, flagGroups()...) {
		g := FlagGroup{Title: group.Title}
		for _, f := range flags {
			if rank(f) == place {
				g.Flags = append(g.Flags, f)
			}
		}
		if len(g.Flags) > 0 {
			list = append(list, g)
		}
	}
	return list
}

// What the programs and the commands that have a grammar of their own are for.
const (
	aboutPurser   = "Onboards the customers of a migration export with the partner."
	aboutImporter = "Validate exports and put their rows into the queue."
	aboutConsumer = "Onboards the queued customers with the partner."
	aboutSandbox  = "A strict local stand-in for the partner API, for tests and trials."
	aboutInit     = "Prompt for the required settings, write them to a file, and check them."
	aboutNight    = "Import exports and onboard the queue, with one report and one exit code."
)

// Purser returns the program purser with all its commands. The caller may change the result.
func Purser() *Command {
	night := command(&night{}, "purser night", aboutNight, GroupNight)
	importer := command(&Importer{}, "purser import", aboutImporter, GroupNight)
	consumer := command(&ConsumerCommands{}, "purser", "", "")
	sandbox := command(&SandboxCommands{}, "purser sandbox", aboutSandbox, GroupTry)
	all := &Command{Path: "purser", Help: aboutPurser, Own: consumer.Own}
	all.Commands = append([]*Command{
		command(&Init{}, "purser init", aboutInit, GroupSetUp), night, importer,
	}, consumer.Commands...)
	all.Commands = append(all.Commands, sandbox)
	return all
}

// command presents a grammar.
func command(grammar any, path, help, group string) *Command {
	parser, err := parserOf(grammar, path, help, Streams{})
	if err != nil {
		panic(fmt.Sprintf("grammar of %s: %v", path, err)) // a programming error, found by any test
	}
	return present(parser.Model.Node, path, group)
}

// sharesFlags reports whether a command whose grammar has no others takes flags that the program's other commands take
// and explain. init, which is for newcomers, explains its own.
func sharesFlags(node *kong.Node, path string) bool {
	return strings.Contains(path, " ") && len(node.Children) == 0 && !strings.HasSuffix(path, " init")
}

func present(node *kong.Node, path, group string) *Command {
	own, shared := split(node, sharesFlags(node, path))
	c := &Command{
		Path: path, Help: strings.Replace(node.Help, " (default command)", "", 1), Group: group,
		Args: node.Positional, Own: own, Shared: shared,
	}
	for _, child := range node.Children {
		title := "Commands:"
		if child.Group != nil {
			title = child.Group.Title
		}
		c.Commands = append(c.Commands, present(child, path+" "+child.Name, title))
	}
	return c
}
