package night_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/purser-onboard/purser/night"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

func Example() {
	a := emptyNight()
	a.Conclude(night.Commands{Ledger: " --data-dir /srv/purser-data", Queue: " --data-dir /srv/purser-data"})
	fmt.Println(a.Verdict.Sentence)
	for _, step := range a.Todo {
		fmt.Println(step.Commands[0])
	}
	// Output:
	// The queue was empty: the run received no rows.
	// consumer runs --data-dir /srv/purser-data --last 7
}

func fixtures() map[string]*night.Account {
	return map[string]*night.Account{
		"good": goodNight(), "bad": badNight(), "never-ended": neverEnded(), "halted": halted(), "empty": emptyNight(),
		"no-run": noRun(), "lost": lostRows(), "hostile": hostileNight(), "huge": hugeNight(),
		"repeated": repeated(), "unread": unread(), "interrupted": interrupted(), "resumed": resumed(),
	}
}

// parsed is the page of an account, as a browser reads it.
func parsed(t *testing.T, a *night.Account) (*html.Node, []byte) {
	t.Helper()
	raw, err := a.HTML()
	if err != nil {
		t.Fatal(err)
	}
	root, err := html.Parse(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return root, raw
}

func find(root *html.Node, match func(*html.Node) bool) (found []*html.Node) {
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && match(n) {
			found = append(found, n)
		}
	}
	return found
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

// TestPageLoadsNothing: no page has a script, an attribute that runs one, a style that its policy does not allow, or an
// address of anything outside of it; whatever text is in it.
func TestPageLoadsNothing(t *testing.T) {
	known := map[string]bool{}
	for n := range strings.FieldsSeq(`html head meta title style body header main section footer h1 h2 h3 p a br strong code
		pre span time ol li dl div dt dd table thead tbody tr th td figure figcaption details summary svg defs pattern rect
		path circle line`) {
		known[n] = true
	}
	for name, a := range fixtures() {
		root, _ := parsed(t, a)
		for _, n := range find(root, func(*html.Node) bool { return true }) {
			if !known[n.Data] {
				t.Errorf("%s: got the element %s, want none of that name", name, n.Data)
			}
			for _, at := range n.Attr {
				outside := at.Key == "href" && !strings.HasPrefix(at.Val, "#") || at.Key == "src" || at.Key == "style" ||
					strings.HasPrefix(at.Key, "on") || strings.Contains(at.Val, "url(") && !strings.Contains(at.Val, "url(#")
				if outside {
					t.Errorf("%s: got %s=%q of %s, want nothing that loads, runs or is styled", name, at.Key, at.Val, n.Data)
				}
			}
		}
		styles := find(root, func(n *html.Node) bool { return n.DataAtom == atom.Style })
		if len(styles) != 1 {
			t.Fatalf("%s: got %d styles, want 1", name, len(styles))
		}
		digest := sha256.Sum256([]byte(textOf(styles[0])))
		want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) + "'; "
		policies := find(root, func(n *html.Node) bool { return attribute(n, "http-equiv") == "Content-Security-Policy" })
		if len(policies) != 1 || !strings.HasPrefix(attribute(policies[0], "content"), want) {
			t.Errorf("%s: got %d policies, want one that begins %q", name, len(policies), want)
		}
	}
}

// TestPageIsInOrder: every page has the same sections, in the order in which they are needed, and ids that are unique.
func TestPageIsInOrder(t *testing.T) {
	want := "todo balance history failures invalid throughput latency left incidents settings"
	for name, a := range fixtures() {
		root, _ := parsed(t, a)
		var got []string
		for _, h := range find(root, func(n *html.Node) bool { return n.DataAtom == atom.H2 }) {
			got = append(got, attribute(h, "id"))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got the sections %v, want %s", name, got, want)
		}
		seen := map[string]bool{}
		for _, n := range find(root, func(n *html.Node) bool { return attribute(n, "id") != "" }) {
			id := attribute(n, "id")
			if seen[id] {
				t.Errorf("%s: got two elements with the id %q, want one", name, id)
			}
			seen[id] = true
		}
		for _, n := range find(root, func(n *html.Node) bool { return strings.Contains(attribute(n, "fill"), "url(#") }) {
			if id := strings.TrimSuffix(strings.TrimPrefix(attribute(n, "fill"), "url(#"), ")"); !seen[id] {
				t.Errorf("%s: got the pattern %q, want one that the page has", name, id)
			}
		}
		for _, n := range find(root, func(n *html.Node) bool { return n.DataAtom == atom.Svg && attribute(n, "role") == "img" }) {
			if attribute(n, "aria-label") == "" {
				t.Errorf("%s: got a chart without a label, want what it shows", name)
			}
		}
	}
}

