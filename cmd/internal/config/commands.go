package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/purser-onboard/purser/editdistance"
)

// Titles of the groups of commands in a help text.
const (
	GroupNight = "Every night:"
	GroupTry   = "For trials:"
)

// groups are those of commands in a help text, by the keys that the grammars use.
func groups() []kong.Group {
	return []kong.Group{
		{Key: "night", Title: GroupNight},
		{Key: "look", Title: "The next morning:"},
		{Key: "settle", Title: "Now and then:"},
		{Key: "keys", Title: "Credentials:"},
	}
}

// CommandHelp is a command in a help text.
type CommandHelp struct {
	Name, Help string
	Group      string // its title
}

// ConsumerHelp lists the commands of `consumer`.
func ConsumerHelp() []CommandHelp {
	parser, err := kong.New(&ConsumerCommands{}, kong.ExplicitGroups(groups()), kong.Vars{"version": ""})
	if err != nil {
		panic(fmt.Sprintf("grammar of consumer: %v", err)) // a programming error, found by any test
	}
	var list []CommandHelp
	for _, node := range parser.Model.Children {
		command := CommandHelp{
			Name: node.Name, Help: strings.Replace(node.Help, " (default command)", "", 1), Group: "Commands:",
		}
		if node.Group != nil {
			command.Group = node.Group.Title
		}
		list = append(list, command)
	}
	return list
}

// UnknownCommand says that there is no such command, and which of the known ones may have been meant.
func UnknownCommand(given string, known []string) error {
	if !word.MatchString(given) {
		return errors.New("unknown command; it is not shown, because it may be a secret")
	}
	var near []string
	for _, name := range known {
		if strings.HasPrefix(name, given) || editdistance.Between(name, given) <= 2 {
			near = append(near, strconv.Quote(name))
		}
	}
	if len(near) == 0 {
		return fmt.Errorf("unknown command %s", given)
	}
	return fmt.Errorf("unknown command %s, did you mean %s?", given, strings.Join(near, " or "))
}
