package consumecmd

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// checked is a signer whose Check returns err. It counts the calls.
type checked struct {
	signer.Backend
	err    error
	checks int
}

func (c *checked) Check(context.Context) (string, error) {
	c.checks++
	return "ok", c.err
}

// TestUnanswered: rows that wait for a person's decision are not an error here (the report makes them exit code 3).
// Rows that wait for a custodian that cannot be reached are an outage (exit code 1).
func TestUnanswered(t *testing.T) {
	person := pipeline.Record{}
	failing := pipeline.Record{Reason: "connection refused"}
	for name, c := range map[string]struct {
		waiting []pipeline.Record
		health  error
		checks  int
		exit    int
	}{
		"none":                      {nil, errors.New("away"), 0, 0},
		"a person":                  {[]pipeline.Record{person}, errors.New("away"), 0, 0},
		"polls fail, custodian up":  {[]pipeline.Record{person, failing}, nil, 1, 0},
		"polls fail, custodian off": {[]pipeline.Record{person, failing}, errors.New("no route"), 1, 1},
	} {
		backend := &checked{Backend: signertest.NewMemory(), err: c.health}
		err := unanswered(t.Context(), backend, c.waiting)
		if got := console.Code(err); got != c.exit || backend.checks != c.checks {
			t.Errorf("%s: got exit code %d (%v), %d checks; want %d, %d", name, got, err, backend.checks, c.exit, c.checks)
		}
		if c.exit != 0 && (!strings.Contains(err.Error(), "2 rows") || !strings.Contains(err.Error(), "no route")) {
			t.Errorf("%s: got error %q, want the number of rows and the cause", name, err)
		}
	}
}