// TestVerdicts: the night in a sentence, and what to do now.
func TestVerdicts(t *testing.T) {
	retry := goodNight() // its rows are well, but those of an earlier run are not
	retry.Runs[0].Report.Rows = results.ReportRows{}
	retry.Failures, retry.Imports = badNight().Failures, nil
	retry.Conclude(commands)
	both := repeated() // rows of the ledger, too
	both.Failures = badNight().Failures
	both.Conclude(commands)
	read := repeated() // some were put back since
	read.Left.Letters, read.Left.LetterCount = []night.Letter{{Class: "syntax", Count: 2}}, 2
	read.Conclude(commands)
	lettered := ended(45, began.Add(-time.Hour), time.Minute, 3, results.ReportRows{Received: 5, DeadLettered: 5})
	with := repeated() // together with the run that it repeats
	with.Runs = append(with.Runs[:1:1], lettered)
	with.Conclude(commands)
	inProgress := neverEnded()
	inProgress.Failures, inProgress.Imports = badNight().Failures, badNight().Imports
	inProgress.Left.Letters = badNight().Left.Letters
	inProgress.Conclude(commands)
	seen := func(alive bool) *night.Account { // by a reader of the ledger
		a := badNight()
		run := &a.Runs[0].Report
		*run = results.Begun(run.Run, run.StartedAt).Seen(alive)
		run.Progress = &results.Progress{At: run.StartedAt.Add(time.Minute), Rows: results.ReportRows{Received: 1240, Onboarded: 1200}}
		a.Conclude(commands)
		return a
	}
	notEnded := func(alive *bool) *night.Account { // an import
		a := goodNight()
		i := a.Imports[0].Importer
		i.EndedAt, i.Exit, i.Alive = time.Time{}, 1, alive
		a.Conclude(commands)
		return a
	}
	yes, no := true, false
	meanwhile := goodNight() // an importer published while the drain ran
	unseen := int64(100)
	meanwhile.Imports[0].NotSeen = &unseen
	meanwhile.Conclude(commands)
	for name, tt := range map[string]struct {
		account  *night.Account
		level    night.Level
		sentence string
		commands string // some of those to run, in order
	}{
		"good": {goodNight(), night.Good, "All 12,000 received rows are onboarded.", ""},
		"bad": {badNight(), night.Bad, "44,871 of 48,222 received rows were onboarded; 1,791 failed, 214 were refused",
			"consumer failures > again.csv; importer again.csv; consumer redrive --dry-run; consumer run --drain"},
		"never ended": {neverEnded(), night.Unfinished, "has no end: it is in progress, or its process was killed",
			"consumer runs --last 5; consumer run --drain"},
		"in progress": {seen(true), night.Unfinished,
			"batch-1.bank.example is in progress. By 2026-11-26 02:16 UTC it had onboarded 1,200 of 1,240 received rows.",
			"consumer status --watch"},
		"killed": {seen(false), night.Unfinished, "has no end: its process was killed, or could not record it. By",
			"consumer failures > again.csv; importer again.csv; consumer redrive --dry-run; consumer run --drain"},
		"halted": {halted(), night.Unfinished, "The run halted after 12 s because of a setting",
			"consumer check; consumer failures > again.csv; importer again.csv; consumer run --drain"},
		"empty":  {emptyNight(), night.Empty, "The queue was empty: the run received no rows.", "consumer runs --last 7"},
		"no run": {noRun(), night.Empty, "The ledger has no runs.", "consumer runs"},
		"lost":   {lostRows(), night.Bad, "The balance does not add up", "consumer status"},
		"retry": {retry, night.Bad, "ended badly in an earlier run and have not been onboarded since",
			"consumer failures > again.csv; importer again.csv; consumer run --drain"},
		"repeated": {repeated(), night.Bad,
			"The queue was empty, but 5 dead letters of run " + runID(45) + " have not been put back.",
			"consumer redrive --dry-run; consumer redrive; consumer run --drain"},
		"repeated, and rows": {both, night.Bad, "not been onboarded since. 5 dead letters of run " + runID(45),
			"consumer failures > again.csv; importer again.csv; consumer redrive --dry-run; consumer redrive"},
		"repeated, queue read": {read, night.Bad, "The queue was empty, but 2 dead letters of run",
			"consumer redrive --dry-run; consumer redrive; consumer run --drain"},
		"with the repeated": {with, night.Bad, "0 of 5 received rows were onboarded; 5 became dead letters.",
			"consumer redrive --dry-run; consumer redrive; consumer run --drain"},
		"unread": {unread(), night.Unfinished, "The export /srv/nosuch.csv could not be read, and nothing was imported.",
			"importer /srv/nosuch.csv; consumer run --drain"},
		"import in progress": {notEnded(&yes), night.Unfinished, "on batch-1.bank.example is in progress.",
			"consumer run --drain"},
		"import killed": {notEnded(&no), night.Unfinished, "has no end: its process was killed, or could not record it.",
			"importer customers-2026-11-25.csv; consumer run --drain"},
		"import on another host": {notEnded(nil), night.Unfinished,
			"has no end: it is in progress, or its process was killed.",
			"importer customers-2026-11-25.csv; consumer run --drain"},
		"imported meanwhile": {meanwhile, night.Unfinished, "At least 100 published rows of customers-2026-11-25.csv have not",
			"consumer run --drain"},
		"interrupted": {interrupted(), night.Unfinished,
			"The run was interrupted after 12 s: 73 of 300 received rows were onboarded.", "consumer run --drain"},
		"resumed": {resumed(), night.Good, "All 300 received rows are onboarded. The counts are those of 2 of 3 runs: run " +
			runID(49) + " of 2026-11-26 02:16 UTC has no end, and no counts.", ""},
	} {
		v := tt.account.Verdict
		if v.Level != tt.level || !strings.Contains(v.Sentence, tt.sentence) {
			t.Errorf("%s: got %s, %q; want %s, %q", name, v.Level, v.Sentence, tt.level, tt.sentence)
		}
		var got []string
		for _, step := range tt.account.Todo {
			got = append(got, step.Commands...)
		}
		given := strings.ReplaceAll(strings.Join(got, "; "), commands.Queue, "")
		rest := given
		for want := range strings.SplitSeq(tt.commands, "; ") {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("%s: got the commands %q, want %q among them", name, given, tt.commands)
				break
			}
			rest = after
		}
		if tt.level == night.Good && len(got) > 0 {
			t.Errorf("%s: got the commands %q, want none", name, given)
		}
		for _, step := range tt.account.Todo {
			if tt.account.Runs == nil || tt.account.Runs[0].Report.Cause == "" {
				continue
			}
			if strings.Contains(step.Text, "halt") || strings.Contains(step.Text, "setting") {
				t.Errorf("%s: got the step %q, want nothing about a halt or a setting", name, step.Text)
			}
		}
	}
	var steps []string
	for _, step := range inProgress.Todo {
		steps = append(steps, step.Commands...)
	}
	got := strings.ReplaceAll(strings.Join(steps, "; "), commands.Queue, "")
	if want := "consumer runs --last 5; consumer failures --stage rejected > rejected.csv; consumer run --drain"; got != want {
		t.Errorf("in progress: got the commands %q, want %q: nothing can be imported or put back", got, want)
	}
}

