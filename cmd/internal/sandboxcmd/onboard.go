package sandboxcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/consumecmd"
	"github.com/purser-onboard/purser/cmd/internal/importcmd"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/sandbox"
	"github.com/purser-onboard/purser/secretfile"
)

// onboard runs the stand-in on loopback, and then the importer and the consumer exactly as their own commands do, on
// the embedded broker of one data directory.
func onboard(soft, hard context.Context, c *config.SandboxCommands, stdout, stderr io.Writer) (err error) {
	log := console.NewLogger(stderr, c.LogFormat, "warn")
	for setting, path := range map[string]string{"--keystore": c.Run.Keystore, "--password-file": c.Run.PasswordFile} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return &config.Error{Setting: setting, Problem: secretfile.Reason(err).Error()}
		}
	}
	dir, cleanUp, err := dataDir(c.Run.DataDir)
	if err != nil {
		return err
	}
	defer func() {
		code := console.Code(err) // after a usage error the directory is of no use
		err = errors.Join(err, cleanUp(code == console.ExitWell || code == console.ExitUsage))
	}()
	if _, err := os.Stat(filepath.Join(dir, "ledger.db")); err == nil {
		return &config.Error{Setting: "--data-dir", Value: dir, Problem: "has the ledger of an earlier run, and the " +
			"customers of its sandbox are gone: choose another directory, or remove this one"}
	}
	server, err := newServer(c.Run.Adversary, sandbox.Config{DeclaredRate: c.Run.Rate, Logger: log})
	if err != nil {
		return err
	}
	creds, err := openCredentials(filepath.Join(dir, "credentials"))
	if err != nil {
		return err
	}
	if err := server.RegisterCredentials(creds); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(soft, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(hard))
	served := make(chan error, 1)
	go func() { served <- serveAll(serving, map[net.Listener]http.Handler{listener: server.API()}) }()
	defer func() {
		stopServing()
		err = errors.Join(err, <-served)
	}()

	base := "http://" + listener.Addr().String() + "/v1"
	fmt.Fprintf(stdout, "sandbox   API on %s, data in %s\n", base, dir)
	common := []string{
		"--data-dir", dir, "--brokers=", "--progress", c.Progress,
		"--log-format", c.LogFormat, "--log-level", c.LogLevel,
	}
	imported := importHere(soft, slices.Concat(common, []string{"--chain", c.Run.Chain, "--"}, c.Run.Files),
		stdout, stderr)
	if code := console.Code(imported); code != console.ExitWell && code != console.ExitRowsBad {
		return imported
	}
	keystore, err := keystoreOf(c.Run)
	if err != nil {
		return err
	}
	args := slices.Concat([]string{"run", "--drain"}, common, []string{
		"--api-url", base, "--api-key", creds.APIKey,
		"--api-secret-file", filepath.Join(dir, "credentials", secretFile),
		"--signing-key", filepath.Join(dir, "credentials", keyFile), "--signing-key-id", creds.KeyID,
		"--signer", keystore, "--challenge-domain", listener.Addr().String(),
		"--insecure-permissions", // in a clone of the repository other users can read the sample keystore
		"--rate", strconv.FormatFloat(c.Run.Rate, 'g', -1, 64), "--concurrency", strconv.Itoa(c.Run.Concurrency),
		"--idempotency-ttl", c.Run.KeyTTL.String(), "--challenge-ttl", c.Run.ChallengeTTL.String(),
	})
	if c.Run.Report != "" {
		args = append(args, "--report", c.Run.Report)
	}
	onboarded := consumecmd.Main(soft, hard, args, consumecmd.Streams{
		Stdout: stdout, Stderr: stderr,
		Getenv: func(string) string { return "" }, IgnoreEnvironment: true,
	})
	summarize(stdout, server.Stats())
	if code := console.Code(onboarded); code == console.ExitWell || code == console.ExitRowsBad {
		if err := listBad(hard, filepath.Join(dir, "ledger.db"), stdout, console.NewScreen(stderr).Hints); err != nil {
			return errors.Join(onboarded, err)
		}
	}
	if verdict := server.Judge(nil); len(verdict.Violations) > 0 {
		for _, v := range verdict.Violations {
			fmt.Fprintf(stdout, "violation %s %s: %s\n", v.Rule, v.Subject, v.Detail)
		}
		return errors.Join(onboarded, fmt.Errorf("the judge found %s (seed %d)",
			printable.Count(len(verdict.Violations), "violation", "violations"), verdict.Seed))
	}
	if onboarded == nil {
		return imported
	}
	return onboarded
}

