package cmd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// watcherSource is a program that runs another program and prints, in a last line, its peak of memory and its processor
// time. WATCHER_STOP is after how long it sends SIGTERM; the exit code does not matter then. Linux counts memory that fork and exec share as the child's own, so this process, which other tests have made
// large, would see its own peak.
const watcherSource = `package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

func main() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	begun := time.Now()
	err := cmd.Start()
	stop, e := time.ParseDuration(os.Getenv("WATCHER_STOP"))
	if e == nil && err == nil {
		time.AfterFunc(stop, func() { cmd.Process.Signal(syscall.SIGTERM) })
	}
	if err == nil {
		err = cmd.Wait()
	}
	took := time.Since(begun)
	if err != nil && e != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := time.Duration(used.Utime.Nano() + used.Stime.Nano())
	fmt.Println("usage", used.Maxrss, int64(cpu), int64(took)) // getrusage(2): KiB
}
`

// watcher runs programs and measures their resources.
type watcher struct{ path string }

// usage is the output and resources of a program.
type usage struct {
	said string // on its standard output and standard error
	peak int    // KiB of resident memory
	cpu  time.Duration
	took time.Duration
}

func (u usage) mib() float64 { return float64(u.peak) / 1024 }

func buildWatcher(t testing.TB) watcher {
	t.Helper()
	source, path := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "watcher")
	if err := os.WriteFile(source, []byte(watcherSource), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, source).CombinedOutput(); err != nil {
		t.Fatalf("got %v, want the watcher built:\n%s", err, out)
	}
	return watcher{path}
}

// stopped runs a program and stops it softly after some time.
func (w watcher) stopped(t testing.TB, env []string, after time.Duration, args ...string) usage {
	t.Helper()
	return w.run(t, append(env, "WATCHER_STOP="+after.String()), args...)
}

// run runs a program and fails the test unless it ends with 0.
func (w watcher) run(t testing.TB, env []string, args ...string) usage {
	t.Helper()
	cmd, out := command(t, env, w.path, args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: got %v, want exit code 0:\n%s", strings.Join(args, " "), err, out)
	}
	said, last, _ := strings.Cut(out.String(), "usage ")
	u := usage{said: said}
	if _, err := fmt.Sscan(last, &u.peak, &u.cpu, &u.took); err != nil {
		t.Fatalf("got %v, want a last line of usage:\n%s", err, out)
	}
	return u
}
