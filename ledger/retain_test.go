package ledger

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

// signedTexts are the nth row's challenge and signature. Every seventh challenge is larger than a page of the file.
func signedTexts(n int) (challenge, signature string) {
	head, tail := challengeEnds(n)
	return head + strings.Repeat("please sign ", 50+n%7/6*500) + tail, fmt.Sprintf("0x%0128x1b", n+1<<40)
}

// challengeEnds are the beginning and the end of the nth row's challenge.
func challengeEnds(n int) (head, tail string) {
	return fmt.Sprintf("challenge-of-%07d ", n), fmt.Sprintf("end-of-%07d", n)
}

// signedBy reports whether text holds a part of the nth row's challenge or signature.
func signedBy(n int, text []byte) bool {
	head, tail := challengeEnds(n)
	_, signature := signedTexts(n)
	return bytes.Contains(text, []byte(head)) || bytes.Contains(text, []byte(tail)) ||
		bytes.Contains(text, []byte(signature))
}

// settleSigned takes rows to a terminal stage, stage by stage as a run does, so that they grow and shrink in the file.
func settleSigned(t testing.TB, l *Ledger, end pipeline.Stage, first, n int) []pipeline.Record {
	t.Helper()
	records := make([]pipeline.Record, n)
	for i := range records {
		records[i] = acceptOne(t, l, testRow(first+i, "import-1"), pipeline.Open)
	}
	each := func(stage pipeline.Stage, change func(i int, r *pipeline.Record)) {
		for i := range records {
			records[i] = advance(t, l, records[i], stage, func(r *pipeline.Record) { change(first+i, r) })
		}
	}
	each(pipeline.Creating, func(_ int, r *pipeline.Record) { r.CreateKey = derived(*r, pipeline.OpCreate, 0) })
	each(pipeline.Challenged, func(i int, r *pipeline.Record) {
		r.CustomerID = fmt.Sprintf("customer-%d", i)
		r.Challenge, _ = signedTexts(i)
		r.ChallengeAt = r.AcceptedAt
	})
	each(pipeline.Signing, func(i int, r *pipeline.Record) { r.Nonce = fmt.Sprintf("nonce-%d", i) })
	if end == pipeline.Refused {
		each(end, func(int, *pipeline.Record) {})
		return records
	}
	each(pipeline.Submitting, func(i int, r *pipeline.Record) {
		r.Nonce = ""
		_, r.Signature = signedTexts(i)
		r.SubmitKey = derived(*r, pipeline.OpSubmit, 0)
	})
	each(end, func(_ int, r *pipeline.Record) { r.SubmitKey.Outcome = pipeline.KeySettled })
	return records
}

// signedIn counts the rows whose challenge or signature is in the ledger's files.
func signedIn(t testing.TB, path string, first, n int) (found int) {
	t.Helper()
	var all []byte
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		all = append(all, content...)
	}
	for i := first; i < first+n; i++ {
		if signedBy(i, all) {
			found++
		}
	}
	return found
}

