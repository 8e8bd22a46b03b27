package csvimport_test

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/purser-onboard/purser/pipeline/csvimport"
)

// An export is read record by record; each is a row or an invalid row that says why. Without a Publisher it is only
// checked.
func ExampleImporter() {
	export, err := csvimport.NewReader(csvimport.Input{Reader: strings.NewReader(`address,externalId
0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed,c-1
0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe,c-2
`)}, csvimport.Options{Name: "export.csv", Chain: 300, ImportID: "import-1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	importer := csvimport.Importer{
		Rejects: csvimport.NewRejectsWriter(io.Discard),
		OnReject: func(r *csvimport.Reject) {
			fmt.Printf("line %d, %s: %s\n", r.Line, r.Field, r.Reason)
		},
	}
	err = importer.Import(context.Background(), export)
	stats := importer.Stats()
	fmt.Printf("%d rows read, %d valid, %d invalid, error: %v\n", stats.Read, stats.Published, stats.Invalid, err)
	// Output:
	// line 3, address: address has 39 hex digits, want 40: were digits cut off, or leading zeros lost?
	// 2 rows read, 1 valid, 1 invalid, error: <nil>
}
