package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/secretfile"
)

// This file decides which values of settings may be shown, which values are misplaced secrets, and how secret files are
// read.

// mostFile bounds a file of keys or certificates.
const mostFile = 1 << 20

// shown reports whether an error may quote the value of a setting: a short one, of a setting that is neither a file nor
// a secret.
func shown(setting, value string) bool {
	return len(value) <= 24 && !private(setting) && kindOfSecret(value, true) == "" &&
		!strings.ContainsFunc(value, unicode.IsControl)
}

// private reports whether a setting names a file or a directory, or is a credential: by mistake, its value may be the
// secret itself.
func private(setting string) bool {
	switch strings.TrimPrefix(setting, "--") {
	case "api-ca", "api-key", "api-secret-file", "config", "data-dir", "dir", "from", "kafka-ca", "kafka-cert",
		"kafka-key", "kafka-password-file", "kafka-token-file", "kafka-username", "keystore", "ledger",
		"ledger-topic-key-file", "message-key-file", "metrics-textfile", "new-secret-file", "password-file", "ping-url",
		"ping-url-file", "rejects", "report", "report-html", "signer", "signing-key", "signing-key-id", "webhook-url",
		"webhook-url-file":
		return true
	}
	return false
}

// NotShown replaces the value of a setting that may be a secret or name a secret file.
const NotShown = "(not shown)"

// effective returns the values that flags have, by name, without those that are empty.
func effective(context *kong.Context) map[string]string {
	values := make(map[string]string)
	for _, flag := range context.Flags() {
		if flag.Name == "help" || flag.Name == "version" {
			continue
		}
		value := fmt.Sprint(flag.Target.Interface())
		text := texts(flag.Target)
		if text != nil {
			value = strings.Join(text, ",")
		}
		switch {
		case value == "" || value == "<nil>":
			continue
		case private(flag.Name) && value != flag.Default:
			value = NotShown
		case text != nil && value != flag.Default && !shaped(flag.Name) && !shown(flag.Name, value),
			text != nil && kindOfSecret(value, true) != "":
			value = NotShown
		}
		values[flag.Name] = value
	}
	return values
}

// shaped reports whether a setting takes only hosts, addresses or names from a list, of any length.
func shaped(setting string) bool {
	switch setting {
	case "api-url", "brokers", "challenge-domain", "challenge-uri-host", "signature-components":
		return true
	}
	return false
}

// kindOfSecret says what a value is that no setting should have: "a PEM block", "a JSON web token", "hex text" or
// "base64 text", as keys, tokens and generated passwords are. Ids may look like the last two, too: strict finds those
// as well. Parts of URIs and lists are looked at one by one.
func kindOfSecret(value string, strict bool) string {
	if strings.Contains(value, "-----BEGIN") {
		return "a PEM block"
	}
	parts := []string{value}
	for _, part := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune("?&:,; ", r) }) {
		_, after, _ := strings.Cut(part, "=")
		parts = append(parts, part, after)                 // with the padding of base64
		parts = append(parts, strings.Split(part, "=")...) // each value
	}
	for _, part := range parts {
		if undone, err := url.PathUnescape(part); err == nil {
			part = undone
		}
		text := strings.TrimLeft(strings.Join(strings.Fields(part), ""), "/")
		switch {
		case strings.Contains(part, "-----BEGIN"), strings.HasPrefix(text, "LS0tLS1CRUdJTi"): // the same in base64
			return "a PEM block"
		case tokenText.MatchString(text): // {" in base64
			return "a JSON web token"
		case strict && hexText.MatchString(text):
			return "hex text"
		case strict && isBase64(text) && !isPath(part):
			return "base64 text"
		}
	}
	return ""
}

