package awskms_test

import (
	"context"
	"fmt"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/awskms"
)

func Example() {
	// In production the URI is awskms:///?region=eu-west-1, and the credentials are the role's.
	_, err := awskms.Open(context.Background(), "awskms:///?endpoint=http://kms.example.com", signer.Environment{})
	fmt.Println(err)
	// Output:
	// signer URI awskms:… has an endpoint that is neither https nor on a loopback address (want awskms:///?region=eu-west-1&alias-prefix=alias/purser/&endpoint=https://host)
}
