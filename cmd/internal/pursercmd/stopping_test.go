package pursercmd

import "testing"

// TestStopping: a run always has its hard stop, whatever its exports are called.
func TestStopping(t *testing.T) {
	for _, tt := range []struct {
		args []string
		once bool
	}{
		{[]string{"status", "--watch"}, true},
		{[]string{"ledger", "restore", "ledger-backup.db"}, true},
		{[]string{"night", "report"}, false},
		{[]string{"run", "--client-id", "status"}, false},
		{nil, false},
	} {
		if got := Stopping(tt.args); got.Once != tt.once {
			t.Errorf("%q: got %+v, want Once %t", tt.args, got, tt.once)
		}
	}
}
