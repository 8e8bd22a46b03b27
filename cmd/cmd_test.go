// Package cmd tests the commands as their users meet them: as processes, by their exit codes, output and files.
package cmd

import (
	"context"
	"errors"
	"flag"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/consumecmd"
	"github.com/purser-onboard/purser/cmd/internal/importcmd"
	"github.com/purser-onboard/purser/cmd/internal/pursercmd"
	"github.com/purser-onboard/purser/cmd/internal/sandboxcmd"
	"github.com/purser-onboard/purser/sandbox"
)

// customers is the sample export.
const customers = "../testdata/customers.csv"

// TestMain lets the test binary stand for the commands: started under one of their names, it is that command. The
// tests mostly wait for processes, so more of them run in parallel than there are cores, unless -parallel is given.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"importer": func() {
			stderr := console.NewScreen(os.Stderr)
			soft, _, stop := console.Signals(context.Background(), stderr, importcmd.Stopping())
			stdout := console.Output(os.Stdout)
			err := importcmd.Main(soft, os.Args[1:], os.Stdin, stdout, stderr)
			stop()
			os.Exit(console.Exit(stderr, "importer", stdout.Result(err)))
		},
		"consumer": func() {
			stderr := console.NewScreen(os.Stderr)
			soft, hard, stop := console.Signals(context.Background(), stderr, consumecmd.Stopping(os.Args[1:]))
			stdout := console.Output(os.Stdout)
			err := consumecmd.Main(soft, hard, os.Args[1:], consumecmd.Streams{
				Stdout: stdout, Stderr: stderr, Getenv: os.Getenv,
			})
			stop()
			os.Exit(console.Exit(stderr, "consumer", stdout.Result(err)))
		},
		"purser": func() {
			stderr := console.NewScreen(os.Stderr)
			soft, hard, stop := console.Signals(context.Background(), stderr, pursercmd.Stopping(os.Args[1:]))
			stdout := console.Output(os.Stdout)
			err := pursercmd.Main(soft, hard, os.Args[1:], pursercmd.Streams{
				Stdin: os.Stdin, Stdout: stdout, Stderr: stderr, Getenv: os.Getenv,
			})
			stop()
			os.Exit(console.Exit(stderr, pursercmd.Program, stdout.Result(err)))
		},
		"sandbox": func() {
			stderr := console.NewScreen(os.Stderr)
			soft, hard, stop := console.Signals(context.Background(), stderr, sandboxcmd.Stopping())
			stdout := console.Output(os.Stdout)
			err := sandboxcmd.Main(soft, hard, os.Args[1:], stdout, stderr)
			stop()
			os.Exit(console.Exit(stderr, "sandbox", stdout.Result(err)))
		},
	})
}

func TestScripts(t *testing.T) {
	samples, err := filepath.Abs("../testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SAMPLES", samples)
			e.Setenv("PURSER_CHAIN", "eip155:300")
			e.Setenv("PURSER_INSECURE_PERMISSIONS", "true") // of the sample keystore in a clone
			e.Setenv("PURSER_SIGNER", "keystore://"+samples+"/keystore?password-file="+samples+"/keystore-password")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"partner": startPartner, "exits": exits, "mode": mode, "keyvariable": keyVariable,
		},
		RequireExplicitExec: true,
	})
}

// startPartner starts a stand-in in the test's own process and sets the variables that a consumer needs. The script's
// variable PARTNER_FAULTS gives it faults.
func startPartner(ts *testscript.TestScript, _ bool, _ []string) {
	creds, err := sandbox.NewCredentials(nil)
	ts.Check(err)
	faults, err := sandbox.ParseFaults(ts.Getenv("PARTNER_FAULTS"))
	ts.Check(err)
	server, err := sandbox.New(sandbox.Config{Now: time.Now, Faults: faults})
	ts.Check(err)
	ts.Check(server.RegisterCredentials(creds))
	api := httptest.NewServer(server.API())
	ts.Defer(api.Close)
	control := httptest.NewServer(server.Control())
	ts.Defer(control.Close)
	server.RedirectTo(control.URL)
	secret, key := ts.MkAbs("api-secret"), ts.MkAbs("signing-key.pem")
	ts.Check(os.WriteFile(secret, []byte(creds.APISecret+"\n"), 0o600))
	ts.Check(os.WriteFile(key, creds.PrivateKeyPEM, 0o600))
	ts.Setenv("OFFBLOCKS_API_URL", api.URL+"/v1")
	ts.Setenv("OFFBLOCKS_API_KEY", creds.APIKey)
	ts.Setenv("OFFBLOCKS_API_SECRET_FILE", secret)
	ts.Setenv("OFFBLOCKS_SIGNING_KEY", key)
	ts.Setenv("OFFBLOCKS_SIGNING_KEY_ID", creds.KeyID)
	ts.Setenv("SECRET", creds.APISecret)
}

// exits runs a command that must end with the given exit code: exits 3 importer …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("got %q, want exits CODE COMMAND …", args)
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s: got exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// mode checks the permissions of files: mode 0600 file …
func mode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	for _, name := range args[1:] {
		info, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if got := info.Mode().Perm(); got != os.FileMode(want) {
			ts.Fatalf("%s: got mode %o, want %o", name, got, want)
		}
	}
}

// keyVariable puts the content of a file into a variable: keyvariable NAME file.
func keyVariable(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], ts.ReadFile(args[1]))
}
