package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/purser-onboard/purser/editdistance"
)

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
