package clef_test

import (
	"context"
	"fmt"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/clef"
)

func Example() {
	// clef --keystore keys --rules rules.js --ipcpath /run/purser
	_, err := clef.Open(context.Background(), "clef+unix:///nowhere/clef.ipc", signer.Environment{})
	fmt.Println(err)
	_, err = clef.Open(context.Background(), "clef+http://", signer.Environment{})
	fmt.Println(err)
	// Output:
	// signer is unusable: unix:/nowhere/clef.ipc: dial unix /nowhere/clef.ipc: connect: no such file or directory
	// signer URI clef+http:… names no host (want clef+http://host:8550, clef+https://host?ca-file=/file or clef+unix:///directory/clef.ipc)
}
