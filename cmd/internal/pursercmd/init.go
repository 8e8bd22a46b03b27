package pursercmd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/term"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/consumecmd"
	"github.com/purser-onboard/purser/cmd/internal/outfile"
	"github.com/purser-onboard/purser/printable"
)

// question is a setting that `purser init` asks for if it is not given.
type question struct {
	flag   string
	ask    string
	value  *string
	path   bool   // a file's name: it is made absolute
	why    string // the comment in the file
	secret bool   // not echoed; the answer is no setting, but the content of a file
	// optional is set if the answer may be empty.
	optional bool
}

func questions(c *config.Init) []question {
	return []question{
		{flag: "api-url", ask: "Base URL of the partner API, with its version", value: &c.APIURL},
		{flag: "api-key", ask: "Id of the API key", value: &c.APIKey},
		{flag: "api-secret-file", ask: "API secret (not shown, stored in a separate file)", value: &c.APISecretFile,
			path: true, secret: true, why: "mode 0600"},
		{flag: "signing-key", ask: "PEM file of the P-384 key that signs requests", value: &c.SigningKey, path: true,
			why: "mode 0600"},
		{flag: "signing-key-id", ask: "Id that the partner assigned to the signing key; empty: it is not registered yet",
			value: &c.SigningKeyID, optional: true},
		{flag: "signer", ask: "URI of the signer for the customers' keys (docs/signers.md)", value: &c.Signer},
		{flag: "chain", ask: "Default chain of addresses, such as eip155:300; any: the exports name the chain",
			value: &c.Chain},
	}
}

// initialize gets the required settings from flags, variables and answers, writes them to a file, and runs check with
// it. Nothing is written before all answers are there and their form is right.
func initialize(soft, hard context.Context, args []string, s Streams) error {
	c, err := config.ParseInit(args, config.Streams{Stdout: s.Stdout, Stderr: s.Stderr, Program: Program})
	if err != nil {
		return err
	}
	console.WarnOfVariables(s.Stderr, config.Common{
		LogFormat: config.LogFormatOf(args), LogLevel: "warn", UnknownVariables: c.UnknownVariables,
	})
	secretFile := filepath.Join(filepath.Dir(c.File), "api-secret")
	if filepath.Clean(c.File) == secretFile {
		return &config.Error{Setting: "--file", Problem: "is the file of the API secret (--api-secret-file)"}
	}
	if _, err := os.Lstat(c.File); err == nil && !c.Force {
		return &config.Error{Setting: "--file", Problem: c.File + " exists: --force overwrites it"}
	}
	if err := outfile.Replaces(c.File, "a settings file", config.IsFile); err != nil {
		return &config.Error{Setting: "--file", Problem: err.Error()}
	}
	var wrong []error
	for _, q := range questions(c) {
		if *q.value != "" {
			wrong = append(wrong, c.CheckForm(q.flag, *q.value))
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return c.Explain(err)
	}
	secret, err := answers(soft, c, s)
	if err != nil {
		return err
	}
	defer clear(secret)
	if secret != nil {
		c.APISecretFile = secretFile
	}
	if err := absolute(c); err != nil {
		return err
	}
	if secret != nil {
		if _, err := os.Lstat(c.APISecretFile); err == nil && !c.Force {
			return &config.Error{Setting: "--api-secret-file",
				Problem: c.APISecretFile + " exists: pass its name, or overwrite it with --force"}
		}
		if err := outfile.Write(c.APISecretFile, secret); err != nil {
			return console.Unusable(fmt.Errorf("api secret: %w", err))
		}
		fmt.Fprintf(s.Stdout, "wrote %s\n", c.APISecretFile)
	}
	text, err := settings(c)
	if err != nil {
		return err
	}
	if err := outfile.Write(c.File, text); err != nil {
		return console.Unusable(fmt.Errorf("--file: %w", err))
	}
	fmt.Fprintf(s.Stdout, "wrote %s\n", c.File)
	file := printable.ShellWord(c.File)
	again := "`" + Program + " check --config " + file + "`"
	if !c.Check {
		fmt.Fprintf(s.Stdout, "%s checks it\n", again)
		return nil
	}
	err = consumecmd.Main(soft, hard, []string{"check", "--config", c.File}, consumecmd.Streams{
		Stdout: s.Stdout, Stderr: s.Stderr, Getenv: s.Getenv, Warned: true,
	})
	if err != nil {
		fmt.Fprintf(s.Stderr, "wrote %s, but the check failed: correct it, then run %s\n", c.File, again)
		return err
	}
	fmt.Fprintf(s.Stdout, "next: `%s night --config %s EXPORT`\n", Program, file)
	return nil
}

// answers asks for what is missing on a terminal; elsewhere all that is missing is an error. It returns the API secret
// if it was asked for.
func answers(ctx context.Context, c *config.Init, s Streams) (secret []byte, err error) {
	missing := slices.DeleteFunc(questions(c), func(q question) bool {
		return *q.value != "" || q.secret && s.Getenv("OFFBLOCKS_API_SECRET") != ""
	})
	if len(missing) == 0 {
		return nil, nil
	}
	in, ok := s.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		var flags []string
		for _, q := range missing {
			if !q.optional {
				flags = append(flags, "--"+q.flag)
			}
		}
		if len(flags) == 0 {
			return nil, nil
		}
		return nil, &config.UsageError{Command: Program + " init",
			Err: fmt.Errorf("standard input is not a terminal, and these are missing: %s", strings.Join(flags, ", "))}
	}
	lines := bufio.NewReader(in)
	for _, q := range missing {
		for again := true; again; again = !q.optional && *q.value == "" && (!q.secret || secret == nil) {
			fmt.Fprintf(s.Stderr, "%s: ", q.ask)
			answer, err := read(ctx, in, lines, q.secret)
			if err != nil || q.secret { // the terminal has not shown the line end
				fmt.Fprintln(s.Stderr)
			}
			if err != nil {
				return nil, fmt.Errorf("no file was written: %w", err)
			}
			switch answer = bytes.TrimSpace(answer); {
			case len(answer) == 0:
			case q.secret:
				secret = answer
			default:
				if err := c.CheckForm(q.flag, string(answer)); err != nil {
					fmt.Fprintln(s.Stderr, err)
					continue
				}
				*q.value = string(answer)
			}
		}
	}
	return secret, nil
}

