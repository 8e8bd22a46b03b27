package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/purser-onboard/purser/editdistance"
)

// UnknownValue returns an error for an unknown value, with the allowed values.
func UnknownValue(setting, given string, known []string) error {
	problem := "want one of " + strings.Join(known, ", ")
	for _, name := range known {
		if given != "" && strings.HasPrefix(name, given) || editdistance.Between(name, given) <= 2 {
			problem = fmt.Sprintf("did you mean %s? (%s)", name, problem)
			break
		}
	}
	return &Error{Setting: setting, Value: given, Problem: problem}
}

// UnknownCommand returns an error for an unknown command, with similar commands.
func UnknownCommand(given string, known []string) error {
	if !word.MatchString(given) {
		return errors.New("unknown command (not shown, because it may be a secret)")
	}
	found := near(given, known)
	if len(found) == 0 {
		return fmt.Errorf("unknown command %s", given)
	}
	return fmt.Errorf("unknown command %s, did you mean %s?", given, strings.Join(found, " or "))
}

// near returns the names, quoted, that are like a given one.
func near(given string, known []string) (found []string) {
	for _, name := range known {
		if strings.HasPrefix(name, given) || editdistance.Between(name, given) <= 2 {
			found = append(found, strconv.Quote(name))
		}
	}
	return found
}
