package console

import (
	"testing"
	"time"
)

func TestFit(t *testing.T) {
	fields := []Field{
		{Text: "", Rank: 0}, {Text: "1,240 of 2,000 rows", Rank: 1}, {Text: "62 %", Rank: 3}, {Text: "48/s of 60/s", Rank: 4},
		{Text: "3 failed", Rank: 2}, {Text: "0 throttled", Rank: 6}, {Text: "12 s left", Rank: 5},
	}
	for width, want := range map[int]string{
		0:   "1,240 of 2,000 rows · 62 % · 48/s of 60/s · 3 failed · 0 throttled · 12 s left",
		200: "1,240 of 2,000 rows · 62 % · 48/s of 60/s · 3 failed · 0 throttled · 12 s left",
		78:  "1,240 of 2,000 rows · 62 % · 48/s of 60/s · 3 failed · 0 throttled · 12 s left",
		77:  "1,240 of 2,000 rows · 62 % · 48/s of 60/s · 3 failed · 12 s left",
		60:  "1,240 of 2,000 rows · 62 % · 48/s of 60/s · 3 failed",
		40:  "1,240 of 2,000 rows · 62 % · 3 failed",
		20:  "1,240 of 2,000 rows",
		10:  "1,240 of 2",
		1:   "1",
	} {
		if got := fit(fields, width); got != want {
			t.Errorf("width %d: got %q, want %q", width, got, want)
		}
	}
	if got := fit(nil, 80); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}

func TestLeft(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1 s", 12 * time.Second: "12 s", 99 * time.Second: "99 s", 100 * time.Second: "2 min",
		99 * time.Minute: "99 min", 130 * time.Minute: "2 h 10 min", 25 * time.Hour: "25 h 00 min",
	} {
		if got := Left(d); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
}