// TestCommandsOfOneProgram: where the commands are subcommands of one program, the account names them so.
func TestCommandsOfOneProgram(t *testing.T) {
	a := badNight()
	a.Conclude(night.Commands{Consume: "purser", Import: "purser import"})
	var got []string
	for _, step := range a.Todo {
		got = append(got, step.Commands...)
	}
	want := "purser failures > again.csv; purser import again.csv; purser failures --stage rejected > rejected.csv; " +
		"purser redrive --dry-run; purser redrive; purser run --drain"
	if strings.Join(got, "; ") != want {
		t.Errorf("got the commands %q, want %q", strings.Join(got, "; "), want)
	}
}

// TestBalance: an equation that does not hold is red, and names the difference; one that holds is not.
func TestBalance(t *testing.T) {
	broken := func(n *html.Node) bool { return strings.Contains(attribute(n, "class"), "broken") }
	root, _ := parsed(t, lostRows())
	sums := find(root, broken)
	if len(sums) != 2 {
		t.Fatalf("got %d sums that do not add up, want the import's and the run's", len(sums))
	}
	for i, want := range []string{"It does not add up: 2 missing.", "It does not add up: 3 missing."} {
		if got := textOf(sums[i]); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	for name, a := range map[string]*night.Account{"good": goodNight(), "bad": badNight(), "halted": halted()} {
		root, _ := parsed(t, a)
		if got := find(root, broken); len(got) > 0 {
			t.Errorf("%s: got %q, want no sum that does not add up", name, textOf(got[0]))
		}
	}
}

// TestSumOfRuns: the balance says of which runs it is.
func TestSumOfRuns(t *testing.T) {
	text := string(resumed().Text())
	want := "2 of 3 runs: 527 received = 300 onboarded + 0 skipped + 0 failed + 0 refused + 0 in conflict + " +
		"0 rejected + 0 dead-lettered + 227 returned unsettled"
	if !strings.Contains(text, want) {
		t.Errorf("got the text\n%s\nwant %q in it", text, want)
	}
}

// TestStagesWithoutReason: rows that are struggling with nothing have no reason.
func TestStagesWithoutReason(t *testing.T) {
	a := interrupted()
	a.Left.Stages = []night.Unsettled{{"planned", 1_992, ""}, {"creating", 1, "no response"}}
	text := string(a.Text())
	for _, want := range []string{"  planned: 1,992 rows\n", "  creating: 1 row; the latest: no response\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("got the text\n%s\nwant %q in it", text, want)
		}
	}
}

