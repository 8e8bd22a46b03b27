package cmd

import (
	"bytes"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	_ "github.com/mattn/go-sqlite3" // to write into a ledger what an older program could have
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// hostile clears the screen, shows a link, rings the bell, overwrites its line, forges another line, reverses the text
// after it, hides characters, is not UTF-8, and is long.
var hostile = hostileName + "\x00" + strings.Repeat("A", 100_000)

// hostileName is the part of hostile that can be the name of a file.
const hostileName = "\x1b[2J\x1b]8;;http:evil\x1b\\x\x1b]8;;\a\rOVER\nFORGED\u202e\u2066\u2028\u200b\x7f\u0085\u009b\xff"

// shownLine is the longest line of output, in bytes.
const shownLine = 9 << 10

// hostileRun is a data directory and the partner of one test.
type hostileRun struct {
	env []string
	dir string
}

func newHostileRun(t *testing.T, config sandbox.Config, front func(http.Handler) http.Handler) hostileRun {
	t.Helper()
	if front == nil {
		front = func(partner http.Handler) http.Handler { return partner }
	}
	config.DeclaredRate = 500
	_, env := partnerBehind(t, config, front)
	return hostileRun{append(env, "PURSER_LOG_LEVEL=debug", "PURSER_MAX_ATTEMPTS=1"), t.TempDir()}
}

// run runs a command with each form of the log, and searches its output.
func (h hostileRun) run(t *testing.T, name string, args ...string) {
	t.Helper()
	for _, form := range []string{"json", "text"} {
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env, cmd.Stdout, cmd.Stderr = append(h.env, "PURSER_LOG_FORMAT="+form), &stdout, &stderr
		_ = cmd.Run() // it may fail, or not
		what := fmt.Sprintf("%s %.60q, log %s", name, args, form)
		search(t, what+", stdout", stdout.String())
		search(t, what+", stderr", stderr.String())
		if stdout.Len()+stderr.Len() == 0 {
			t.Errorf("%s: got no output, want some", what)
		}
	}
}

// drain runs the consumer and searches its report, and then the output of the commands that show rows and dead letters.
func (h hostileRun) drain(t *testing.T) {
	t.Helper()
	report := filepath.Join(h.dir, "report.json")
	h.run(t, "consumer", "--drain", "--report", report)
	searchFile(t, report)
	h.run(t, "consumer", "status")
	h.run(t, "consumer", "failures")
	h.run(t, "consumer", "redrive", "--dry-run")
}

func searchFile(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	search(t, filepath.Base(path), string(content))
}

func search(t *testing.T, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s: got %.300q, want valid UTF-8", what, text)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		begin := line[:min(len(line), 300)]
		if at := strings.IndexFunc(line, func(r rune) bool { return r != '\t' && !unicode.IsGraphic(r) }); at >= 0 {
			t.Errorf("%s: got %q, want no raw %q", what, line[max(at-100, 0):min(at+40, len(line))], []rune(line[at:])[0])
		}
		if strings.HasPrefix(strings.TrimLeft(line, " "), "FORGED") {
			t.Errorf("%s: got the forged line %q, want it escaped", what, begin)
		}
		if len(line) > shownLine {
			t.Errorf("%s: got a line of %d bytes, want at most %d: %q…", what, len(line), shownLine, begin)
		}
	}
}

// asJSON returns a text as a JSON string with every character unescaped that JSON allows unescaped.
func asJSON(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ':
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + `"`
}

// hostileRows returns messages of the first n rows of the sample export, with hostile as the file's name.
func hostileRows(t *testing.T, n int) (messages []pipeline.Message) {
	t.Helper()
	for _, row := range exportRows(t)[:n] {
		row.File, row.Line = "FILE", 1
		value := bytes.Replace(pipeline.AppendMessage(nil, row), []byte(`"FILE"`), []byte(asJSON(hostile)), 1)
		messages = append(messages, pipeline.Message{Key: []byte(row.Account.String()), Value: value})
	}
	return messages
}

