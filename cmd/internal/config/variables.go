package config

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/purser-onboard/purser/editdistance"
)

// unknownVariables returns the names of the environment's variables that are nearly those of a setting of any command,
// each with the variable that may have been meant. Other variables are left alone, whatever they begin with: they may
// be those of a script around the command. Values are not looked at. signers are URIs of signers, which may name any
// variable.
func unknownVariables(environ []string, signers ...string) []string {
	set := map[string]bool{}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		set[name] = true
	}
	known := knownVariables()
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		named := func(signer string) bool { return strings.Contains(signer, name) }
		if known[name] || serviceLink.MatchString(name) || slices.ContainsFunc(signers, named) {
			continue
		}
		ours := ourVariable.MatchString(name)
		meant, distance := nearest(name, known)
		if distance <= 1 && !set[meant] || ours && distance <= 2 {
			unknown = append(unknown, fmt.Sprintf("%s (did you mean %s?)", name, meant))
		}
	}
	return unknown
}

var (
	ourVariable = regexp.MustCompile(`(?i)^(PURSER|OFFBLOCKS)_`)
	// serviceLink is a variable that Kubernetes gives to containers next to a Service of our name.
	serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)$`)
)

// nearest returns the variable that is nearest to a name, and how far it is. Variables that differ only in their prefix
// or in case are near.
func nearest(name string, known map[string]bool) (meant string, distance int) {
	name = strings.ToUpper(name)
	_, rest, _ := strings.Cut(name, "_")
	distances := map[string]int{}
	for other := range known {
		distances[other] = editdistance.Between(name, other)
		if _, same, _ := strings.Cut(other, "_"); same == rest && ourVariable.MatchString(name) {
			distances[other] = min(distances[other], 2)
		}
	}
	meant = slices.MinFunc(slices.Collect(maps.Keys(known)), func(a, b string) int {
		return cmp.Or(cmp.Compare(distances[a], distances[b]), cmp.Compare(a, b))
	})
	return meant, distances[meant]
}

// knownVariables are those of all commands: of their flags, and of secrets, which have no flag.
func knownVariables() map[string]bool {
	known := map[string]bool{"OFFBLOCKS_API_SECRET": true, "KAFKA_PASSWORD": true, "PURSER_PKCS11_PIN": true}
	for _, grammar := range grammars() {
		addVariables(known, reflect.TypeOf(grammar).Elem())
	}
	return known
}

// addVariables adds the variables of a grammar's flags. Every command asks for them when it starts: it reads the tags,
// because parsers of all grammars take longer to make than the command's own takes to make and to parse with.
func addVariables(known map[string]bool, grammar reflect.Type) {
	for field := range grammar.Fields() {
		if variable := field.Tag.Get("env"); variable != "" {
			known[variable] = true
		}
		if field.Type.Kind() == reflect.Struct {
			addVariables(known, field.Type)
		}
	}
}
