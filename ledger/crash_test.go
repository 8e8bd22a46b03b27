//go:build unix

package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

func children() map[string]func(context.Context, []string) error {
	return map[string]func(context.Context, []string) error{
		"crash":    crashChild,
		"fill":     fillChild,
		"limit":    limitChild,
		"readonly": readOnlyChild,
		"pid":      pidChild,
		"temp":     temporaryChild,
	}
}

const (
	crashWorkers = 8
	crashRows    = 4 // of each worker
)

// crashChild updates rows until it is killed. Arguments are the path and optionally a point of Options.Hook and the
// number of its call at which the child kills itself. It prints "<row> <version>" for every acknowledged update.
func crashChild(ctx context.Context, arguments []string) error {
	o := testOptions(arguments[0])
	o.Now = time.Now
	if len(arguments) == 3 {
		left, err := strconv.Atoi(arguments[2])
		if err != nil {
			return err
		}
		o.Hook = func(point string) {
			if point != arguments[1] {
				return
			}
			if left--; left == 0 {
				self, _ := os.FindProcess(os.Getpid())
				_ = self.Kill()
				select {}
			}
		}
	}
	l, err := Open(ctx, o)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, crashWorkers)
	for w := range crashWorkers {
		wg.Go(func() { errs[w] = crashWork(ctx, l, w) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// crashWork updates the worker's rows forever. Version, attempts and key of a row grow together, so that a partial
// update would show.
func crashWork(ctx context.Context, l *Ledger, w int) error {
	var rows []pipeline.Row
	for n := range crashRows {
		rows = append(rows, testRow(w*crashRows+n, "i1"))
	}
	answers, err := l.Accept(ctx, rows)
	if err != nil {
		return err
	}
	for {
		for i := range answers {
			r := &answers[i].Record
			if r.Stage == pipeline.Planned {
				r.Stage = pipeline.Creating
			}
			r.Attempts = int(r.Version)
			r.CreateKey = createKey(int(r.Version), time.Unix(r.Version, 0).UTC())
			if r.Version, err = l.Update(ctx, *r); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(os.Stdout, "%d %d\n", w*crashRows+i, r.Version); err != nil {
				return err
			}
		}
	}
}

// TestKilled: after a kill at any moment the ledger opens and has every acknowledged update completely.
func TestKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("LEDGER_TEST_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LEDGER_TEST_SEED=%d repeats the choice of moments", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	acked := make(map[int]int64)
	kills := 8
	if testing.Short() {
		kills = 4
	}
	for kill := range kills {
		arguments := []string{o.Path}
		switch kill % 4 {
		case 0:
			arguments = append(arguments, "ledger.before-commit", strconv.Itoa(1+random.IntN(60)))
		case 1:
			arguments = append(arguments, "ledger.after-commit", strconv.Itoa(1+random.IntN(60)))
		}
		child := startChild(t, "crash", arguments...)
		lines := 1 + random.IntN(600)
		for n := 0; child.lines.Scan(); n++ {
			var row int
			var version int64
			if _, err := fmt.Sscan(child.lines.Text(), &row, &version); err != nil {
				t.Fatalf("got line %q of the child, want a row and a version", child.lines.Text())
			}
			acked[row] = version
			if n == lines && len(arguments) == 1 {
				if err := child.Process.Kill(); err != nil { // the rest of the pipe was acknowledged, too
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || child.ProcessState.ExitCode() != -1 {
			t.Fatalf("got %v, want the child killed\n%s", err, child.stderr.String())
		}
		checkSurvivors(t, o, acked)
	}
	t.Logf("%d kills, %d rows at versions up to %d", kills, len(acked), acked[0])
}

func checkSurvivors(t *testing.T, o Options, acked map[int]int64) {
	t.Helper()
	reader, err := OpenReadOnly(t.Context(), o.Path) // `consumer status` right after the crash
	if err != nil && !errors.Is(err, ErrEmpty) {
		t.Fatal(err)
	}
	if err == nil {
		if _, err := reader.Counts(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for row, version := range acked {
		r := get(t, l, testRow(row, "i1"))
		if r.Version < version || r.Version > version+1 {
			t.Errorf("row %d: got version %d, want %d, which was acknowledged, or the next", row, r.Version, version)
		}
		if int64(r.Attempts) != r.Version-1 || int64(r.CreateKey.Generation) != r.Version-1 {
			t.Errorf("row %d: got %+v, want attempts and generation to match the version", row, r)
		}
		keys, err := l.keys(t.Context(), r.ID)
		if err != nil || int64(len(keys)) != r.Version-1 {
			t.Errorf("row %d: got %d keys, %v; want %d", row, len(keys), err, r.Version-1)
		}
	}
	// The next child starts from the stored versions, acknowledged or not.
	if err := l.Each(t.Context(), func(r pipeline.Record, _ []pipeline.Customer) error {
		acked[r.Line-2] = r.Version
		return nil
	}); err != nil {
		t.Errorf("Each: got %v, want nil", err)
	}
}