// TestHostileTopics: hostile text in messages and headers of the work topic and of the dead letters.
func TestHostileTopics(t *testing.T) {
	t.Parallel()
	h := newHostileRun(t, sandbox.Config{}, nil)
	theirs := []pipeline.Header{{Key: hostile, Value: []byte(hostile)}, {Key: "trace", Value: []byte(hostile)},
		{Key: pipeline.HeaderAttempts, Value: []byte(hostile)}, {Key: pipeline.HeaderReason, Value: []byte(hostile)}}
	messages := hostileRows(t, 3)
	good := string(messages[0].Value)
	for _, value := range []string{
		hostile, asJSON(hostile), "{" + asJSON(hostile) + ":1}", `{"v":` + asJSON(hostile) + `}`,
		strings.Replace(good, `"eip155:`, `"`+strings.Trim(asJSON(hostileName), `"`)+":", 1),
		strings.Replace(good, `"eip155:300:`, `"eip155:`+strings.Trim(asJSON(hostileName), `"`)+":", 1),
		strings.Replace(good, `"theirs"`, asJSON(hostile), 1),
		strings.Replace(good, `"theirs"`, asJSON("\u202e\x7f"), 1),
		strings.Replace(good, `"externalId":"`, `"externalId":"`+strings.Trim(asJSON("\u202e\x7f"), `"`), 1),
		strings.Replace(good, `"line":1`, `"line":`+asJSON(hostile), 1),
	} {
		messages = append(messages, pipeline.Message{Key: []byte(hostile), Value: []byte(value), Headers: theirs})
	}
	publishEmbedded(t, h.env, "onboarding.customers", messages)
	dead := func(topic string) pipeline.Message {
		headers := []pipeline.Header{{Key: pipeline.HeaderTopic, Value: []byte(topic)}}
		for _, name := range []string{pipeline.HeaderClass, pipeline.HeaderReason, pipeline.HeaderPartition,
			pipeline.HeaderOffset, pipeline.HeaderStage, pipeline.HeaderAttempts} {
			headers = append(headers, pipeline.Header{Key: name, Value: []byte(hostile)})
		}
		return pipeline.Message{Key: []byte(hostile), Value: []byte(hostile), Headers: headers}
	}
	publishEmbedded(t, h.env, "onboarding.deadletter", []pipeline.Message{dead("onboarding.customers"), dead(hostile),
		dead("x\u202e\x7f"), {Value: []byte(hostile)}})
	h.drain(t)
	exitsWith(t, h.env, 3, []string{`onboarding.customers/\x1b[2J\x1b]8;;`, `\a\rOVER\nFORGED\u202e\u2066\u2028`},
		"consumer", "redrive", "--dry-run")
	h.run(t, "consumer", "redrive")
	h.drain(t)
}

// TestHostileRecords: hostile text in records of the ledger topic.
func TestHostileRecords(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	h := newHostileRun(t, sandbox.Config{}, nil)
	h.env = append(onLedgerTopic(t, onKafka(h.env, k.addrs, "hostile"), "hostile.ledger"), "PURSER_CREATE_TOPICS=true")
	mustRun(t, h.env, "consumer", "check", "--create-partitions", "1")
	stranger, err := kgo.NewClient(kgo.SeedBrokers(k.addrs...))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for _, value := range []string{
		hostile, `{"v":3,` + asJSON(hostile) + `:1}`, `{"v":2,` + asJSON(hostile) + `:1}`, `{"v":` + asJSON(hostile) + `}`,
		`{"v":2,"apiHost":` + asJSON(hostile) + `,"apiKeyId":` + asJSON(hostile) + `}`,
		`{"v":2,"apiHost":` + asJSON("\u202e\x7f") + `,"apiKeyId":` + asJSON("\u202e\x7f") + `}`,
	} {
		record := &kgo.Record{Topic: "hostile.ledger", Key: []byte(hostile), Value: []byte(value),
			Headers: []kgo.RecordHeader{{Key: hostile, Value: []byte(hostile)}}}
		forged := *record // only the headers of its authentication code are read
		forged.Headers = append(slices.Clone(record.Headers),
			kgo.RecordHeader{Key: messageauth.HeaderKeyID, Value: []byte(hostile[:16])},
			kgo.RecordHeader{Key: messageauth.HeaderMAC, Value: []byte(hostile)})
		signed := []pipeline.Message{{Key: record.Key, Value: record.Value}}
		authenticator(t, messageauth.Ledgers, "hostile.ledger", 1).Sign(signed)
		for _, h := range signed[0].Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader(h))
		}
		if err := stranger.ProduceSync(t.Context(), record, &forged).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	h.drain(t)
	h.run(t, "consumer", "status", "--fleet")
	h.run(t, "consumer", "failures", "--fleet")
}

