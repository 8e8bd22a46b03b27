package fireblockstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
)

// Control is the handler of the control plane, for tests that speak with the server from another process. It asks for
// no credentials and belongs on a port of its own, on loopback. Errors are plain text.
//
//	GET  /healthz                                  200 when it serves
//	GET  /transactions                             every Transaction, as a JSON array
//	POST /transactions/{externalTxId}/approve      so also reject and expire
//	POST /transactions/{externalTxId}/settle       {"status","subStatus"}: ends it so
//	PUT  /auto-approve                             true or false
//	POST /faults, DELETE /faults                   adds a Fault; takes all away
//	GET  /denied                                   why requests were turned away, as a JSON array
func (s *Server) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /transactions", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.Transactions())
	})
	mux.HandleFunc("GET /denied", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, append([]string{}, s.Denied()...))
	})
	for verb, decide := range map[string]func(string) error{"approve": s.Approve, "reject": s.Reject, "expire": s.Expire} {
		mux.HandleFunc("POST /transactions/{id}/"+verb, func(w http.ResponseWriter, r *http.Request) {
			done(w, decide(r.PathValue("id")))
		})
	}
	mux.HandleFunc("POST /transactions/{id}/settle", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Status, SubStatus string }
		if err := read(w, r, &in); err != nil {
			done(w, err)
			return
		}
		done(w, s.Settle(r.PathValue("id"), in.Status, in.SubStatus))
	})
	mux.HandleFunc("PUT /auto-approve", func(w http.ResponseWriter, r *http.Request) {
		var on bool
		err := read(w, r, &on)
		if err == nil {
			s.SetAutoApprove(on)
		}
		done(w, err)
	})
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		err := read(w, r, &f)
		if err == nil {
			s.Fail(f)
		}
		done(w, err)
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		s.Mend()
		done(w, nil)
	})
	return mux
}

func read(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

func done(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// load reads the transactions of an earlier server.
func (s *Server) load() error {
	if s.config.File == "" {
		return nil
	}
	text, err := os.ReadFile(s.config.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &s.transactions); err != nil {
		return fmt.Errorf("%s: %w", s.config.File, err)
	}
	for _, t := range s.transactions {
		s.byExternalID[t.ExternalID] = t
	}
	return nil
}

// store tells of a change, and writes it down. The file is replaced in one step, so that whoever is killed while he
// writes leaves the older one.
func (s *Server) store() error {
	close(s.changed)
	s.changed = make(chan struct{})
	if s.config.File == "" {
		return nil
	}
	text, err := json.Marshal(s.transactions)
	if err != nil {
		return err
	}
	fresh := filepath.Join(filepath.Dir(s.config.File), "."+filepath.Base(s.config.File)+".new")
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, s.config.File)
}
