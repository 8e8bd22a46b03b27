package loopback_test

import (
	"testing"

	"github.com/purser-onboard/purser/loopback"
)

func TestIs(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST": true, "127.0.0.1": true, "127.8.8.8": true, "::1": true, "[::1]": true,
		"": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false, "10.0.0.1": false, "0.0.0.0": false,
	} {
		if got := loopback.Is(host); got != want {
			t.Errorf("Is(%q): got %v, want %v", host, got, want)
		}
	}
}
