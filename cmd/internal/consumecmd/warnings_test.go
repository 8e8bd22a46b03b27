package consumecmd

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
)

// TestWarnOfEmbedded: the embedded broker is warned of only if the partner is not on this machine.
func TestWarnOfEmbedded(t *testing.T) {
	for _, tt := range []struct {
		host    string
		brokers []string
		want    bool
	}{
		{"api.sandbox.offblocks.xyz", nil, true},
		{"10.0.0.1", nil, true},
		{"api.sandbox.offblocks.xyz", []string{"kafka:9092"}, false},
		{"127.0.0.1", nil, false},
		{"::1", nil, false},
		{"localhost", nil, false},
	} {
		var log strings.Builder
		c := &config.Consumer{Queue: config.Queue{Brokers: tt.brokers}}
		warnOfEmbedded(c, tt.host, slog.New(slog.NewTextHandler(&log, nil)))
		if got := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), "embedded broker"); got != tt.want {
			t.Errorf("%s, brokers %q: got %q, want a warning: %v", tt.host, tt.brokers, log.String(), tt.want)
		}
	}
}