// importHere runs the importer with these arguments and without the process's environment.
func importHere(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := config.ParseImporter(args, config.Streams{Stdout: stdout, Stderr: stderr, IgnoreEnvironment: true})
	if err != nil {
		return err
	}
	return importcmd.Run(ctx, c, nil, stdout, stderr)
}

// summarize prints the stand-in's counts.
func summarize(w io.Writer, s sandbox.Stats) {
	fmt.Fprintf(w, "partner   %s created, %s answered", printable.Count(s.Created, "customer", "customers"),
		printable.Count(s.Complete, "request", "requests"))
	if n := s.Requests - s.Complete; n > 0 {
		fmt.Fprintf(w, ", %d cut off", n)
	}
	var faults uint64
	for _, n := range s.ByFault {
		faults += n
	}
	if faults > 0 {
		fmt.Fprintf(w, ", %s", printable.Count(faults, "fault", "faults"))
	}
	fmt.Fprintln(w)
}

// listBad prints the first 20 rows that are not onboarded.
func listBad(ctx context.Context, path string, w io.Writer, hints func(string) string) error {
	const most = 20
	records, err := ledger.OpenReadOnly(ctx, path)
	if err != nil {
		return err
	}
	n := 0
	err = records.Failures(ctx, func(r pipeline.Record) error {
		if n++; n <= most {
			fmt.Fprintf(w, "  %-9s %s %s: %s\n", r.Stage, r.Where(), r.Account, r.Reason)
		}
		return nil
	})
	if n > most {
		fmt.Fprintf(w, "  and %d more: %s lists them\n", n-most,
			hints("`consumer failures --data-dir "+filepath.Dir(path)+"`"))
	}
	return errors.Join(err, records.Close())
}

// dataDir returns the data directory. A temporary directory is removed when all rows are onboarded; otherwise its
// ledger and rejects are kept for the operator.
func dataDir(given string) (dir string, cleanUp func(well bool) error, err error) {
	if given != "" {
		return given, func(bool) error { return nil }, nil
	}
	dir, err = os.MkdirTemp("", "purser-sandbox-")
	if err != nil {
		return "", nil, err
	}
	return dir, func(well bool) error {
		if !well {
			return nil
		}
		return os.RemoveAll(dir)
	}, nil
}

// keystoreOf returns the signer's URI: of the given keystore, or of the one in the first export's directory. The error
// names the flag of what is not there.
func keystoreOf(r config.SandboxRun) (string, error) {
	exports := filepath.Dir(r.Files[0])
	dir, password := r.Keystore, r.PasswordFile
	dir = cmp.Or(dir, filepath.Join(exports, "keystore"))
	password = cmp.Or(password, filepath.Join(exports, "keystore-password"))
	for _, file := range []struct{ flag, path string }{{"--keystore", dir}, {"--password-file", password}} {
		if _, err := os.Stat(file.path); err != nil {
			return "", &config.Error{Setting: file.flag, Problem: err.Error()}
		}
	}
	return keystoreURI(dir, password), nil
}

func keystoreURI(dir, password string) string {
	u := url.URL{Scheme: "keystore", Path: absolute(dir), RawQuery: "password-file=" + url.QueryEscape(absolute(password))}
	return u.String()
}

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path // the error of opening it says what is wrong
	}
	return abs
}