var (
	tokenText  = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]{8}[A-Za-z0-9_.-]*$`)
	hexText    = regexp.MustCompile(`^(0[xX])?[0-9a-fA-F]{48,}$`) // 24 bytes; openssl rand -hex 32 makes 64 digits
	base64Text = regexp.MustCompile(`^[A-Za-z0-9+/_-]{40,}$`)
)

// isBase64 reports whether a text is padded base64, or changes so often between lower case, upper case, digits and
// signs as base64 does and no name or path.
func isBase64(text string) bool {
	if strings.HasSuffix(text, "=") && len(text) >= 16 {
		_, std := base64.StdEncoding.DecodeString(text)
		_, safe := base64.URLEncoding.DecodeString(text)
		return std == nil || safe == nil
	}
	if !base64Text.MatchString(text) {
		return false
	}
	kinds, changes := [4]bool{}, 0
	last := -1
	for _, r := range text {
		kind := 3
		switch {
		case unicode.IsLower(r):
			kind = 0
		case unicode.IsUpper(r):
			kind = 1
		case unicode.IsDigit(r):
			kind = 2
		}
		if kind != last {
			changes++
		}
		kinds[kind], last = true, kind
	}
	return kinds[0] && kinds[1] && kinds[2] && changes*20 >= len(text)*9
}

// isPath reports whether the first directory that a text names exists, which a secret's does not.
func isPath(text string) bool {
	first, rest, ok := strings.Cut(strings.TrimLeft(text, "/"), "/")
	if !ok || rest == "" {
		return false
	}
	if strings.HasPrefix(text, "/") {
		first = "/" + first
	}
	info, err := os.Stat(first)
	return err == nil && info.IsDir()
}

// checkValues returns an error for a setting with a misplaced secret. A field's tag says what it may hold: pem:"public"
// a PEM block instead of a file's name, pem:"secret" the same, but in a variable only, and base64:"id" text that looks
// like base64 or hex, and holds:"secret" anything.
func checkValues(context *kong.Context) error {
	onCommandLine, inFile := map[string]bool{}, map[string]bool{}
	for _, path := range context.Path {
		if path.Flag != nil && path.Resolved {
			inFile[path.Flag.Name] = true
		} else if path.Flag != nil {
			onCommandLine[path.Flag.Name] = true
		}
	}
	for _, flag := range context.Flags() {
		if err := checkTilde(flag); err != nil {
			return err
		}
		pem := flag.Tag.Get("pem")
		for _, value := range texts(flag.Target) {
			kind := kindOfSecret(value, flag.Tag.Get("base64") != "id")
			switch {
			case kind == "", isPEM(value) && pem == "public", flag.Tag.Get("holds") == "secret":
				continue
			case isPEM(value) && pem == "secret" && !onCommandLine[flag.Name] && !inFile[flag.Name]:
				continue
			}
			return misplaced(flag, kind)
		}
	}
	for _, path := range context.Path {
		if path.Positional == nil {
			continue
		}
		for _, value := range texts(path.Positional.Target) {
			if kind := kindOfSecret(value, true); kind != "" {
				return &Error{Setting: strings.ToUpper(path.Positional.Name), Problem: "holds " + kind + ", not a file's name"}
			}
		}
	}
	return nil
}

// checkTilde returns an error for a file or directory whose name begins with a ~ that no shell has replaced, also in a
// signer's URI: it would be one of that name in the current directory. In --config it is replaced (fileFlag).
func checkTilde(flag *kong.Flag) error {
	if flag.Name == "config" || flag.Name != "signer" && flag.PlaceHolder != "FILE" && flag.PlaceHolder != "DIR" {
		return nil
	}
	for _, value := range texts(flag.Target) {
		inURI := flag.Name == "signer" && (strings.Contains(value, ":~/") || strings.Contains(value, "=~/"))
		if value == "~" || strings.HasPrefix(value, "~/") || inURI {
			return &Error{Setting: "--" + flag.Name, Problem: "a shell expands ~ only at the beginning of a word, " +
				"not after = or :, in quotes or in a file: write the full path"}
		}
	}
	return nil
}

func misplaced(flag *kong.Flag, kind string) error {
	problem := "holds " + kind + ", which looks like a secret: pass secrets in a file or in the variable of their setting"
	if flag.Tag.Get("pem") != "" {
		problem = fmt.Sprintf("contains %s: pass the name of a PEM file, or the PEM text in $%s", kind, flag.Envs[0])
	}
	return &Error{Setting: "--" + flag.Name, Problem: problem}
}

// texts are the texts that a field holds.
func texts(field reflect.Value) []string {
	switch {
	case field.Kind() == reflect.String:
		return []string{field.String()}
	case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.String:
		list := make([]string, field.Len())
		for i := range list {
			list[i] = field.Index(i).String()
		}
		return list
	}
	return nil
}

func isPEM(value string) bool { return strings.HasPrefix(strings.TrimSpace(value), "-----BEGIN") }

// readPEM returns the PEM text that a setting names, or is. Keys of others are refused unless insecure is set.
func readPEM(setting, value string, insecure bool) ([]byte, error) {
	if isPEM(value) { // $(…) has taken the line feed from the last line end, and left the CR of CR LF
		return []byte(strings.TrimSpace(value) + "\n"), nil
	}
	raw, _, err := secretfile.Read(value, mostFile, insecure)
	if err != nil {
		return nil, &Error{Setting: setting, Problem: "the file " + err.Error()}
	}
	return raw, nil
}

// public are files that everybody may read: certificates.
const public = true

// ReadSecret reads a secret, one line, from the file that a setting names. A final line end is dropped; other white
// space is part of the secret. Errors do not show the file's name, except in a chmod command: the name may be the
// secret itself, configured by mistake.
func ReadSecret(setting, file string, insecure bool) (string, error) {
	raw, _, err := secretfile.Read(file, mostFile, insecure)
	if err == nil {
		raw, err = secretfile.Line(raw)
	}
	if err != nil {
		return "", &Error{Setting: setting, Problem: "the file " + err.Error()}
	}
	return string(raw), nil
}

// MessageKeys reads the key that authenticates the messages of the work topic; nil when none is set.
func (q Queue) MessageKeys() (*messageauth.Keys, error) {
	if q.MessageKeyFile == "" {
		return nil, nil
	}
	return q.readKeys("--message-key-file", q.MessageKeyFile, messageauth.Rows, q.Topic)
}

// LedgerTopicKeys reads the key that authenticates the records of the ledger topic.
func (c *Consumer) LedgerTopicKeys() (*messageauth.Keys, error) {
	return c.readKeys("--ledger-topic-key-file", c.LedgerTopicKeyFile, messageauth.Ledgers, c.LedgerTopic)
}

func (q Queue) readKeys(setting, file string, purpose messageauth.Purpose, topic string) (*messageauth.Keys, error) {
	raw, _, err := secretfile.Read(file, mostFile, q.InsecurePermissions)
	if err != nil {
		return nil, &Error{Setting: setting, Problem: "the file " + err.Error()}
	}
	defer clear(raw)
	keys, err := messageauth.New(raw, purpose, topic)
	if err != nil {
		return nil, &Error{Setting: setting, Problem: "the file: " + err.Error()}
	}
	return keys, nil
}

// secretIn checks the secret that a variable holds like one in a file; setting is the one that would name the file.
func secretIn(setting, variable, value string) (string, error) {
	line, err := secretfile.Line([]byte(value))
	if err != nil {
		return "", &Error{Setting: setting, Problem: "$" + variable + " " + err.Error()}
	}
	return string(line), nil
}

// flagError matches the beginning of kong's errors about a flag's value.
var flagError = regexp.MustCompile(`^--([a-z0-9-]+)(:| must be one of)`)

// word is a text that can be shown on the command line: it may be a misspelt flag or command.
var word = regexp.MustCompile(`^-{0,2}[a-z][a-z-]{0,30}$`)

// withoutValues puts an error of the parser, which quotes values, into words that do not.
func withoutValues(parser *kong.Kong, err error) error {
	var file fileError
	text := err.Error()
	if errors.As(err, &file) {
		return file
	}
	if found := flagError.FindStringSubmatch(text); found != nil {
		if flag := findFlag(parser.Model.Node, found[1]); flag != nil && !strings.Contains(text, "missing value") {
			if strings.Contains(text, "-----BEGIN") { // kong takes it for a flag
				return misplaced(flag, "a PEM block")
			}
			return &Error{Setting: "--" + flag.Name, Problem: "want " + wanted(flag)}
		}
	}
	for _, start := range []string{
		"unknown flag ", "unexpected argument ", "unexpected flag argument ", "unexpected token ",
	} {
		rest, ok := strings.CutPrefix(text, start)
		if !ok {
			continue
		}
		given, _, _ := strings.Cut(rest, ", did you mean")
		if word.MatchString(given) {
			if names := commandNames(parser.Model.Node); len(near(given, names)) > 0 {
				return UnknownCommand(given, names)
			}
			return err
		}
		if _, e := os.Stat(given); e == nil {
			return fmt.Errorf("%s%s: list the files together, without a flag between them", start, given)
		}
		return errors.New(strings.TrimSpace(start) + " (not shown, because it may be a secret)")
	}
	secret := func(s string) bool { return kindOfSecret(strings.Trim(s, `"`), true) != "" }
	if strings.ContainsFunc(text, unicode.IsControl) || secret(text) || slices.ContainsFunc(strings.Fields(text), secret) {
		return errors.New("invalid value for a setting (not shown, because it may be a secret)")
	}
	return err
}

// commandNames are the commands of a program, in any order.
func commandNames(n *kong.Node) (names []string) {
	for _, child := range n.Children {
		names = append(names, child.Name)
	}
	return names
}

func findFlag(n *kong.Node, name string) *kong.Flag {
	for _, f := range n.Flags {
		if f.Name == name {
			return f
		}
	}
	for _, child := range n.Children {
		if f := findFlag(child, name); f != nil {
			return f
		}
	}
	return nil
}

// wanted describes the values of a flag.
func wanted(f *kong.Flag) string {
	kind := f.Target.Type()
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	switch {
	case f.Enum != "":
		return "one of " + strings.Join(f.EnumSlice(), ", ")
	case kind.String() == "time.Duration":
		return "a duration, such as 30s or 5m"
	case kind.Kind() == reflect.Bool:
		return "true or false"
	case kind.Kind() == reflect.Float64:
		return "a number"
	case kind.Kind() == reflect.Int, kind.Kind() == reflect.Uint64:
		return "a whole number"
	}
	return "a text; if it begins with -, use an equals sign, as in --" + f.Name + "=-…"
}