// TestHostileAnswers: hostile text in the partner's responses.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	answer := func(status int, contentType, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			header := w.Header()
			header.Set("Content-Type", contentType)
			for _, name := range []string{"X-Request-Id", "X-Correlation-Id", "Retry-After", "Server", "Location", "Link"} {
				header.Set(name, hostileName+hostileName)
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body)) // a client that has gone reads no more
		}
	}
	problem := `{"code":` + asJSON(hostile) + `,"message":` + asJSON(hostile) + `}`
	const id = "7d1c4c8e-8a4b-4f6c-9d1e-0123456789ab"
	for name, with := range map[string]func(http.ResponseWriter, *http.Request){
		"problem":   answer(422, "application/problem+json", problem),
		"conflict":  answer(409, "application/json", problem),
		"bad":       answer(400, "application/json", `{"message":`+asJSON(hostileName)+`}`),
		"forbidden": answer(403, "application/json", `{"message":`+asJSON(hostileName)+`}`),
		"prose":     answer(500, hostileName, hostile),
		"html":      answer(502, "text/html", "<html><title>"+hostile+"</title>"),
		"throttled": answer(429, "text/plain", hostile),
		"redirect":  answer(302, "text/plain", hostile),
		"status": answer(201, "application/json",
			`{"id":"`+id+`","status":`+asJSON("x"+hostileName)+`,"challenge":`+asJSON(hostileName)+`}`),
		"other": answer(201, "application/json", `{"id":"`+id+`","chainId":`+asJSON(hostile)+`,"status":"initiating"}`),
		"other externalId": answer(201, "application/json",
			`{"id":"`+id+`","externalId":`+asJSON(hostile)+`,"status":"initiating"}`),
		"error":   answer(201, "application/json", `{"error":`+asJSON(hostile)+`}`),
		"unnamed": answer(201, "application/json", `{`+asJSON(hostile)+`:1}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHostileRun(t, sandbox.Config{}, func(partner http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/customers") {
						with(w, r)
						return
					}
					partner.ServeHTTP(w, r)
				})
			})
			h.env = append(h.env, "PURSER_OUTAGE_WAIT=0s")
			publishEmbedded(t, h.env, "onboarding.customers", hostileRows(t, 6))
			h.drain(t)
		})
		t.Run("every "+name, func(t *testing.T) {
			t.Parallel()
			h := newHostileRun(t, sandbox.Config{}, func(partner http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/token") {
						partner.ServeHTTP(w, r)
						return
					}
					with(w, r)
				})
			})
			h.env = append(h.env, "PURSER_OUTAGE_WAIT=0s")
			h.run(t, "consumer", "check")
			h.run(t, "consumer", "reconcile")
		})
	}
	t.Run("challenge", func(t *testing.T) {
		t.Parallel()
		for _, statement := range []string{hostileName, "I agree\u202e\x7f", strings.ReplaceAll(hostileName, "\n", "")} {
			h := newHostileRun(t, sandbox.Config{Statement: statement}, nil)
			publishEmbedded(t, h.env, "onboarding.customers", hostileRows(t, 6))
			h.drain(t)
		}
	})
}

// TestHostileFiles: hostile text in cells, in the names of files and in a configuration file.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("its commands are those of other tests with other text: the detector would see nothing new")
	}
	h := newHostileRun(t, sandbox.Config{}, nil)
	export, err := os.ReadFile(customers)
	if err != nil {
		t.Fatal(err)
	}
	row := strings.Split(strings.Split(string(export), "\n")[1], ",")
	flat := strings.ReplaceAll(hostileName, "\n", "")
	valid := strings.ToValidUTF8(flat, "")
	hostileUTF8 := strings.ToValidUTF8(hostileName, "")
	quoted := func(text string) string { return `"` + strings.ReplaceAll(text, `"`, `""`) + `"` }
	rejects := filepath.Join(h.dir, "rejects.csv")
	write := func(name, content string) string {
		path := filepath.Join(h.dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, content := range map[string]string{
		"cells.csv": "address,externalId,chainId\n" + flat + ",x,\n" + row[0] + "," + valid + ",\n" + row[0] + ",x," + valid +
			"\neip155:" + valid + ":" + row[0] + ",x,\n" + quoted(valid+"\nFORGED") + "," + quoted(valid+"\r\nFORGED") + ",\n",
		"header.csv":            valid + "," + hostileName + "\nx,y\n",
		"columns.csv":           valid + "," + strings.ReplaceAll(hostile, "\x00", "") + "\nx,y\n",
		hostileName + ".csv":    string(export) + "bad,bad\n",
		"x" + hostileName:       "address,externalId\n",
		"x" + hostileUTF8:       "address,externalId\n",
		hostileName + ".csv.gz": "no gzip",
	} {
		path := write(name, content)
		h.run(t, "importer", "--rejects", rejects, path)
		if content, err := os.ReadFile(rejects); err == nil {
			// A record keeps its lines, in its cell.
			search(t, "rejects", strings.ReplaceAll(string(content), "\nFORGED", ""))
		}
	}
	h.run(t, "importer", filepath.Join(h.dir, hostileName, "none.csv"))
	exitsWith(t, h.env, 3, []string{"31 rows read, 30 published", `8;;\a\rOVER\nFORGED\u202e\u2066\u2028\u200b\x7f\u0085\u009b\xff.csv`},
		"importer", filepath.Join(h.dir, hostileName+".csv"))
	h.drain(t)
	for _, text := range []string{
		`"\e[2J\a\r\u202E\u2028\x7f\0": 1`, `"top\u202Eic": x`, `topic: "\e[2J\u202E\u2028"`, `rate: "\u202E"`,
		`data-dir: "\e[2J\a\r\nFORGED\u202E"`, `report: "/proc/nowhere/\e[2J\a\r\nFORGED\u202E"`, `log-level: "\e[2J\u202E"`,
		`api-url: "https://\e[2J\u202E/v1"`, `signer: "keystore://x?\e[2J\u202E=1"`, "topic: \x1b[2J", `group: "\u202E\x7f"`,
		`ledger: "` + h.dir + `/\e[2J\a\r\nFORGED\u202E.db"`,
	} {
		config := write("config.yaml", text+"\n")
		h.run(t, "consumer", "--drain", "--config", config)
		h.run(t, "consumer", "status", "--config", config)
		h.run(t, "importer", "--config", config, customers)
	}
}

// TestHostileLedger: hostile text that an older program wrote into the ledger.
func TestHostileLedger(t *testing.T) {
	t.Parallel()
	h := newHostileRun(t, sandbox.Config{}, func(partner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/customers") {
				w.WriteHeader(http.StatusUnprocessableEntity)
				return
			}
			partner.ServeHTTP(w, r)
		})
	})
	publishEmbedded(t, h.env, "onboarding.customers", hostileRows(t, 4))
	h.drain(t)
	book, err := sql.Open("sqlite3", filepath.Join(dataOf(h.env), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	if _, err := book.ExecContext(t.Context(),
		`UPDATE rows SET class = ?1, reason = ?1, file = ?1, partner_status = ?1`, hostile); err != nil {
		t.Fatal(err)
	}
	h.run(t, "consumer", "status")
	h.run(t, "consumer", "failures")
	h.run(t, "consumer", "reconcile")
	for _, format := range []string{"text", "html", "json"} {
		h.run(t, "consumer", "report", "--format", format)
	}
	for _, command := range []string{"status", "failures", "report"} {
		exitsWith(t, h.env, 0, []string{`\x1b[2J\x1b]8;;`, `\a\rOVER\nFORGED\u202e\u2066\u2028\u200b\x7f\u0085\u009b\xff\x00AAA`},
			"consumer", command)
	}
}
