package csvimport_test

import (
	"fmt"
	"strings"

	"github.com/purser-onboard/purser/pipeline/csvimport"
)

// An export is read record by record; each is a row or a reject that says why.
func ExampleReader() {
	export, err := csvimport.NewReader(strings.NewReader(`address,externalId
0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed,c-1
0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe,c-2
`), "export.csv", 300, ',', "import-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	for {
		row, reject, err := export.Next()
		switch {
		case err != nil:
			fmt.Println(err)
			return
		case reject != nil:
			fmt.Printf("line %d, %s: %s\n", reject.Line, reject.Field, reject.Reason)
		default:
			fmt.Printf("line %d: %s is %s\n", row.Line, row.Account, row.ExternalID)
		}
	}
	// Output:
	// line 2: eip155:300:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed is c-1
	// line 3, address: address has 39 hex digits, want 40
	// EOF
}
