package pkcs11_test

import (
	"context"
	"fmt"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/pkcs11"
)

// A process has one Modules; its Open takes the place of a backend's in the table of schemes. A PIN that stands in the
// URI is an error before a module is loaded, and is not repeated.
func ExampleModules_Open() {
	var modules pkcs11.Modules
	openers := map[string]signer.Opener{"pkcs11": modules.Open}

	uri := "pkcs11:token=purser?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-value=1234"
	_, err := openers[signer.Scheme(uri)](context.Background(), uri, signer.Environment{})
	fmt.Println(err)
	// Output:
	// signer URI pkcs11:… has a pin-value: a PIN in a URI shows in process lists and logs; put it into a file only Purser can read and name that as pin-source (want pkcs11:token=label;object=label?module-path=/module.so&pin-source=file:/pin)
}
