package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestOrigin: an error of a setting says which variable or line of the configuration file its value comes from.
func TestOrigin(t *testing.T) {
	for name, test := range map[string]struct {
		args     []string
		variable string // NAME=value
		file     string
		want     string // the beginning of the error
	}{
		"form, argument": {args: []string{"--rate", "fast"}, want: "--rate: want a number"},
		"form, variable": {variable: "PURSER_RATE=fast", want: "--rate (from $PURSER_RATE): want a number"},
		"form, file":     {file: "group: g\nrate: fast\n", want: "--rate (from --config:2): want a number"},
		"form, variable over file": {variable: "PURSER_RATE=fast", file: "rate: 1",
			want: "--rate (from $PURSER_RATE): want a number"},
		"form, variable under an argument": {args: []string{"--rate", "1"}, variable: "PURSER_RATE=fast",
			want: "--rate (from $PURSER_RATE): want a number"},
		"word, argument":  {args: []string{"--log-format", "xml"}, want: "--log-format: want one of"},
		"word, variable":  {variable: "PURSER_LOG_FORMAT=xml", want: "--log-format (from $PURSER_LOG_FORMAT): want one of"},
		"word, file":      {file: "log-format: xml", want: "--log-format (from --config:1): want one of"},
		"value, argument": {args: []string{"--rate", "0"}, want: `--rate "0": must be greater`},
		"value, variable": {variable: "PURSER_RATE=0", want: `--rate "0" (from $PURSER_RATE): must be greater`},
		"value, file":     {file: "rate: 0", want: `--rate "0" (from --config:1): must be greater`},
		"value, argument over variable and file": {args: []string{"--rate", "0"}, variable: "PURSER_RATE=1", file: "rate: 1",
			want: `--rate "0": must be greater`},
		"another name in the file": {file: "# Kafka\nsession.timeout.ms: 1", want: `--kafka-session-timeout "1ms" (from --config:2): configures`},
		"misplaced secret": {variable: "PURSER_GROUP=" + strings.Repeat("0a", 32),
			want: "--group (from $PURSER_GROUP): holds hex text"},
		"private value": {variable: "OFFBLOCKS_API_KEY=hush", want: "--api-key (from $OFFBLOCKS_API_KEY): is not a UUID"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"run"}, test.args...)
			if test.file != "" {
				path := filepath.Join(t.TempDir(), "purser.yaml")
				if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--config", path)
			}
			if name, value, ok := strings.Cut(test.variable, "="); ok {
				t.Setenv(name, value)
			}
			_, _, err := ParseConsumer(args, Streams{Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)})
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || !errors.As(err, new(*Error)) {
				t.Errorf("got %v, want the error of a setting that begins with %s", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "hush") {
				t.Errorf("got %v, want no private value", err)
			}
		})
	}
}

// TestOriginOfEveryVariable: a value that its setting does not take is an error that names the variable, whatever
// program and type the setting is of.
func TestOriginOfEveryVariable(t *testing.T) {
	tried := 0
	for name, test := range map[string]struct {
		grammar any
		parse   func(Streams) error
	}{
		"importer": {new(Importer), func(s Streams) error { _, err := ParseImporter([]string{"x.csv"}, s); return err }},
		"consumer": {new(ConsumerCommands), func(s Streams) error { _, _, err := ParseConsumer([]string{"run"}, s); return err }},
		"night":    {new(night), func(s Streams) error { _, _, err := ParseNight([]string{"x.csv"}, s); return err }},
		"init":     {new(Init), func(s Streams) error { _, err := ParseInit(nil, s); return err }},
	} {
		parser, err := parserOf(test.grammar, name, "", Streams{})
		if err != nil {
			t.Fatal(err)
		}
		for _, flag := range parser.Model.Flags {
			if len(flag.Envs) == 0 || flag.Enum == "" && texts(reflect.Zero(flag.Target.Type())) != nil {
				continue
			}
			tried++
			t.Run(name+"/"+flag.Name, func(t *testing.T) {
				t.Setenv(flag.Envs[0], "?")
				err := test.parse(Streams{Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)})
				want := fmt.Sprintf("--%s (from $%s): want ", flag.Name, flag.Envs[0])
				if err == nil || !strings.HasPrefix(err.Error(), want) {
					t.Errorf("got %v, want an error that begins with %s", err, want)
				}
			})
		}
	}
	if tried < 40 {
		t.Errorf("got %d variables, want at least 40", tried)
	}
}

// TestExplain: errors within others are explained where they are, and only once.
func TestExplain(t *testing.T) {
	o := Origins{"rate": "$PURSER_RATE"}
	rate := &Error{"--rate", "0", "must be more"}
	topic := &Error{Setting: "--topic", Problem: "is taken"}
	inner := fmt.Errorf("check: %w", errors.Join(topic, rate))
	want := "check: --topic: is taken\n--rate \"0\" (from $PURSER_RATE): must be more"
	err := o.Explain(inner)
	if again := o.Explain(fmt.Errorf("run: %w", err)); err.Error() != want || again.Error() != "run: "+want {
		t.Errorf("got %v, and %v;\nwant %s", err, again, want)
	}
	if !errors.Is(err, inner) {
		t.Errorf("got %v, want an error that wraps the one explained", err)
	}
	if err := o.Explain(topic); !errors.Is(err, topic) || err.Error() != topic.Error() {
		t.Errorf("got %#v, want the same error, which has no origin", err)
	}
	if err := o.Explain(nil); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}
