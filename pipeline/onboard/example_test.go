package onboard_test

import (
	"errors"
	"fmt"

	"github.com/purser-onboard/purser/pipeline/onboard"
)

// A halt says what to do before the next run, and whether a setting has to be changed for it.
func ExampleHaltError() {
	err := &onboard.HaltError{Class: onboard.HaltSigner, Err: errors.New("the token is locked")}
	fmt.Println(err)
	fmt.Println("a setting is wrong:", err.SetUp())
	// Output:
	// halted: the token is locked; fix the signer, then run again
	// a setting is wrong: false
}
