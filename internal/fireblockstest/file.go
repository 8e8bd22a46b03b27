package fireblockstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

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

// store writes the transactions to config.File, if there is one. The file is replaced in one step: a process that is
// killed while it writes leaves the older one.
func (s *Server) store() error {
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