// TestNotRecorded: a page says what was not recorded, instead of showing none of it.
func TestNotRecorded(t *testing.T) {
	root, _ := parsed(t, neverEnded())
	page := textOf(root)
	for _, want := range []string{
		"Imports: not recorded for this run", "The queue was not read: another process has the embedded broker open",
		"Outages and throttling are not recorded for this run",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("got a page without %q, want it", want)
		}
	}
	if got := strings.Count(page, "Not recorded"); got != 4 { // invalid rows, throughput, latency, settings
		t.Errorf("got %d sections that say that they are not recorded, want 4", got)
	}
}

// TestHostileText: what came from outside is shown, and is not taken literally.
func TestHostileText(t *testing.T) {
	a := hostileNight()
	root, raw := parsed(t, a)
	page := textOf(root)
	if !strings.Contains(page, `\x1b[2J</style></code><script>alert(1)</script>`) || !strings.Contains(page, `\u202etxt.exe`) {
		t.Error("got a page without the hostile text, want it, escaped")
	}
	for name, text := range map[string][]byte{"page": raw, "text": a.Text()} {
		for line := range bytes.SplitSeq(text, []byte("\n")) {
			if !printable.Is(strings.ReplaceAll(string(line), "\t", "")) {
				t.Errorf("%s: got the line %.200q, want printable text", name, line)
			}
		}
	}
}

// TestPageIsSmall: whatever the size of the run.
func TestPageIsSmall(t *testing.T) {
	for name, a := range fixtures() {
		_, raw := parsed(t, a)
		if len(raw) >= 1_000_000 {
			t.Errorf("%s: got %d bytes, want less than a megabyte", name, len(raw))
		}
	}
}

