package editdistance

import "testing"

func TestBetween(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"status", "status", 0}, {"staus", "status", 1}, {"walet", "wallet", 1},
		{"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"run", "report", 5},
	} {
		if got, back := Between(tt.a, tt.b), Between(tt.b, tt.a); got != tt.want || back != tt.want {
			t.Errorf("%q and %q: got %d, and %d in the other order, want %d", tt.a, tt.b, got, back, tt.want)
		}
	}
}
