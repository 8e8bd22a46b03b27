package cmd

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/purser-onboard/purser/sandbox"
)

// TestJSONToTheLastLine: with --log-format json all of standard error is JSON, one record per line: progress, the
// notice of a stop, errors of usage and the final error included.
func TestJSONToTheLastLine(t *testing.T) {
	t.Parallel()
	answered := newAfterLines(3)
	_, env := partnerEnv(t, sandbox.Config{HistoryLog: answered})
	check := func(stderr *bytes.Buffer, exit int, args []string) {
		t.Helper()
		var line struct {
			Level, Msg, Command string
			Exit                int
		}
		lines := bufio.NewScanner(bytes.NewReader(stderr.Bytes()))
		for lines.Scan() {
			line.Exit = 0
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Level == "" || line.Msg == "" {
				t.Errorf("%v: got the line %q on standard error, want a record: %v", args, lines.Text(), err)
			}
		}
		if exit != 0 && (line.Exit != exit || line.Command != args[0] || line.Level != "ERROR") {
			t.Errorf("%v: got the last record %+v, want the error with exit code %d:\n%s", args, line, exit, stderr)
		}
	}
	file := filepath.Join(t.TempDir(), "purser.yaml")
	if err := os.WriteFile(file, []byte("log-format: json\nunknown: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		exit int
		args []string
	}{
		{3, []string{"importer", "--log-format=json", "--progress", "plain", export(t, 2, "0x12,x,")}},
		{2, []string{"importer", "--log-format", "json", "--unknown", "x"}},
		{2, []string{"consumer", "--log-format", "json", "--rate", "0"}},
		{2, []string{"sandbox", "serve", "--log-format", "json", "--listen", "1.2.3.4:80"}},
		{0, []string{"consumer", "check", "--log-format", "json"}},
		{2, []string{"consumer", "--config", file}},
	} {
		cmd, _ := command(t, env, tt.args[0], tt.args[1:]...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := ignoreExit(cmd.Run()); err != nil || cmd.ProcessState.ExitCode() != tt.exit {
			t.Errorf("%v: got %v and exit code %d, want %d", tt.args, err, cmd.ProcessState.ExitCode(), tt.exit)
		}
		check(&stderr, tt.exit, tt.args)
	}
	args := []string{"consumer", "--log-format", "json"}
	cmd, _ := command(t, env, args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-answered.done
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	check(&stderr, 1, args)
	if want := `"level":"WARN","msg":"stopping (terminated)`; !bytes.Contains(stderr.Bytes(), []byte(want)) {
		t.Errorf("got no notice of the stop as a warning, want %s:\n%s", want, &stderr)
	}
}