// TestThroughput: the chart marks what went wrong, and the table behind it has the numbers.
func TestThroughput(t *testing.T) {
	root, _ := parsed(t, badNight())
	var lanes []string
	for _, n := range find(root, func(n *html.Node) bool { return attribute(n, "class") == "lane" }) {
		lanes = append(lanes, textOf(n))
	}
	if got, want := strings.Join(lanes, ", "), "outage, gate closed, rate lowered, throttled, signer errors"; got != want {
		t.Errorf("got the strips %q, want %q", got, want)
	}
	for name, want := range map[string]int{"bad": 192, "huge": 236} { // 3300 minutes, 14 together
		root, _ := parsed(t, fixtures()[name])
		tables := find(root, func(n *html.Node) bool { return attribute(n, "aria-label") == "Table of the throughput" })
		if len(tables) != 1 {
			t.Fatalf("%s: got %d tables of the throughput, want 1", name, len(tables))
		}
		rows := find(tables[0], func(n *html.Node) bool { return n.DataAtom == atom.Tr })
		if len(rows) != want+1 {
			t.Errorf("%s: got %d rows, want %d and the header", name, len(rows), want)
		}
	}
}

// TestIncidents: neighbouring minutes are one incident.
func TestIncidents(t *testing.T) {
	var got []string
	for _, i := range badNight().Incidents {
		got = append(got, fmt.Sprintf("%s %s-%s", i.Kind, i.From.Format("15:04"), i.To.Format("15:04")))
	}
	want := "gate closed 03:03-03:21, rate lowered 03:03-03:33, throttled 03:03-03:21, outage 04:05-04:14, " +
		"signer errors 04:45-04:51"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestMask(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "17": "•••", "cust-1": "•••", "customer-00017": "cu…17", "山田太郎様御依頼分": "山田…頼分",
		"0x4315aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa2691":            "0x4315…2691",
		"eip155:300:0x4315aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa2691": "eip155:300:0x4315…2691",
	} {
		if got := night.Mask(text); got != want {
			t.Errorf("Mask(%q): got %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		`customer 0199f7c2-4a10-7b3c-8d40-5e6f70819240 has account eip155:300:0x4315aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa2691 ` +
			`and externalId "other-17", not mine-0001`: `customer 01…40 has account eip155:300:0x4315…2691 and externalId ` +
			`"ot…17", not mi…01`,
		`a.csv:3 has the same account with externalId Anna Maria 17`:                       `a.csv:3 has the same account with externalId An…17`,
		`the created customer has externalId "other \"17\"", want "mine-0001"; status "x"`: `the created customer has externalId "ot…\"", want "mi…01"; status "x"`,
	} {
		if got := night.MaskText(text, "mine-0001"); got != want {
			t.Errorf("MaskText(%q): got %q, want %q", text, got, want)
		}
	}
}

// TestTextAndJSON: both have what the page has.
func TestTextAndJSON(t *testing.T) {
	a := badNight()
	text := string(a.Text())
	for _, want := range []string{"Needs attention: 44,871 of", "consumer failures" + commands.Ledger + " > again.csv",
		"48,222 received = 44,871 onboarded", "docs/runbook.md#no-answer", "customers-2026-11-25.csv:919", "p50", "outage",
		"23 dead letters", "--rate 20"} {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
			t.Errorf("got the text\n%s\nwant %q in it", text, want)
		}
	}
	raw, err := a.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var again night.Account
	if err := json.Unmarshal(raw, &again); err != nil {
		t.Fatal(err)
	}
	if again.Verdict != a.Verdict || len(again.Minutes) != len(a.Minutes) || len(again.Failures) != len(a.Failures) {
		t.Errorf("got %+v back, want what was written", again.Verdict)
	}
	if want := `"latencies": null`; !strings.Contains(jsonOf(t, neverEnded()), want) {
		t.Errorf("got a JSON without %s, want it for what was not recorded", want)
	}
}

func jsonOf(t *testing.T, a *night.Account) string {
	t.Helper()
	raw, err := a.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// writePages writes the pages of the fixtures into a folder.
func writePages(t *testing.T, folder string) {
	t.Helper()
	for name, a := range fixtures() {
		_, raw := parsed(t, a)
		if err := os.WriteFile(folder+"/"+name+".html", raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
