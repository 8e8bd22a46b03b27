package importcmd

import (
	"errors"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/csvimport"
)

// TestRecordOfAnEnd: lines that a defect of the importer has lost are not called unfinished.
func TestRecordOfAnEnd(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int64
	}{{errors.New("interrupted"), 3}, {&csvimport.AccountingError{File: "a.csv"}, 0}} {
		m := &memory{off: true, Import: pipeline.Import{ImportCounts: pipeline.ImportCounts{Lines: 10, PublishedLines: 7}}}
		m.end(tt.err)
		if got := m.NotFinished(); got != tt.want {
			t.Errorf("%v: got %d lines not finished, want %d", tt.err, got, tt.want)
		}
	}
}