func closeNow(t testing.TB, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func openNow(t testing.TB, o Options) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestSettledRowsDropWhatWasSigned: the transaction that settles a row, in any stage, deletes challenge and signature,
// and no part of them is left in the files.
func TestSettledRowsDropWhatWasSigned(t *testing.T) {
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	o.DropSigned = true
	l := openNow(t, o)
	const n = 200
	for i, end := range []pipeline.Stage{pipeline.Onboarded, pipeline.Rejected, pipeline.Failed, pipeline.Refused} {
		settleSigned(t, l, end, i*n, n)
		if got := get(t, l, testRow(i*n, "")); got.Stage != end || got.Challenge != "" || got.Signature != "" {
			t.Errorf("got stage %s, challenge %q, signature %q, want %s and neither", got.Stage, got.Challenge,
				got.Signature, end)
		}
	}
	closeNow(t, l)
	if got := signedIn(t, o.Path, 0, 4*n); got != 0 {
		t.Errorf("got %d rows whose challenge or signature is in the files, want 0", got)
	}
}

// TestOpenRowsKeepWhatIsSigned: unfinished rows keep challenge and signature.
func TestOpenRowsKeepWhatIsSigned(t *testing.T) {
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	o.DropSigned = true
	l := reopen(t, o)
	r := advance(t, l, acceptOne(t, l, testRow(1, "import-1"), pipeline.Open), pipeline.Creating, nil)
	r = advance(t, l, r, pipeline.Challenged, func(r *pipeline.Record) { r.Challenge = "challenge" })
	r = advance(t, l, r, pipeline.Signing, nil)
	advance(t, l, r, pipeline.Submitting, func(r *pipeline.Record) { r.Signature = "0x01" })
	if n, err := l.DropSigned(t.Context()); n != 0 || err != nil {
		t.Errorf("got %d rows dropped, error %v, want 0 and none", n, err)
	}
	if got := get(t, l, testRow(1, "")); got.Challenge != "challenge" || got.Signature != "0x01" {
		t.Errorf("got challenge %q, signature %q, want both kept", got.Challenge, got.Signature)
	}
}

// TestDropSignedOfEarlierRuns: DropSigned deletes challenges and signatures of rows settled without the option, in
// batches, and continues after an interruption.
func TestDropSignedOfEarlierRuns(t *testing.T) {
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	l := openNow(t, o)
	const n = dropBatch + 100
	before := settleSigned(t, l, pipeline.Onboarded, 0, n)
	if n, err := l.DropSigned(t.Context()); n != 0 || err != nil {
		t.Errorf("got %d rows dropped, error %v without the option, want 0 and none", n, err)
	}
	closeNow(t, l)
	if got := signedIn(t, o.Path, 0, n); got != n {
		t.Fatalf("got %d rows whose challenge or signature is in the files, want all %d", got, n)
	}

	o.DropSigned = true
	l = openNow(t, o)
	ended, end := context.WithCancel(t.Context())
	end()
	if got, err := l.DropSigned(ended); got != 0 || err == nil {
		t.Errorf("got %d rows dropped, error %v of an ended call, want 0 and an error", got, err)
	}
	if got, err := l.DropSigned(t.Context()); got != n || err != nil {
		t.Errorf("got %d rows dropped, error %v, want %d and none", got, err, n)
	}
	if got, err := l.DropSigned(t.Context()); got != 0 || err != nil {
		t.Errorf("got %d rows dropped, error %v the second time, want 0 and none", got, err)
	}
	want := before[7]
	want.Challenge, want.Signature = "", ""
	if got := get(t, l, testRow(7, "")); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	closeNow(t, l)
	if got := signedIn(t, o.Path, 0, n); got != 0 {
		t.Errorf("got %d rows whose challenge or signature is in the files, want 0", got)
	}
}

// TestReplayAfterDropping: settled rows without challenge and signature are skipped, a new import restarts those that
// can be restarted, and a used nonce stays used.
func TestReplayAfterDropping(t *testing.T) {
	l, o := openTest(t)
	closeNow(t, l)
	o.DropSigned = true
	l = reopen(t, o)
	settleSigned(t, l, pipeline.Onboarded, 1, 1)
	settleSigned(t, l, pipeline.Failed, 2, 1)
	acceptOne(t, l, testRow(1, "import-1"), pipeline.Settled)
	acceptOne(t, l, testRow(1, "import-2"), pipeline.Settled)
	acceptOne(t, l, testRow(2, "import-1"), pipeline.Settled)
	again := acceptOne(t, l, testRow(2, "import-2"), pipeline.Open)
	if again.Stage != pipeline.Planned || again.CustomerID != "customer-2" || again.SubmitKey.IsZero() {
		t.Errorf("got %+v, want a planned row with its customer and keys", again)
	}
	challenge, _ := signedTexts(1)
	other := acceptOne(t, l, testRow(3, "import-1"), pipeline.Open)
	other = use(t, l, other, "nonce-1", challenge, pipeline.ErrNonceUsed)
	use(t, l, other, "nonce-2", challenge, pipeline.ErrNonceUsed)
}

// TestDroppedInTheLedgerTopic: the latest records of the topic hold no deleted challenges and signatures, whether the
// rows were settled with or without the option, and other ledgers delete them at the next Restore.
func TestDroppedInTheLedgerTopic(t *testing.T) {
	shared := newTopic(1)
	holds := func() (found int) {
		for _, m := range shared.partitions[0] {
			for i := range 20 {
				if signedBy(i, m.Value) {
					found++
				}
			}
		}
		return found
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, f := openFollower(t, path, shared)
	restore(t, l, f, 0)
	settleSigned(t, l, pipeline.Onboarded, 0, 10)
	f.held[0] = false
	shared.compact()
	if got := holds(); got != 10 {
		t.Fatalf("got %d rows in the topic with what they have signed, want 10", got)
	}

	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	o.Changelog, o.Environment.APIPath, o.DropSigned = "onboarding.ledger", "/v1", true
	next := reopen(t, o)
	g := &follower{topic: shared, held: map[int]bool{}, epoch: 1}
	if err := next.Follow(g, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := next.DropSigned(t.Context()); got != 0 || err != nil {
		t.Errorf("got %d rows dropped, error %v, before a partition was ours, want 0 and none", got, err)
	}
	restore(t, next, g, 0)
	settleSigned(t, next, pipeline.Onboarded, 10, 10)
	if got, err := next.DropSigned(t.Context()); got != 10 || err != nil {
		t.Errorf("got %d rows dropped, error %v, want 10 and none", got, err)
	}
	g.held[0] = false
	shared.compact()
	if got := holds(); got != 0 {
		t.Errorf("got %d rows in the compacted topic with what they have signed, want 0", got)
	}
	f.held[0] = true
	restore(t, l, f, 0) // a ledger without the option takes the topic's records as well
	if got := get(t, l, testRow(3, "")); got.Stage != pipeline.Onboarded || got.Challenge != "" || got.Signature != "" {
		t.Errorf("got stage %s, challenge %q, signature %q, want onboarded and neither", got.Stage, got.Challenge,
			got.Signature)
	}
}
