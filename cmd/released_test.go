package cmd

import (
	"archive/tar"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// TestReleased: data directories that earlier versions left when they were killed, with rows that are onboarded, failed
// and unfinished, are finished by this version. No customer is created twice. See testdata/released/README.md.
func TestReleased(t *testing.T) {
	t.Parallel()
	archives, err := filepath.Glob("../testdata/released/*.tar.gz")
	if err != nil || len(archives) < 3 {
		t.Fatalf("got %d archives, %v; want at least 3", len(archives), err)
	}
	for _, archive := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".tar.gz"), func(t *testing.T) { // all at one address
			server, env, there := released(t, archive)
			// Before the first run: check does not fail, and what reads the tables names that run.
			says := []string{"warn  ledger", "the next run migrates it", "ledger backup FILE"}
			exitsWith(t, env, 0, says, "consumer", "check")
			for _, args := range []string{"status", "failures", "report", "runs"} {
				exitsWith(t, env, 1, []string{"of an earlier version", "the next run migrates it"}, "consumer", args)
			}
			// The queue has the rows that were under way. Rows that failed stay failed until they are imported again.
			cmd, out := command(t, env, "consumer", "--drain")
			err := cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != 0 && code != 3 {
				t.Fatalf("got %v, want exit code 0 or 3:\n%s", err, out)
			}
			stages := map[string]int{}
			for _, r := range rowsOf(t, env) {
				stages[r.Stage]++
			}
			if failed := stages["failed"]; failed == 0 || failed > 4 || stages["onboarded"] != 30-failed {
				t.Errorf("got %v, want 30 rows, 1 to 4 of them failed and the others onboarded", stages)
			}
			mustRun(t, env, "importer", customers)
			mustRun(t, env, "consumer", "--drain")
			judged(t, server, env)
			for _, e := range server.History() {
				if e.Created && there[e.CustomerID] {
					t.Errorf("got customer %s created a second time, want none", e.CustomerID)
				}
			}
		})
	}
}

// released unpacks a data directory, and starts a partner at the address of the sandbox that it was made with, with the
// customers that were there, and whose ids it returns.
func released(t *testing.T, archive string) (server *sandbox.Server, env []string, there map[string]bool) {
	t.Helper()
	dir := t.TempDir()
	unpack(t, archive, dir)
	file := filepath.Join(dir, "data", "ledger.db")
	backup := filepath.Join(dir, "backup.db")
	if err := os.WriteFile(backup, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made, err := ledger.WriteBackup(t.Context(), file, backup) // also of an earlier schema
	if err != nil || made.Rows != 30 {
		t.Fatalf("backup: got %d rows, %v; want 30", made.Rows, err)
	}
	creds, err := sandbox.NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	creds.APIKey = made.Environment.APIKeyID
	listener := listenWhenFree(t, made.Environment.APIHost)
	plain := func(partner http.Handler) http.Handler { return partner }
	server, env = partnerOn(t, sandbox.Config{Seed: 1, DeclaredRate: 500}, plain, creds, listener)
	text, err := os.Open(filepath.Join(dir, "customers.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	there = map[string]bool{}
	for decoder := json.NewDecoder(text); ; {
		var c sandbox.Customer
		if err := decoder.Decode(&c); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if err := server.Restore(c); err != nil {
			t.Fatal(err)
		}
		there[c.ID] = true
	}
	return server, append(env, "PURSER_DATA_DIR="+filepath.Join(dir, "data")), there
}

// listenWhenFree waits while another run of the tests on this machine listens at the address.
func listenWhenFree(t *testing.T, address string) net.Listener {
	t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	patience := time.After(2 * time.Minute)
	for {
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return listener
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		select {
		case <-again.C:
		case <-patience:
			t.Fatalf("%v: another program than these tests listens there", err)
		}
	}
}

func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	for entries := tar.NewReader(plain); ; {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.Clean("/"+entry.Name))
		if entry.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var content []byte
			content, err = io.ReadAll(entries)
			err = errors.Join(err, os.WriteFile(path, content, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestEarlierExternalID: a row that an earlier version accepted with an externalId that is now invalid is finished, as its
// customer may exist. A new row with such an externalId becomes a dead letter.
func TestEarlierExternalID(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	rows := exportRows(t)[:2]
	messages := make([]pipeline.Message, len(rows))
	for i := range rows {
		rows[i].ExternalID = "“" + rows[i].ExternalID + "”"
		messages[i] = pipeline.Message{Key: []byte(rows[i].Account.String()), Value: pipeline.AppendMessage(nil, rows[i])}
	}
	book, _ := openBook(t, env)
	_, err := book.Accept(t.Context(), rows[:1])
	if err := errors.Join(err, book.Close()); err != nil {
		t.Fatal(err)
	}
	publishEmbedded(t, env, "onboarding.customers", messages)
	exitsWith(t, env, 3, []string{"2 received: 1 onboarded", "1 dead-lettered"}, "consumer", "--drain")
}

// TestDowngrade: a ledger that a newer version has migrated is refused by every command, with what to do.
func TestDowngrade(t *testing.T) {
	t.Parallel()
	_, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", customers)
	mustRun(t, env, "consumer", "--drain")
	path := filepath.Join(dataOf(env), "ledger.db")
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// The user version, at offset 60 of the header (sqlite.org/fileformat2.html, section 1.3).
	if _, err := file.WriteAt(binary.BigEndian.AppendUint32(nil, 99), 60); err != nil {
		t.Fatal(err)
	}
	says := []string{path + " has schema 99", "use a newer program, or restore a backup"}
	for _, args := range []string{"--drain", "status", "failures", "reconcile", "check", "rebind", "ledger backup b.db"} {
		exitsWith(t, env, 2, says, "consumer", strings.Fields(args)...)
	}
}
