package results

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// TestIsReport: a report is known by its head, also when it was formatted; an export or a list of reports is none.
func TestIsReport(t *testing.T) {
	report := Begun("01a220f6-03d7-7b75-a4c7-12ada6f584c4", time.Unix(1700000000, 0)).JSON()
	var compact bytes.Buffer
	if err := json.Compact(&compact, report); err != nil {
		t.Fatal(err)
	}
	within := bytes.Index(report, []byte(`"requests"`)) + len(`"requests": {`)
	for text, want := range map[string]bool{
		string(report):          true,
		string(report[:within]): true,
		compact.String():        true,
		"  " + string(report):   true,
		`{"exit":0,"requests":{},"rows":{},"run":"01a2","settings":{"a":"b`: true, // sorted, and longer than the head

		"":                         false,
		"{}":                       false,
		string(report[:40]):        false,
		"[" + string(report) + "]": false,
		`{"runs": [{"report": ` + string(report) + `}]}`:            false, // consumer runs
		`{"address":"0x3","externalId":"c3","run":1,"startedAt":2}`: false, // an export
		"address,externalId\n":                                      false,
	} {
		if got := IsReport([]byte(text)); got != want {
			t.Errorf("%.60q: got %v, want %v", text, got, want)
		}
	}
}
