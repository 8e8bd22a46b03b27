package printable_test

import (
	"fmt"

	"github.com/purser-onboard/purser/printable"
)

func ExamplePlural() {
	for _, n := range []int{0, 1, 2} {
		fmt.Println(n, printable.Plural(n, "row is", "rows are"), "waiting")
	}
	// Output:
	// 0 rows are waiting
	// 1 row is waiting
	// 2 rows are waiting
}
