package insecurefile_test

import (
	"context"
	"fmt"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/insecurefile"
)

// Against anything but a sandbox on this machine, no such file is even looked at.
func ExampleOpen() {
	_, err := insecurefile.Open(context.Background(), "insecure-file:keys.csv", signer.Environment{Loopback: false})
	fmt.Println(err)
	// Output:
	// signer is unusable: insecure-file is for trials: it signs only while the API is on a loopback address
}
