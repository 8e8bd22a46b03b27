package printable_test

import (
	"fmt"
	"testing"

	"github.com/purser-onboard/purser/printable"
)

func ExampleCount() {
	for _, n := range []int{0, 1, 2} {
		fmt.Println(printable.Count(n, "row", "rows"), printable.Plural(n, "is", "are"), "waiting")
	}
	// Output:
	// 0 rows are waiting
	// 1 row is waiting
	// 2 rows are waiting
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1,000", 12345: "12,345", 1234567: "1,234,567", -999: "-999", -1000: "-1,000",
	} {
		if got := printable.Thousands(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}
