package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/purser-onboard/purser/printable"
)

// Control returns the handler of the control plane. Serve it on another port than the API and on loopback only: it
// requires no credentials. Bodies and answers are JSON; errors are plain text.
//
//	GET  /healthz                         200
//	GET  /faults, PUT /faults             the faults; a fault that a PUT does not name is off
//	GET  /clock, POST /clock              {"now"}; {"advance":"90s"} moves the clock, back when negative
//	GET  /stats                           counts of requests, statuses, faults
//	GET  /history                         {"dropped","entries"}; filters since, until (seq), operation, subject, key,
//	                                      status, fault; limit (1000)
//	GET  /customers                       every customer with its challenges, one JSON object a line
//	POST /customers                       {"chainId","externalId","status"} adds a customer
//	PUT  /customers/{id}                  {"status"} changes its status
//	GET  /leaks                           requests that followed a redirect
//	GET  /judge, POST /judge              the verdict; the body is the expected rows, a JSON array or one object a line;
//	                                      ?rate=200 judges by that rate instead of the declared one
//	POST /reset                           forget everything but API keys, faults and clock
//	*    /canary/…                        records requests that followed a redirect
func (s *Server) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.faults.Load().Faults) })
	mux.HandleFunc("PUT /faults", s.controlFaults)
	mux.HandleFunc("GET /clock", func(w http.ResponseWriter, _ *http.Request) { s.writeClock(w) })
	mux.HandleFunc("POST /clock", s.controlClock)
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Stats()) })
	mux.HandleFunc("GET /history", s.controlHistory)
	mux.HandleFunc("GET /customers", s.controlCustomers)
	mux.HandleFunc("POST /customers", s.controlAdd)
	mux.HandleFunc("PUT /customers/{id}", s.controlStatus)
	mux.HandleFunc("GET /leaks", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.state.Load().leaks.all()) })
	mux.HandleFunc("GET /judge", s.controlJudge)
	mux.HandleFunc("POST /judge", s.controlJudge)
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		s.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc(canaryPath, s.serveCanary)
	return mux
}

func (s *Server) controlFaults(w http.ResponseWriter, r *http.Request) {
	var f Faults
	if !readControl(w, r, &f) {
		return
	}
	s.SetFaults(f)
	s.log.Info("faults changed", "faults", f.String())
	writeJSON(w, s.faults.Load().Faults)
}

func (s *Server) writeClock(w http.ResponseWriter) {
	writeJSON(w, struct {
		Now time.Time `json:"now"`
	}{s.now()})
}

func (s *Server) controlClock(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Advance string `json:"advance"`
	}
	if !readControl(w, r, &body) {
		return
	}
	d, err := time.ParseDuration(body.Advance)
	if err != nil {
		http.Error(w, "advance: "+err.Error(), http.StatusBadRequest)
		return
	}
	s.Advance(d)
	s.log.Info("clock moved", "by", d)
	s.writeClock(w)
}

func (s *Server) controlHistory(w http.ResponseWriter, r *http.Request) {
	keep, limit, err := historyFilter(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	records, dropped := s.state.Load().history.records()
	found := []Entry{}
	for _, r := range records {
		if len(found) == limit {
			break
		}
		if e := r.entry.Load(); keep(*e) {
			found = append(found, *e)
		}
	}
	writeJSON(w, struct {
		Dropped uint64  `json:"dropped"`
		Entries []Entry `json:"entries"`
	}{dropped, found})
}

func historyFilter(r *http.Request) (keep func(Entry) bool, limit int, err error) {
	limit = 1000
	var tests []func(Entry) bool
	for name, values := range r.URL.Query() {
		value := values[0]
		var test func(Entry) bool
		n, bad := strconv.ParseUint(value, 10, 63)
		switch name {
		case "since":
			test = func(e Entry) bool { return e.Seq >= n }
		case "until":
			test = func(e Entry) bool { return e.Seq <= n }
		case "status":
			test = func(e Entry) bool { return e.Status == int(n) }
		case "limit":
			test = func(Entry) bool { return true }
			limit = int(n)
		default:
			bad = nil
		}
		switch name {
		case "operation":
			test = func(e Entry) bool { return string(e.Op) == value }
		case "subject":
			test = func(e Entry) bool { return strings.EqualFold(e.Subject, value) || e.CustomerID == value }
		case "key":
			test = func(e Entry) bool { return strings.EqualFold(e.Key, value) }
		case "fault":
			test = func(e Entry) bool { return slices.Contains(e.Faults, Fault(value)) }
		}
		if test == nil {
			return nil, 0, fmt.Errorf("unknown filter %s", printable.Quote(name, mostQuoted))
		}
		if bad != nil {
			return nil, 0, fmt.Errorf("%s: %s is not a number", name, printable.Quote(value, mostQuoted))
		}
		tests = append(tests, test)
	}
	return func(e Entry) bool {
		for _, test := range tests {
			if !test(e) {
				return false
			}
		}
		return true
	}, limit, nil
}

func (s *Server) controlCustomers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for _, c := range s.state.Load().customers.all() {
		if enc.Encode(s.dump(c, true)) != nil {
			return // the client has closed the connection
		}
	}
	_ = out.Flush()
}

func (s *Server) controlAdd(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ChainID    string `json:"chainId"`
		ExternalID string `json:"externalId"`
		Status     Status `json:"status"`
	}
	if !readControl(w, r, &body) {
		return
	}
	c, err := s.Add(body.ChainID, body.ExternalID, body.Status)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, c)
}

func (s *Server) controlStatus(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Status Status `json:"status"`
	}
	if !readControl(w, r, &body) {
		return
	}
	if err := s.setStatus(r.PathValue("id"), body.Status); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) controlJudge(w http.ResponseWriter, r *http.Request) {
	rate := s.cfg.DeclaredRate
	if text := r.URL.Query().Get("rate"); text != "" {
		var err error
		if rate, err = strconv.ParseFloat(text, 64); err != nil || rate < 0 {
			http.Error(w, "rate: want requests a second", http.StatusBadRequest)
			return
		}
	}
	var expected []Expected
	if r.Method == http.MethodPost {
		var err error
		if expected, err = readExpected(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	writeJSON(w, s.judge(expected, rate))
}

// readExpected reads rows, as a JSON array or as a sequence of objects.
func readExpected(body io.Reader) ([]Expected, error) {
	in := bufio.NewReader(body)
	dec := json.NewDecoder(in)
	dec.DisallowUnknownFields()
	rows := []Expected{}
	if first, err := in.Peek(1); err == nil && first[0] == '[' {
		if err := dec.Decode(&rows); err != nil {
			return nil, fmt.Errorf("expected rows: %w", err)
		}
		return rows, nil
	}
	for {
		var row Expected
		switch err := dec.Decode(&row); {
		case errors.Is(err, io.EOF):
			return rows, nil
		case err != nil:
			return nil, fmt.Errorf("expected row %d: %w", len(rows)+1, err)
		}
		rows = append(rows, row)
	}
}

// readControl reads a JSON body, or answers 400 and reports false.
func readControl(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails when the client has closed the connection
}