// read reads a line of the terminal, without echo if it is secret. It ends with ctx; the goroutine that reads then ends
// with the process.
func read(ctx context.Context, in *os.File, lines *bufio.Reader, secret bool) ([]byte, error) {
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		if secret {
			r.text, r.err = term.ReadPassword(fd)
		} else {
			r.text, r.err = lines.ReadBytes('\n')
		}
		done <- r
	}()
	select {
	case r := <-done:
		if errors.Is(r.err, io.EOF) {
			return nil, errors.New("standard input has ended")
		}
		return r.text, r.err
	case <-ctx.Done():
		_ = term.Restore(fd, before) // it is this process's last use of the terminal
		return nil, context.Cause(ctx)
	}
}

// absolute makes the names of files absolute: cron starts commands in another directory.
func absolute(c *config.Init) (err error) {
	for _, q := range questions(c) {
		if q.path && *q.value != "" && !strings.Contains(*q.value, "-----BEGIN") {
			if *q.value, err = filepath.Abs(*q.value); err != nil {
				return err
			}
		}
	}
	for _, path := range []*string{&c.DataDir, &c.APICA} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return err
			}
		}
	}
	return nil
}

// settings is the content of the file. A secret or key that a variable holds stays there.
func settings(c *config.Init) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Written by `purser init`. Names and values are those of the flags; a variable overrides this\n" +
		"# file, a flag overrides both.\n\n")
	line := func(flag, value, why string) error {
		if value == "" {
			return nil
		}
		text, err := yaml.Marshal(value)
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		if why != "" {
			why = " # " + why
		}
		fmt.Fprintf(&b, "%s: %s%s\n", flag, bytes.TrimRight(text, "\n"), why)
		return nil
	}
	var errs []error
	for _, q := range questions(c) {
		if q.flag == "signing-key" && strings.Contains(*q.value, "-----BEGIN") || q.flag == "chain" && *q.value == "any" {
			continue
		}
		errs = append(errs, line(q.flag, *q.value, q.why))
	}
	errs = append(errs, line("api-ca", c.APICA, ""), line("data-dir", c.DataDir, "ledger, queue and rejects"))
	if c.InsecurePermissions {
		b.WriteString("insecure-permissions: true # for trials: other users of this machine may read the files\n")
	}
	b.WriteString("\n# rate: 20 # requests a second, all workers and retries together\n" +
		"# brokers: [kafka-1:9092, kafka-2:9092] # without it: an embedded broker in data-dir\n" +
		"# report: /var/lib/purser/report.json\n")
	return b.Bytes(), errors.Join(errs...)
}
