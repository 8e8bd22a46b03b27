package cmd

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/sandbox"
)

// TestSeveralEnvironments: the commands of docs/install.md make another environment, and both run at the same time with
// the command of their unit, each with two exports. Neither takes the other's ledger, nor a backup of it.
func TestSeveralEnvironments(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	etc := filepath.Join(root, "etc", "purser")
	if err := errors.Join(os.MkdirAll(etc, 0o755), os.MkdirAll(filepath.Join(root, "var", "lib", "purser"), 0o750),
		os.CopyFS(filepath.Join(root, "packaging"), os.DirFS("../packaging"))); err != nil {
		t.Fatal(err)
	}
	mustShell(t, root, "cp packaging/purser.yaml /etc/purser/purser.yaml; install -d -m 0700 /etc/purser/purser; "+
		"install -d -m 0750 /var/lib/purser/purser; install -d -m 2770 /var/lib/purser/purser/exports")
	mustShell(t, root, commandsIn(t, "../docs/install.md", "## Several environments"))

	type environment struct {
		server *sandbox.Server
		env    []string
		night  *exec.Cmd
		out    *bytes.Buffer
	}
	environments := map[string]*environment{}
	for _, name := range []string{"purser", "bank"} {
		server, settings := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
		file, err := os.OpenFile(filepath.Join(etc, name+".yaml"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for key, variable := range map[string]string{
			"api-url": "OFFBLOCKS_API_URL", "api-key": "OFFBLOCKS_API_KEY", "signing-key-id": "OFFBLOCKS_SIGNING_KEY_ID",
			"signer": "PURSER_SIGNER", "chain": "PURSER_CHAIN", "rate": "PURSER_RATE",
		} {
			if _, err := file.WriteString(key + ": " + setting(settings, variable) + "\n"); err != nil {
				t.Fatal(err)
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		secrets, data := filepath.Join(etc, name), filepath.Join(root, "var", "lib", "purser", name)
		mustShell(t, root, "cp "+setting(settings, "OFFBLOCKS_API_SECRET_FILE")+" "+secrets+"/api-secret; cp "+
			setting(settings, "OFFBLOCKS_SIGNING_KEY")+" "+secrets+"/signing-key.pem; "+
			"head -n 16 "+absolute(t, customers)+" >"+data+"/exports/monday.csv; "+
			"sed 2,16d "+absolute(t, customers)+" >"+data+"/exports/tuesday.csv")
		e := &environment{server: server}
		e.env = append(os.Environ(), "OFFBLOCKS_API_SECRET_FILE="+secrets+"/api-secret",
			"OFFBLOCKS_SIGNING_KEY="+secrets+"/signing-key.pem", "PURSER_INSECURE_PERMISSIONS=true")
		args := startOf(t, root, name)
		e.night, e.out = command(t, e.env, args[0], args[1:]...)
		if err := e.night.Start(); err != nil {
			t.Fatal(err)
		}
		environments[name] = e
	}
	for name, e := range environments {
		if err := e.night.Wait(); err != nil {
			t.Fatalf("%s: got %v, want exit code 0:\n%s", name, err, e.out)
		}
		data := filepath.Join(root, "var", "lib", "purser", name)
		judged(t, e.server, append(e.env, "PURSER_DATA_DIR="+data))
		if r := reportAt(t, filepath.Join(data, "report.json")); r.Rows.Onboarded != 30 {
			t.Errorf("%s: got %d rows onboarded in the report, want 30", name, r.Rows.Onboarded)
		}
	}

	bank := environments["bank"].env
	config, theirs := filepath.Join(etc, "bank.yaml"), filepath.Join(root, "var", "lib", "purser", "purser")
	exitsWith(t, bank, 2, []string{"belongs to API"}, "purser", "run", "--drain", "--config", config, "--data-dir", theirs)
	backup := filepath.Join(root, "backup.db")
	mustRun(t, bank, "purser", "ledger", "backup", "--data-dir", theirs, backup)
	exitsWith(t, bank, 2, []string{"belongs to API"}, "purser", "ledger", "restore", "--data-dir",
		filepath.Join(root, "var", "lib", "purser", "bank"), backup)
}

// mustShell runs commands below another root, as the user of the test.
func mustShell(t *testing.T, root, commands string) {
	t.Helper()
	commands = strings.NewReplacer(
		" /etc/", " "+root+"/etc/", " /var/lib/", " "+root+"/var/lib/", "-o purser -g purser ", "",
	).Replace(commands)
	cmd, out := command(t, os.Environ(), "bash", "-c", "set -eu; chown() { :; }; systemctl() { :; }\n"+commands)
	cmd.Dir = root
	if err := cmd.Run(); err != nil {
		t.Fatalf("got %v, want exit code 0 of:\n%s\n%s", err, commands, out)
	}
}

// commandsIn returns the first block of commands in a section of a document.
func commandsIn(t *testing.T, document, heading string) string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), heading+"\n")
	_, block, _ := strings.Cut(section, "```sh\n")
	block, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatalf("%s: got no commands in the section %q, want some", document, heading)
	}
	return block
}

// startOf returns the command of the unit purser-night@.service for an environment.
func startOf(t *testing.T, root, name string) []string {
	t.Helper()
	unit, err := os.ReadFile("../packaging/systemd/purser-night@.service")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unit)) {
		if start, ok := strings.CutPrefix(line, "ExecStart="); ok {
			data := root + "/var/lib/purser"
			return strings.Fields(strings.NewReplacer("/usr/bin/", "", "$EXPORTS", data+"/"+name+"/exports",
				"/var/lib/purser", data, "/etc/purser", root+"/etc/purser", "%i", name).Replace(start))
		}
	}
	t.Fatal("got no ExecStart= in the unit, want one")
	return nil
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
